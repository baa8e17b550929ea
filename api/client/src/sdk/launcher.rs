//! Starting the daemon when it is not running.
//!
//! The daemon is `pyro serve --on-demand`. It makes a session of its own, takes the state directory's
//! lock, and says in one line on its standard output ([`Announcement`]) that it takes connections,
//! that another daemon does, or why none will. So nobody polls, and of two starters at once both find
//! the same daemon.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use super::{Client, ClientError, Result, socket};
use crate::types::{Announcement, Health};

/// How often a daemon is looked for and started. More than once only matters when one ends just
/// while it is found.
const ATTEMPTS: u32 = 5;
/// How long a daemon may take to look through its state directory.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Most bytes of an announcement.
const MAX_ANNOUNCEMENT: u64 = 64 << 10;

/// Finds the daemon, and starts it when there is none.
#[derive(Debug, Clone)]
pub struct Launcher {
    program: PathBuf,
    arguments: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    socket: PathBuf,
    version: String,
    timeout: Duration,
}

impl Launcher {
    /// A launcher of `program` (the path of `pyro`, or a name to be found in `PATH`) for the daemon on
    /// `socket`. The program must come to the same socket by the environment that it is given.
    pub fn new(program: impl Into<PathBuf>, socket: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            arguments: vec!["serve".into(), "--on-demand".into()],
            variables: Vec::new(),
            socket: socket.into(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            timeout: START_TIMEOUT,
        }
    }

    /// A launcher of `program` for the daemon that this process' environment means.
    pub fn from_environment(program: impl Into<PathBuf>) -> Self {
        Self::new(program, socket::from_environment())
    }

    /// Takes other arguments than `serve --on-demand`.
    #[must_use]
    pub fn arguments<S: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments = arguments.into_iter().map(Into::into).collect();
        self
    }

    /// Sets a variable in the daemon's environment.
    #[must_use]
    pub fn variable(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Expects another version of the daemon than this crate's.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// How long a daemon that was started may take until it announces itself. 120 s by default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A client of the running daemon, which is started when there is none.
    ///
    /// # Errors
    /// [`ClientError::Version`] when a daemon of another version runs; [`ClientError::Spawn`] and
    /// [`ClientError::NotReady`] when none can be started, or the daemon's own error.
    pub async fn ensure_daemon(&self) -> Result<Client> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match self.find().await {
                Ok(Some(client)) => return Ok(client),
                Ok(None) => {}
                // It ended just now.
                Err(error @ ClientError::Broken { .. }) => last = Some(error),
                Err(error) => return Err(error),
            }
            self.start().await?;
        }
        match self.find().await? {
            Some(client) => Ok(client),
            None => Err(last.unwrap_or(ClientError::NotReady {
                reason: "it ends again as soon as it is started".into(),
            })),
        }
    }

    /// A client of the daemon if one runs.
    ///
    /// # Errors
    /// [`ClientError::Version`] when it is of another version.
    pub async fn find(&self) -> Result<Option<Client>> {
        let client = Client::new(&self.socket);
        match client.health().await {
            Ok(health) => {
                self.check_version(&health)?;
                Ok(Some(client))
            }
            Err(ClientError::Connect { source, .. })
                if matches!(
                    source.kind(),
                    io::ErrorKind::NotFound
                        | io::ErrorKind::ConnectionRefused
                        // It was killed just now.
                        | io::ErrorKind::ConnectionReset
                        // What is wrong with the directory, the daemon says best.
                        | io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn check_version(&self, health: &Health) -> Result<()> {
        if health.version == self.version {
            return Ok(());
        }
        Err(ClientError::Version {
            daemon: health.version.clone(),
            client: self.version.clone(),
            pid: health.pid,
        })
    }

    /// Starts a daemon and waits for its word.
    async fn start(&self) -> Result<()> {
        let failed = |source| ClientError::Spawn {
            program: self.program.clone(),
            source,
        };
        // Dropped without being killed; tokio reaps it should this process outlive it.
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| failed(io::Error::other("no pipe")))?;
        let mut line = String::new();
        let mut reader = BufReader::new(stdout.take(MAX_ANNOUNCEMENT));
        let word = tokio::time::timeout(self.timeout, reader.read_line(&mut line)).await;
        match word {
            Err(_) => Err(ClientError::NotReady {
                reason: format!("it said nothing for {} s", self.timeout.as_secs()),
            }),
            Ok(Err(source)) => Err(failed(source)),
            Ok(Ok(0)) => {
                let status = child.wait().await.map_err(failed)?;
                Err(ClientError::NotReady {
                    reason: format!("it ended with {status}"),
                })
            }
            Ok(Ok(_)) => match serde_json::from_str(&line) {
                Ok(Announcement::Ready { .. } | Announcement::AlreadyRunning) => Ok(()),
                Ok(Announcement::Failed { error }) => Err(ClientError::Api(error)),
                Err(_) => Err(ClientError::NotReady {
                    reason: format!(
                        "{} said something that no daemon says",
                        self.program.display()
                    ),
                }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launcher(script: &str) -> (tempfile::TempDir, Launcher) {
        let folder = tempfile::tempdir().expect("temporary folder");
        let launcher =
            Launcher::new("/bin/sh", folder.path().join("api.sock")).arguments(["-c", script]);
        (folder, launcher)
    }

    #[tokio::test]
    async fn a_daemon_that_dies_at_once_is_said_with_its_status() {
        let (_folder, launcher) = launcher("exit 3");

        let error = launcher.ensure_daemon().await.expect_err("no daemon");

        assert_eq!(error.code(), "daemon_start_failed");
        assert!(error.sentence().contains("exit status: 3"), "{error}");
        assert!(error.remedy().contains("pyro serve"));
    }

    #[tokio::test]
    async fn the_daemons_own_error_is_passed_on() {
        let (_folder, launcher) = launcher(
            r#"echo '{"state":"failed","error":{"code":"no_space","message":"m","remedy":"r","detail":null}}'"#,
        );

        let error = launcher.ensure_daemon().await.expect_err("no daemon");

        assert_eq!((error.code(), error.remedy().as_str()), ("no_space", "r"));
    }

    #[tokio::test]
    async fn a_daemon_that_always_ends_is_not_started_for_ever() {
        let (folder, launcher) =
            launcher(r#"echo x >> "$TRIES"; echo '{"state":"ready","pid":1}'"#);
        let tries = folder.path().join("tries");
        let launcher = launcher.variable("TRIES", &tries);

        let error = launcher.ensure_daemon().await.expect_err("no daemon");

        assert_eq!(error.code(), "daemon_start_failed");
        let tries = std::fs::read_to_string(tries).expect("it was started");
        assert_eq!(tries.lines().count(), ATTEMPTS as usize);
    }

    #[tokio::test]
    async fn a_program_that_is_missing_is_named() {
        let launcher = Launcher::new("/nonexistent/pyro", "/nonexistent/api.sock");

        let error = launcher.ensure_daemon().await.expect_err("no daemon");

        assert_eq!(error.code(), "daemon_start_failed");
        assert!(error.to_string().contains("/nonexistent/pyro"));
    }
}
