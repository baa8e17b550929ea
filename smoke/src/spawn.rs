#![allow(unsafe_code)] // `pre_exec` is the only way to act between fork and exec
//! What a child does between fork and exec.
//!
//! Each closure makes only system calls and allocates nothing, as `pre_exec` demands.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{self, Signal};

/// The child is killed when the thread that starts it ends: start it from the main thread.
pub fn die_with_parent(command: &mut Command) -> &mut Command {
    // SAFETY: prctl(2) only; the closure neither allocates nor touches state of the parent.
    unsafe {
        command.pre_exec(|| {
            process::set_parent_process_death_signal(Some(Signal::KILL))?;
            Ok(())
        })
    }
}

/// The child is asked to end (SIGTERM) when the thread that starts it ends.
pub fn end_with_parent(command: &mut Command) -> &mut Command {
    // SAFETY: prctl(2) only; the closure neither allocates nor touches state of the parent.
    unsafe {
        command.pre_exec(|| {
            process::set_parent_process_death_signal(Some(Signal::TERM))?;
            Ok(())
        })
    }
}

/// The child leads a session of its own, away from the caller's terminal.
pub fn own_session(command: &mut Command) -> &mut Command {
    // SAFETY: setsid(2) only; the closure neither allocates nor touches state of the parent.
    unsafe {
        command.pre_exec(|| {
            process::setsid()?;
            Ok(())
        })
    }
}

/// The child moves itself into the control group whose `cgroup.procs` is open as `procs`, so that
/// everything it ever starts is in it.
pub fn in_cgroup(command: &mut Command, procs: OwnedFd) -> &mut Command {
    // SAFETY: write(2) only, to a descriptor that the closure owns; no allocation.
    unsafe {
        command.pre_exec(move || {
            rustix::io::write(&procs, b"0")?;
            Ok(())
        })
    }
}
