//! A terminal of a program's own: a pseudoterminal, pty(7).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use pyro_agent_protocol::TerminalSize;
use rustix::fs::fchown;
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Signal, Uid, kill_process_group};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{
    InputModes, OptionalActions, Winsize, tcgetattr, tcgetpgrp, tcsetattr, tcsetwinsize,
};

/// See the [module](self). Owned while the program runs.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// The agent's end.
    master: OwnedFd,
    /// The program's end. As long as it is open here, too, a program that closes its own for a
    /// moment does not end the terminal.
    slave: OwnedFd,
}

impl Terminal {
    /// A new terminal that belongs to this user and takes UTF-8.
    pub(super) fn open(size: TerminalSize, owner: Option<Uid>) -> Result<Self, Errno> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        rustix::io::ioctl_fionbio(&master, true)?;
        unlockpt(&master)?;
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        if let Some(owner) = owner {
            fchown(&slave, Some(owner), None)?;
        }
        let mut modes = tcgetattr(&slave)?;
        modes.input_modes |= InputModes::IUTF8;
        tcsetattr(&slave, OptionalActions::Now, &modes)?;
        let terminal = Self { master, slave };
        terminal.resize(size)?;
        Ok(terminal)
    }

    /// The agent's end once more, non-blocking as it is.
    pub(super) fn duplicate_master(&self) -> Result<OwnedFd, Errno> {
        fcntl_dupfd_cloexec(&self.master, 3)
    }

    /// The program's end.
    pub(super) fn slave(&self) -> BorrowedFd<'_> {
        self.slave.as_fd()
    }

    /// Gives it another size; the kernel tells its foreground process group.
    pub(crate) fn resize(&self, size: TerminalSize) -> Result<(), Errno> {
        let size = Winsize {
            ws_row: size.rows(),
            ws_col: size.cols(),
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.master, size)
    }

    /// Sends a signal to the foreground process group, which is one of the program's session.
    pub(crate) fn signal_foreground(&self, signal: Signal) {
        if let Ok(group) = tcgetpgrp(&self.master) {
            let _ = kill_process_group(group, signal);
        }
    }
}
