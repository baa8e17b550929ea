//! Requests and replies in plain memory: the transport of `/dev/fuse` and of tests.

use std::os::fd::BorrowedFd;

use rustix::io::{Errno, pread, pwrite, retry_on_intr};

use super::transport::{OUT_HEADER_SIZE, Reply, Request, Short};

/// A request that lies in a slice.
#[derive(Debug)]
pub struct SliceRequest<'a> {
    rest: &'a [u8],
}

impl<'a> SliceRequest<'a> {
    /// The request in `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl Request for SliceRequest<'_> {
    fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn read_exact(&mut self, out: &mut [u8]) -> Result<(), Short> {
        let (bytes, rest) = self.rest.split_at_checked(out.len()).ok_or(Short)?;
        out.copy_from_slice(bytes);
        self.rest = rest;
        Ok(())
    }

    fn write_to(&mut self, file: BorrowedFd<'_>, offset: u64, len: usize) -> Result<usize, Errno> {
        let bytes = self.rest.get(..len).unwrap_or(self.rest);
        let n = retry_on_intr(|| pwrite(file, bytes, offset))?;
        self.rest = self.rest.get(n..).unwrap_or_default();
        Ok(n)
    }
}

/// A reply that is built in a slice.
#[derive(Debug)]
pub struct SliceReply<'a> {
    buffer: &'a mut [u8],
    body: usize,
}

impl<'a> SliceReply<'a> {
    /// A reply to be built in `buffer`; as long as that at most.
    #[must_use]
    pub const fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, body: 0 }
    }

    /// The next `len` bytes after the body.
    fn next(&mut self, len: usize) -> Result<&mut [u8], Short> {
        let start = OUT_HEADER_SIZE + self.body;
        let end = start.checked_add(len).ok_or(Short)?;
        self.buffer.get_mut(start..end).ok_or(Short)
    }
}

impl Reply for SliceReply<'_> {
    fn capacity(&self) -> usize {
        self.buffer.len()
    }

    fn body_len(&self) -> usize {
        self.body
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Short> {
        self.next(bytes.len())?.copy_from_slice(bytes);
        self.body += bytes.len();
        Ok(())
    }

    fn fill_from(&mut self, file: BorrowedFd<'_>, offset: u64, len: usize) -> Result<usize, Errno> {
        let room = self
            .buffer
            .len()
            .saturating_sub(OUT_HEADER_SIZE + self.body);
        let Ok(space) = self.next(len.min(room)) else {
            return Ok(0);
        };
        let n = retry_on_intr(|| pread(file, &mut *space, offset))?;
        self.body += n;
        Ok(n)
    }

    fn zeros(&mut self, len: usize) -> Result<(), Short> {
        self.next(len)?.fill(0);
        self.body += len;
        Ok(())
    }

    fn truncate(&mut self, len: usize) {
        self.body = self.body.min(len);
    }

    fn commit(&mut self, header: &[u8; OUT_HEADER_SIZE]) -> Result<(), Short> {
        self.buffer
            .get_mut(..OUT_HEADER_SIZE)
            .ok_or(Short)?
            .copy_from_slice(header);
        Ok(())
    }
}
