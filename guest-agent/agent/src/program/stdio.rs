//! What a program has for standard input, output and errors, and the agent's ends of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use pyro_agent_protocol::TerminalSize;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Uid;

use super::terminal::Terminal;

/// How a program's standard streams are laid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wiring {
    /// A pipe for each.
    Separate,
    /// One pipe for output and errors, so that their order is kept.
    Merged,
    /// A terminal for all.
    Terminal(TerminalSize),
}

/// Both ends of a program's standard streams. Ours are non-blocking.
#[derive(Debug)]
pub(super) struct Stdio {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: OwnedFd,
    /// Absent where it is one with standard output.
    pub(super) stderr: Option<OwnedFd>,
    pub(super) theirs: Theirs,
}

/// The program's ends.
#[derive(Debug)]
pub(super) enum Theirs {
    Pipes {
        stdin: OwnedFd,
        stdout: OwnedFd,
        /// Absent where it is one with standard output.
        stderr: Option<OwnedFd>,
    },
    Terminal(Terminal),
}

impl Stdio {
    /// Lays them. `with_input` matters to pipes alone, `owner` to terminals alone.
    pub(super) fn new(wiring: Wiring, with_input: bool, owner: Option<Uid>) -> Result<Self, Errno> {
        if let Wiring::Terminal(size) = wiring {
            let terminal = Terminal::open(size, owner)?;
            return Ok(Self {
                stdin: Some(terminal.duplicate_master()?),
                stdout: terminal.duplicate_master()?,
                stderr: None,
                theirs: Theirs::Terminal(terminal),
            });
        }
        let (stdin_theirs, stdin) = if with_input {
            let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
            (theirs, Some(ours))
        } else {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            (open(c"/dev/null", flags, Mode::empty())?, None)
        };
        let (stdout, stdout_theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, stderr_theirs) = match wiring {
            Wiring::Separate => {
                let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
                (Some(ours), Some(theirs))
            }
            Wiring::Merged | Wiring::Terminal(_) => (None, None),
        };
        for ours in [&stdout].into_iter().chain(&stderr).chain(&stdin) {
            rustix::io::ioctl_fionbio(ours, true)?;
        }
        Ok(Self {
            stdin,
            stdout,
            stderr,
            theirs: Theirs::Pipes {
                stdin: stdin_theirs,
                stdout: stdout_theirs,
                stderr: stderr_theirs,
            },
        })
    }
}

impl Theirs {
    /// What becomes the program's descriptors 0, 1 and 2.
    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        match self {
            Self::Terminal(terminal) => [terminal.slave(); 3],
            Self::Pipes {
                stdin,
                stdout,
                stderr,
            } => [
                stdin.as_fd(),
                stdout.as_fd(),
                stderr.as_ref().unwrap_or(stdout).as_fd(),
            ],
        }
    }

    /// Closes them, but for a terminal.
    pub(super) fn into_terminal(self) -> Option<Terminal> {
        match self {
            Self::Terminal(terminal) => Some(terminal),
            Self::Pipes { .. } => None,
        }
    }
}
