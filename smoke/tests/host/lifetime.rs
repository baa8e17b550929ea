//! When the host ends, and what is left of it then: nothing.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::thread;

use rustix::process::Signal;

use crate::support::{OwnHost, Test, eventually, kill, printed};

pub(crate) const TESTS: &[Test] = &[
    (
        "starting_at_once_starts_one_and_stopping_leaves_nothing",
        starting_at_once_starts_one_and_stopping_leaves_nothing,
    ),
    (
        "a_host_that_is_killed_is_reported_and_replaced",
        a_host_that_is_killed_is_reported_and_replaced,
    ),
    ("an_unused_host_ends", an_unused_host_ends),
];

fn starting_at_once_starts_one_and_stopping_leaves_nothing() {
    let host = OwnHost::new("stop", &[]);
    let ids: Vec<String> = thread::scope(|scope| {
        let host = &host;
        let script = "cat /proc/sys/kernel/random/boot_id";
        let all: Vec<_> = (0..4)
            .map(|_| scope.spawn(move || printed(&host.run(["exec", "--", "sh", "-c", script]))))
            .collect();
        all.into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(host.run(["status"]).status.code(), Some(0));
    assert!(host.processes().len() >= 3, "{:?}", host.processes());

    assert_eq!(host.run(["stop"]).status.code(), Some(0));
    assert_eq!(host.processes(), []);
    assert_eq!(host.run(["status"]).status.code(), Some(3));
    assert!(!host.folder().join("state.json").exists());
    assert_eq!(
        host.run(["stop"]).status.code(),
        Some(0),
        "stopping twice is no failure"
    );
}

fn a_host_that_is_killed_is_reported_and_replaced() {
    let host = OwnHost::new("kill", &[]);
    host.start();
    for (victim, word) in [
        ("QEMU", "qemu-system"),
        ("its supervisor", "supervise"),
        ("a file server", "virtiofsd"),
    ] {
        let client = host.program(["exec", "--", "sh", "-c", "echo ready; exec sleep 1000"]);
        let mut client = { client }
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(client.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "ready\n");
        let all = host.processes();
        let (pid, _) = all.iter().find(|(_, line)| line.contains(word)).unwrap();
        kill(*pid, Signal::KILL);
        let output = client.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{victim}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.contains("the emulated host ended while the command ran"),
            "{victim}: {said}"
        );
        eventually("every process of it is gone", || {
            host.processes().is_empty()
        });
        // And the next command simply gets a new one.
        assert_eq!(printed(&host.run(["exec", "--", "echo", "again"])), "again");
    }
}

fn an_unused_host_ends() {
    let host = OwnHost::new("idle", &[("PYRO_HOST_IDLE_SECONDS", "6")]);
    // A command that runs for longer than that keeps it.
    assert_eq!(
        printed(&host.run(["exec", "--", "sh", "-c", "sleep 12; echo done"])),
        "done"
    );
    eventually("it ends by itself", || host.processes().is_empty());
    assert_eq!(host.run(["status"]).status.code(), Some(3));

    host.start();
    fs::remove_dir_all(host.folder()).unwrap();
    eventually("it ends with its folder", || host.processes().is_empty());
}
