//! One command in a VM of its own: boot, run, leave nothing behind.
//!
//! [`prepare`] finds out whether it can work, and makes nothing yet. [`Prepared::run`] does it, and
//! whatever happens in it (an error, an interrupt, the VM's time to live), it returns only when
//! the monitor is gone and its directory removed.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pyro_agent_protocol as protocol;
use pyro_agent_protocol::{ErrorCode, ExitStatus};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::engine::Cidr;
use crate::error::{Code, Error, Result};
use crate::exec::{ExecError, Outcome, Streams, exec};
use crate::kvm;
use crate::limits::{Host, Limits, Wanted};
pub use crate::machine::Ready;
use crate::machine::net::{self, NetSpec};
use crate::machine::{Artefacts, Ended, Finished, Machine, Spec};
use crate::paths::Paths;
use crate::run_dir::RunDir;

/// How long a guest may take until its agent is ready: a second on hardware, and a minute on an
/// emulated host that is busy.
const BOOT_DEADLINE: Duration = Duration::from_secs(120);
/// What the agent gets on top of a command's time to kill it and say so.
const TIMEOUT_GRACE: Duration = Duration::from_secs(10);
/// Longest command line: what the guest's kernel takes is less.
const MAX_ARGV_BYTES: usize = 128 * 1024;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Added to the agent's default environment.
    pub env: BTreeMap<String, String>,
    /// Size and times.
    pub wanted: Wanted,
    /// Copies the guest's console to our standard error. Slow.
    pub debug_console: bool,
    /// Ranges that the guest may reach although they would be refused; without a value it has no
    /// network.
    pub egress: Option<Vec<Cidr>>,
}

/// A run that can start: everything that can be known before is checked.
#[derive(Debug)]
pub struct Prepared {
    limits: Limits,
    kvm: File,
    monitor: PathBuf,
    agent: PathBuf,
    net: Option<PathBuf>,
    runs: PathBuf,
    request: Request,
}

/// How a run ended that was not interrupted.
#[derive(Debug, Clone)]
pub struct Report {
    /// How the command ended.
    pub end: CommandEnd,
    /// From the start of the monitor to the agent's greeting.
    pub boot: Duration,
    /// From the start of the monitor until the VM was gone.
    pub total: Duration,
    /// How long the command ran, on the guest's clock; zero when it did not start.
    pub command: Duration,
    /// For [`CommandEnd::TimedOut`]: whether it was the VM's time to live that was up.
    pub ttl_expired: bool,
    /// `uname -r` of the guest.
    pub kernel_release: String,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandEnd {
    /// It called exit.
    Exited(u8),
    /// A signal ended it.
    Signalled(u8),
    /// Its time was up; it was killed with all it started.
    TimedOut,
    /// There is no such program.
    NotFound(String),
    /// The program exists and cannot be executed.
    NotExecutable(String),
}

impl CommandEnd {
    /// What a shell would give: 0 to 255, 128 + n for signal n, 124 for a timeout, 126 and 127
    /// for a command that cannot be executed or found.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Exited(code) => *code,
            Self::Signalled(signal) => 128u8.saturating_add(*signal),
            Self::TimedOut => 124,
            Self::NotExecutable(_) => 126,
            Self::NotFound(_) => 127,
        }
    }
}

/// A run that is over.
#[derive(Debug)]
pub enum Run<T> {
    /// It ran to its end.
    Finished(Report),
    /// The caller's interrupt came first.
    Interrupted(T),
    /// The caller's output could not be written any more.
    OutputClosed(std::io::Error),
}

/// Checks everything that can be known without making anything: limits, command, KVM, programs.
pub async fn prepare(paths: &Paths, request: Request) -> Result<Prepared> {
    let limits = Limits::check(&request.wanted, &Host::measure())?;
    check_argv(&request.argv)?;
    let monitor = paths.monitor.find()?.to_path_buf();
    let agent = paths.agent.find()?.to_path_buf();
    let net = match &request.egress {
        Some(_) => Some(paths.net.find()?.to_path_buf()),
        None => None,
    };
    let kvm = kvm::open_usable(paths).await?;
    Ok(Prepared {
        limits,
        kvm,
        monitor,
        agent,
        net,
        runs: paths.runs(),
        request,
    })
}

