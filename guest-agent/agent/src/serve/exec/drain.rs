//! One of a program's outputs.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use super::Sink;
use crate::serve::poller::{Interest, OperationId, Output, Poller, Source, Watched};
use crate::serve::stream::PIECE;

/// More than a terminal holds: the kernel bounds its buffers at 64 KiB, `TTYB_DEFAULT_MEM_LIMIT` of
/// drivers/tty/tty_buffer.c, and a line discipline's at 4 KiB.
const TERMINAL_HOLDS: usize = 128 << 10;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Drain {
    pub(super) output: Output,
    /// Absent when it has ended.
    pipe: Option<Watched>,
    is_terminal: bool,
    /// After the program's end: what is still to be relayed.
    left: usize,
}

impl Drain {
    pub(super) fn new(
        pipe: Option<OwnedFd>,
        is_terminal: bool,
        output: Output,
        id: OperationId,
        poller: &Poller,
    ) -> Self {
        Self {
            output,
            pipe: pipe.map(|pipe| Watched::new(pipe, Source::Output(id, output), poller)),
            is_terminal,
            left: 0,
        }
    }

    /// Relays one piece. False when there is nothing more for now.
    pub(super) fn relay(&mut self, sink: &mut dyn Sink, counted: bool) -> bool {
        let Some(pipe) = &self.pipe else { return false };
        let most = if counted { self.left } else { PIECE };
        if most == 0 {
            return false;
        }
        match sink.relay(pipe.as_fd(), self.output, most) {
            Ok(0) => {
                self.pipe = None;
                self.left = 0;
                false
            }
            Ok(length) => {
                self.left = self.left.saturating_sub(length);
                true
            }
            Err(Errno::INTR) => true,
            // Counted bytes that are not there: another reader has taken them, or a terminal held
            // less than it might have.
            Err(Errno::AGAIN) => {
                self.left = 0;
                false
            }
            // EIO: nobody has the terminal open any more.
            Err(_) => {
                self.pipe = None;
                self.left = 0;
                false
            }
        }
    }

    /// Takes note of what the pipe holds now: that much is the program's output, what a background
    /// child writes later is not. How much a terminal holds cannot be known, only what it may.
    pub(super) fn count(&mut self) {
        self.left = match &self.pipe {
            Some(_) if self.is_terminal => TERMINAL_HOLDS,
            Some(pipe) => rustix::io::ioctl_fionread(pipe.as_fd())
                .ok()
                .and_then(|held| usize::try_from(held).ok())
                .unwrap_or(0),
            None => 0,
        };
    }

    /// Bytes that are still to be relayed after the program's end.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    pub(super) fn watch(&mut self, wanted: bool) -> Result<(), Errno> {
        match &mut self.pipe {
            Some(pipe) => pipe.watch(if wanted {
                Interest::READ
            } else {
                Interest::NONE
            }),
            None => Ok(()),
        }
    }

    /// What a background child may still write to.
    pub(super) fn into_open(self) -> Option<(Output, Watched)> {
        Some((self.output, self.pipe?))
    }
}
