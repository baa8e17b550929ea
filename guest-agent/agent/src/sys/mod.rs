//! The system calls that no safe wrapper covers. All `unsafe` of the agent is in these modules.

pub(crate) mod ioctl;
pub(crate) mod signals;
pub(crate) mod spawn;
pub(crate) mod vsock;

use rustix::io::Errno;

/// Turns libc's -1 into the error it stands for.
fn check(result: libc::c_int) -> Result<libc::c_int, Errno> {
    if result < 0 {
        Err(last_error())
    } else {
        Ok(result)
    }
}

/// The calling thread's `errno`.
fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
