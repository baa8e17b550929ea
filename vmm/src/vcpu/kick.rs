//! Takes a thread out of `KVM_RUN`.
//!
//! A signal interrupts `KVM_RUN`; one that arrives just before it would be lost. So the signal's
//! handler also sets `immediate_exit` in the shared run page of the vCPU that its thread runs:
//! `KVM_RUN` then returns `EINTR` at once.
#![allow(unsafe_code)] // a signal handler that writes one byte of a mapped page

use std::cell::Cell;
use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::ptr;
use std::thread::JoinHandle;

use kvm_ioctls::VcpuFd;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

thread_local! {
    /// `immediate_exit` of the vCPU that this thread runs.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
}

/// The signal that kicks.
fn signal() -> libc::c_int {
    SIGRTMIN()
}

extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // A constant-initialised thread-local without destructor: reading it is async-signal-safe.
    let byte = IMMEDIATE_EXIT.get();
    if !byte.is_null() {
        // SAFETY: `Target` guarantees that the pointer is valid while it is set.
        unsafe { byte.write_volatile(1) };
    }
}

/// Installs the signal's handler; do so before any thread is kicked.
///
/// # Errors
/// When the host refuses.
pub fn install_handler() -> io::Result<()> {
    register_signal_handler(signal(), on_kick)
        .map_err(|error| io::Error::from_raw_os_error(error.errno()))
}

/// While it lives, kicks of this thread reach `vcpu`.
#[derive(Debug)]
pub struct Target {
    vcpu: VcpuFd,
}

impl Target {
    /// Makes the current thread the one that runs `vcpu`.
    pub fn enter(mut vcpu: VcpuFd) -> Self {
        IMMEDIATE_EXIT.set(&raw mut vcpu.get_kvm_run().immediate_exit);
        Self { vcpu }
    }

    /// The vCPU.
    pub fn vcpu(&mut self) -> &mut VcpuFd {
        &mut self.vcpu
    }

    /// Forgets kicks that have taken effect.
    pub fn rearm(&mut self) {
        self.vcpu.set_kvm_immediate_exit(0);
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        IMMEDIATE_EXIT.set(ptr::null_mut());
    }
}

/// Kicks the thread. What it is to look at must be written before.
pub fn kick<T>(thread: &JoinHandle<T>) {
    // SAFETY: the handle is not joined, so the thread's id is valid, even when it has ended.
    unsafe { libc::pthread_kill(thread.as_pthread_t(), signal()) };
}
