//! One command in a VM of its own, as events.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use pyro_client::types::{
    CAPTURE_BYTES, ExecState, NetworkPolicy, RunEvent, RunRequest, RunResult,
};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;

use super::exec::Ends;
use super::{Cidr, Engine, blocking, milliseconds};
use crate::environments::{self, Opened};
use crate::error::{Code, Error, Result};
use crate::exec::Streams;
use crate::limits::Wanted;
use crate::oneshot::{self, CommandEnd, Prepared, Report, Request, Run};
use crate::paths::Paths;

/// Events that wait for whoever takes them.
const EVENTS: usize = 8;
/// Bytes of output between the guest and us.
const CHUNK: usize = 64 * 1024;

/// A run's events as they come: `started` first unless it fails before, `ended` or `failed` last.
///
/// Whoever does not take them slows the command down. Dropping it ends the VM.
#[derive(Debug)]
pub struct RunStream {
    events: mpsc::Receiver<RunEvent>,
}

impl RunStream {
    /// The next event; `None` after the last. Cancel safe.
    pub async fn next(&mut self) -> Option<RunEvent> {
        self.events.recv().await
    }
}

impl Engine {
    /// Boots a VM for one command and leaves nothing behind. What can be known before anything is
    /// made is checked before it answers; a missing environment is pulled then, unless that is to be
    /// refused.
    ///
    /// # Errors
    /// Those of limits, the command, the environment, and a host that cannot run guests.
    pub async fn run(self: &Arc<Self>, request: RunRequest) -> Result<RunStream> {
        self.run_with_input(request, None::<tokio::io::Empty>).await
    }

    /// The same; the command's standard input is read from `stdin` as fast as the guest takes it,
    /// and is empty when there is none.
    pub async fn run_with_input(
        self: &Arc<Self>,
        request: RunRequest,
        stdin: Option<impl AsyncRead + Unpin + Send + 'static>,
    ) -> Result<RunStream> {
        let recipe = environments::recipe(&request.environment)?;
        let prepared =
            oneshot::prepare(&self.paths, wanted(&request, &self.options.egress_allow)?).await?;
        let paths = self.paths.clone();
        let open = move |pull| environments::open_or_pull(&paths, recipe, pull);
        let opened = match request.pull {
            true => Err(open),
            false => Ok(blocking(move || open(false)).await?),
        };
        let (sender, events) = mpsc::channel(EVENTS);
        let occupied = self.occupancy.enter();
        tokio::spawn(async move {
            let _occupied = occupied;
            let opened = match opened {
                Ok(opened) => Ok(opened),
                Err(open) => blocking(move || open(true)).await,
            };
            let ended = match opened {
                Ok(opened) => follow(prepared, opened, request, stdin, &sender).await,
                Err(error) => Err(error),
            };
            let event = match ended {
                Ok(Some(result)) => RunEvent::Ended {
                    result: Box::new(result),
                },
                // Nobody listens any more.
                Ok(None) => return,
                Err(error) => RunEvent::Failed {
                    error: error.to_api(),
                },
            };
            let _ = sender.send(event).await;
        });
        Ok(RunStream { events })
    }
}

/// Finds out whether a run can work on this host, without making anything.
///
/// # Errors
/// As of [`Engine::run`], but for the environment.
pub async fn check(paths: &Paths, request: &RunRequest) -> Result<()> {
    oneshot::prepare(paths, wanted(request, &[])?).await?;
    Ok(())
}

fn wanted(request: &RunRequest, egress_allow: &[Cidr]) -> Result<Request> {
    // A run has no services, so it has no ports to publish.
    let egress = (request.network != NetworkPolicy::Off).then(|| egress_allow.to_vec());
    Ok(Request {
        egress,
        argv: request.command.clone(),
        env: BTreeMap::new(),
        wanted: Wanted {
            vcpu_count: request.vcpu_count,
            memory_mib: request.mem_mib,
            timeout_seconds: request.timeout_seconds,
            ttl_seconds: request.ttl_seconds,
        },
        // Nobody would see it.
        debug_console: false,
    })
}

