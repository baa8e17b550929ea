//! Commands, clients, agents and guests that do not behave: everything is answered all the same.
//!
//! One guest for all of it. What hangs fails by [`PATIENCE`] and not by the whole suite's time.

use std::io::Read;
use std::process::{Child, Output, Stdio};
use std::time::Instant;

use pyro_client::types::{ExecEvent, ExecRequest, ExecState};
use serde_json::Value;

use crate::daemon::Daemon;
use crate::pyro::{PATIENCE, Test, code, exists, kill, text, wait_until};

pub(crate) fn tests() -> Vec<Test> {
    vec![("nothing_in_or_around_a_guest_hangs_its_workspace", hangs)]
}

fn hangs() {
    let daemon = Daemon::new();
    let id = daemon.said(&["create", "debian:12", "--mem-mib", "512", "--id-only"]);
    let id = id.trim();
    children_that_hold_the_output(&daemon, id);
    time_that_is_up(&daemon, id);
    much_output(&daemon, id);
    a_reader_that_waits(&daemon, id);
    clients_that_go_away(&daemon, id);
    a_paused_guest(&daemon, id);
    a_panic(&daemon, id);
    daemon.said(&["delete", id]);
}

/// A command that must end, whatever it does.
fn ends(daemon: &Daemon, args: &[&str]) -> Output {
    let child = daemon
        .command(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("pyro starts");
    let pid = child.id();
    let output = std::thread::spawn(move || child.wait_with_output());
    let began = Instant::now();
    while !output.is_finished() {
        if began.elapsed() > PATIENCE {
            kill("KILL", pid);
            panic!("{args:?} hangs");
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    output.join().expect("no panic").expect("it ends")
}

/// What a shell script comes to, with so many seconds of time.
fn sh(daemon: &Daemon, id: &str, seconds: &str, script: &str) -> (i32, String) {
    let output = ends(
        daemon,
        &[
            "exec",
            id,
            "--timeout-seconds",
            seconds,
            "--",
            "sh",
            "-c",
            script,
        ],
    );
    (code(&output), text(&output.stdout))
}

/// Whether a process of this name runs in the guest.
fn runs(daemon: &Daemon, id: &str, name: &str) -> bool {
    sh(daemon, id, "240", &format!("pgrep -x {name}")).0 == 0
}

/// A command ends when its process does, and not when the last holder of its output does.
fn children_that_hold_the_output(daemon: &Daemon, id: &str) {
    let long = "exec sleep 100000";
    for child in [
        // In the background, with both outputs.
        format!("sh -c '{long}' & echo said"),
        // The same, orphaned at once.
        format!("(sh -c '{long}' &) ; echo said"),
        // In a session of its own.
        format!("setsid sh -c '{long}' & echo said"),
        // Twice forked, as daemons do.
        format!("(setsid sh -c '(sh -c \"{long}\" &) ; exit' &) ; echo said"),
        // Ignoring what it can.
        format!("sh -c 'trap \"\" HUP TERM INT PIPE; {long}' & echo said"),
    ] {
        let began = Instant::now();
        let said = sh(daemon, id, "86400", &child);
        assert_eq!(said, (0, "said\n".to_string()), "{child}");
        assert!(began.elapsed() < PATIENCE, "{child}");
    }
    // They were to go on: a service started by hand is one.
    assert!(runs(daemon, id, "sleep"));
    assert_eq!(sh(daemon, id, "240", "pkill -KILL -x sleep; exit 3").0, 3);
}

/// Its time ends a command with its whole group, whatever state they are in.
fn time_that_is_up(daemon: &Daemon, id: &str) {
    for script in [
        "sleep 100000",
        // Nobody there listens to a signal that can be ignored.
        "trap '' HUP TERM INT; sleep 100000; sleep 100000; true",
        // Stopped, with a child that is stopped as well.
        "sleep 100000 & kill -STOP $!; kill -STOP $$",
        // A pipe that nobody reads.
        "mkfifo /tmp/fifo-$$; cat /dev/zero | sleep 100000",
        // Nobody writes.
        "mkfifo /tmp/silent-$$; cat /tmp/silent-$$",
    ] {
        assert_eq!(sh(daemon, id, "2", script).0, 124, "{script}");
        assert!(!runs(daemon, id, "sleep"), "{script}");
    }
}

/// All of it comes, in both streams, and the record says how much of it is kept.
fn much_output(daemon: &Daemon, id: &str) {
    let script = "yes out | head -c 8000000 & yes err | head -c 6000000 >&2; wait";
    let args = [
        "exec",
        id,
        "--timeout-seconds",
        "240",
        "--",
        "sh",
        "-c",
        script,
    ];
    let output = ends(daemon, &args);
    assert_eq!(code(&output), 0);
    assert_eq!(
        (output.stdout.len(), output.stderr.len()),
        (8_000_000, 6_000_000)
    );
    assert!(output.stdout.chunks(4).all(|line| line == b"out\n"));

    let logs = daemon.json(&["logs", id]);
    let record = last(&logs);
    assert_eq!(record["stdout_bytes"], 8_000_000);
    assert_eq!(record["stdout_truncated"], true);
}

fn last(logs: &Value) -> &Value {
    let entries = logs["entries"].as_array().expect("entries");
    entries.last().expect("one")
}

/// Whoever takes nothing slows its command down and nobody else; then all of it comes.
fn a_reader_that_waits(daemon: &Daemon, id: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let patient = async {
        let client = daemon.launcher().ensure_daemon().await.expect("a daemon");
        let request = |script: &str| ExecRequest {
            timeout_seconds: 240,
            ..ExecRequest::new(["sh", "-c", script])
        };
        let script = "yes | head -c 30000000; echo wrote >/tmp/wrote";
        let mut slow = client
            .exec_stream(id, &request(script))
            .await
            .expect("started");
        // Nothing is read, so it comes to a stand; everybody else is answered.
        for n in 0..5 {
            let word = format!("echo {n}; test ! -e /tmp/wrote");
            let record = client.exec(id, &request(&word)).await.expect("an answer");
            assert_eq!(
                (record.exit_code, record.stdout),
                (Some(0), format!("{n}\n"))
            );
        }
        assert_eq!(client.list().await.expect("a list").count, 1);
        let mut record = None;
        while let Some(event) = slow.next().await.expect("an event") {
            if let ExecEvent::Ended { record: ended } = event {
                record = Some(ended);
            }
        }
        let record = record.expect("an end");
        assert_eq!(
            (record.state, record.exit_code),
            (ExecState::Exited, Some(0))
        );
        assert_eq!(record.stdout_bytes, 30_000_000);
    };
    let within = async { tokio::time::timeout(PATIENCE, patient).await };
    runtime.block_on(within).expect("it does not hang");
}

/// A command whose client goes away is ended; a detached one is not.
fn clients_that_go_away(daemon: &Daemon, id: &str) {
    for (signal, script) in [
        ("KILL", "echo ready; exec sleep 100000"),
        ("KILL", "echo ready; yes; exec sleep 100000"),
        (
            "INT",
            "trap '' INT HUP TERM; echo ready; sleep 100000; sleep 100000",
        ),
    ] {
        let mut client = started(daemon, id, script);
        kill(signal, client.id());
        client.wait().expect("it ends");
        wait_until("the command is gone", || {
            !runs(daemon, id, "sleep") && !runs(daemon, id, "yes")
        });
    }
    let args = [
        "exec",
        id,
        "--detach",
        "--timeout-seconds",
        "86400",
        "--",
        "sleep",
        "100000",
    ];
    assert_eq!(code(&ends(daemon, &args)), 0);
    assert!(runs(daemon, id, "sleep"));
    assert_eq!(sh(daemon, id, "240", "pkill -x sleep").0, 0);
}

/// A client whose command has said `ready`.
fn started(daemon: &Daemon, id: &str, script: &str) -> Child {
    let args = [
        "exec",
        id,
        "--timeout-seconds",
        "86400",
        "--",
        "sh",
        "-c",
        script,
    ];
    let mut client = daemon
        .command(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("pyro starts");
    let mut said = [0; 6];
    let stdout = client.stdout.as_mut().expect("a pipe");
    stdout.read_exact(&mut said).expect("the guest speaks");
    assert_eq!(&said, b"ready\n");
    client
}

/// A guest that stands still is waited for no longer than a command may take; then it goes on.
fn a_paused_guest(daemon: &Daemon, id: &str) {
    let mut client = started(daemon, id, "echo ready; sleep 1; echo went on");
    let monitor = daemon.pids("pyro-vmm");
    assert_eq!(monitor.len(), 1, "one monitor");
    kill("STOP", monitor[0]);

    assert_eq!(daemon.json(&["status", id])["state"], "running");
    assert_eq!(daemon.json(&["list"])["count"], 1);
    assert!(daemon.json(&["logs", id])["count"].as_u64() > Some(10));
    let output = ends(
        daemon,
        &["exec", id, "--timeout-seconds", "1", "--", "true"],
    );
    assert_eq!(code(&output), 124, "{output:?}");

    kill("CONT", monitor[0]);
    let mut rest = String::new();
    let stdout = client.stdout.as_mut().expect("a pipe");
    stdout.read_to_string(&mut rest).expect("the guest speaks");
    assert_eq!(rest, "went on\n");
    assert!(client.wait().expect("it ends").success());
    assert_eq!(sh(daemon, id, "240", "echo back").1, "back\n");
}

/// The agent ends when the kernel does, and nothing else ends it.
fn a_panic(daemon: &Daemon, id: &str) {
    assert_eq!(
        sh(
            daemon,
            id,
            "240",
            "sync; kill -KILL 1; kill -SEGV 1; echo here"
        )
        .1,
        "here\n"
    );
    let mut waiting = started(daemon, id, "echo ready; exec sleep 100000");
    let monitor = daemon.pids("pyro-vmm");

    let script =
        "echo kept >/root/kept; sync; echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger";
    let args = [
        "exec",
        id,
        "--timeout-seconds",
        "240",
        "--json",
        "--",
        "sh",
        "-c",
        script,
    ];
    let output = ends(daemon, &args);
    assert_eq!(code(&output), 125, "{output:?}");
    let document: Value = serde_json::from_slice(&output.stdout).expect("a document");
    assert!(text(&output.stdout).contains("guest_crashed"), "{document}");

    // Everybody who waited is told; the workspace says why, and starts from its disk.
    assert_eq!(waiting.wait().expect("it ends").code(), Some(125));
    wait_until("it is noted", || {
        daemon.json(&["status", id])["state"] == "failed"
    });
    let failure = daemon.json(&["status", id])["failure"].clone();
    assert_eq!(failure["code"], "guest_crashed", "{failure}");
    assert!(failure["remedy"].is_string(), "{failure}");
    assert!(monitor.iter().all(|pid| !exists(*pid)));
    assert_eq!(
        daemon.error(&["exec", id, "--", "true"]),
        "workspace_not_running"
    );
    daemon.said(&["start", id]);
    assert_eq!(sh(daemon, id, "240", "cat /root/kept").1, "kept\n");
}
