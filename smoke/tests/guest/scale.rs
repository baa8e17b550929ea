//! Many workspaces on one daemon, and many commands in one of them at once.
//!
//! `PYRO_TEST_WORKSPACES` says how many workspaces; few by default, since each boots once.

use std::time::{Duration, Instant};

use pyro_client::Client;
use pyro_client::types::{CreateWorkspace, ExecRequest, ExecState, WorkspaceState};

use crate::daemon::Daemon;
use crate::pyro::Test;

const ENVIRONMENT: &str = "debian:12-base";
const MEMORY_MIB: u64 = 256;
/// Workspaces that run at the same time.
const RUNNING: usize = 3;
const COMMANDS: usize = 100;
/// What takes longer hangs. Hosts may be emulated.
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) fn tests() -> Vec<Test> {
    vec![("many_workspaces_and_many_commands_at_once_work", scale)]
}

fn scale() {
    let workspaces = match std::env::var("PYRO_TEST_WORKSPACES") {
        Ok(number) => number.parse().expect("a number"),
        Err(_) => 8,
    };
    assert!(workspaces > RUNNING);
    let daemon = Daemon::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let client = daemon.launcher().ensure_daemon().await.expect("a daemon");
        let began = Instant::now();
        let ids = make(&client, workspaces).await;
        let made = began.elapsed().as_secs();
        listed(&daemon, &client, &ids).await;
        let began = Instant::now();
        let commands = commands(&client, &ids[workspaces - 1]);
        tokio::time::timeout(PATIENCE, commands)
            .await
            .expect("no command hangs");
        let ran = began.elapsed().as_secs();
        eprintln!("scale: {workspaces} workspaces in {made} s, {COMMANDS} commands in {ran} s");
        for id in &ids {
            client.delete(id).await.expect("deleted");
        }
        assert_eq!(client.list().await.expect("a list").count, 0);
    });
}

/// So many workspaces; the last few run, the others are stopped.
async fn make(client: &Client, workspaces: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for number in 0..workspaces {
        let request = CreateWorkspace {
            mem_mib: MEMORY_MIB,
            ttl_seconds: 24 * 3600,
            name: Some(format!("workspace {number}")),
            labels: [("number".to_string(), number.to_string())].into(),
            ..CreateWorkspace::new(ENVIRONMENT)
        };
        let created = client.create(&request).await.expect("created");
        if number < workspaces - RUNNING {
            let stopped = client.stop(&created.workspace_id).await.expect("stopped");
            assert_eq!(stopped.state, WorkspaceState::Stopped);
        }
        ids.push(created.workspace_id);
    }
    ids
}

/// Each is there, as what it is, most recent activity first; for a new daemon, too.
async fn listed(daemon: &Daemon, client: &Client, ids: &[String]) {
    let before = client.list().await.expect("a list");
    let pid = client.health().await.expect("health").pid;
    crate::pyro::kill("KILL", pid);
    crate::pyro::wait_until("the daemon is gone", || !crate::pyro::exists(pid));
    let client = daemon.launcher().ensure_daemon().await.expect("a daemon");
    let list = client.list().await.expect("a list");
    assert_eq!(list, before);

    let listed: Vec<_> = list.workspaces.iter().map(|w| &w.workspace_id).collect();
    assert_eq!(listed, ids.iter().rev().collect::<Vec<_>>());
    for (number, id) in ids.iter().enumerate() {
        let one = client.get(id).await.expect("a workspace");
        let by_name = client.get(&format!("workspace {number}")).await;
        assert_eq!(by_name.expect("a workspace"), one);
        assert_eq!(one.labels["number"], number.to_string());
        let state = if number < ids.len() - RUNNING {
            WorkspaceState::Stopped
        } else {
            WorkspaceState::Running
        };
        assert_eq!(one.state, state);
        assert!(list.workspaces.contains(&one));
    }
    assert_eq!(daemon.pids("pyro-vmm").len(), RUNNING);
    let health = client.health().await.expect("health");
    assert_eq!(
        (health.workspaces, health.running),
        (ids.len() as u64, RUNNING as u64)
    );
}

/// All at once: each gets its own status and its own output, and a number of its own.
async fn commands(client: &Client, id: &str) {
    let calls = (0..COMMANDS).map(|number| {
        let (client, id) = (client.clone(), id.to_string());
        tokio::spawn(async move {
            let script = format!(
                "seq {number} {}; echo {number} >&2; exit {number}",
                number + 50
            );
            let request = ExecRequest {
                timeout_seconds: PATIENCE.as_secs(),
                ..ExecRequest::new(["sh", "-c", &script])
            };
            client.exec(&id, &request).await
        })
    });
    let mut sequences = Vec::new();
    for (number, call) in calls.collect::<Vec<_>>().into_iter().enumerate() {
        let record = call.await.expect("no panic").expect("an answer");
        assert_eq!(record.state, ExecState::Exited, "{record:?}");
        assert_eq!(record.exit_code.map(usize::from), Some(number));
        let lines = (number..=number + 50).map(|n| format!("{n}\n"));
        assert_eq!(record.stdout, lines.collect::<String>());
        assert_eq!(record.stderr, format!("{number}\n"));
        sequences.push(record.sequence);
    }
    sequences.sort_unstable();
    sequences.dedup();
    assert_eq!(sequences.len(), COMMANDS);
    let logs = client.logs(id).await.expect("logs");
    assert_eq!(logs.count, COMMANDS as u64);
}