/// Refuses command lines that no guest could run.
pub fn check_argv(argv: &[String]) -> Result<()> {
    let problem = match argv.first() {
        None => "there is no command",
        Some(program) if program.is_empty() => "the command's name is empty",
        Some(_) if argv.iter().any(|arg| arg.contains('\0')) => "an argument holds a NUL byte",
        Some(_) if argv.iter().map(|arg| arg.len() + 1).sum::<usize>() > MAX_ARGV_BYTES => {
            "the command is longer than 128 KiB"
        }
        Some(_) => return Ok(()),
    };
    Err(Error::new(
        Code::InvalidCommand,
        problem,
        "put the command and its arguments after `--`; send long input on standard input",
    ))
}

impl Prepared {
    /// The checked limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Boots, runs the command, ends the VM and removes what it left. `interrupt` may end it at
    /// any moment. `on_ready` is called when the agent is ready, just before the command starts.
    pub async fn run<I, O, E, T>(
        self,
        artefacts: Artefacts,
        streams: Streams<I, O, E>,
        interrupt: impl Future<Output = T>,
        on_ready: impl FnOnce(&Ready),
    ) -> Result<Run<T>>
    where
        I: AsyncRead + Unpin,
        O: AsyncWrite + Unpin,
        E: AsyncWrite + Unpin,
    {
        let started = Instant::now();
        let Self {
            limits,
            kvm,
            monitor,
            agent,
            net,
            runs,
            request,
        } = self;
        let mut artefacts = artefacts;
        let net = match &net {
            None => None,
            Some(program) => Some(NetSpec {
                program,
                modules: artefacts
                    .network_modules
                    .take()
                    .ok_or_else(|| net::no_modules("that is installed"))?,
                egress_allow: request.egress.clone().unwrap_or_default(),
                publishes: false,
            }),
        };
        let mut machine = Machine::spawn(Spec {
            limits,
            kvm,
            monitor: &monitor,
            agent: &agent,
            artefacts,
            net,
            run: RunDir::create(&runs)?,
            hostname: "pyro".to_string(),
            operations: 1,
            debug_console: request.debug_console,
        })?;
        let result = tokio::select! {
            biased;
            interrupt = interrupt => Ok(Run::Interrupted(interrupt)),
            result = drive(&mut machine, &request, &limits, started, streams, on_ready) => result,
            () = tokio::time::sleep(limits.ttl() + TIMEOUT_GRACE) => Err(ttl_expired(&limits)),
        };
        let finished = machine.finish().await;
        conclude(result, finished, started)
    }
}

async fn drive<I, O, E, T>(
    machine: &mut Machine,
    request: &Request,
    limits: &Limits,
    started: Instant,
    streams: Streams<I, O, E>,
    on_ready: impl FnOnce(&Ready),
) -> Result<Run<T>>
where
    I: AsyncRead + Unpin,
    O: AsyncWrite + Unpin,
    E: AsyncWrite + Unpin,
{
    let ready = match machine.wait_ready(BOOT_DEADLINE.min(limits.ttl())).await {
        Err(error) if started.elapsed() >= limits.ttl() => {
            return Err(ttl_expired(limits).with_detail(error.detail().unwrap_or_default()));
        }
        ready => ready?,
    };
    on_ready(&ready);
    let left = limits.ttl().saturating_sub(started.elapsed());
    let timeout = limits.timeout().min(left);
    let ttl_is_shorter = left < limits.timeout();
    if timeout.is_zero() {
        return Err(ttl_expired(limits));
    }
    let stream = machine.connect().await?;
    let command = protocol::Exec {
        argv: request.argv.clone(),
        env: request.env.clone(),
        cwd: None,
        user: None,
        timeout_ms: Some(
            u64::try_from(timeout.as_millis())
                .unwrap_or(u64::MAX)
                .max(1),
        ),
        stdin: false,
    };
    let ended = machine.ended();
    let running = exec(stream, command, streams);
    let result = tokio::select! {
        // The command's own end first: a guest that powers off as its last act has ended it.
        biased;
        result = running => result,
        // The agent enforces the timeout; this is for one that does not, or cannot.
        () = tokio::time::sleep(timeout + TIMEOUT_GRACE) => {
            Ok(Outcome::Ended { status: ExitStatus::TimedOut, duration: timeout })
        }
        ended = ended => return Err(machine.ended_early(&ended)),
    };
    let outcome = match result {
        Ok(outcome) => outcome,
        Err(ExecError::Output(error)) => return Ok(Run::OutputClosed(error)),
        Err(error @ ExecError::TooLong(_)) => {
            let remedy = "send long input on standard input";
            return Err(Error::new(Code::InvalidCommand, error.to_string(), remedy));
        }
        Err(error) => return Err(machine.lost(error).await),
    };
    let (end, command) = command_end(outcome)?;
    Ok(Run::Finished(Report {
        boot: ready.boot,
        total: Duration::ZERO,
        command,
        ttl_expired: ttl_is_shorter && end == CommandEnd::TimedOut,
        end,
        kernel_release: ready.kernel_release,
    }))
}

