//! How execs end, and that nothing is left of them: timeouts, clients that go away, background
//! children, programs that do not want to die. Each with cgroups, as in a guest, where this
//! machine has them, and without.

#![allow(clippy::unwrap_used)] // A test may end where it finds something wrong.

mod support;

use std::path::Path;

use pyro_agent_protocol::{Event, Exec, ExitStatus, Request};
use support::{Agent, Holding, Outcome, command, pids_in, runs, shell, wait_until};

/// Runs a test in both ways of holding programs.
fn in_both_ways(test: impl Fn(&Agent)) {
    for holding in [Holding::Cgroups, Holding::Traces] {
        if let Some(agent) = Agent::start(holding) {
            test(&agent);
            agent.ping();
            if holding == Holding::Cgroups {
                wait_until("all cgroups are gone", || agent.cgroups() == 0);
            }
        }
    }
}

/// A script that starts processes in every way that might let them escape, each of which writes
/// its number into `file`. Then it goes on with `rest`.
fn escapes(file: &Path, rest: &str) -> String {
    let file = file.display();
    format!(
        "note='echo $$ >> {file}; exec sleep 1000'
        sh -c \"$note\" &
        setsid sh -c \"$note\" &
        (setsid sh -c \"($note) & ($note) &\" &)
        nohup setsid -f sh -c \"trap '' TERM HUP INT; $note\" >/dev/null 2>&1 </dev/null
        sh -c 'echo $$ >> {file}; kill -STOP $$; sleep 1000' &
        while [ $(cat {file} 2>/dev/null | wc -l) -lt 6 ]; do sleep 0.01; done
        {rest}"
    )
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

fn assert_all_gone(file: &Path) {
    let pids = pids_in(file);
    assert_eq!(pids.len(), 6);
    for pid in pids {
        assert!(!runs(pid), "{pid} is left");
    }
}

#[test]
fn a_timeout_leaves_nothing() {
    in_both_ways(|agent| {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pids");
        let script = escapes(&file, "echo ready; sleep 1000");
        let outcome = agent.run(Exec {
            timeout_ms: Some(1000),
            ..shell(&script)
        });
        assert_eq!(outcome.status, ExitStatus::TimedOut);
        assert_eq!(outcome.text(), "ready", "what it said before is there");
        assert_all_gone(&file);
    });
}

#[test]
fn a_program_that_is_quicker_than_its_timeout_keeps_its_code() {
    in_both_ways(|agent| {
        let outcome = agent.run(Exec {
            timeout_ms: Some(20_000),
            ..shell("exit 3")
        });
        assert_eq!(outcome.code(), 3);
        let forever = Exec {
            timeout_ms: Some(u64::MAX),
            ..shell("exit 4")
        };
        assert_eq!(agent.run(forever).code(), 4);
        let at_once = Exec {
            timeout_ms: Some(0),
            ..shell("sleep 1000")
        };
        assert_eq!(agent.run(at_once).status, ExitStatus::TimedOut);
    });
}

#[test]
fn a_timeout_reaches_a_stopped_program_and_one_that_ignores_everything() {
    in_both_ways(|agent| {
        for script in [
            "kill -STOP $$",
            "trap '' TERM HUP INT QUIT; while :; do sleep 0.01; done",
        ] {
            let outcome = agent.run(Exec {
                timeout_ms: Some(100),
                ..shell(script)
            });
            assert_eq!(outcome.status, ExitStatus::TimedOut);
        }
    });
}

#[test]
fn a_timeout_ends_a_program_whose_output_nobody_reads() {
    in_both_ways(|agent| {
        let mut stream = agent.exec(Exec {
            timeout_ms: Some(200),
            ..command(&["yes"])
        });
        wait_until("it is gone", || !runs(stream.pid));
        assert_eq!(stream.outcome().status, ExitStatus::TimedOut);
    });
}

#[test]
fn a_client_that_goes_away_takes_everything_with_it() {
    in_both_ways(|agent| {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pids");
        let mut stream = agent.exec(shell(&escapes(&file, "echo ready; sleep 1000")));
        assert_eq!(stream.output(), b"ready\n");
        let leader = stream.pid;
        drop(stream);
        wait_until("all are gone", || {
            !runs(leader) && pids_in(&file).into_iter().all(|pid| !runs(pid))
        });
    });
}

#[test]
fn a_client_that_goes_away_behind_unread_input_is_noticed() {
    in_both_ways(|agent| {
        let mut stream = agent.exec(Exec {
            stdin: true,
            ..command(&["sleep", "1000"])
        });
        stream.socket.set_nonblocking(true).unwrap();
        // More than the program's pipe, the agent and the socket together hold.
        let frame =
            pyro_agent_protocol::encode(pyro_agent_protocol::FrameKind::Stdin, &[0; 50_000]);
        let frame = frame.unwrap();
        wait_until("nothing more fits", || {
            std::io::Write::write_all(&mut stream.socket, &frame).is_err()
        });
        agent.ping();
        let leader = stream.pid;
        assert!(runs(leader));
        drop(stream);
        wait_until("it is gone", || !runs(leader));
    });
}

#[test]
fn a_client_that_goes_away_behind_unread_output_is_noticed() {
    in_both_ways(|agent| {
        let stream = agent.exec(command(&["yes"]));
        let leader = stream.pid;
        agent.ping();
        drop(stream);
        wait_until("it is gone", || !runs(leader));
    });
}

#[test]
fn an_exec_ends_with_its_process_though_a_child_holds_the_output() {
    in_both_ways(|agent| {
        let directory = tempfile::tempdir().unwrap();
        let go = directory.path().join("go");
        let done = directory.path().join("done");
        let script = format!(
            "(while [ ! -e {go} ]; do sleep 0.01; done; i=0
             while [ $i -lt 3000 ]; do echo 'a line that nobody will read, and not the last'; i=$((i+1)); done
             echo $? > {done}) & echo first; exit 5",
            go = go.display(),
            done = done.display()
        );
        let outcome = agent.shell(&script);
        let expected = Outcome {
            status: ExitStatus::Code { code: 5 },
            stdout: b"first\n".to_vec(),
            stderr: Vec::new(),
        };
        assert_eq!(outcome, expected);
        // The child goes on, and more output than a pipe holds neither blocks nor kills it.
        std::fs::write(&go, "").unwrap();
        wait_until("the child is done", || {
            std::fs::read_to_string(&done).is_ok_and(|text| text == "0\n")
        });
    });
}

#[test]
fn a_chatty_background_child_does_not_keep_an_exec_from_ending() {
    in_both_ways(|agent| {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        let script = format!("yes & echo $! > {}; exit 6", file.display());
        assert_eq!(agent.shell(&script).code(), 6);
        kill(pids_in(&file)[0]);
    });
}

#[test]
fn all_output_from_before_the_end_arrives() {
    in_both_ways(|agent| {
        for _ in 0..20 {
            let outcome =
                agent.shell("head -c 60000 /dev/zero; head -c 50000 /dev/zero >&2; exit 1");
            assert_eq!(
                (outcome.stdout.len(), outcome.stderr.len()),
                (60_000, 50_000)
            );
        }
    });
}

#[test]
fn signals_reach_the_whole_process_group() {
    in_both_ways(|agent| {
        let mut stream = agent.exec(shell(
            "sleep 1000 & trap 'wait; exit 9' TERM; echo up; wait",
        ));
        assert_eq!(stream.output(), b"up\n");
        stream.signal(15);
        assert_eq!(
            stream.outcome().code(),
            9,
            "the shell waited for its child, which died too"
        );
        let mut stream = agent.exec(command(&["sleep", "1000"]));
        stream.signal(9);
        assert_eq!(stream.outcome().status, ExitStatus::Signal { signal: 9 });
    });
}

#[test]
fn a_signal_on_a_stream_of_its_own_passes_unread_input() {
    in_both_ways(|agent| {
        let mut stream = agent.exec(Exec {
            stdin: true,
            ..command(&["sleep", "1000"])
        });
        stream.stdin(&[0; 200_000]);
        let request = Request::Signal {
            pid: stream.pid,
            signal: 15,
        };
        assert_eq!(agent.request(&request).event(), Event::Done);
        assert_eq!(stream.outcome().status, ExitStatus::Signal { signal: 15 });
        // Of one that has ended it is taken, too, and reaches nobody.
        assert_eq!(agent.request(&request).event(), Event::Done);
    });
}

#[test]
fn a_program_that_never_reads_its_input_blocks_nobody() {
    in_both_ways(|agent| {
        let mut stream = agent.exec(Exec {
            stdin: true,
            ..command(&["sleep", "1000"])
        });
        let mut writer = support::Stream::new(stream.socket.try_clone().unwrap());
        let sender = std::thread::spawn(move || {
            let frame = [0; 100_000];
            let frame = pyro_agent_protocol::encode(pyro_agent_protocol::FrameKind::Stdin, &frame);
            let frame = frame.unwrap();
            while std::io::Write::write_all(&mut writer.socket, &frame).is_ok() {}
        });
        assert_eq!(agent.shell("echo still here").text(), "still here");
        let request = Request::Signal {
            pid: stream.pid,
            signal: 9,
        };
        agent.request(&request).event();
        assert_eq!(stream.outcome().status, ExitStatus::Signal { signal: 9 });
        sender.join().unwrap();
    });
}

#[test]
fn input_for_a_program_that_has_closed_it_is_thrown_away() {
    in_both_ways(|agent| {
        let script = "exec <&-; echo closed; sleep 0.2; exit 2";
        let mut stream = agent.exec(Exec {
            stdin: true,
            ..shell(script)
        });
        assert_eq!(stream.output(), b"closed\n");
        for _ in 0..20 {
            stream.stdin(&[0; 100_000]);
        }
        assert_eq!(stream.outcome().code(), 2);
    });
}

#[test]
fn cgroups_that_a_program_made_go_with_it() {
    let Some(agent) = Agent::start(Holding::Cgroups) else {
        return;
    };
    let script = "own=$(sed -n s/^0:://p /proc/self/cgroup)
        root=$(grep ' cgroup2 ' /proc/self/mounts | cut -d' ' -f2)
        mkdir -p $root$own/a/b && echo made";
    let outcome = agent.shell(script);
    assert_eq!(
        outcome.text(),
        "made",
        "{}",
        String::from_utf8_lossy(&outcome.stderr)
    );
    wait_until("all cgroups are gone", || agent.cgroups() == 0);
}

#[test]
fn an_idle_agent_sleeps() {
    in_both_ways(|agent| {
        // One exec whose client does not read, one whose program does not, one in the background.
        let full = agent.exec(command(&["yes"]));
        let mut deaf = agent.exec(Exec {
            stdin: true,
            ..command(&["sleep", "1000"])
        });
        deaf.stdin(&[0; 200_000]);
        let background = agent.shell("sleep 1000 & echo $!");
        wait_until("yes is blocked", || {
            std::fs::read_to_string(format!("/proc/{}/wchan", full.pid))
                .is_ok_and(|wchan| wchan.contains("pipe"))
        });
        let before = agent.ticks();
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(agent.ticks() - before <= 5, "the agent spins");
        kill(background.text().parse().unwrap());
    });
}

#[test]
fn power_off_leaves_nothing() {
    for holding in [Holding::Cgroups, Holding::Traces] {
        let Some(mut agent) = Agent::start(holding) else {
            continue;
        };
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pids");
        assert_eq!(agent.shell(&escapes(&file, "exit 0")).code(), 0);
        let mut stream = agent.exec(command(&["sleep", "1000"]));
        let mut asked = agent.request(&Request::PowerOff);
        assert_eq!(asked.event(), Event::Done);
        drop(asked);
        assert!(agent.wait());
        assert_eq!(stream.outcome().status, ExitStatus::Signal { signal: 15 });
        assert_all_gone(&file);
    }
}

#[test]
fn power_off_lets_programs_finish_their_work_and_say_so() {
    for holding in [Holding::Cgroups, Holding::Traces] {
        let Some(agent) = Agent::start(holding) else {
            continue;
        };
        let directory = tempfile::tempdir().unwrap();
        let (saved, up) = (directory.path().join("saved"), directory.path().join("up"));
        // Both say more than a pipe holds before they are done: the one in the background, whose
        // output goes nowhere, and the one whose output the host still reads.
        let script = format!(
            "work() {{ head -c 200000 /dev/zero; echo saved >> {saved}; exit 4; }}
             trap work TERM; echo up; touch {up}; while :; do sleep 0.05; done",
            saved = saved.display(),
            up = up.display()
        );
        let background = agent.shell(&format!(
            "({script}) & while ! [ -e {up} ]; do sleep 0.01; done",
            up = up.display()
        ));
        assert_eq!(background.text(), "up");
        let mut stream = agent.exec(shell(&script));
        assert_eq!(stream.output(), b"up\n");
        let mut asked = agent.request(&Request::PowerOff);
        let outcome = stream.outcome();
        assert_eq!((outcome.code(), outcome.stdout.len()), (4, 200_000));
        assert_eq!(asked.event(), Event::Done);
        assert_eq!(std::fs::read_to_string(&saved).unwrap(), "saved\nsaved\n");
    }
}
