//! Runs one command for one client.
//!
//! Threads: this one reads the client's frames; one writes standard input; one per output stream
//! reads and sends under credit; one waits for the process. The operation ends when the *process*
//! ends: what its pipes hold at that moment is still sent, a background child that keeps them open
//! is not waited for. When the client goes first, everything that the command started is killed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::event::{self, EventfdFlags, PollFd, PollFlags};
use rustix::process::{self, Pid, Signal, WaitId, WaitIdOptions};
use rustix::pty::{self, OpenptFlags};
use rustix::termios::{self, Winsize};

use crate::flow::{self, Credit, Inlet, Outbox};
use crate::spawn;
use crate::wire::{self, CHUNK, Control, Event, Exec, Frame, Kind, Size, Status, Stream};

const CGROUPS: &str = "/sys/fs/cgroup";
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

/// The shared side of an output stream.
struct Output {
    credit: Credit,
    /// Readable when the pump must look up: the process ended, or nobody wants the stream.
    look_up: OwnedFd,
}

impl Output {
    fn new() -> io::Result<Self> {
        Ok(Self {
            credit: Credit::default(),
            look_up: event::eventfd(0, EventfdFlags::CLOEXEC)?,
        })
    }

    fn look_up(&self) {
        // The counter cannot overflow: it is raised a few times in its life.
        let _ = rustix::io::write(&self.look_up, &1u64.to_ne_bytes());
    }

    fn close(&self) {
        self.credit.close();
        self.look_up();
    }
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

/// What the pump of an output stream reads.
enum Origin {
    Pipe(OwnedFd),
    /// Collected until the end.
    Deferred(File),
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

/// Our ends of the command's streams.
struct Plumbing {
    stdin: Option<Box<dyn Write + Send>>,
    outputs: Vec<(Stream, Origin)>,
    terminal: Option<OwnedFd>,
}

impl Plumbing {
    fn new(request: &Exec, command: &mut Command) -> io::Result<Self> {
        if let Some(size) = request.terminal {
            let master =
                pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
            pty::grantpt(&master)?;
            pty::unlockpt(&master)?;
            resize(&master, size)?;
            let slave = pty::ioctl_tiocgptpeer(
                &master,
                OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
            )?;
            command
                .stdin(slave.try_clone()?)
                .stdout(slave.try_clone()?)
                .stderr(slave);
            return Ok(Self {
                stdin: Some(Box::new(File::from(master.try_clone()?))),
                outputs: vec![(Stream::Stdout, Origin::Pipe(master.try_clone()?))],
                terminal: Some(master),
            });
        }
        if request.deferred {
            let collect = || -> io::Result<(File, Stdio)> {
                let file = File::from(rustix::fs::memfd_create(
                    "output",
                    rustix::fs::MemfdFlags::CLOEXEC,
                )?);
                let child = file.try_clone()?;
                Ok((file, child.into()))
            };
            let (stdout, to_stdout) = collect()?;
            let (stderr, to_stderr) = collect()?;
            command
                .stdin(Stdio::null())
                .stdout(to_stdout)
                .stderr(to_stderr);
            let outputs = vec![
                (Stream::Stdout, Origin::Deferred(stdout)),
                (Stream::Stderr, Origin::Deferred(stderr)),
            ];
            return Ok(Self {
                stdin: None,
                outputs,
                terminal: None,
            });
        }
        let (from_client, stdin) = io::pipe()?;
        let (stdout, to_stdout) = io::pipe()?;
        let (stderr, to_stderr) = io::pipe()?;
        command
            .stdin(from_client)
            .stdout(to_stdout)
            .stderr(to_stderr);
        let outputs = vec![
            (Stream::Stdout, Origin::Pipe(stdout.into())),
            (Stream::Stderr, Origin::Pipe(stderr.into())),
        ];
        Ok(Self {
            stdin: Some(Box::new(stdin)),
            outputs,
            terminal: None,
        })
    }
}

fn resize(terminal: &OwnedFd, size: Size) -> io::Result<()> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(termios::tcsetwinsize(terminal, size)?)
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

/// Sends what comes out of a pipe until its end, until nobody wants it, or until the process has
/// ended and the pipe is empty.
fn pump(pipe: &OwnedFd, stream: Stream, output: &Output, outbox: &Outbox) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut draining = false;
    while let Some(allowed) = output.credit.wait() {
        if draining {
            if !readable(pipe, None)? {
                break;
            }
        } else if !readable(pipe, Some(&output.look_up))? {
            // Woken: by a refusal, which the next wait for credit sees, or by the end.
            draining = true;
            continue;
        }
        match rustix::io::read(pipe, &mut buffer[..allowed]) {
            Ok(0) => break,
            Ok(read) => {
                output.credit.spend(read);
                outbox.frame(Kind::Data, stream, &buffer[..read])?;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => break, // a terminal whose last process has gone
        }
    }
    outbox.frame(Kind::End, stream, &[])
}

/// Whether `pipe` can be read. With `look_up`, waits until it can, or until that can (false);
/// without, answers at once.
fn readable(pipe: &OwnedFd, look_up: Option<&OwnedFd>) -> io::Result<bool> {
    let mut files = vec![PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)];
    files.extend(look_up.map(|file| PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN)));
    let at_once = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    loop {
        match event::poll(
            &mut files,
            if look_up.is_some() {
                None
            } else {
                Some(&at_once)
            },
        ) {
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let woken = files.get(1).is_some_and(|file| !file.revents().is_empty());
    Ok(!woken && files.first().is_some_and(|file| !file.revents().is_empty()))
}

/// A control group that holds all processes of one command.
struct Cgroup(PathBuf);

/// Groups that were not empty when their command ended: it left a daemon behind.
static LEFT: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

impl Cgroup {
    fn new() -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        LEFT.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|path| fs::remove_dir(path).is_err());
        let path =
            Path::new(CGROUPS).join(format!("exec-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn procs(&self) -> io::Result<OwnedFd> {
        Ok(File::options()
            .write(true)
            .open(self.0.join("cgroup.procs"))?
            .into())
    }

    fn kill(&self) {
        // Fails only when the group is gone already.
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if fs::remove_dir(&self.0).is_err() {
            LEFT.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(std::mem::take(&mut self.0));
        }
    }
}
