//! The command's standard streams: how they are made, and how its output gets to the client.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};

use rustix::event::{self, EventfdFlags, PollFd, PollFlags};
use rustix::pty::{self, OpenptFlags};
use rustix::termios::{self, Winsize};

use crate::flow::{Credit, Outbox};
use crate::wire::{CHUNK, Exec, Kind, Size, Stream};

/// What the pump of an output stream reads.
pub(super) enum Origin {
    Pipe(OwnedFd),
    /// Collected until the end.
    Deferred(File),
}

/// Our ends of the command's streams.
pub(super) struct Plumbing {
    pub(super) stdin: Option<Box<dyn Write + Send>>,
    pub(super) outputs: Vec<(Stream, Origin)>,
    pub(super) terminal: Option<OwnedFd>,
}

impl Plumbing {
    pub(super) fn new(request: &Exec, command: &mut Command) -> io::Result<Self> {
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

pub(super) fn resize(terminal: &OwnedFd, size: Size) -> io::Result<()> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(termios::tcsetwinsize(terminal, size)?)
}

/// The shared side of an output stream.
pub(super) struct Output {
    pub(super) credit: Credit,
    /// Readable when the pump must look up: the process ended, or nobody wants the stream.
    look_up: OwnedFd,
}

impl Output {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            credit: Credit::default(),
            look_up: event::eventfd(0, EventfdFlags::CLOEXEC)?,
        })
    }

    pub(super) fn look_up(&self) {
        // The counter cannot overflow: it is raised a few times in its life.
        let _ = rustix::io::write(&self.look_up, &1u64.to_ne_bytes());
    }

    pub(super) fn close(&self) {
        self.credit.close();
        self.look_up();
    }
}

/// Sends what comes out of a pipe until its end, until nobody wants it, or until the process has
/// ended and the pipe is empty.
pub(super) fn pump(
    pipe: &OwnedFd,
    stream: Stream,
    output: &Output,
    outbox: &Outbox,
) -> io::Result<()> {
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
