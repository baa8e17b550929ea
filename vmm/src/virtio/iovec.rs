//! Input and output straight between host descriptors and guest memory.
//!
//! `preadv(2)` and its kin take the guest's pages as they are, without a bounce buffer. The kernel
//! reads or writes them; Rust never makes a reference into memory that the guest can change.
#![allow(unsafe_code)] // system calls on raw guest memory; every block says why it is sound

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::queue::GuestSlice;

/// Most slices given to one system call (the kernel's `UIO_MAXIOV`). What is beyond is left for
/// the next call, as in any short read or write.
const MAX_SLICES: usize = 1024;

/// `preadv`: fills `slices` from `file` at `offset`. Returns the bytes read; fewer than asked for
/// mean the end of the file or a short read.
///
/// # Errors
/// What the kernel says, `EINTR` excepted.
pub fn read_at<'a>(
    file: impl AsFd,
    offset: u64,
    slices: impl Iterator<Item = GuestSlice<'a>>,
) -> io::Result<usize> {
    let offset = file_offset(offset)?;
    with_iovecs(slices, |iovecs, count| {
        // SAFETY: the vectors describe guest memory that lives as long as the slices given.
        unsafe { libc::preadv(file.as_fd().as_raw_fd(), iovecs, count, offset) }
    })
}

/// `pwritev`: writes `slices` to `file` at `offset`. Returns the bytes written.
///
/// # Errors
/// What the kernel says, `EINTR` excepted.
pub fn write_at<'a>(
    file: impl AsFd,
    offset: u64,
    slices: impl Iterator<Item = GuestSlice<'a>>,
) -> io::Result<usize> {
    let offset = file_offset(offset)?;
    with_iovecs(slices, |iovecs, count| {
        // SAFETY: as in `read_at`; the kernel only reads through these vectors.
        unsafe { libc::pwritev(file.as_fd().as_raw_fd(), iovecs, count, offset) }
    })
}

/// `readv`: fills `slices` from a stream. Returns the bytes read; 0 is the end.
///
/// # Errors
/// What the kernel says, `EINTR` excepted; `WouldBlock` from a non-blocking stream.
pub fn read<'a>(
    stream: impl AsFd,
    slices: impl Iterator<Item = GuestSlice<'a>>,
) -> io::Result<usize> {
    with_iovecs(slices, |iovecs, count| {
        // SAFETY: as in `read_at`.
        unsafe { libc::readv(stream.as_fd().as_raw_fd(), iovecs, count) }
    })
}

/// `sendmsg` with `MSG_NOSIGNAL`: writes `slices` to a socket. Returns the bytes written.
///
/// # Errors
/// What the kernel says, `EINTR` excepted; `WouldBlock` from a non-blocking socket.
pub fn send<'a>(
    socket: impl AsFd,
    slices: impl Iterator<Item = GuestSlice<'a>>,
) -> io::Result<usize> {
    with_iovecs(slices, |iovecs, count| {
        // SAFETY: all-zero is a valid msghdr (no name, no control data).
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = iovecs.cast_mut();
        message.msg_iovlen = usize::try_from(count).expect("at most MAX_SLICES");
        // SAFETY: as in `write_at`; `message` lives until the call returns.
        unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &message, libc::MSG_NOSIGNAL) }
    })
}

/// What [`receive`] got of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes that were written to the slices; 0 is the end of the connection.
    pub len: usize,
    /// The message was longer than the slices; the rest of it is lost.
    pub truncated: bool,
}

/// `recvmsg`: fills `slices` with one message of a socket.
///
/// # Errors
/// What the kernel says, `EINTR` excepted; `WouldBlock` from a non-blocking socket.
pub fn receive<'a>(
    socket: impl AsFd,
    slices: impl Iterator<Item = GuestSlice<'a>>,
) -> io::Result<Received> {
    let mut truncated = false;
    let len = with_iovecs(slices, |iovecs, count| {
        // SAFETY: all-zero is a valid msghdr (no name, no control data).
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = iovecs.cast_mut();
        message.msg_iovlen = usize::try_from(count).expect("at most MAX_SLICES");
        // SAFETY: as in `read_at`; `message` lives until the call returns.
        let done = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, 0) };
        truncated = message.msg_flags & libc::MSG_TRUNC != 0;
        done
    })?;
    Ok(Received { len, truncated })
}

fn file_offset(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn with_iovecs<'a>(
    slices: impl Iterator<Item = GuestSlice<'a>>,
    mut call: impl FnMut(*const libc::iovec, libc::c_int) -> libc::ssize_t,
) -> io::Result<usize> {
    let iovecs: Vec<libc::iovec> = slices
        .take(MAX_SLICES)
        .map(|slice| libc::iovec {
            iov_base: slice.ptr_guard_mut().as_ptr().cast(),
            iov_len: slice.len(),
        })
        .collect();
    let count = libc::c_int::try_from(iovecs.len()).expect("at most MAX_SLICES");
    loop {
        let done = call(iovecs.as_ptr(), count);
        if let Ok(done) = usize::try_from(done) {
            return Ok(done);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
