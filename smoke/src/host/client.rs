//! Runs one command in the host as if it ran here.

use std::io::{BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Resource;

use super::start::Lease;
use super::streams::Patient;
use super::{HostDir, dirs, signals, terminal};
use crate::flow::{self, Credit, Inlet, Outbox};
use crate::wire::{self, Event, Exec, GENERATION, Hello, Kind, Request, Status, Stream};

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The command ended.
    Exited(Status),
    /// It could not be run; the exit code that a shell has for that, and a sentence.
    NotRun(u8, String),
}

impl Ending {
    /// Ends this process the way the command ended.
    #[must_use]
    pub fn imitate(self) -> ExitCode {
        match self {
            Self::Exited(Status::Code(code)) => ExitCode::from(code),
            Self::Exited(Status::Signal(signal)) => {
                // The command may have dumped core; there is nothing of interest in ours.
                let none = rustix::process::Rlimit {
                    current: Some(0),
                    maximum: Some(0),
                };
                let _ = rustix::process::setrlimit(Resource::Core, none);
                let _ = signal_hook::low_level::emulate_default_handler(signal);
                if let Some(signal) = rustix::process::Signal::from_named_raw(signal) {
                    let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
                }
                ExitCode::from(128u8.wrapping_add(signal.to_le_bytes()[0]))
            }
            Self::NotRun(code, message) => {
                eprintln!("pyro-smoke: {message}");
                ExitCode::from(code)
            }
        }
    }
}

/// Runs `exec` with this process's streams and signals, and says how it ended.
///
/// # Errors
/// When the host cannot be reached or ends under the command.
pub fn run(host: &HostDir, lease: &Lease, exec: Exec) -> Result<Ending> {
    let connection = TcpStream::connect((Ipv4Addr::LOCALHOST, lease.state.port))
        .with_context(|| gone(host, "cannot be reached"))?;
    connection.set_nodelay(true)?;
    let outbox = Outbox::new(Box::new(connection.try_clone()?));
    let hello = Hello {
        generation: GENERATION,
        token: lease.state.token.clone(),
        request: Request::Exec(exec),
    };
    let from = Box::new(connection.try_clone()?);
    let ending = attend(from, &outbox, &hello);
    let _ = connection.shutdown(Shutdown::Both);
    ending.with_context(|| gone(host, "ended while the command ran"))
}

fn gone(host: &HostDir, what: &str) -> String {
    // The supervisor needs a moment to notice and to write down why.
    for _ in 0..50 {
        if !host.is_alive().unwrap_or(false) {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    let log = dirs::tail(&host.file(dirs::LOG), 8);
    let console = dirs::tail(&host.file(dirs::CONSOLE), 8);
    format!("the emulated host {what}\n{log}\n{console}")
}

/// Sends `hello`, which must ask for an exec, and serves the command until it ends.
///
/// # Errors
/// When the connection ends before the command.
pub fn attend(from: Box<dyn Read>, outbox: &Outbox, hello: &Hello) -> Result<Ending> {
    let Request::Exec(exec) = &hello.request else {
        bail!("not an exec")
    };
    outbox.message(hello).context("the connection is closed")?;
    let raw = if exec.terminal.is_some() {
        Some(terminal::Raw::enter()?)
    } else {
        None
    };
    let started = Arc::new(AtomicBool::new(false));
    signals::forward(outbox, exec.terminal.is_some(), &started)?;
    let stdin = Arc::new(Credit::default());
    let mut stdout = Some(Inlet::start(
        Stream::Stdout,
        Box::new(Patient::duplicate(rustix::stdio::stdout())?),
        outbox.clone(),
    )?);
    let mut stderr = Some(Inlet::start(
        Stream::Stderr,
        Box::new(Patient::duplicate(rustix::stdio::stderr())?),
        outbox.clone(),
    )?);
    let mut from = BufReader::with_capacity(wire::MAX_FRAME, from);
    let ending = loop {
        let frame =
            wire::read_frame(&mut from)?.context("the connection ended before the command did")?;
        match frame.kind {
            Kind::Data | Kind::End => {
                let inlet = match frame.stream {
                    Stream::Stdout => &mut stdout,
                    Stream::Stderr => &mut stderr,
                    Stream::Stdin => bail!("the emulated host sends standard input"),
                };
                if let Some(inlet) = inlet {
                    inlet.take(frame)?;
                }
            }
            Kind::Window if frame.stream == Stream::Stdin => stdin.grant(frame.window()?),
            Kind::Refuse if frame.stream == Stream::Stdin => stdin.close(),
            Kind::Window | Kind::Refuse => bail!("the emulated host grants an output stream"),
            Kind::Message => match frame.message()? {
                Event::Started => {
                    started.store(true, Ordering::Relaxed);
                    feed(&stdin, outbox)?;
                }
                Event::Exited(status) => break Ending::Exited(status),
                Event::Failed { code, message } => break Ending::NotRun(code, message),
                Event::Pong => {}
            },
        }
    };
    for inlet in [stdout.take(), stderr.take()].into_iter().flatten() {
        inlet.finish();
    }
    drop(raw);
    Ok(ending)
}

/// Sends standard input from a thread that nobody waits for: it may hang in a read for ever.
fn feed(credit: &Arc<Credit>, outbox: &Outbox) -> Result<()> {
    let (credit, outbox) = (Arc::clone(credit), outbox.clone());
    let mut stdin = Patient::duplicate(rustix::stdio::stdin())?;
    thread::Builder::new().name("stdin".into()).spawn(move || {
        // When the connection has gone, the reading thread learns it too.
        let _ = flow::send_all(&mut stdin, Stream::Stdin, &credit, &outbox);
    })?;
    Ok(())
}

/// Whether a host answers.
///
/// # Errors
/// When it does not.
pub fn ping(state: &dirs::State) -> Result<()> {
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, state.port))?;
    connection.set_read_timeout(Some(Duration::from_secs(30)))?;
    let hello = Hello {
        generation: GENERATION,
        token: state.token.clone(),
        request: Request::Ping,
    };
    wire::write_message(&mut connection, &hello)?;
    connection.flush()?;
    let answer = wire::read_frame(&mut connection)?.context("the emulated host does not answer")?;
    match answer.message()? {
        Event::Pong => Ok(()),
        other => bail!("the emulated host answers {other:?}"),
    }
}
