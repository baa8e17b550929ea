//! Descriptors that the parent gave us, taken over exactly once.
#![allow(unsafe_code)] // makes owned descriptors out of the numbers in the configuration

use std::collections::BTreeSet;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use crate::config::{Config, FdNumber};
use crate::network::Resources;

/// Why a descriptor number of the configuration is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InheritError {
    /// It is one of the standard streams, or negative.
    #[error("descriptor {0} is reserved")]
    Reserved(FdNumber),
    /// It is not open.
    #[error("descriptor {0} is not open")]
    NotOpen(FdNumber),
    /// It is named twice.
    #[error("descriptor {0} is named twice")]
    NamedTwice(FdNumber),
}

/// Takes over one descriptor. Call it at most once for a number.
///
/// # Errors
/// When it is reserved or not open.
pub(crate) fn adopt(number: FdNumber) -> Result<OwnedFd, InheritError> {
    if number <= libc::STDERR_FILENO {
        return Err(InheritError::Reserved(number));
    }
    // SAFETY: F_GETFD on any number is harmless; F_SETFD only keeps it from children, of which
    // there are none.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(InheritError::NotOpen(number));
    }
    // SAFETY: it is open, and the process has just started: nobody else owns it. Callers take
    // each number once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Takes over everything that the configuration names, and closes all other descriptors but the
/// standard streams. Call it before anything else is opened.
///
/// # Errors
/// When a number is not usable or named twice. Some descriptors are then lost; the process is to
/// end.
pub(crate) fn take(config: &Config) -> Result<Resources, InheritError> {
    let mut numbers = BTreeSet::new();
    let named = [config.frames_fd, config.control_listener_fd];
    for number in named.into_iter().chain(config.vsock_fd) {
        if !numbers.insert(number) {
            return Err(InheritError::NamedTwice(number));
        }
    }
    close_all_but(&numbers);
    Ok(Resources {
        frames: adopt(config.frames_fd)?,
        control: adopt(config.control_listener_fd)?.into(),
        vsock: config.vsock_fd.map(adopt).transpose()?,
    })
}

/// Closes every descriptor above the standard streams that is not in `keep`.
fn close_all_but(keep: &BTreeSet<RawFd>) {
    let mut from = 3;
    for number in keep.iter().copied().filter(|number| *number >= 3) {
        close_range(from, number - 1);
        from = number.saturating_add(1);
    }
    close_range(from, RawFd::MAX);
}

fn close_range(first: RawFd, last: RawFd) {
    if let (Ok(first), Ok(last)) = (u32::try_from(first), u32::try_from(last))
        && first <= last
    {
        // SAFETY: the process has just started; nothing in it owns a descriptor that the
        // configuration does not name.
        if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == -1 {
            let error = std::io::Error::last_os_error();
            eprintln!("pyro-net: cannot close inherited descriptors: {error}");
        }
    }
}
