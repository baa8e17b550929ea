//! A client that looks at all workspaces, runs commands in them, and keeps nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pyro_client::types::{ExecRecord, ExecRequest, ExecState, ListFiles, RunRequest};
use serde_json::json;
use tokio::sync::watch;

use super::calls::Calls;
use super::random::Random;
use super::story::Story;
use super::{ENVIRONMENT, MEMORY_MIB};
use crate::daemon::Daemon;

/// What a visitor may be told, since owners end and change what it looks at.
const NOT_THERE: &[&str] = &[
    "exec_not_found",
    "workspace_deleting",
    "workspace_not_found",
    "workspace_not_stopped",
];
/// A command that takes a second and is not known to have ended after this hangs.
const PATIENCE: Duration = Duration::from_secs(200);

pub(super) struct Visitor {
    calls: Calls,
    number: usize,
    random: Random,
    counter: u64,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Status,
    Exec,
    Detached,
    Files,
    Diff,
    Logs,
    Run,
}

const STEPS: &[(u64, Step)] = &[
    (10, Step::Status),
    (30, Step::Exec),
    (20, Step::Detached),
    (10, Step::Files),
    (5, Step::Diff),
    (5, Step::Logs),
    (3, Step::Run),
];

impl Visitor {
    pub(super) fn new(daemon: &Daemon, story: &Arc<Story>, number: usize, random: Random) -> Self {
        Self {
            calls: Calls::beside(daemon, story, format!("visitor {number}")),
            number,
            random,
            counter: 0,
        }
    }

    pub(super) async fn live(mut self, stopped: watch::Receiver<bool>) {
        while !*stopped.borrow() {
            self.step().await;
        }
    }

    async fn step(&mut self) {
        let list = self.calls.list().await;
        let step = self.random.weighted(STEPS);
        let workspace = self.random.of(&list.workspaces);
        let Some((id, resets)) = workspace.map(|w| (w.workspace_id.clone(), w.reset_count)) else {
            // Somebody is about to make one.
            tokio::time::sleep(Duration::from_millis(100)).await;
            return;
        };
        self.counter += 1;
        let word = format!("word-{}-{}", self.number, self.counter);
        let client = self.calls.client();
        // What comes of it is looked at where it comes to something.
        match step {
            Step::Status => {
                let _ = self.calls.call("status", NOT_THERE, client.get(&id)).await;
                let call = client.service_list(&id);
                let _ = self.calls.call("service list", NOT_THERE, call).await;
                let call = client.shell_list(&id);
                let _ = self.calls.call("shell list", NOT_THERE, call).await;
            }
            Step::Exec => self.exec(&id, &word).await,
            Step::Detached => self.detached(&id, resets, &word).await,
            Step::Files => {
                let request = ListFiles {
                    path: ".".to_string(),
                    recursive: true,
                };
                let call = client.file_list(&id, &request);
                let _ = self.calls.call("file list", NOT_THERE, call).await;
            }
            Step::Diff => {
                let _ = self.calls.call("diff", NOT_THERE, client.diff(&id)).await;
            }
            Step::Logs => {
                let _ = self.calls.call("logs", NOT_THERE, client.logs(&id)).await;
            }
            Step::Run => self.run(&word).await,
        }
    }

    async fn exec(&self, id: &str, word: &str) {
        let request = ExecRequest {
            timeout_seconds: 200,
            ..ExecRequest::new(["echo", word])
        };
        let call = self.calls.client().exec(id, &request);
        if let Ok(record) = self.calls.call("visitor's exec", NOT_THERE, call).await {
            match record.state {
                ExecState::Exited => assert_eq!(record.stdout, format!("{word}\n")),
                _ => assert!(ended_with_its_guest(&record), "{record:?}"),
            }
        }
    }

    /// A command that goes on while daemons come and go.
    async fn detached(&self, id: &str, resets: u64, word: &str) {
        let request = ExecRequest {
            detach: true,
            timeout_seconds: 200,
            ..ExecRequest::new(["sh", "-c", &format!("sleep 1; echo {word}")])
        };
        let client = self.calls.client();
        let call = client.exec(id, &request);
        let Ok(started) = self.calls.call("detached exec", NOT_THERE, call).await else {
            return;
        };
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < PATIENCE, "{started:?} hangs");
            let wait = Duration::from_secs(5);
            let call = client.exec_get(id, started.sequence, wait);
            let Ok(record) = self.calls.call("exec get", NOT_THERE, call).await else {
                let list = self.calls.list().await;
                let mut all = list.workspaces.iter();
                match all.find(|w| w.workspace_id == id) {
                    Some(workspace) if workspace.reset_count == resets => continue,
                    // It is gone, or a reset has begun the journal anew.
                    _ => return,
                }
            };
            if record.command != request.command {
                // The number is another command's since a reset.
                return;
            }
            match record.state {
                ExecState::Running => {}
                ExecState::Exited => return assert_eq!(record.stdout, format!("{word}\n")),
                _ => return assert!(ended_with_its_guest(&record), "{record:?}"),
            }
        }
    }

    async fn run(&self, word: &str) {
        let request = json!({
            "environment": ENVIRONMENT,
            "command": ["echo", word],
            "mem_mib": MEMORY_MIB,
            "timeout_seconds": 200,
        });
        let request: RunRequest = serde_json::from_value(request).expect("a request");
        let call = self.calls.client().run(&request);
        if let Ok(result) = self.calls.call("run", NOT_THERE, call).await {
            match result.state {
                ExecState::Exited => assert_eq!(result.stdout, format!("{word}\n")),
                ExecState::Lost => {}
                _ => panic!("{result:?}"),
            }
        }
    }
}

/// Whether a command ended because its guest did: told so, or by a guest that powers off.
fn ended_with_its_guest(record: &ExecRecord) -> bool {
    record.state == ExecState::Lost
        || (record.state == ExecState::Signalled && matches!(record.signal, Some(15 | 9)))
}
