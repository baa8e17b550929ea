//! Commands in a workspace.
//!
//! A command is a job of the guest's agent: it survives our connection to it, so that the next
//! daemon can go on with it. It is written into the journal before it is started ([`running`],
//! [`crate::records::journal`]), followed by a task of its own to its end (`follow`), and kept with
//! the two [`ends`] of each of its outputs.

mod ends;
mod follow;
mod running;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pyro_agent_protocol as protocol;
use pyro_client::types::{
    ExecEvent, ExecRecord, ExecRequest, ExecState, WORKSPACE_ROOT, WorkspaceLogs,
};
use tokio::sync::mpsc;

use super::slot::Slot;
use super::{Engine, blocking, to_the_end};
use crate::error::{Code, Error, Result};
use crate::limits::MAX_SECONDS;
use crate::oneshot::check_argv;
use follow::{Follower, How, Listener, Redaction};

pub(super) use ends::Ends;
pub(super) use running::Execs;

/// Events that wait for whoever takes them; each holds at most 64 KiB of output.
const EVENTS: usize = 8;
/// Most variables of one command, and most bytes of all.
const MAX_VARIABLES: usize = 1024;
const MAX_VARIABLE_BYTES: usize = 128 << 10;
/// Longest working directory.
const MAX_CWD: usize = 4095;

/// A command's events as they come: `started` first, `ended` or `failed` last.
///
/// Whoever does not take them slows the command down. Dropping it cancels the command, unless it
/// was started detached.
#[derive(Debug)]
pub struct ExecStream {
    sequence: u64,
    events: mpsc::Receiver<ExecEvent>,
}

impl ExecStream {
    /// The command's number in the workspace's journal.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The next event; `None` after the last. Cancel safe.
    pub async fn next(&mut self) -> Option<ExecEvent> {
        self.events.recv().await
    }
}

impl Engine {
    /// Starts a command; answers when it has a number in the journal. A detached one gives
    /// `started` and then `ended` with its record as of now, and runs on.
    ///
    /// # Errors
    /// [`Code::InvalidCommand`], [`Code::InvalidEnvironment`], [`Code::InvalidPath`],
    /// [`Code::TimeOutOfRange`], [`Code::WorkspaceNotRunning`]. That the guest cannot start the
    /// command is no error: its record says so.
    pub async fn exec(
        self: &Arc<Self>,
        workspace: &str,
        request: ExecRequest,
    ) -> Result<ExecStream> {
        check(&request)?;
        let slot = self.find(workspace)?;
        let engine = Arc::clone(self);
        to_the_end(async move {
            let operation = engine.begin(&slot)?;
            // Until it is noted: a reset and a deletion take the journal away.
            let steady = slot.steady().await?;
            let guest = slot.guest()?;
            let secrets = slot.living.secrets();
            let env = secrets.environment(&request.env, &request.secret_env)?;
            let redactor = secrets.redactor().clone();
            let started_at = Timestamp::now();
            let running = slot.execs.add(|sequence| ExecRecord {
                sequence,
                workspace_id: slot.id().to_string(),
                command: request
                    .command
                    .iter()
                    .map(|word| redactor.text(word))
                    .collect(),
                cwd: engine.absolute(&request.cwd),
                state: ExecState::Running,
                exit_code: None,
                signal: None,
                stdout: String::new(),
                stderr: String::new(),
                stdout_bytes: 0,
                stderr_bytes: 0,
                stdout_truncated: false,
                stderr_truncated: false,
                started_at,
                duration_ms: None,
                error: None,
            });
            let sequence = running.sequence();
            // While the intent is written: a connection that nothing is said on yet does nothing.
            let connecting = {
                let guest = Arc::clone(&guest);
                tokio::spawn(async move { guest.connect().await })
            };
            let intent = Arc::clone(&running);
            let noted = blocking(move || intent.journal.begin(&intent.record())).await;
            if let Err(error) = noted {
                slot.execs.end(&running, 0);
                return Err(error);
            }
            drop(steady);
            operation.changed();
            let (sender, events) = mpsc::channel(EVENTS);
            let timeout = Duration::from_secs(request.timeout_seconds);
            let follower = Follower {
                slot: Arc::clone(&slot),
                operation,
                guest,
                running,
                redaction: Redaction::new(&redactor),
                listener: Some(Listener {
                    sender,
                    detached: request.detach,
                }),
                how: How::Start {
                    exec: engine.agents(&request, env, timeout),
                    timeout,
                    connecting,
                },
            };
            tokio::spawn(follower.run());
            Ok(ExecStream { sequence, events })
        })
        .await
    }

    /// A command of the journal; waits at most `wait` for its end when it runs.
    ///
    /// # Errors
    /// [`Code::ExecNotFound`] when there was no such command, or it is too old to be kept.
    pub async fn exec_get(
        &self,
        workspace: &str,
        sequence: u64,
        wait: Duration,
    ) -> Result<ExecRecord> {
        let slot = self.find(workspace)?;
        if let Some(running) = slot.execs.running(sequence) {
            let ended = tokio::time::timeout(wait, running.ended()).await;
            if ended.is_err() && slot.execs.running(sequence).is_some() {
                return Ok(running.record());
            }
        }
        slot.ended(sequence).await
    }