fn command_end(outcome: Outcome) -> Result<(CommandEnd, Duration)> {
    match outcome {
        Outcome::Ended { status, duration } => {
            let end = match status {
                ExitStatus::Code { code } => CommandEnd::Exited(code),
                ExitStatus::Signal { signal } => CommandEnd::Signalled(signal),
                ExitStatus::TimedOut => CommandEnd::TimedOut,
            };
            Ok((end, duration))
        }
        Outcome::Refused {
            code: ErrorCode::CommandNotFound,
            message,
        } => Ok((CommandEnd::NotFound(message), Duration::ZERO)),
        Outcome::Refused {
            code: ErrorCode::CommandNotExecutable,
            message,
        } => Ok((CommandEnd::NotExecutable(message), Duration::ZERO)),
        Outcome::Refused { code, message } => {
            let remedy = match code {
                ErrorCode::OutOfResources => "give the guest more memory (--mem-mib)",
                _ => "check the command; when it is right, report this",
            };
            Err(Error::new(
                Code::ExecFailed,
                format!("the guest refused: {message}"),
                remedy,
            ))
        }
    }
}

/// Adds to the result what only the end of the VM shows.
fn conclude<T>(result: Result<Run<T>>, finished: Finished, started: Instant) -> Result<Run<T>> {
    let Finished {
        ended,
        monitor,
        stderr,
        removed,
    } = finished;
    match result {
        Ok(Run::Finished(report)) => {
            removed?;
            Ok(Run::Finished(Report {
                total: started.elapsed(),
                ..report
            }))
        }
        Ok(run) => Ok(run),
        Err(error) if error.detail().is_none() => {
            let mut detail = stderr;
            if let (Ended::Silently, Some(status)) = (&ended, monitor) {
                detail = format!("{detail}\nthe monitor ended with {status}");
            }
            Err(error.with_detail(detail.trim()))
        }
        Err(error) => Err(error),
    }
}

fn ttl_expired(limits: &Limits) -> Error {
    Error::new(
        Code::TtlExpired,
        format!(
            "the VM's time to live of {} seconds was over",
            limits.ttl().as_secs()
        ),
        "pass a larger --ttl-seconds",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        let text = String::new;
        let cases = [
            (CommandEnd::Exited(7), 7),
            (CommandEnd::Signalled(9), 137),
            (CommandEnd::TimedOut, 124),
            (CommandEnd::NotExecutable(text()), 126),
            (CommandEnd::NotFound(text()), 127),
            (CommandEnd::Signalled(255), 255),
        ];
        for (end, code) in cases {
            assert_eq!(end.exit_code(), code, "{end:?}");
        }
    }

    #[test]
    fn commands_that_no_guest_could_run_are_refused() {
        let long = "x".repeat(MAX_ARGV_BYTES);
        for argv in [vec![], vec![""], vec!["a\0b"], vec![long.as_str()]] {
            let argv: Vec<String> = argv.into_iter().map(str::to_string).collect();
            assert_eq!(
                check_argv(&argv).expect_err("refused").code(),
                Code::InvalidCommand
            );
        }
        check_argv(&["true".to_string(), String::new()]).expect("an empty argument is one");
    }

    #[test]
    fn other_refusals_are_the_products_failure() {
        let refused = Outcome::Refused {
            code: ErrorCode::OutOfResources,
            message: "no".into(),
        };
        assert_eq!(
            command_end(refused).expect_err("an error").code(),
            Code::ExecFailed
        );
    }
}
