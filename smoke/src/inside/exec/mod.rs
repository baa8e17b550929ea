//! Runs one command for one client.
//!
//! Threads: this one reads the client's frames; one writes standard input; one per output stream
//! reads and sends under credit; one waits for the process. The operation ends when the *process*
//! ends: what its pipes hold at that moment is still sent, a background child that keeps them open
//! is not waited for. When the client goes first, everything that the command started is killed.

mod cgroup;
mod streams;

use std::ffi::OsStr;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::process::{self, Pid, Signal, WaitId, WaitIdOptions};

use self::cgroup::Cgroup;
use self::streams::{Origin, Output, Plumbing, pump, resize};
use crate::flow::{self, Inlet, Outbox};
use crate::spawn;
use crate::wire::{self, Control, Event, Exec, Frame, Kind, Status, Stream};

const HOME: &str = "/root";
const ENVIRONMENT: &[(&str, &str)] = &[
    ("HOME", HOME),
    ("LANG", "C.UTF-8"),
    ("LOGNAME", "root"),
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("SHELL", "/bin/bash"),
    ("USER", "root"),
];

/// Runs `request` and serves its client until both have ended.
///
/// # Errors
/// When the client has gone or sends what makes no sense.
pub fn run(request: &Exec, mut from: Box<dyn Read + Send>, outbox: &Outbox) -> io::Result<()> {
    let started = match Started::new(request, outbox) {
        Ok(started) => started,
        Err((code, message)) => return outbox.message(&Event::Failed { code, message }),
    };
    let Started {
        child,
        running,
        outputs,
        mut stdin,
    } = started;
    outbox.message(&Event::Started)?;
    let running = Arc::new(running);
    let waiter = {
        let running = Arc::clone(&running);
        let outbox = outbox.clone();
        thread::Builder::new()
            .name("wait".into())
            .spawn(move || wait(child, &running, outputs, &outbox))?
    };
    let served = loop {
        match wire::read_frame(&mut *from) {
            Ok(Some(frame)) => {
                if let Err(error) = running.take(frame, &mut stdin) {
                    break Err(error);
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    running.abandon();
    drop(stdin); // its thread may hang in a pipe that nobody reads until the kill arrives
    // A panic of the waiter has been printed; there is nothing left to tell anybody.
    let _ = waiter.join();
    served
}

/// A command from its start to its end, as its threads share it.
struct Running {
    cgroup: Cgroup,
    pid: Pid,
    /// True once the process may be reaped: its number then belongs to nobody.
    ended: Mutex<bool>,
    stdout: Output,
    stderr: Output,
    terminal: Option<OwnedFd>,
}

impl Running {
    fn output(&self, stream: Stream) -> Option<&Output> {
        match stream {
            Stream::Stdin => None,
            Stream::Stdout => Some(&self.stdout),
            Stream::Stderr => Some(&self.stderr),
        }
    }

    fn take(&self, frame: Frame, stdin: &mut Option<Inlet>) -> io::Result<()> {
        match frame.kind {
            Kind::Data | Kind::End => {
                if frame.stream != Stream::Stdin {
                    return Err(wire::invalid("data for an output stream"));
                }
                match stdin {
                    Some(stdin) => stdin.take(frame),
                    None => Ok(()),
                }
            }
            Kind::Window => {
                let bytes = frame.window()?;
                if let Some(output) = self.output(frame.stream) {
                    output.credit.grant(bytes);
                }
                Ok(())
            }
            Kind::Refuse => {
                if let Some(output) = self.output(frame.stream) {
                    output.close();
                }
                Ok(())
            }
            Kind::Message => match frame.message()? {
                Control::Signal(signal) => {
                    self.signal(signal);
                    Ok(())
                }
                Control::Kill => {
                    self.cgroup.kill();
                    Ok(())
                }
                Control::Resize(size) => {
                    if let Some(terminal) = &self.terminal {
                        resize(terminal, size)?;
                    }
                    Ok(())
                }
            },
        }
    }

    fn signal(&self, signal: i32) {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if !*ended && let Some(signal) = Signal::from_named_raw(signal) {
            // The group may be gone although its leader is not yet reaped: nothing to do then.
            let _ = process::kill_process_group(self.pid, signal);
        }
    }

    /// The client has gone: nothing may go on for it.
    fn abandon(&self) {
        let ended = *self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if !ended {
            self.cgroup.kill();
        }
        self.stdout.close();
        self.stderr.close();
    }
}

struct Started {
    child: Child,
    running: Running,
    outputs: Vec<(Stream, Origin)>,
    stdin: Option<Inlet>,
}

impl Started {
    /// Starts the command; a failure is the exit code that a shell has for it, and a sentence.
    fn new(request: &Exec, outbox: &Outbox) -> Result<Self, (u8, String)> {
        let internal = |error: io::Error| {
            (
                125,
                format!("the emulated host cannot start a command: {error}"),
            )
        };
        let (program, arguments) = request
            .argv
            .split_first()
            .ok_or((125, "no command".to_owned()))?;
        let cwd = request.cwd.as_deref().unwrap_or(Path::new(HOME));
        if !cwd.is_dir() {
            return Err((
                125,
                format!("the emulated host has no folder {}", cwd.display()),
            ));
        }
        let cgroup = Cgroup::new().map_err(internal)?;
        let mut command = match request.terminal {
            // A terminal becomes the controlling one of a session that util-linux makes.
            Some(_) => {
                let mut command = Command::new("setsid");
                command.arg("--ctty").arg("--").arg(program);
                command
            }
            None => {
                let mut command = Command::new(program);
                command.process_group(0);
                command
            }
        };
        command.args(arguments).current_dir(cwd).env_clear();
        command
            .envs(ENVIRONMENT.iter().copied())
            .envs(request.env.iter().map(|(name, value)| (name, value)));
        spawn::in_cgroup(&mut command, cgroup.procs().map_err(internal)?);
        let plumbing = Plumbing::new(request, &mut command).map_err(internal)?;
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return Err(not_started(program, &error)),
        };
        drop(command); // closes our copies of the child's ends
        let pid = Pid::from_child(&child);
        let Plumbing {
            stdin,
            outputs,
            terminal,
        } = plumbing;
        let start = || -> io::Result<(Option<Inlet>, Running)> {
            let stdin = stdin
                .map(|to| Inlet::start(Stream::Stdin, to, outbox.clone()))
                .transpose()?;
            let (stdout, stderr) = (Output::new()?, Output::new()?);
            Ok((
                stdin,
                Running {
                    cgroup,
                    pid,
                    ended: Mutex::new(false),
                    stdout,
                    stderr,
                    terminal,
                },
            ))
        };
        match start() {
            Ok((stdin, running)) => Ok(Self {
                child,
                running,
                outputs,
                stdin,
            }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(internal(error))
            }
        }
    }
}

fn not_started(program: &OsStr, error: &io::Error) -> (u8, String) {
    let name = program.display();
    match error.kind() {
        io::ErrorKind::NotFound => (
            127,
            format!("{name}: command not found in the emulated host"),
        ),
        _ => (
            126,
            format!("{name}: cannot be run in the emulated host: {error}"),
        ),
    }
}

/// Waits for the process, sees its output off, and tells the client how it ended.
fn wait(mut child: Child, running: &Arc<Running>, outputs: Vec<(Stream, Origin)>, outbox: &Outbox) {
    let mut deferred = Vec::new();
    let mut pumps = Vec::new();
    for (stream, origin) in outputs {
        match origin {
            Origin::Deferred(file) => deferred.push((stream, file)),
            Origin::Pipe(pipe) => {
                let running = Arc::clone(running);
                let outbox = outbox.clone();
                pumps.push(thread::spawn(move || {
                    if let Some(output) = running.output(stream) {
                        // When the client has gone, its connection says so to the reading thread.
                        let _ = pump(&pipe, stream, output, &outbox);
                    }
                }));
            }
        }
    }
    // NOWAIT leaves a zombie, so that no signal can hit a stranger before `ended` is set.
    while let Err(rustix::io::Errno::INTR) = process::waitid(
        WaitId::Pid(running.pid),
        WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
    ) {}
    *running.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
    let status = child.wait();
    running.stdout.look_up();
    running.stderr.look_up();
    for pump in pumps {
        let _ = pump.join();
    }
    for (stream, mut file) in deferred {
        if let Some(output) = running.output(stream)
            && file.rewind().is_ok()
        {
            let _ = flow::send_all(&mut file, stream, &output.credit, outbox);
        }
    }
    let event = match status {
        Ok(status) => Event::Exited(match (status.code(), status.signal()) {
            (Some(code), _) => Status::Code(code.to_le_bytes()[0]),
            (None, signal) => Status::Signal(signal.unwrap_or(0)),
        }),
        Err(error) => Event::Failed {
            code: 125,
            message: format!("the command's status is lost: {error}"),
        },
    };
    let _ = outbox.message(&event);
}
