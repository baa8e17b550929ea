//! Bytes between two of the kernel's sockets, each direction ending by itself.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

/// Bytes on their way in one direction.
const BUFFER: usize = 64 << 10;

/// A socket, and what is known of it.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Readiness {
    pub(super) readable: bool,
    pub(super) writable: bool,
}

/// The connection is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken;

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Direction {
    buffer: Vec<u8>,
    /// What of the buffer was written.
    written: usize,
    /// The source has ended.
    ended: bool,
    /// The destination was told so.
    told: bool,
}

impl Direction {
    /// A direction that has these bytes to deliver first.
    pub(super) fn starting_with(bytes: Vec<u8>) -> Self {
        Self {
            buffer: bytes,
            ..Self::default()
        }
    }

    /// Whether all was said, and told.
    pub(super) fn is_over(&self) -> bool {
        self.told
    }

    /// Carries what can be carried now, within bounds. True when there may be more at once.
    pub(super) fn carry(
        &mut self,
        from: (BorrowedFd<'_>, &mut Readiness),
        to: (BorrowedFd<'_>, &mut Readiness),
    ) -> Result<bool, Broken> {
        let ((source, from), (sink, to)) = (from, to);
        if self.written == self.buffer.len() && !self.ended && from.readable {
            self.fill(source, from)?;
        }
        while self.written < self.buffer.len() && to.writable {
            match send(sink, &self.buffer[self.written..], SendFlags::NOSIGNAL) {
                Ok(count) => self.written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => to.writable = false,
                Err(_) => return Err(Broken),
            }
        }
        let empty = self.written == self.buffer.len();
        if empty && self.ended && !self.told {
            self.told = true;
            // Who has ended as well is not there to be told.
            let _ = shutdown(sink, Shutdown::Write);
        }
        Ok(empty && !self.ended && from.readable)
    }

    fn fill(&mut self, source: BorrowedFd<'_>, from: &mut Readiness) -> Result<(), Broken> {
        self.written = 0;
        self.buffer.resize(BUFFER, 0);
        let read = recv(source, &mut self.buffer[..], RecvFlags::empty());
        let count = *read.as_ref().map_or(&0, |(count, _)| count);
        self.buffer.truncate(count);
        match read {
            Ok((0, _)) => self.ended = true,
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => from.readable = false,
            Err(_) => return Err(Broken),
        }
        if self.buffer.is_empty() {
            // Idle connections hold none.
            self.buffer = Vec::new();
        }
        Ok(())
    }
}
