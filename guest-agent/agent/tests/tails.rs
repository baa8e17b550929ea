//! Jobs of whose output, both as one, the last part is kept; and what is written to their input.

#![allow(clippy::unwrap_used)] // A test may end where it finds something wrong.

mod support;

use pyro_agent_protocol::{
    Attach, ErrorCode, Event, Exec, ExitStatus, FrameKind, JobEvent, JobState, OutputStream,
    Request, Start, TAIL_MIN, encode,
};
use support::{
    Agent, command, failure, id, in_both_ways, job, runs, shell, tail, wait_until, whole, write_job,
};

#[test]
fn both_outputs_are_one_in_their_order() {
    in_both_ways(|agent| {
        let script = "for i in 1 2 3 4 5 6 7 8 9; do echo out $i; echo err $i >&2; done; exit 6";
        let followed = agent.start_job(tail("m", 1000, shell(script))).followed();
        let expected: String = (1..10).map(|i| format!("out {i}\nerr {i}\n")).collect();
        assert_eq!(String::from_utf8_lossy(&followed.stdout), expected);
        assert!(followed.stderr.is_empty() && followed.gaps.is_empty());
        assert_eq!(followed.status(), ExitStatus::Code { code: 6 });
        let info = agent.jobs().remove(0);
        assert_eq!(info.stdout.written, expected.len() as u64);
        assert_eq!(
            (info.stdout.head, info.stdout.tail, info.stderr.written),
            (0, 0, 0)
        );
        assert_eq!(info.terminal, None);
    });
}

#[test]
fn the_oldest_bytes_go_and_it_is_said_how_many() {
    let agent = Agent::start_anywhere();
    let script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo end >&2";
    drop(agent.start_job(tail("long", 1000, shell(script))));
    agent.attach(whole("long")).followed();
    // Ended, and kept until it is forgotten.
    let followed = agent.attach(whole("long")).followed();
    assert_eq!(followed.stdout.len(), 1000);
    assert!(followed.stdout.ends_with(b"line 19999\nend\n"));
    let info = agent.jobs().remove(0);
    let missing = info.stdout.written - 1000;
    assert_eq!(followed.gaps, [(OutputStream::Stdout, 0, missing)]);
    assert_eq!(info.stdout.tail, missing);
    let from = |stdout_from| Attach {
        stdout_from,
        ..whole("long")
    };
    let late = agent.attach(from(info.stdout.written - 4)).followed();
    assert_eq!(late.stdout, b"end\n");
    let later = agent.attach(from(u64::MAX)).followed();
    assert_eq!((later.stdout.len(), later.gaps.len()), (0, 0));
    assert_eq!(
        agent.job_answer(&Request::Forget { job: id("long") }),
        JobEvent::Done
    );
}

#[test]
fn nobody_can_hold_such_a_program() {
    let agent = Agent::start_anywhere();
    let start = Start {
        hold: true,
        ..tail("h", 1000, command(&["true"]))
    };
    let answer = agent.job_answer(&Request::Start(start));
    assert_eq!(failure(&answer), ErrorCode::InvalidRequest);
    agent
        .start_job(tail("h", 1000, command(&["true"])))
        .followed();
    let attach = Attach {
        hold: true,
        ..whole("h")
    };
    let answer = agent.job_answer(&Request::Attach(attach));
    assert_eq!(failure(&answer), ErrorCode::InvalidRequest);
}

#[test]
fn a_thousand_readers_that_never_read_stop_neither_the_program_nor_others() {
    let agent = Agent::start_anywhere();
    let script = "head -c 30000000 /dev/zero; echo end; exit 2";
    let start = Exec {
        stdin: true,
        ..shell(&format!("read x; {script}"))
    };
    let mut first = agent.start_job(tail("busy", 100_000, start));
    let deaf: Vec<_> = (0..900).map(|_| agent.attach(whole("busy"))).collect();
    assert_eq!(write_job(&agent, "busy", b"go\n"), JobEvent::Done);
    let pid = first.pid;
    wait_until("it has ended", || !runs(pid));
    let followed = first.followed();
    assert_eq!(followed.status(), ExitStatus::Code { code: 2 });
    let missing: u64 = followed.gaps.iter().map(|(_, _, bytes)| bytes).sum();
    assert_eq!(followed.stdout.len() as u64 + missing, 30_000_004);
    assert!(followed.stdout.ends_with(b"end\n"));
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    let peak: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(peak < 100 << 10, "{peak} KiB");
    // One of them wakes up.
    let mut deaf = deaf;
    let late = deaf.pop().unwrap().followed();
    assert!(!late.gaps.is_empty() && late.stdout.ends_with(b"end\n"));
    assert_eq!(agent.shell("exit 1").code(), 1);
    drop(deaf);
    drop(first);
    wait_until("descriptors are closed", || agent.descriptors() < 14);
}

#[test]
fn too_many_attached_streams_are_refused_and_harm_nobody() {
    let agent = Agent::start_anywhere();
    let _first = agent.start_job(tail("a", 1000, command(&["sleep", "1000"])));
    let mut streams: Vec<_> = (0..2000)
        .map(|_| agent.request(&Request::Attach(whole("a"))))
        .collect();
    let mut refused = 0;
    for stream in &mut streams {
        match stream.message() {
            JobEvent::Attached { .. } => {}
            other => {
                assert_eq!(failure(&other), ErrorCode::OutOfResources);
                refused += 1;
            }
        }
    }
    assert!((900..1100).contains(&refused), "{refused}");
    drop(streams);
    wait_until("there is room again", || agent.descriptors() < 20);
    agent.ping();
}

