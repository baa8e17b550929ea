//! A descriptor chain as the request and the reply of a FUSE message.

use std::io;
use std::os::fd::BorrowedFd;

use pyro_rootfs::fuse::transport::{OUT_HEADER_SIZE, Reply, Request, Short};
use rustix::io::Errno;

use crate::virtio::iovec;
use crate::virtio::queue::{Chain, Cursor};

/// The readable part of a chain.
pub(super) struct ChainRequest<'a> {
    at: Cursor<'a>,
}

impl<'a> ChainRequest<'a> {
    pub(super) fn new(chain: &'a Chain) -> Self {
        Self { at: chain.reader() }
    }
}

impl Request for ChainRequest<'_> {
    fn remaining(&self) -> usize {
        self.at.remaining()
    }

    fn read_exact(&mut self, out: &mut [u8]) -> Result<(), Short> {
        self.at.read_exact(out).map_err(|_| Short)
    }

    fn write_to(&mut self, file: BorrowedFd<'_>, offset: u64, len: usize) -> Result<usize, Errno> {
        let count = iovec::write_at(file, offset, self.at.slices(len)).map_err(errno)?;
        self.at.skip(count);
        Ok(count)
    }
}

/// The writable part of a chain.
pub(super) struct ChainReply<'a> {
    /// The whole part.
    whole: Cursor<'a>,
    /// Where the body goes on; the header's room lies behind it.
    at: Cursor<'a>,
}

impl<'a> ChainReply<'a> {
    pub(super) fn new(chain: &'a Chain) -> Self {
        let whole = chain.writer();
        let mut at = whole.clone();
        at.skip(OUT_HEADER_SIZE);
        Self { whole, at }
    }
}

impl Reply for ChainReply<'_> {
    fn capacity(&self) -> usize {
        self.whole.remaining()
    }

    fn body_len(&self) -> usize {
        (self.capacity() - self.at.remaining()).saturating_sub(OUT_HEADER_SIZE)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Short> {
        self.at.write_all(bytes).map_err(|_| Short)
    }

    fn fill_from(&mut self, file: BorrowedFd<'_>, offset: u64, len: usize) -> Result<usize, Errno> {
        let count = iovec::read_at(file, offset, self.at.slices(len)).map_err(errno)?;
        self.at.skip(count);
        Ok(count)
    }

    fn zeros(&mut self, len: usize) -> Result<(), Short> {
        const ZEROS: [u8; 4096] = [0; 4096];
        if len > self.at.remaining() {
            return Err(Short);
        }
        let mut left = len;
        while left > 0 {
            let count = left.min(ZEROS.len());
            self.write(&ZEROS[..count])?;
            left -= count;
        }
        Ok(())
    }

    fn truncate(&mut self, len: usize) {
        self.at = self.whole.clone();
        self.at.skip(OUT_HEADER_SIZE + len);
    }

    fn commit(&mut self, header: &[u8; OUT_HEADER_SIZE]) -> Result<(), Short> {
        self.whole.clone().write_all(header).map_err(|_| Short)
    }
}

/// What the server passes on to the guest.
fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
