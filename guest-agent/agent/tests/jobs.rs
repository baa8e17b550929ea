//! Programs that survive the stream that started them.

#![allow(clippy::unwrap_used)] // A test may end where it finds something wrong.

mod support;

use pyro_agent_protocol::{
    Attach, ErrorCode, Event, Exec, ExitStatus, FrameKind, JOBS_MAX, JobEvent, JobState,
    OutputStream, Request, SignalGroup, Start, encode,
};
use support::{
    Agent, Holding, command, failure, id, in_both_ways, job, pids_in, runs, shell, wait_until,
    whole,
};

#[test]
fn a_job_goes_on_without_its_stream_and_tells_everything_later() {
    in_both_ways(|agent| {
        let directory = tempfile::tempdir().unwrap();
        let go = directory.path().join("go");
        let script = format!(
            "echo one; echo two >&2; while [ ! -e {} ]; do sleep 0.01; done; echo three; exit 7",
            go.display()
        );
        let stream = agent.start_job(job("a", 1000, shell(&script)));
        let pid = stream.pid;
        drop(stream);
        let mut early = agent.attach(whole("a"));
        assert_eq!(early.pid, pid);
        assert!(runs(pid));
        wait_until("both are said", || {
            let info = agent.jobs().remove(0);
            (info.stdout.written, info.stderr.written) == (4, 4)
        });
        let mut late = agent.attach(Attach {
            stdout_from: 4,
            stderr_from: u64::MAX,
            ..whole("a")
        });
        std::fs::write(&go, "").unwrap();
        let early = early.followed();
        assert_eq!(early.status(), ExitStatus::Code { code: 7 });
        assert_eq!(early.stdout, b"one\nthree\n");
        assert_eq!(early.stderr, b"two\n");
        let late = late.followed();
        assert_eq!(late.stdout, b"three\n");
        assert_eq!(late.status(), early.status());
        // Ended, and still there.
        let again = agent.attach(whole("a")).followed();
        assert_eq!(again.stdout, early.stdout);
        assert_eq!(again.last, early.last);
    });
}

#[test]
fn many_streams_follow_one_job() {
    let agent = Agent::start_anywhere();
    let mut first = agent.start_job(job(
        "echo",
        100_000,
        Exec {
            stdin: true,
            ..command(&["cat"])
        },
    ));
    let mut others: Vec<_> = (0..20).map(|_| agent.attach(whole("echo"))).collect();
    first.stdin(b"from the first\n");
    assert_eq!(first.output(), b"from the first\n");
    others[7].stdin(b"from another\n");
    drop(others.split_off(15));
    others[3].stdin(b"");
    for stream in others.iter_mut().chain([&mut first]) {
        let followed = stream.followed();
        assert!(followed.stdout.ends_with(b"from another\n"));
        assert_eq!(followed.status(), ExitStatus::Code { code: 0 });
    }
}

#[test]
fn of_much_output_the_first_and_the_last_are_kept() {
    let agent = Agent::start_anywhere();
    let script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo end";
    drop(agent.start_job(job("long", 1000, shell(script))));
    agent.attach(whole("long")).followed();
    let followed = agent.attach(whole("long")).followed();
    assert!(followed.stdout.starts_with(b"line 0\nline 1\n"));
    assert!(followed.stdout.ends_with(b"line 19999\nend\n"));
    assert_eq!(followed.stdout.len(), 1000);
    let info = agent.jobs().remove(0);
    let missing = info.stdout.written - 1000;
    assert_eq!(followed.gaps, [(OutputStream::Stdout, 500, missing)]);
    assert_eq!(info.stdout.tail - info.stdout.head, missing);
}

#[test]
fn a_stream_that_holds_gets_every_byte_however_slow_it_is() {
    let agent = Agent::start_anywhere();
    let mut stream = agent.start_job(Start {
        hold: true,
        ..job("held", 0, shell("head -c 8000000 /dev/zero; echo end"))
    });
    wait_until("the program waits", || {
        agent.jobs()[0].stdout.written > 200_000
    });
    let quick = agent.attach(Attach {
        follow: false,
        ..whole("held")
    });
    drop(quick);
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(agent.jobs()[0].state, JobState::Running);
    let followed = stream.followed();
    assert_eq!(followed.stdout.len(), 8_000_004);
    assert!(followed.gaps.is_empty());
    assert_eq!(followed.status(), ExitStatus::Code { code: 0 });
}

