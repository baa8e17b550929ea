//! Shells: jobs of the agent with a terminal.
//!
//! The agent keeps the last of their output; every read asks for it anew, so any number of readers may
//! come, also from later daemons. What is read passes the redactor as a whole, from the first byte that
//! is kept, whatever the cursor (`read`).

mod follow;
mod read;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use pyro_agent_protocol::{
    self as protocol, ErrorCode, JobId, JobInfo, JobState, Keep, Request, SignalGroup, Start,
    TerminalSize,
};
use pyro_client::types::{
    ClosedShell, Encoding, ExecRequest, OpenShell, ResizeShell, SHELL_OUTPUT_BYTES, Shell,
    ShellList, ShellSignal, ShellWritten, SignalShell, WriteShell,
};
use serde::{Deserialize, Serialize};

use super::jobs::{self, Attached};
use super::slot::Slot;
use super::{Engine, blocking, exec, to_the_end};
use crate::agent::AgentError;
use crate::error::{Code, Error, Result};
use crate::machine::guest::Guest;
use crate::records::sheets;
use crate::run_dir::unwritable;

pub use follow::ShellStream;

/// Most shells of a workspace.
const MAX_SHELLS: usize = 32;
/// How long a shell may take to take what is typed.
const TYPED_WITHIN: Duration = Duration::from_secs(10);
/// How long a new shell may take to come up before it is said to be open.
const PROMPT_WITHIN: Duration = Duration::from_secs(5);
/// How long a shell may take to end before it is killed.
const GRACE: Duration = Duration::from_secs(1);
/// bash, or sh where there is none.
const SCRIPT: &str = "command -v bash >/dev/null 2>&1 && exec bash -i; exec sh -i";
const FORMAT: u32 = 1;

/// The shells of a workspace.
#[derive(Debug, Default)]
pub(super) struct Shells(Mutex<BTreeMap<String, Sheet>>);

/// A shell as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Sheet {
    format: u32,
    job: JobId,
    shell: Shell,
}

/// Where the records are.
pub(super) fn folder(slot: &Slot) -> PathBuf {
    slot.folder().join("shells")
}

impl Shells {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Sheet>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self) -> u64 {
        self.all().len() as u64
    }

    pub(super) fn forget(&self) {
        self.all().clear();
    }

    /// Reads the records. Blocks.
    pub(super) fn load(&self, slot: &Slot) {
        for sheet in sheets::read::<Sheet>(&folder(slot)) {
            if sheet.format == FORMAT {
                self.all().insert(sheet.shell.shell_id.clone(), sheet);
            }
        }
    }

    fn find(&self, slot: &Slot, id: &str) -> Result<Sheet> {
        self.all().get(id).cloned().ok_or_else(|| missing(slot, id))
    }

    /// Takes in how the shell is by now.
    fn refresh(&self, info: &JobInfo) -> Option<Shell> {
        let mut all = self.all();
        let sheet = all.values_mut().find(|sheet| sheet.job == info.job)?;
        seen(&mut sheet.shell, info);
        Some(sheet.shell.clone())
    }
}

fn seen(shell: &mut Shell, info: &JobInfo) {
    if let Some(size) = info.terminal {
        (shell.cols, shell.rows) = (size.cols(), size.rows());
    }
    if let JobState::Ended { status, .. } = info.state {
        shell.closed = true;
        shell.exit_code = Some(jobs::exit(status).0);
    }
}

fn missing(slot: &Slot, id: &str) -> Error {
    Error::new(
        Code::ShellNotFound,
        format!("the workspace {} has no shell {id:?}", slot.id()),
        format!(
            "see `pyro workspace shell list {}`; shells end when the workspace is stopped or reset",
            slot.id()
        ),
    )
}

fn closed(id: &str) -> Error {
    Error::new(
        Code::ShellClosed,
        format!("the program of the shell {id} has ended"),
        "read what it wrote, then close it and open another one",
    )
}

/// The error for what the agent says of a shell's job.
async fn failed(slot: &Slot, guest: &Guest, id: &str, error: AgentError) -> Error {
    if jobs::is_code(&error, ErrorCode::NotFound) {
        return missing(slot, id);
    }
    if jobs::is_code(&error, ErrorCode::Ended) {
        return closed(id);
    }
    match error {
        AgentError::Refused { message, .. } => slot.living.redactor().ours(Error::new(
            Code::ExecFailed,
            format!("the guest refused: {message}"),
            "give the guest more memory, or run less at once",
        )),
        error => guest.lost(error).await,
    }
}

