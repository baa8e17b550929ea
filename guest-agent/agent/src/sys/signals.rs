//! Signals as something to read: a signalfd for the ones the agent acts on.

#![allow(unsafe_code)] // No safe wrapper offers signalfd(2) or sigprocmask(2).

use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use super::check;

/// What arrived since the last look.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrived {
    /// A child may have ended.
    pub(crate) child: bool,
    /// Somebody asks the agent to end.
    pub(crate) terminate: bool,
}

/// Takes signals over: none does anything by itself any more but what the kernel does by default,
/// and SIGCHLD, SIGTERM and SIGINT can be read from the descriptor that this gives.
pub(crate) fn watch() -> Result<OwnedFd, Errno> {
    // SAFETY: a zeroed set is valid for sigemptyset to fill; all calls get pointers to it alone.
    let fd = unsafe {
        // Whoever started the agent may have ignored some, and ignored signals stay ignored across
        // exec, in the programs that the agent runs, too. (SIGKILL and SIGSTOP refuse.)
        for signal in 1..32 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut set: libc::sigset_t = std::mem::zeroed();
        check(libc::sigemptyset(&raw mut set))?;
        // SIGPIPE only to be rid of it: a program that does not read its input is no reason to die.
        for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGPIPE] {
            check(libc::sigaddset(&raw mut set, signal))?;
        }
        check(libc::sigprocmask(
            libc::SIG_BLOCK,
            &raw const set,
            std::ptr::null_mut(),
        ))?;
        check(libc::signalfd(
            -1,
            &raw const set,
            libc::SFD_CLOEXEC | libc::SFD_NONBLOCK,
        ))?
    };
    // SAFETY: signalfd made this descriptor just now and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Reads away all signals that are pending.
pub(crate) fn arrived(fd: impl AsFd) -> Arrived {
    // signalfd(2): records of 128 bytes, each beginning with the signal's number.
    const RECORD: usize = size_of::<libc::signalfd_siginfo>();
    let mut seen = Arrived::default();
    let mut records = Vec::with_capacity(RECORD * 16);
    loop {
        records.clear();
        match rustix::io::read(fd.as_fd(), spare_capacity(&mut records)) {
            Ok(0) => return seen,
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => return seen,
        }
        for record in records.chunks_exact(RECORD) {
            let Some((number, _)) = record.split_first_chunk::<4>() else {
                continue;
            };
            match u32::from_ne_bytes(*number).cast_signed() {
                libc::SIGCHLD => seen.child = true,
                libc::SIGTERM | libc::SIGINT => seen.terminate = true,
                _ => {}
            }
        }
    }
}

/// Sends a signal to every process but the caller and the kernel's own: kill(2) with -1. Nothing
/// that forks meanwhile is missed. For PID 1 only.
pub(crate) fn signal_all(signal: rustix::process::Signal) {
    // SAFETY: kill takes no pointers; that nobody else is to live on is the caller's decision.
    unsafe { libc::kill(-1, signal.as_raw()) };
}

/// Gives a new child the signal mask that a program expects to start with. Makes a system call
/// only, as is needed between fork and exec.
pub(super) fn unblock_in_child() {
    // SAFETY: sigprocmask is async-signal-safe and gets a valid set.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}
