//! Programs on terminals of their own.

#![allow(clippy::unwrap_used)] // A test may end where it finds something wrong.

mod support;

use pyro_agent_protocol::{
    Attach, ErrorCode, Exec, ExitStatus, JobEvent, JobState, Keep, Request, SignalGroup, Start,
    TerminalSize,
};
use support::{
    Agent, Holding, Stream, command, failure, id, in_both_ways, job, pids_in, runs, shell, tail,
    wait_until, whole, write_job,
};

fn size(cols: u16, rows: u16) -> TerminalSize {
    TerminalSize::new(cols, rows).unwrap()
}

/// A job on a terminal of 120 columns and 30 rows.
fn on_terminal(name: &str, exec: Exec) -> Start {
    Start {
        terminal: Some(size(120, 30)),
        ..tail(name, 1 << 20, exec)
    }
}

/// A shell as a person has it.
fn bash() -> Exec {
    Exec {
        env: [("PS1".to_owned(), "$ ".to_owned())].into(),
        ..command(&["bash", "--norc", "--noprofile", "-i"])
    }
}

/// Reads on until the terminal has shown this.
fn shows(stream: &mut Stream, what: &str) -> String {
    let mut shown = Vec::new();
    while !String::from_utf8_lossy(&shown).contains(what) {
        shown.extend(stream.output());
    }
    String::from_utf8(shown).unwrap()
}

fn signal(name: &str, signal: u8, group: SignalGroup) -> Request {
    let job = id(name);
    Request::SignalJob { job, signal, group }
}

#[test]
fn a_program_finds_a_terminal_with_job_control() {
    in_both_ways(|agent| {
        let script = "tty; stty size; stty -a | tr ' ' '\\n' | grep -x 'iutf8;\\?'; echo $TERM
            ps -o pid=,tpgid=,sid= -p $$; echo pid $$; cat /dev/tty > /dev/null & wait $!; exit 3";
        let mut stream = agent.start_job(on_terminal("t", shell(script)));
        let pid = stream.pid;
        let shown = shows(&mut stream, "pid ");
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[0].starts_with("/dev/pts/"), "{shown}");
        assert_eq!(&lines[1..4], ["30 120", "iutf8", "xterm-256color"]);
        let numbers: Vec<u32> = lines[4]
            .split_whitespace()
            .map(|number| number.parse().unwrap())
            .collect();
        assert_eq!(
            numbers, [pid; 3],
            "leader of its session, in the foreground"
        );
        assert!(
            shown.contains("\r\n"),
            "the terminal's own line ends: {shown:?}"
        );
        stream.stdin(&[4]);
        let followed = stream.followed();
        assert_eq!(followed.status(), ExitStatus::Code { code: 3 });
        let info = agent.jobs().remove(0);
        assert_eq!(info.terminal, Some(size(120, 30)));
        assert_eq!(info.stderr.written, 0);
    });
}

#[test]
fn the_terminal_is_the_users_and_term_may_be_said_otherwise() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: needs root, to run as somebody else");
    }
    let agent = Agent::start_anywhere();
    let exec = Exec {
        user: Some("nobody".into()),
        env: [("TERM".to_owned(), "dumb".to_owned())].into(),
        ..shell("stat -c %U $(tty); echo $TERM; echo again > $(tty)")
    };
    let followed = agent.start_job(on_terminal("u", exec)).followed();
    assert_eq!(followed.stdout, b"nobody\r\ndumb\r\nagain\r\n");
}

#[test]
fn a_shell_stops_and_resumes_what_it_runs() {
    in_both_ways(|agent| {
        let mut stream = agent.start_job(on_terminal("sh", bash()));
        shows(&mut stream, "$ ");
        assert_eq!(write_job(agent, "sh", b"sleep 1000\n"), JobEvent::Done);
        shows(&mut stream, "sleep 1000");
        let shell_pid = stream.pid;
        let foreground = || {
            let stat = std::fs::read_to_string(format!("/proc/{shell_pid}/stat")).unwrap();
            let fields: Vec<_> = stat.rsplit(')').next().unwrap().split(' ').collect();
            fields[6].parse::<u32>().unwrap()
        };
        // Before it is sleep, it is a copy of the shell, which takes no ^Z.
        wait_until("sleep is in the foreground", || {
            let name = std::fs::read_to_string(format!("/proc/{}/comm", foreground()));
            name.is_ok_and(|name| name == "sleep\n")
        });
        let sleep = foreground();
        assert_eq!(write_job(agent, "sh", &[26]), JobEvent::Done); // ^Z
        shows(&mut stream, "Stopped");
        wait_until("the shell is in the foreground", || {
            foreground() == shell_pid
        });
        assert_eq!(write_job(agent, "sh", b"fg\n"), JobEvent::Done);
        wait_until("sleep is back", || foreground() == sleep);
        // A signal for the foreground is not for the shell, and the other way round.
        let done = agent.job_answer(&signal("sh", 2, SignalGroup::Foreground));
        assert_eq!(done, JobEvent::Done);
        wait_until("sleep has ended", || !runs(sleep));
        wait_until("the shell is in the foreground", || {
            foreground() == shell_pid
        });
        assert_eq!(write_job(agent, "sh", b"exit 7\n"), JobEvent::Done);
        assert_eq!(stream.followed().status(), ExitStatus::Code { code: 7 });
        // All of it again, from the beginning.
        let again = agent.attach(whole("sh")).followed();
        let shown = String::from_utf8(again.stdout).unwrap();
        assert!(
            shown.contains("Stopped") && shown.contains("exit 7"),
            "{shown}"
        );
    });
}