fn size(cols: u16, rows: u16) -> Result<TerminalSize> {
    TerminalSize::new(cols, rows).ok_or_else(|| {
        Error::new(
            Code::InvalidRequest,
            format!("a terminal cannot have {cols} columns and {rows} rows"),
            "pass 1 to 1000 of each",
        )
    })
}

fn new_id() -> Result<String> {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let random = crate::run_dir::random().map_err(|e| {
        Error::new(Code::Io, "the host gives no random bytes", "report this").caused_by(e)
    })?;
    let mut number = u128::from_ne_bytes(random);
    let mut id = "sh-".to_string();
    for _ in 0..8 {
        let digit = usize::try_from(number % 36).expect("less than 36");
        id.push(char::from(ALPHABET[digit]));
        number /= 36;
    }
    Ok(id)
}

impl Engine {
    /// Opens a shell; answers when it shows its prompt, or after five seconds without one.
    ///
    /// # Errors
    /// [`Code::ShellNotOpened`], [`Code::SecretNotFound`], and those of a request that makes no sense.
    pub async fn shell_open(
        self: &Arc<Self>,
        workspace: &str,
        request: OpenShell,
    ) -> Result<Shell> {
        let terminal = size(request.cols, request.rows)?;
        exec::check(&ExecRequest {
            cwd: request.cwd.clone(),
            env: request.env.clone(),
            ..ExecRequest::new(["sh"])
        })?;
        let slot = self.find(workspace)?;
        let engine = Arc::clone(self);
        to_the_end(async move {
            let operation = engine.begin(&slot)?;
            let secrets = slot.living.secrets();
            let env = secrets.environment(&request.env, &request.secret_env)?;
            // Until it is there: a reset forgets shells.
            let steady = slot.steady().await?;
            let guest = slot.guest()?;
            if slot.living.shells.count() >= MAX_SHELLS as u64 {
                return Err(Error::new(
                    Code::ShellNotOpened,
                    format!("the workspace has {MAX_SHELLS} shells already, which is the most"),
                    "close some with `pyro workspace shell close`",
                ));
            }
            let id = new_id()?;
            let sheet = Sheet {
                format: FORMAT,
                job: id.parse().expect("letters, digits and a dash"),
                shell: Shell {
                    workspace_id: slot.id().to_string(),
                    shell_id: id,
                    cwd: engine.absolute(&request.cwd),
                    cols: request.cols,
                    rows: request.rows,
                    opened_at: Timestamp::now(),
                    closed: false,
                    exit_code: None,
                },
            };
            // The record comes first: a daemon that finds it finds the job or forgets it.
            if let Err(error) = note(&slot, &sheet).await {
                forget(&slot, &sheet.shell.shell_id).await;
                return Err(error);
            }
            let start = Start {
                job: sheet.job.clone(),
                exec: protocol::Exec {
                    argv: ["/bin/sh", "-c", SCRIPT].map(str::to_string).to_vec(),
                    env,
                    cwd: Some(sheet.shell.cwd.clone()),
                    user: None,
                    timeout_ms: None,
                    stdin: true,
                },
                output: Keep::Tail {
                    bytes: SHELL_OUTPUT_BYTES,
                },
                terminal: Some(terminal),
                hold: false,
            };
            let mut attached = match Attached::start(&guest, start).await {
                Ok(attached) => attached,
                Err(error) => {
                    forget(&slot, &sheet.shell.shell_id).await;
                    let error = not_opened(&guest, error).await;
                    return Err(slot.living.redactor().ours(error));
                }
            };
            drop(steady);
            // The first that it writes is its prompt; an interrupt before that would end it. One that
            // says nothing, or has ended already, is open nevertheless: reads tell.
            let _ = tokio::time::timeout(PROMPT_WITHIN, attached.next()).await;
            operation.changed();
            Ok(sheet.shell)
        })
        .await
    }

    /// A workspace's shells, oldest first.
    pub async fn shell_list(&self, workspace: &str) -> Result<ShellList> {
        let slot = self.find(workspace)?;
        if slot.living.shells.count() > 0
            && let Ok(guest) = slot.guest()
        {
            for info in jobs::all(&guest).await.unwrap_or_default() {
                slot.living.shells.refresh(&info);
            }
        }
        let mut shells: Vec<Shell> = {
            let all = slot.living.shells.all();
            all.values().map(|sheet| sheet.shell.clone()).collect()
        };
        shells.sort_by_key(|shell| shell.opened_at);
        Ok(ShellList {
            workspace_id: slot.id().to_string(),
            count: shells.len() as u64,
            shells,
        })
    }