/// Runs it to its end; `None` when nobody listened to the end.
async fn follow(
    prepared: Prepared,
    opened: Opened,
    request: RunRequest,
    stdin: Option<impl AsyncRead + Unpin>,
    sender: &mpsc::Sender<RunEvent>,
) -> Result<Option<RunResult>> {
    let (stdout, mut from_stdout) = tokio::io::duplex(CHUNK);
    let (stderr, mut from_stderr) = tokio::io::duplex(CHUNK);
    let streams = Streams {
        stdin,
        stdout,
        stderr,
    };
    let (ready, started) = tokio::sync::oneshot::channel();
    let running = prepared.run(opened.artefacts, streams, sender.closed(), move |told| {
        // The other end lives as long as this.
        let _ = ready.send(RunEvent::Started {
            kernel_release: told.kernel_release.clone(),
            boot_ms: milliseconds(told.boot),
        });
    });
    let output = async {
        if let Ok(event) = started.await {
            let _ = sender.send(event).await;
        }
        tokio::join!(
            relay(&mut from_stdout, sender, |data| RunEvent::Stdout { data }),
            relay(&mut from_stderr, sender, |data| RunEvent::Stderr { data }),
        )
    };
    let (ran, (stdout, stderr)) = tokio::join!(running, output);
    match ran? {
        Run::Finished(report) => Ok(Some(result(request, report, &stdout, &stderr))),
        Run::Interrupted(()) | Run::OutputClosed(_) => Ok(None),
    }
}

/// Passes output on as it comes, and keeps the ends of it.
async fn relay(
    from: &mut (impl AsyncRead + Unpin),
    sender: &mpsc::Sender<RunEvent>,
    event: impl Fn(String) -> RunEvent,
) -> Ends {
    let mut ends = Ends::new(CAPTURE_BYTES);
    let mut chunk = vec![0; CHUNK];
    while let Ok(n @ 1..) = from.read(&mut chunk).await {
        ends.push(&chunk[..n]);
        // Whoever does not listen any more is noticed by the run itself.
        let _ = sender.send(event(BASE64.encode(&chunk[..n]))).await;
    }
    ends
}

fn result(request: RunRequest, report: Report, stdout: &Ends, stderr: &Ends) -> RunResult {
    let told =
        |code: Code, message: &str, remedy: &str| Some(Error::new(code, message, remedy).to_api());
    let check = "check the command; `sh -c` runs a line of shell";
    let (state, signal, error) = match &report.end {
        CommandEnd::Exited(_) => (ExecState::Exited, None, None),
        CommandEnd::Signalled(signal) => (ExecState::Signalled, Some(*signal), None),
        CommandEnd::TimedOut if report.ttl_expired => (
            ExecState::TimedOut,
            None,
            told(
                Code::TtlExpired,
                "the command was killed because the VM's time to live was up",
                "pass a larger --ttl-seconds",
            ),
        ),
        CommandEnd::TimedOut => (ExecState::TimedOut, None, None),
        CommandEnd::NotFound(message) => (
            ExecState::NotStarted,
            None,
            told(Code::CommandNotFound, message, check),
        ),
        CommandEnd::NotExecutable(message) => (
            ExecState::NotStarted,
            None,
            told(Code::CommandNotExecutable, message, check),
        ),
    };
    RunResult {
        environment: request.environment,
        command: request.command,
        state,
        exit_code: report.end.exit_code(),
        signal,
        timed_out: report.end == CommandEnd::TimedOut,
        stdout: stdout.text(),
        stderr: stderr.text(),
        stdout_bytes: stdout.total(),
        stderr_bytes: stderr.total(),
        stdout_truncated: stdout.truncated(),
        stderr_truncated: stderr.truncated(),
        vcpu_count: request.vcpu_count,
        mem_mib: request.mem_mib,
        kernel_release: report.kernel_release,
        boot_ms: milliseconds(report.boot),
        command_ms: milliseconds(report.command),
        total_ms: milliseconds(report.total),
        error,
    }
}