#[test]
fn a_stream_that_does_not_read_and_does_not_hold_stops_no_program() {
    let agent = Agent::start_anywhere();
    let deaf = agent.start_job(job(
        "free",
        100,
        shell("head -c 20000000 /dev/zero; exit 4"),
    ));
    let pid = deaf.pid;
    wait_until("it has ended", || !runs(pid));
    let followed = agent.attach(whole("free")).followed();
    assert_eq!(followed.status(), ExitStatus::Code { code: 4 });
    assert_eq!(followed.stdout.len(), 100);
    // What it has had in its buffers, a gap, and the end.
    let mut deaf = deaf;
    let late = deaf.followed();
    let missing: u64 = late.gaps.iter().map(|(_, _, bytes)| bytes).sum();
    assert_eq!(late.stdout.len() as u64 + missing, 20_000_000);
    assert!(missing > 0);
}

#[test]
fn a_holder_that_does_not_read_keeps_no_job_from_ending() {
    in_both_ways(|agent| {
        let held = |name: &str, timeout_ms| Start {
            hold: true,
            ..job(
                name,
                100,
                Exec {
                    timeout_ms,
                    ..command(&["yes"])
                },
            )
        };
        let mut late = agent.start_job(held("late", Some(300)));
        let mut cancelled = agent.start_job(held("cancelled", None));
        let pid = cancelled.pid;
        wait_until("the program waits", || {
            std::fs::read_to_string(format!("/proc/{pid}/wchan"))
                .is_ok_and(|wchan| wchan.contains("pipe"))
        });
        let job = id("cancelled");
        agent.job_answer(&Request::CancelJob { job });
        // Another stream gets to know although the holder has taken nothing.
        for (name, status) in [
            ("late", ExitStatus::TimedOut),
            ("cancelled", ExitStatus::Signal { signal: 9 }),
        ] {
            let from_the_end = Attach {
                stdout_from: u64::MAX,
                ..whole(name)
            };
            assert_eq!(agent.attach(from_the_end).followed().status(), status);
        }
        for stream in [&mut late, &mut cancelled] {
            let followed = stream.followed();
            assert!(followed.gaps.is_empty(), "and the holder has lost nothing");
        }
    });
}

#[test]
fn a_holder_that_leaves_lets_the_program_go_on() {
    in_both_ways(|agent| {
        let holder = agent.start_job(Start {
            hold: true,
            ..job("left", 100, shell("head -c 20000000 /dev/zero; exit 5"))
        });
        wait_until("the program waits", || {
            agent.jobs()[0].stdout.written > 200_000
        });
        drop(holder);
        let followed = agent.attach(whole("left")).followed();
        assert_eq!(followed.status(), ExitStatus::Code { code: 5 });
    });
}