    /// Types into a shell; answers when its terminal has taken all.
    ///
    /// # Errors
    /// [`Code::ShellNotFound`], [`Code::ShellClosed`], and [`Code::ShellBusy`] when what runs there
    /// does not read.
    pub async fn shell_write(
        self: &Arc<Self>,
        workspace: &str,
        shell: &str,
        request: WriteShell,
    ) -> Result<ShellWritten> {
        let mut bytes = match request.encoding {
            Encoding::Utf8 => request.input.into_bytes(),
            Encoding::Base64 => BASE64.decode(&request.input).map_err(|error| {
                Error::new(
                    Code::InvalidRequest,
                    "the input is not base64",
                    "pass it as text, or encode it",
                )
                .caused_by(error)
            })?,
        };
        if request.newline {
            // What the Enter key sends; the terminal makes a newline of it for those who want one.
            bytes.push(b'\r');
        }
        let (slot, id) = (self.find(workspace)?, shell.to_string());
        let engine = Arc::clone(self);
        to_the_end(async move {
            let operation = engine.begin(&slot)?;
            let sheet = slot.living.shells.find(&slot, &id)?;
            let guest = slot.guest()?;
            let written = jobs::write(&guest, &sheet.job, &bytes, TYPED_WITHIN).await;
            match written {
                Ok(()) => {}
                Err(AgentError::Lost(error)) if error.kind() == std::io::ErrorKind::TimedOut => {
                    return Err(Error::new(
                        Code::ShellBusy,
                        format!("what runs in the shell {id} does not take what is typed"),
                        "wait for it, or end it with `pyro workspace shell signal`",
                    ));
                }
                Err(error) => return Err(failed(&slot, &guest, &id, error).await),
            }
            operation.changed();
            Ok(ShellWritten {
                workspace_id: slot.id().to_string(),
                shell_id: id,
                bytes_written: bytes.len() as u64,
            })
        })
        .await
    }

    /// Sends a signal to what runs in the foreground of a shell.
    ///
    /// # Errors
    /// [`Code::ShellNotFound`].
    pub async fn shell_signal(
        self: &Arc<Self>,
        workspace: &str,
        shell: &str,
        request: SignalShell,
    ) -> Result<Shell> {
        let number = match request.signal {
            ShellSignal::Hup => 1,
            ShellSignal::Int => 2,
            ShellSignal::Kill => 9,
            ShellSignal::Term => 15,
        };
        self.change(workspace, shell, |job| Request::SignalJob {
            job,
            signal: number,
            group: SignalGroup::Foreground,
        })
        .await
    }

    /// Gives a shell's terminal another size. That is no activity: a terminal does it by itself.
    ///
    /// # Errors
    /// [`Code::ShellNotFound`].
    pub async fn shell_resize(
        self: &Arc<Self>,
        workspace: &str,
        shell: &str,
        request: ResizeShell,
    ) -> Result<Shell> {
        let size = size(request.cols, request.rows)?;
        let slot = self.find(workspace)?;
        let _operation = self.begin(&slot)?;
        // Until it is written down: a reset forgets shells.
        let _steady = slot.steady().await?;
        let sheet = slot.living.shells.find(&slot, shell)?;
        let guest = slot.guest()?;
        let job = sheet.job.clone();
        match jobs::ask(&guest, &Request::ResizeJob { job, size }).await {
            Ok(()) => {}
            Err(error) => return Err(failed(&slot, &guest, shell, error).await),
        }
        let resized = {
            let mut all = slot.living.shells.all();
            all.get_mut(shell).map(|sheet| {
                (sheet.shell.cols, sheet.shell.rows) = (request.cols, request.rows);
                sheet.clone()
            })
        };
        let sheet = resized.ok_or_else(|| missing(&slot, shell))?;
        note(&slot, &sheet).await?;
        Ok(sheet.shell)
    }