#[test]
fn a_tail_has_something_of_its_own_however_much_others_keep() {
    let agent = Agent::start_anywhere();
    for number in 0..5 {
        let exec = shell("head -c 16777216 /dev/zero");
        agent
            .start_job(job(&format!("big{number}"), 16 << 20, exec))
            .followed();
    }
    let exec = shell("head -c 1000000 /dev/zero | tr '\\0' y; echo end");
    let followed = agent.start_job(tail("small", 1 << 20, exec)).followed();
    drop(followed);
    let kept = agent.attach(whole("small")).followed();
    assert_eq!(kept.stdout.len(), TAIL_MIN);
    assert!(kept.stdout.ends_with(b"yend\n"));
}

#[test]
fn what_is_written_is_read_and_done_says_so() {
    in_both_ways(|agent| {
        let exec = Exec {
            stdin: true,
            ..command(&["cat"])
        };
        let mut stream = agent.start_job(tail("cat", 1 << 20, exec));
        assert_eq!(write_job(agent, "cat", b"one "), JobEvent::Done);
        assert_eq!(write_job(agent, "cat", b""), JobEvent::Done);
        let long = vec![b'x'; 700_000];
        assert_eq!(write_job(agent, "cat", &long), JobEvent::Done);
        // An empty frame of a writer does not close the input; one of an attached stream does.
        stream.stdin(b"two");
        stream.stdin(b"");
        let followed = stream.followed();
        assert_eq!(followed.stdout.len(), 4 + 700_000 + 3);
        assert!(followed.stdout.starts_with(b"one x") && followed.stdout.ends_with(b"xtwo"));
        let mut late = agent.request(&Request::WriteJob { job: id("cat") });
        late.stdin(b"late");
        late.stdin(b"");
        assert_eq!(failure(&late.message()), ErrorCode::Ended);
    });
}

#[test]
fn a_job_without_input_cannot_be_written_to() {
    let agent = Agent::start_anywhere();
    let _stream = agent.start_job(tail("none", 10, command(&["sleep", "1000"])));
    let answer = agent.job_answer(&Request::WriteJob { job: id("none") });
    assert_eq!(failure(&answer), ErrorCode::InvalidRequest);
}

#[test]
fn a_writer_gets_to_know_that_the_input_was_closed() {
    in_both_ways(|agent| {
        let exec = Exec {
            stdin: true,
            ..shell("exec <&-; echo closed; sleep 1000")
        };
        let mut stream = agent.start_job(tail("shut", 100, exec));
        assert_eq!(stream.output(), b"closed\n");
        // The first may come too early for the pipe to be broken; no later one does.
        let answers = [1, 2].map(|_| write_job(agent, "shut", b"x"));
        assert_eq!(failure(&answers[1]), ErrorCode::Ended);
        assert_eq!(agent.jobs()[0].state, JobState::Running);
    });
}

#[test]
fn nothing_of_a_writer_that_has_gone_is_written_any_more() {
    let agent = Agent::start_anywhere();
    let directory = tempfile::tempdir().unwrap();
    let go = directory.path().join("go");
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.01; done; exec cat",
        go.display()
    );
    let exec = Exec {
        stdin: true,
        ..shell(&script)
    };
    let mut stream = agent.start_job(tail("slow", 4 << 20, exec));
    let mut first = agent.request(&Request::WriteJob { job: id("slow") });
    first.stdin(&[b'a'; 200_000]);
    let mut second = agent.request(&Request::WriteJob { job: id("slow") });
    second.stdin(b"second");
    second.stdin(b"");
    // A round trip on the same loop: what was sent before it has been taken.
    agent.ping();
    drop(first);
    agent.ping();
    std::fs::write(&go, "").unwrap();
    assert_eq!(second.message::<JobEvent>(), JobEvent::Done);
    stream.stdin(b"");
    let followed = stream.followed();
    let taken = followed.stdout.iter().filter(|byte| **byte == b'a').count();
    assert!(taken < 200_000, "the pipe holds 64 KiB: {taken}");
    // Which of the two came first is not known.
    let second = followed.stdout.windows(6).any(|found| found == b"second");
    assert!(second, "the other writer's words have gone, too");
}

#[test]
fn frames_that_make_no_sense_end_the_writer_and_not_the_job() {
    let agent = Agent::start_anywhere();
    let exec = Exec {
        stdin: true,
        ..command(&["cat"])
    };
    let stream = agent.start_job(tail("cat", 100, exec));
    for bytes in [
        encode(FrameKind::Message, b"{}").unwrap(),
        encode(FrameKind::Signal, b"{\"signal\":15}").unwrap(),
        vec![0xff; 20],
        [
            encode(FrameKind::Stdin, b"").unwrap(),
            encode(FrameKind::Stdin, b"x").unwrap(),
        ]
        .concat(),
    ] {
        let mut writer = agent.request(&Request::WriteJob { job: id("cat") });
        writer.send(&bytes);
        let Event::Failed { code, .. } = writer.event() else {
            panic!("it was taken")
        };
        assert_eq!(code, ErrorCode::InvalidRequest);
    }
    assert!(runs(stream.pid));
}

#[test]
fn writers_to_a_job_that_is_forgotten_or_killed_are_told() {
    in_both_ways(|agent| {
        let exec = Exec {
            stdin: true,
            ..command(&["sleep", "1000"])
        };
        let mut stream = agent.start_job(tail("s", 100, exec));
        let mut writers: Vec<_> = (0..50)
            .map(|_| agent.request(&Request::WriteJob { job: id("s") }))
            .collect();
        for writer in &mut writers {
            writer.stdin(&[0; 100_000]);
        }
        agent.ping();
        agent.job_answer(&Request::CancelJob { job: id("s") });
        stream.followed();
        agent.job_answer(&Request::Forget { job: id("s") });
        for mut writer in writers {
            assert_eq!(failure(&writer.message()), ErrorCode::Ended);
        }
    });
}
