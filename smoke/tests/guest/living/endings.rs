//! What is left of services, ports, shells, secrets and the network when something ends.

use serde_json::Value;

use super::shells::Terminal;
use super::{leaks, limits, ports, secrets};
use crate::daemon::Daemon;
use crate::pyro::{exists, kill, wait_until};

/// A service with a port and a shell, which are there together.
struct Parts<'a> {
    daemon: &'a Daemon,
    id: &'a str,
    port: u16,
    shell: Terminal<'a>,
}

pub(super) fn test(daemon: &Daemon, id: &str) {
    let parts = Parts::start(daemon, id);
    daemon_killed(&parts);
    network_killed(&parts);
    // A stop, a start.
    daemon.json(&["stop", id]);
    parts.assert_gone("stopped", "workspace_stopped");
    disk(daemon, id);
    let status = daemon.json(&["start", id]);
    assert_eq!(status["network_failure"], Value::Null);
    secrets::are_there(daemon, id);
    parts.assert_gone("stopped", "workspace_stopped");
    assert_eq!(
        daemon.sh(id, "pgrep -x 'bash|python3' || echo none"),
        "none\n"
    );
    monitor_killed(daemon, id);
    // A reset.
    let parts = Parts::start(daemon, id);
    limits::test(daemon, id);
    daemon.json(&["reset", id]);
    ports::assert_refused(parts.port);
    assert_eq!(daemon.json(&["service", "list", id])["count"], 0);
    assert_eq!(daemon.json(&["shell", "list", id])["count"], 0);
    let read = ["shell", "read", id, &parts.shell.shell];
    assert_eq!(daemon.error(&read), "shell_not_found");
    secrets::are_there(daemon, id);
    // A deletion.
    daemon.json(&["file", "write", id, "server.py", "--text", ports::SERVER]);
    let parts = Parts::start(daemon, id);
    daemon.json(&["delete", id]);
    ports::assert_refused(parts.port);
    for program in ["pyro-net", "pyro-vmm"] {
        assert_eq!(daemon.pids(program), Vec::<u32>::new(), "{program}");
    }
    assert_eq!(leaks::holders(daemon, &daemon.path("state")), "");
}

impl<'a> Parts<'a> {
    fn start(daemon: &'a Daemon, id: &'a str) -> Self {
        let shell = Terminal::open(daemon, id);
        shell.write("echo the''re");
        wait_until("the shell runs", || shell.plain().contains("there\n"));
        Self {
            daemon,
            id,
            port: ports::serve(daemon, id),
            shell,
        }
    }

    fn service(&self) -> Value {
        self.daemon.json(&["service", "status", self.id, "server"])
    }

    /// The guest is gone: the service says why, no port is there, no shell, no network.
    fn assert_gone(&self, state: &str, reason: &str) {
        let service = self.service();
        assert_eq!(
            (&service["state"], &service["stop_reason"]),
            (&state.into(), &reason.into())
        );
        assert_eq!(service["ready"], false);
        ports::assert_withdrawn(self.daemon, self.id, self.port);
        assert_eq!(self.daemon.json(&["shell", "list", self.id])["count"], 0);
        let read = ["shell", "read", self.id, &self.shell.shell];
        assert_eq!(self.daemon.error(&read), "shell_not_found");
    }
}

fn killed(daemon: &Daemon, program: &str) {
    let pids = daemon.pids(program);
    assert_eq!(pids.len(), 1, "one {program}");
    kill("KILL", pids[0]);
    wait_until("it is gone", || !exists(pids[0]));
}

/// All goes on, and the next daemon finds it.
fn daemon_killed(parts: &Parts) {
    killed(parts.daemon, "pyro");
    ports::exchange(parts.port, 1, 1);
    let service = parts.service();
    assert_eq!(
        (&service["state"], &service["ready"]),
        (&"running".into(), &true.into())
    );
    assert_eq!(service["published"][0]["host_port"], parts.port);
    ports::exchange(parts.port, 1, 1);
    assert!(parts.shell.plain().contains("there\n"));
    parts.shell.write("echo still the''re");
    wait_until("it goes on", || {
        parts.shell.plain().contains("still there\n")
    });
    let output = parts
        .daemon
        .output(&["exec", parts.id, "--", "cat", "/run/pyro-secrets/TOKEN"]);
    assert_eq!(output.stdout, secrets::REDACTED.as_bytes());
}

/// The workspace goes on without; nothing is published that is not.
fn network_killed(parts: &Parts) {
    let (daemon, id) = (parts.daemon, parts.id);
    killed(daemon, "pyro-net");
    ports::assert_refused(parts.port);
    wait_until("it is noticed", || {
        parts.service()["published"] == Value::Array(Vec::new())
    });
    assert_eq!(parts.service()["state"], "running");
    let status = daemon.json(&["status", id]);
    assert_eq!(status["state"], "running");
    assert!(status["network_failure"]["remedy"].is_string(), "{status}");
    assert_eq!(daemon.sh(id, "echo it goes on"), "it goes on\n");
    let more = [
        "service",
        "start",
        id,
        "more",
        "--publish",
        "7000",
        "--",
        "sleep",
        "1000",
    ];
    assert_eq!(daemon.error(&more), "network_unavailable");
    parts.shell.write("echo and th''is");
    wait_until("the shell goes on", || {
        parts.shell.plain().contains("and this\n")
    });
}

/// An exported disk, also what is deleted in it, has no value.
fn disk(daemon: &Daemon, id: &str) {
    let image = daemon.path("disk.ext4");
    let path = image.to_str().expect("UTF-8");
    daemon.json(&["disk", "export", id, "--output", path]);
    assert_eq!(leaks::holders(daemon, &image), "");
    std::fs::remove_file(image).expect("there");
}

/// Also the network is there again after the start; the service did not end by itself.
fn monitor_killed(daemon: &Daemon, id: &str) {
    let parts = Parts::start(daemon, id);
    killed(daemon, "pyro-vmm");
    wait_until("it is noticed", || {
        daemon.json(&["status", id])["state"] == "failed"
    });
    parts.assert_gone("failed", "guest_ended");
    let service = parts.service();
    assert!(service["error"]["remedy"].is_string(), "{service}");
    wait_until("the network is gone", || daemon.pids("pyro-net").is_empty());
    daemon.json(&["start", id]);
    secrets::are_there(daemon, id);
}
