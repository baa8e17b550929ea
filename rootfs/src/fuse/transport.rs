//! What the server needs from whatever carries FUSE messages.
//!
//! A transport hands the server one [`Request`] and the [`Reply`] buffer that belongs to it. On
//! `/dev/fuse` both are plain memory; on virtio-fs (virtio 1.2 §5.11.6) they are the readable and
//! the writable half of one descriptor chain in guest memory. Small things (headers, arguments,
//! names) are copied out once; file contents go straight between the buffer and a host file.
//!
//! A request may lie about itself and may change while it is read: an implementation only promises
//! that it never reads or writes outside the buffers it was given, and that every byte is handed
//! out once. Neither trait blocks on anything but the file it is told to use.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

/// Size of `struct fuse_out_header`, which every reply starts with.
pub const OUT_HEADER_SIZE: usize = 16;

/// A buffer was too short for what was asked of it. Nothing was consumed or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message buffer is too short")]
pub struct Short;

/// The bytes of one request, read once from front to back.
pub trait Request {
    /// How many bytes have not been consumed yet.
    fn remaining(&self) -> usize;

    /// Copies the next `out.len()` bytes into `out`, all of them or none.
    fn read_exact(&mut self, out: &mut [u8]) -> Result<(), Short>;

    /// Writes the next bytes, at most `len` and at most [`Self::remaining`], into `file` at
    /// `offset` without an intermediate copy where the transport can (`pwritev` from guest
    /// memory).
    ///
    /// Returns how many bytes were written; like `pwrite`, this may be fewer than asked for, and
    /// the caller asks again. Exactly the returned number of bytes is consumed. `EINTR` is retried
    /// inside. The file position of `file` is not touched.
    fn write_to(&mut self, file: BorrowedFd<'_>, offset: u64, len: usize) -> Result<usize, Errno>;
}

/// The buffer that takes the reply to one request.
///
/// The first [`OUT_HEADER_SIZE`] bytes are set aside for the header. The body is appended after
/// them, and [`Self::commit`] puts the header in place once its length is known.
pub trait Reply {
    /// Size of the whole buffer, the header's bytes included; constant. 0 when the transport has
    /// no room for a reply at all, as for FORGET.
    fn capacity(&self) -> usize;

    /// How many bytes the body holds so far.
    fn body_len(&self) -> usize;

    /// Appends all of `bytes` to the body, or nothing.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Short>;

    /// Appends at most `len` bytes of `file` from `offset`, without an intermediate copy where the
    /// transport can (`preadv` into guest memory).
    ///
    /// Returns how many bytes were appended: fewer than `len` when the file or the buffer ends, or
    /// as `pread` pleases; 0 means that one of them has ended. `EINTR` is retried inside.
    fn fill_from(&mut self, file: BorrowedFd<'_>, offset: u64, len: usize) -> Result<usize, Errno>;

    /// Appends `len` zero bytes, or nothing.
    fn zeros(&mut self, len: usize) -> Result<(), Short>;

    /// Takes the body back to its first `len` bytes. `len` is never more than [`Self::body_len`].
    fn truncate(&mut self, len: usize);

    /// Writes the header in front of the body. The message is complete; its length is
    /// [`OUT_HEADER_SIZE`] + [`Self::body_len`].
    fn commit(&mut self, header: &[u8; OUT_HEADER_SIZE]) -> Result<(), Short>;
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The reply buffer holds a complete message of `len` bytes, header included.
    Replied {
        /// Length of the message; on virtio-fs, the used length of the chain.
        len: usize,
    },
    /// This request has no reply (FORGET, BATCH_FORGET, INTERRUPT), or its reply buffer had no
    /// room for a header. On virtio-fs the chain is used with length 0.
    NoReply,
}
