//! Sockets to the host, vsock(7).

#![allow(unsafe_code)] // The safe wrappers know no vsock addresses.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use super::check;

/// The context id of the host, `VMADDR_CID_HOST`.
pub(crate) const HOST_CID: u32 = 2;

/// How long the host may take to answer. Linux gives it two seconds, too few for a busy one whose
/// own patience with the boot is much longer.
const CONNECT_TIMEOUT_SECONDS: libc::time_t = 120;
/// `SO_VM_SOCKETS_CONNECT_TIMEOUT` (Linux `include/uapi/linux/vm_sockets.h`), of level `AF_VSOCK`.
const CONNECT_TIMEOUT: libc::c_int = 6;

const ADDRESS_LEN: libc::socklen_t = size_of::<libc::sockaddr_vm>() as libc::socklen_t;

fn address(cid: u32, port: u32) -> libc::sockaddr_vm {
    // SAFETY: `sockaddr_vm` is plain data for which all zeroes is a value.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = cid;
    address.svm_port = port;
    address
}

fn socket() -> Result<OwnedFd, Errno> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: socket(2) takes no pointers.
    let fd = check(unsafe { libc::socket(libc::AF_VSOCK, kind, 0) })?;
    // SAFETY: socket made this descriptor just now and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A non-blocking socket that listens on `port` of this guest.
pub(crate) fn listen(port: u32) -> Result<OwnedFd, Errno> {
    let socket = socket()?;
    let address = address(libc::VMADDR_CID_ANY, port);
    // SAFETY: the address lives until bind returns, and its length is its type's.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), ADDRESS_LEN) })?;
    rustix::net::listen(&socket, 128)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}

/// A blocking stream to `port` of the host.
pub(crate) fn connect_to_host(port: u32) -> Result<OwnedFd, Errno> {
    let socket = socket()?;
    be_patient(&socket)?;
    let address = address(HOST_CID, port);
    // SAFETY: the address lives until connect returns, and its length is its type's.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), ADDRESS_LEN) })?;
    Ok(socket)
}

fn be_patient(socket: &OwnedFd) -> Result<(), Errno> {
    let timeout = libc::timeval {
        tv_sec: CONNECT_TIMEOUT_SECONDS,
        tv_usec: 0,
    };
    let len = size_of::<libc::timeval>() as libc::socklen_t;
    let (fd, level) = (socket.as_raw_fd(), libc::AF_VSOCK);
    // SAFETY: the time lives until setsockopt returns, and its length is its type's.
    check(unsafe {
        libc::setsockopt(fd, level, CONNECT_TIMEOUT, (&raw const timeout).cast(), len)
    })?;
    Ok(())
}

/// The context id of whom a stream leads to.
pub(crate) fn peer_cid(stream: impl AsFd) -> Result<u32, Errno> {
    let mut peer = address(0, 0);
    let mut length = ADDRESS_LEN;
    let fd = stream.as_fd().as_raw_fd();
    // SAFETY: getpeername writes at most `length` bytes, which is the size of `peer`.
    check(unsafe { libc::getpeername(fd, (&raw mut peer).cast(), &raw mut length) })?;
    if length < ADDRESS_LEN || libc::c_int::from(peer.svm_family) != libc::AF_VSOCK {
        return Err(Errno::AFNOSUPPORT);
    }
    Ok(peer.svm_cid)
}
