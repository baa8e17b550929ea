//! Calls of a client whose daemon may be killed at any time.

use std::sync::Arc;
use std::time::Duration;

use pyro_client::types::WorkspaceList;
use pyro_client::{Client, ClientError, Launcher};

use super::story::Story;
use crate::daemon::Daemon;

/// What takes longer hangs. Hosts may be emulated.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a caller is told when the daemon, a monitor or a guest is killed under it.
const KILLED: &[&str] = &[
    "agent_failed",
    "boot_failed",
    "command_lost",
    "daemon_connection_lost",
    "daemon_start_failed",
    "daemon_unreachable",
    "guest_ended",
    "monitor_failed",
    "workspace_not_running",
];

/// One client.
#[derive(Debug)]
pub(super) struct Calls {
    who: String,
    /// Whether the killer waits for its answers.
    paces: bool,
    launcher: Launcher,
    client: Client,
    story: Arc<Story>,
}

impl Calls {
    /// The calls of one who makes something; the killer waits for some of them.
    pub(super) fn new(daemon: &Daemon, story: &Arc<Story>, who: String) -> Self {
        let launcher = daemon.launcher();
        let client = Client::new(launcher.socket());
        Self {
            who,
            paces: true,
            launcher,
            client,
            story: Arc::clone(story),
        }
    }

    /// The calls of one who only looks.
    pub(super) fn beside(daemon: &Daemon, story: &Arc<Story>, who: String) -> Self {
        Self {
            paces: false,
            ..Self::new(daemon, story, who)
        }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn tell(&self, event: impl std::fmt::Display) {
        self.story.tell(format!("{}: {event}", self.who));
    }

    /// Waits for a call's answer, and fails the test when none comes, or an error that no kill
    /// explains and that `also` does not name.
    pub(super) async fn call<T>(
        &self,
        what: &str,
        also: &[&str],
        call: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        self.tell(what);
        let Ok(answer) = tokio::time::timeout(PATIENCE, call).await else {
            panic!("{}: {what} hangs", self.who);
        };
        match &answer {
            Ok(_) if self.paces => self.story.answer(what),
            Ok(_) => self.story.count(what),
            Err(error) => {
                let code = error.code();
                self.story.count(code);
                self.tell(format!("{what}: {code}: {}", error.sentence()));
                assert!(
                    KILLED.contains(&code) || also.contains(&code),
                    "{}: {what}: {code}: {:?}",
                    self.who,
                    error.to_api_error()
                );
            }
        }
        answer
    }

    /// All workspaces, from a daemon that is started as often as it takes.
    pub(super) async fn list(&self) -> WorkspaceList {
        let listed = async {
            loop {
                let client = match self.launcher.ensure_daemon().await {
                    Ok(client) => client,
                    Err(error) => {
                        self.tell(format!("no daemon: {}", error.sentence()));
                        assert!(KILLED.contains(&error.code()), "{error:?}");
                        continue;
                    }
                };
                match client.list().await {
                    Ok(list) => return list,
                    Err(error) => assert!(KILLED.contains(&error.code()), "{error:?}"),
                }
            }
        };
        match tokio::time::timeout(PATIENCE, listed).await {
            Ok(list) => list,
            Err(_) => panic!("{}: the daemon does not come back", self.who),
        }
    }
}