#[test]
fn a_new_size_is_told_to_the_program() {
    let agent = Agent::start_anywhere();
    let script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.02; done";
    let mut stream = agent.start_job(on_terminal("r", shell(script)));
    shows(&mut stream, "ready");
    let resize = |cols, rows| Request::ResizeJob {
        job: id("r"),
        size: size(cols, rows),
    };
    assert_eq!(agent.job_answer(&resize(80, 24)), JobEvent::Done);
    shows(&mut stream, "24 80");
    assert_eq!(agent.job_answer(&resize(1000, 1000)), JobEvent::Done);
    shows(&mut stream, "1000 1000");
    assert_eq!(agent.jobs()[0].terminal, Some(size(1000, 1000)));
    agent.job_answer(&Request::CancelJob { job: id("r") });
    stream.followed();
    assert_eq!(
        agent.job_answer(&resize(80, 24)),
        JobEvent::Done,
        "too late"
    );
}

#[test]
fn what_needs_a_terminal_is_refused_without_one() {
    let agent = Agent::start_anywhere();
    let _stream = agent.start_job(tail("plain", 1000, command(&["sleep", "1000"])));
    let resize = Request::ResizeJob {
        job: id("plain"),
        size: size(80, 24),
    };
    for request in [resize, signal("plain", 15, SignalGroup::Foreground)] {
        let answer = agent.job_answer(&request);
        assert_eq!(failure(&answer), ErrorCode::InvalidRequest);
    }
    let head = Start {
        terminal: Some(size(80, 24)),
        ..job("head", 100, command(&["true"]))
    };
    let held = Start {
        hold: true,
        ..on_terminal("held", command(&["true"]))
    };
    for start in [head, held] {
        let answer = agent.job_answer(&Request::Start(start));
        assert_eq!(failure(&answer), ErrorCode::InvalidRequest);
    }
    for request in [
        Request::ResizeJob {
            job: id("none"),
            size: size(80, 24),
        },
        Request::WriteJob { job: id("none") },
        signal("none", 15, SignalGroup::Foreground),
    ] {
        assert_eq!(failure(&agent.job_answer(&request)), ErrorCode::NotFound);
    }
    assert_eq!(agent.jobs().len(), 1);
}

#[test]
fn all_that_a_program_wrote_before_it_ended_is_kept() {
    in_both_ways(|agent| {
        for round in 0..10 {
            let name = format!("n{round}");
            let script = "stty -opost; head -c 300000 /dev/zero | tr '\\0' x; printf end; exit 5";
            let mut stream = agent.start_job(on_terminal(&name, shell(script)));
            let followed = stream.followed();
            assert_eq!(followed.status(), ExitStatus::Code { code: 5 });
            assert_eq!(followed.stdout.len(), 300_003);
            assert!(followed.stdout.ends_with(b"xend"));
        }
    });
}

#[test]
fn a_job_ends_with_its_program_though_others_keep_the_terminal_open_and_write() {
    in_both_ways(|agent| {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pids");
        let script = format!(
            "trap '' HUP
            sh -c 'echo $$ >> {0}; exec yes' &
            sh -c 'echo $$ >> {0}; kill -STOP $$' &
            setsid sh -c 'echo $$ >> {0}; exec sleep 1000' &
            while [ $(cat {0} 2>/dev/null | wc -l) -lt 3 ]; do sleep 0.01; done; exit 4",
            file.display()
        );
        let start = Start {
            output: Keep::Tail { bytes: 10_000 },
            ..on_terminal("bg", shell(&script))
        };
        let followed = agent.start_job(start).followed();
        assert_eq!(followed.status(), ExitStatus::Code { code: 4 });
        let pids = pids_in(&file);
        assert!(
            runs(pids[0]) || runs(pids[1]) || runs(pids[2]),
            "something goes on"
        );
        let written = agent.jobs()[0].stdout.written;
        assert_eq!(agent.shell("exit 1").code(), 1);
        assert_eq!(
            agent.jobs()[0].stdout.written,
            written,
            "what comes late is not its output"
        );
        agent.job_answer(&Request::CancelJob { job: id("bg") });
        wait_until("all are gone", || pids.iter().all(|pid| !runs(*pid)));
        assert_eq!(
            agent.job_answer(&Request::Forget { job: id("bg") }),
            JobEvent::Done
        );
    });
}