    /// Kills a command with all that it started; answers when it has ended. One that has ended
    /// already is left as it is.
    ///
    /// # Errors
    /// [`Code::ExecNotFound`].
    pub async fn exec_cancel(
        self: &Arc<Self>,
        workspace: &str,
        sequence: u64,
    ) -> Result<ExecRecord> {
        let slot = self.find(workspace)?;
        if let Some(running) = slot.execs.running(sequence) {
            running.cancel.notify_one();
            running.ended().await;
        }
        slot.ended(sequence).await
    }

    /// The journal since creation or the last reset.
    pub async fn logs(&self, workspace: &str) -> Result<WorkspaceLogs> {
        let slot = self.find(workspace)?;
        let (count, sequences, journal) = (
            slot.execs.count(),
            slot.execs.sequences(),
            slot.execs.journal(),
        );
        let id = slot.id().to_string();
        blocking(move || {
            let entries = sequences
                .into_iter()
                .filter_map(|sequence| match slot.execs.running(sequence) {
                    Some(running) => Some(running.record()),
                    None => journal.read(sequence),
                })
                .collect();
            Ok(WorkspaceLogs {
                workspace_id: id,
                count,
                entries,
            })
        })
        .await
    }

    /// Takes in a workspace's journal as the last daemon left it: goes on with commands that run,
    /// when there is a guest, and notes those that are lost.
    pub(super) async fn reattach(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<()> {
        let journal = slot.execs.journal();
        let contents = blocking(move || {
            let contents = journal.open()?;
            journal.forget_others();
            Ok(contents)
        })
        .await?;
        slot.execs.load(&contents);
        let guest = slot.guest().ok();
        for record in contents.running {
            let running = slot.execs.resume(record);
            match &guest {
                Some(guest) => {
                    let follower = Follower {
                        slot: Arc::clone(slot),
                        operation: self.begin_anyhow(slot),
                        guest: Arc::clone(guest),
                        running,
                        redaction: Redaction::new(&slot.living.redactor()),
                        listener: None,
                        how: How::Attach,
                    };
                    tokio::spawn(follower.run());
                }
                None => follow::lose(slot, running, orphaned()).await,
            }
        }
        if let Some(guest) = guest {
            let slot = Arc::clone(slot);
            tokio::spawn(async move { follow::forget_ended(&slot, &guest).await });
        }
        Ok(())
    }
}

impl Engine {
    /// A path of the guest; relative ones start at `/workspace`.
    pub(super) fn absolute(&self, path: &str) -> String {
        let path = absolute(path);
        // The same but for tests.
        match path.strip_prefix(WORKSPACE_ROOT) {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                format!("{}{rest}", self.root)
            }
            _ => path,
        }
    }

    /// The request as the agent is told.
    fn agents(
        &self,
        request: &ExecRequest,
        env: BTreeMap<String, String>,
        timeout: Duration,
    ) -> protocol::Exec {
        protocol::Exec {
            argv: request.command.clone(),
            env,
            cwd: Some(self.absolute(&request.cwd)),
            user: None,
            timeout_ms: Some(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
            stdin: false,
        }
    }
}

impl Slot {
    /// A command that has ended.
    async fn ended(self: &Arc<Self>, sequence: u64) -> Result<ExecRecord> {
        let slot = Arc::clone(self);
        blocking(move || {
            let kept = slot.execs.has_ended(sequence);
            let record = kept.then(|| slot.execs.journal().read(sequence)).flatten();
            record.ok_or_else(|| {
                Error::new(
                    Code::ExecNotFound,
                    format!("the journal of {} has no command {sequence}", slot.id()),
                    format!(
                        "see `pyro workspace logs {}`; old commands are dropped",
                        slot.id()
                    ),
                )
            })
        })
        .await
    }
}

/// A path of the guest; relative ones start at `/workspace`.
pub(super) fn absolute(path: &str) -> String {
    match path {
        "" | "." => WORKSPACE_ROOT.to_string(),
        path if path.starts_with('/') => path.to_string(),
        path => format!("{WORKSPACE_ROOT}/{path}"),
    }
}

/// Refuses what no guest could run.
pub(super) fn check(request: &ExecRequest) -> Result<()> {
    check_argv(&request.command)?;
    if !(1..=MAX_SECONDS).contains(&request.timeout_seconds) {
        return Err(Error::new(
            Code::TimeOutOfRange,
            format!(
                "a timeout of {} seconds is not possible",
                request.timeout_seconds
            ),
            format!("pass 1 to {MAX_SECONDS} seconds"),
        ));
    }
    if request.cwd.is_empty() || request.cwd.len() > MAX_CWD || request.cwd.contains('\0') {
        return Err(Error::new(
            Code::InvalidPath,
            "the working directory cannot be a path",
            "pass the path of a directory in the guest",
        ));
    }
    let bytes: usize = request
        .env
        .iter()
        .map(|(key, value)| key.len() + value.len() + 2)
        .sum();
    let odd = request
        .env
        .iter()
        .find(|(key, value)| key.is_empty() || key.contains(['=', '\0']) || value.contains('\0'));
    if odd.is_some() || request.env.len() > MAX_VARIABLES || bytes > MAX_VARIABLE_BYTES {
        return Err(Error::new(
            Code::InvalidEnvironment,
            match odd {
                Some((key, _)) => format!("the variable {key:?} cannot be set"),
                None => "the command's variables are too many or too long".to_string(),
            },
            "pass names without `=`, values without NUL bytes, and at most 128 KiB of both",
        ));
    }
    Ok(())
}

fn orphaned() -> Error {
    Error::new(
        Code::CommandLost,
        "the guest ended while the command ran",
        "run it again",
    )
}