/// Starts processes in every way that might let them escape.
fn escapes(file: &std::path::Path, rest: &str) -> String {
    let file = file.display();
    format!(
        "note='echo $$ >> {file}; exec sleep 1000'
        sh -c \"$note\" &
        setsid sh -c \"$note\" &
        (setsid sh -c \"($note) & ($note) &\" &)
        sh -c 'echo $$ >> {file}; kill -STOP $$; sleep 1000' &
        while [ $(cat {file} 2>/dev/null | wc -l) -lt 5 ]; do sleep 0.01; done
        {rest}"
    )
}

#[test]
fn a_timeout_ends_a_job_that_nobody_is_attached_to() {
    in_both_ways(|agent| {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pids");
        let exec = Exec {
            timeout_ms: Some(2000),
            ..shell(&escapes(&file, "echo ready; yes >&2"))
        };
        drop(agent.start_job(job("late", 1000, exec)));
        let followed = agent.attach(whole("late")).followed();
        assert_eq!(followed.status(), ExitStatus::TimedOut);
        assert_eq!(followed.stdout, b"ready\n");
        assert!(pids_in(&file).into_iter().all(|pid| !runs(pid)));
        assert!(matches!(
            followed.last,
            JobEvent::Exited {
                cancelled: false,
                ..
            }
        ));
    });
}

#[test]
fn cancelling_kills_everything_and_says_so() {
    in_both_ways(|agent| {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pids");
        let script = escapes(&file, "echo ready; kill -STOP $$");
        let mut stream = agent.start_job(job("c", 1000, shell(&script)));
        assert_eq!(stream.output(), b"ready\n");
        let cancel = Request::CancelJob { job: id("c") };
        assert_eq!(agent.job_answer(&cancel), JobEvent::Done);
        let followed = stream.followed();
        assert_eq!(followed.status(), ExitStatus::Signal { signal: 9 });
        assert!(matches!(
            followed.last,
            JobEvent::Exited {
                cancelled: true,
                ..
            }
        ));
        assert_eq!(pids_in(&file).len(), 5);
        assert!(pids_in(&file).into_iter().all(|pid| !runs(pid)));
        assert!(agent.jobs()[0].cancelled);
        assert_eq!(
            agent.job_answer(&cancel),
            JobEvent::Done,
            "twice is no harm"
        );
    });
}

#[test]
fn cancelling_an_ended_job_kills_what_it_left_running() {
    in_both_ways(|agent| {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pids");
        let script = escapes(&file, "exit 3");
        let followed = agent.start_job(job("bg", 1000, shell(&script))).followed();
        assert_eq!(followed.status(), ExitStatus::Code { code: 3 });
        // The kernel hangs up on some of them, since one was stopped as their session's leader left.
        let pids: Vec<u32> = pids_in(&file)
            .into_iter()
            .filter(|pid| runs(*pid))
            .collect();
        assert!(pids.len() >= 2, "they go on");
        agent.job_answer(&Request::CancelJob { job: id("bg") });
        // Without cgroups, a session of its own is found by its mark alone.
        wait_until("all are gone", || pids.iter().all(|pid| !runs(*pid)));
        let info = agent.jobs().remove(0);
        assert!(!info.cancelled, "it had ended before");
    });
}

#[test]
fn a_signal_reaches_a_job_from_any_stream() {
    in_both_ways(|agent| {
        let script = "trap 'echo got; exit 9' TERM; echo up; while :; do sleep 0.01; done";
        let mut stream = agent.start_job(job("s", 1000, shell(script)));
        assert_eq!(stream.output(), b"up\n");
        let signal = |signal| Request::SignalJob {
            job: id("s"),
            signal,
            group: SignalGroup::Program,
        };
        let code = failure(&agent.job_answer(&signal(99)));
        assert_eq!(code, ErrorCode::InvalidRequest);
        assert_eq!(agent.job_answer(&signal(15)), JobEvent::Done);
        assert_eq!(stream.followed().stdout, b"got\n");
        assert_eq!(agent.job_answer(&signal(15)), JobEvent::Done);
    });
}

#[test]
fn a_job_is_forgotten_once_it_has_ended() {
    let agent = Agent::start_anywhere();
    let mut stream = agent.start_job(job("f", 1000, command(&["sleep", "1000"])));
    let forget = Request::Forget { job: id("f") };
    assert_eq!(failure(&agent.job_answer(&forget)), ErrorCode::Busy);
    let again = agent.job_answer(&Request::Start(job("f", 1, command(&["true"]))));
    assert_eq!(failure(&again), ErrorCode::AlreadyExists);
    agent.job_answer(&Request::CancelJob { job: id("f") });
    stream.followed();
    assert_eq!(agent.job_answer(&forget), JobEvent::Done);
    assert_eq!(failure(&agent.job_answer(&forget)), ErrorCode::NotFound);
    let attach = agent.job_answer(&Request::Attach(whole("f")));
    assert_eq!(failure(&attach), ErrorCode::NotFound);
    assert_eq!(agent.jobs(), []);
    drop(stream);
    wait_until("descriptors are closed", || agent.descriptors() < 14);
}

#[test]
fn a_program_that_cannot_be_started_leaves_no_job() {
    let agent = Agent::start_anywhere();
    let start = Request::Start(job("none", 1, command(&["no-such-program"])));
    let code = failure(&agent.job_answer(&start));
    assert_eq!(code, ErrorCode::CommandNotFound);
    assert_eq!(agent.jobs(), []);
}

#[test]
fn without_following_an_attached_stream_ends_when_it_is_up_to_date() {
    let agent = Agent::start_anywhere();
    let mut stream = agent.start_job(job("now", 1000, shell("echo so far; sleep 1000")));
    assert_eq!(stream.output(), b"so far\n");
    let attach = Attach {
        follow: false,
        ..whole("now")
    };
    let followed = agent.attach(attach).followed();
    assert_eq!(followed.stdout, b"so far\n");
    assert_eq!(followed.last, JobEvent::Running);
}

#[test]
fn there_are_only_so_many_jobs() {
    let agent = Agent::start_anywhere();
    for number in 0..JOBS_MAX {
        let start = job(&format!("{:0>60}", number), 1 << 40, command(&["true"]));
        drop(agent.start_job(start));
    }
    let start = Request::Start(job("more", 1, command(&["true"])));
    assert_eq!(
        failure(&agent.job_answer(&start)),
        ErrorCode::OutOfResources
    );
    wait_until("all have ended", || {
        let jobs = agent.jobs();
        assert_eq!(jobs.len(), JOBS_MAX, "all of them fit the answer");
        jobs.iter()
            .all(|info| matches!(info.state, JobState::Ended { .. }))
    });
    let first = agent.jobs().remove(0).job;
    agent.job_answer(&Request::Forget { job: first });
    agent
        .start_job(job("more", 1, command(&["true"])))
        .followed();
}

#[test]
fn all_jobs_together_keep_a_bounded_output() {
    let agent = Agent::start_anywhere();
    let streams: Vec<_> = (0..12)
        .map(|number| {
            let script = "head -c 16000000 /dev/zero; exit 0";
            agent.start_job(job(&format!("j{number}"), 16 << 20, shell(script)))
        })
        .collect();
    drop(streams);
    for number in 0..12 {
        let mut stream = agent.attach(Attach {
            stdout_from: u64::MAX,
            ..whole(&format!("j{number}"))
        });
        stream.followed();
    }
    let jobs = agent.jobs();
    let kept =
        |job: &pyro_agent_protocol::JobInfo| job.stdout.head + job.stdout.written - job.stdout.tail;
    assert!(jobs.iter().all(|job| job.stdout.written == 16_000_000));
    let all: u64 = jobs.iter().map(kept).sum();
    let most = pyro_agent_protocol::JOBS_OUTPUT_MAX as u64;
    assert!(all > most / 2 && all <= most + (1 << 20), "{all}");
}

#[test]
fn frames_that_make_no_sense_end_the_stream_and_not_the_job() {
    let agent = Agent::start_anywhere();
    let stream = agent.start_job(job("tough", 10, command(&["sleep", "1000"])));
    let pid = stream.pid;
    for bytes in [
        encode(FrameKind::Message, b"{}").unwrap(),
        encode(FrameKind::Stdout, b"x").unwrap(),
        encode(FrameKind::Signal, b"{\"signal\":0}").unwrap(),
        vec![0xff; 20],
    ] {
        let mut stream = agent.attach(whole("tough"));
        stream.send(&bytes);
        let Event::Failed { code, .. } = stream.event() else {
            panic!("it was taken")
        };
        assert_eq!(code, ErrorCode::InvalidRequest);
        assert!(runs(pid));
    }
    drop(stream);
}

#[test]
fn a_job_that_never_reads_its_input_blocks_nobody_and_sleeps() {
    in_both_ways(|agent| {
        let mut stream = agent.start_job(job(
            "deaf",
            10,
            Exec {
                stdin: true,
                ..command(&["sleep", "1000"])
            },
        ));
        stream.stdin(&[0; 200_000]);
        let mut other = agent.attach(whole("deaf"));
        other.stdin(&[0; 100]);
        assert_eq!(agent.shell("echo here").text(), "here");
        let before = agent.ticks();
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(agent.ticks() - before <= 4, "the agent spins");
        agent.job_answer(&Request::CancelJob { job: id("deaf") });
        let end = other.followed().status();
        assert_eq!(end, ExitStatus::Signal { signal: 9 });
        stream.followed();
    });
}

#[test]
fn power_off_ends_jobs_and_tells_their_streams() {
    for holding in [Holding::Cgroups, Holding::Traces] {
        let Some(mut agent) = Agent::start(holding) else {
            continue;
        };
        let mut stream = agent.start_job(job("p", 100, command(&["sleep", "1000"])));
        let mut asked = agent.request(&Request::PowerOff);
        assert_eq!(asked.event(), Event::Done);
        drop(asked);
        assert!(agent.wait());
        let end = stream.followed().status();
        assert_eq!(end, ExitStatus::Signal { signal: 15 });
    }
}

#[test]
fn a_hundred_jobs_run_at_once() {
    let agent = Agent::start_anywhere();
    let mut streams: Vec<_> = (0..100)
        .map(|number| {
            let script = format!("echo {number}; exit {number}");
            agent.start_job(job(&number.to_string(), 100, shell(&script)))
        })
        .collect();
    for (number, stream) in streams.iter_mut().enumerate() {
        let followed = stream.followed();
        let code = u8::try_from(number).unwrap();
        assert_eq!(followed.status(), ExitStatus::Code { code });
        assert_eq!(followed.stdout, format!("{number}\n").as_bytes());
    }
}