#[test]
fn cancelling_kills_all_of_a_terminals_processes() {
    in_both_ways(|agent| {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pids");
        let script = format!(
            "trap '' HUP INT TERM; note='echo $$ >> {0}; trap \"\" HUP; kill -STOP $$'
            sh -c \"$note\" & setsid sh -c \"$note\" &
            while [ $(cat {0} 2>/dev/null | wc -l) -lt 2 ]; do sleep 0.01; done
            echo ready; kill -STOP $$",
            file.display()
        );
        let mut stream = agent.start_job(on_terminal("c", shell(&script)));
        shows(&mut stream, "ready");
        agent.job_answer(&signal("c", 1, SignalGroup::Foreground));
        assert_eq!(
            agent.jobs()[0].state,
            JobState::Running,
            "it is stopped, and ignores it"
        );
        agent.job_answer(&Request::CancelJob { job: id("c") });
        assert_eq!(stream.followed().status(), ExitStatus::Signal { signal: 9 });
        assert!(pids_in(&file).into_iter().all(|pid| !runs(pid)));
        agent.job_answer(&Request::Forget { job: id("c") });
        drop(stream);
        wait_until("descriptors are closed", || agent.descriptors() < 14);
    });
}

#[test]
fn a_hang_up_ends_what_is_in_the_foreground() {
    let agent = Agent::start_anywhere();
    let mut stream = agent.start_job(on_terminal("h", shell("echo ready; sleep 1000; :")));
    shows(&mut stream, "ready");
    let hang_up = signal("h", 1, SignalGroup::Foreground);
    assert_eq!(agent.job_answer(&hang_up), JobEvent::Done);
    let end = stream.followed().status();
    assert_eq!(end, ExitStatus::Signal { signal: 1 });
    assert_eq!(agent.job_answer(&hang_up), JobEvent::Done, "too late");
}

#[test]
fn a_program_that_closes_its_terminal_for_a_while_does_not_end_it() {
    let agent = Agent::start_anywhere();
    let script = "exec <&- >&- 2>&-; sleep 0.2; exec </dev/tty >/dev/tty 2>&1; read x; echo got $x";
    let mut stream = agent.start_job(on_terminal("gone", shell(script)));
    assert_eq!(write_job(&agent, "gone", b"word\n"), JobEvent::Done);
    let followed = stream.followed();
    assert!(followed.stdout.ends_with(b"got word\r\n"), "{followed:?}");
}

#[test]
fn a_program_that_never_reads_its_terminal_holds_up_its_writers_alone() {
    in_both_ways(|agent| {
        // Raw, so that the line discipline throws nothing away.
        let script = "stty raw -echo; echo ready; sleep 1000";
        let mut stream = agent.start_job(on_terminal("deaf", shell(script)));
        shows(&mut stream, "ready");
        let mut writers: Vec<_> = (0..20)
            .map(|_| {
                let mut writer = agent.request(&Request::WriteJob { job: id("deaf") });
                writer.stdin(&[b'x'; 100_000]);
                writer.stdin(b"");
                writer
            })
            .collect();
        assert_eq!(agent.shell("echo here").text(), "here");
        let mut other = agent.start_job(on_terminal("other", shell("read x; echo $x")));
        assert_eq!(write_job(agent, "other", b"fine\n"), JobEvent::Done);
        assert!(other.followed().stdout.ends_with(b"fine\r\n"));
        let before = agent.ticks();
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(agent.ticks() - before <= 4, "the agent spins");
        drop(writers.split_off(10));
        agent.job_answer(&Request::CancelJob { job: id("deaf") });
        for mut writer in writers {
            assert_eq!(failure(&writer.message()), ErrorCode::Ended);
        }
        stream.followed();
    });
}

#[test]
fn a_hundred_terminals_at_once() {
    let Some(agent) = Agent::start(Holding::Cgroups).or_else(|| Agent::start(Holding::Traces))
    else {
        return;
    };
    let mut streams: Vec<_> = (0..100)
        .map(|number| {
            let script = format!("read x; echo $x {number}");
            agent.start_job(on_terminal(&number.to_string(), shell(&script)))
        })
        .collect();
    for (number, stream) in streams.iter_mut().enumerate() {
        stream.stdin(b"hello\n");
        let shown = shows(stream, &format!("hello {number}\r\n"));
        assert!(shown.starts_with("hello\r\n"), "the echo: {shown:?}");
        stream.followed();
    }
    for (number, mut stream) in streams.into_iter().enumerate() {
        let _ = &mut stream;
        let job = id(&number.to_string());
        let attach = Attach {
            job: job.clone(),
            ..whole("0")
        };
        let followed = agent.attach(attach).followed();
        assert!(
            followed
                .stdout
                .ends_with(format!("hello {number}\r\n").as_bytes())
        );
        agent.job_answer(&Request::Forget { job });
    }
    wait_until("descriptors are closed", || agent.descriptors() < 14);
}
