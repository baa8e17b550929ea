//! Bytes of the guest's that wait for a slow host reader.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;

use super::limits::BUF_ALLOC;
use crate::virtio::queue::Cursor;

/// A queue of at most [`BUF_ALLOC`] bytes that holds no memory while it is empty.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    bytes: Vec<u8>,
    /// Bytes at the front that are already gone.
    done: usize,
}

impl Backlog {
    const CAPACITY: usize = BUF_ALLOC as usize;

    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.done
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `more` bytes would still fit.
    pub(super) fn has_room(&self, more: usize) -> bool {
        more <= Self::CAPACITY - self.len()
    }

    /// Copies the rest of `payload`, for which there must be room.
    pub(super) fn append(&mut self, mut payload: Cursor<'_>) {
        let count = payload.remaining();
        debug_assert!(self.has_room(count), "the caller checks the guest's credit");
        let needed = self.len() + count;
        if self.bytes.len() + count > self.bytes.capacity() {
            self.bytes.drain(..self.done);
            self.done = 0;
            if needed > self.bytes.capacity() {
                // Doubling, but never beyond what the guest may use.
                let target = needed
                    .max(self.bytes.capacity() * 2)
                    .min(Self::CAPACITY.max(needed));
                self.bytes.reserve_exact(target - self.bytes.len());
            }
        }
        let end = self.bytes.len();
        self.bytes.resize(end + count, 0);
        payload
            .read_exact(&mut self.bytes[end..])
            .expect("the buffer is as long as what remains");
    }

    /// Writes what the socket takes without blocking; returns how many bytes that were.
    ///
    /// # Errors
    /// When the socket can take no more for ever.
    pub(super) fn flush(&mut self, mut stream: &UnixStream) -> io::Result<usize> {
        let before = self.done;
        while self.done < self.bytes.len() {
            match stream.write(&self.bytes[self.done..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(self.done - before);
                }
                Err(error) => return Err(error),
            }
        }
        let written = self.done - before;
        *self = Self::default();
        Ok(written)
    }

    /// Drops everything; returns how many bytes that were.
    pub(super) fn discard(&mut self) -> usize {
        let dropped = self.len();
        *self = Self::default();
        dropped
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.bytes.capacity()
    }
}