    async fn change(
        self: &Arc<Self>,
        workspace: &str,
        shell: &str,
        request: impl FnOnce(JobId) -> Request,
    ) -> Result<Shell> {
        let slot = self.find(workspace)?;
        let operation = self.begin(&slot)?;
        let sheet = slot.living.shells.find(&slot, shell)?;
        let guest = slot.guest()?;
        if let Err(error) = jobs::ask(&guest, &request(sheet.job)).await {
            return Err(failed(&slot, &guest, shell, error).await);
        }
        operation.changed();
        Ok(slot.living.shells.find(&slot, shell)?.shell)
    }

    /// Ends a shell with all that runs in it, and forgets what it wrote.
    ///
    /// # Errors
    /// [`Code::ShellNotFound`].
    pub async fn shell_close(
        self: &Arc<Self>,
        workspace: &str,
        shell: &str,
    ) -> Result<ClosedShell> {
        let (slot, id) = (self.find(workspace)?, shell.to_string());
        let engine = Arc::clone(self);
        to_the_end(async move {
            let operation = engine.begin(&slot)?;
            let sheet = slot.living.shells.find(&slot, &id)?;
            if let Ok(guest) = slot.guest() {
                end(&guest, &sheet.job).await;
            }
            forget(&slot, &id).await;
            operation.changed();
            Ok(ClosedShell {
                workspace_id: slot.id().to_string(),
                shell_id: id,
                closed: true,
            })
        })
        .await
    }
}

/// Forgets shells that the last daemon had noted and not yet opened when it ended. The caller has the
/// workspace alone.
pub(super) async fn reattach(slot: &Arc<Slot>, guest: &Guest) {
    if slot.living.shells.count() == 0 {
        return;
    }
    // Without an answer they stay: what is there must not be lost.
    let Ok(jobs) = jobs::all(guest).await else {
        return;
    };
    let gone: Vec<String> = {
        let all = slot.living.shells.all();
        let unknown = |sheet: &&Sheet| jobs.iter().all(|info| info.job != sheet.job);
        let unknown = all.values().filter(unknown);
        unknown.map(|sheet| sheet.shell.shell_id.clone()).collect()
    };
    for id in gone {
        forget(slot, &id).await;
    }
}

/// Hangs up, kills what is left, and lets the agent forget. Whatever it answers, the shell is gone for
/// us.
async fn end(guest: &Guest, job: &JobId) {
    const SIGHUP: u8 = 1;
    for group in [SignalGroup::Foreground, SignalGroup::Program] {
        let _ = jobs::signal(guest, job, SIGHUP, group).await;
    }
    let over = async {
        let mut attached = Attached::to(guest, job, u64::MAX, true).await.ok()?;
        while !matches!(attached.next().await.ok()?, jobs::Next::Exited(_)) {}
        Some(())
    };
    let mut over = std::pin::pin!(over);
    let _ = tokio::time::timeout(GRACE, &mut over).await;
    let _ = jobs::cancel(guest, job).await;
    let again = async {
        let mut attached = Attached::to(guest, job, u64::MAX, true).await.ok()?;
        while !matches!(attached.next().await.ok()?, jobs::Next::Exited(_)) {}
        Some(())
    };
    let _ = tokio::time::timeout(jobs::ANSWER, again).await;
    let _ = jobs::forget(guest, job).await;
}

async fn note(slot: &Arc<Slot>, sheet: &Sheet) -> Result<()> {
    let id = sheet.shell.shell_id.clone();
    slot.living.shells.all().insert(id.clone(), sheet.clone());
    let (folder, sheet) = (folder(slot), sheet.clone());
    blocking(move || {
        sheets::write(&folder, &id, &sheet).map_err(|error| unwritable(&folder, error))
    })
    .await
}

async fn forget(slot: &Arc<Slot>, id: &str) {
    slot.living.shells.all().remove(id);
    let (folder, name) = (folder(slot), id.to_string());
    let removed = blocking(move || {
        sheets::remove(&folder, &name).map_err(|error| unwritable(&folder, error))
    });
    if let Err(error) = removed.await {
        tracing::warn!(workspace = %slot.id(), %error, "cannot forget a shell");
    }
}

async fn not_opened(guest: &Guest, error: AgentError) -> Error {
    let AgentError::Refused { code, message } = error else {
        return guest.lost(error).await;
    };
    let (code, remedy) = match code {
        ErrorCode::BadCwd => (Code::FileNotFound, "pass a working directory that is there"),
        _ => (
            Code::ShellNotOpened,
            "give the guest more memory, or run less at once",
        ),
    };
    Error::new(
        code,
        format!("the shell cannot be opened: {message}"),
        remedy,
    )
}
