//! Two ioctls of the boot: bringing up a network interface, feeding the random generator.

#![allow(unsafe_code)] // ioctl(2) is untyped; each call below pairs a request with its own type.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::check;

/// Most bytes that [`add_entropy`] takes at once.
pub(crate) const ENTROPY_MAX: usize = 256;

/// linux/random.h: `_IOW('R', 0x03, int[2])`.
const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
/// linux/random.h: `_IO('R', 0x07)`.
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;

/// `struct rand_pool_info` of linux/random.h with room for [`ENTROPY_MAX`] bytes.
#[repr(C)]
struct RandPoolInfo {
    /// In bits.
    entropy_count: libc::c_int,
    /// In bytes.
    buf_size: libc::c_int,
    buf: [u8; ENTROPY_MAX],
}

/// Sets an interface up (netdevice(7), `SIOCSIFFLAGS`).
pub(crate) fn interface_up(name: &str) -> Result<(), Errno> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: `ifreq` is plain data for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request
        .ifr_name
        .iter_mut()
        .take(libc::IFNAMSIZ - 1)
        .zip(name.bytes())
    {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_UP | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags = i16::try_from(flags).map_err(|_| Errno::INVAL)?;
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`, which lives until the call returns.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })?;
    Ok(())
}

/// Mixes up to [`ENTROPY_MAX`] bytes into the kernel's generator, counts all their bits, and has
/// the generator start over from them (random(4), `RNDADDENTROPY` and `RNDRESEEDCRNG`).
pub(crate) fn add_entropy(random: impl AsFd, bytes: &[u8]) -> Result<(), Errno> {
    let bytes = &bytes[..bytes.len().min(ENTROPY_MAX)];
    let size = libc::c_int::try_from(bytes.len()).map_err(|_| Errno::INVAL)?;
    let mut pool = RandPoolInfo {
        entropy_count: size * 8,
        buf_size: size,
        buf: [0; ENTROPY_MAX],
    };
    pool.buf[..bytes.len()].copy_from_slice(bytes);
    let random = random.as_fd().as_raw_fd();
    // SAFETY: RNDADDENTROPY reads a `rand_pool_info` and `buf_size` bytes behind it, all in `pool`.
    check(unsafe { libc::ioctl(random, RNDADDENTROPY, &raw const pool) })?;
    // SAFETY: RNDRESEEDCRNG takes no argument.
    check(unsafe { libc::ioctl(random, RNDRESEEDCRNG) })?;
    Ok(())
}
