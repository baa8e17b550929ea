//! From a device to its driver.
//!
//! An [`Interrupt`] is a status word that the transport shows as `InterruptStatus` and an eventfd
//! that KVM turns into an edge of the device's line (irqfd), without an exit. The word is set
//! before the edge, so the driver that comes to look always finds its cause.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use vmm_sys_util::eventfd::EventFd;

/// `InterruptStatus` bit 0: the device used a buffer (virtio 1.2 §4.2.2).
pub const USED_BUFFER: u32 = 1 << 0;
/// `InterruptStatus` bit 1: the configuration, or the device's status, has changed.
pub const CONFIG_CHANGE: u32 = 1 << 1;

/// The device's end of its interrupt. Clones share one line.
#[derive(Debug, Clone)]
pub struct Interrupt {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// `InterruptStatus`.
    status: AtomicU32,
    /// The device asks for `DEVICE_NEEDS_RESET` in its status register.
    needs_reset: AtomicBool,
    line: EventFd,
}

impl Interrupt {
    /// Makes an interrupt around an eventfd (non-blocking) that KVM, or a test, watches.
    pub fn new(line: EventFd) -> Self {
        Self {
            shared: Arc::new(Shared {
                status: AtomicU32::new(0),
                needs_reset: AtomicBool::new(false),
                line,
            }),
        }
    }

    /// Tells the driver that buffers were used. Call it only when the queue says so
    /// ([`super::queue::ActiveQueue::needs_interrupt`]).
    pub fn used_buffer(&self) {
        self.raise(USED_BUFFER);
    }

    /// Tells the driver that the configuration space has changed.
    pub fn config_changed(&self) {
        self.raise(CONFIG_CHANGE);
    }

    /// Tells the driver that the device is broken until it is reset (virtio 1.2 §2.1.2).
    pub fn needs_reset(&self) {
        self.shared.needs_reset.store(true, Ordering::Release);
        self.raise(CONFIG_CHANGE);
    }

    /// The eventfd behind the line, for registration with KVM.
    pub fn line(&self) -> &EventFd {
        &self.shared.line
    }

    /// `InterruptStatus` as the driver reads it.
    pub(crate) fn status(&self) -> u32 {
        self.shared.status.load(Ordering::Acquire)
    }

    /// `InterruptACK`: the driver has seen these bits.
    pub(crate) fn acknowledge(&self, bits: u32) {
        self.shared.status.fetch_and(!bits, Ordering::AcqRel);
    }

    /// Whether the device has asked for a reset.
    pub(crate) fn is_reset_needed(&self) -> bool {
        self.shared.needs_reset.load(Ordering::Acquire)
    }

    /// Back to the state after construction.
    pub(crate) fn reset(&self) {
        self.shared.needs_reset.store(false, Ordering::Release);
        self.shared.status.store(0, Ordering::Release);
    }

    fn raise(&self, bit: u32) {
        self.shared.status.fetch_or(bit, Ordering::AcqRel);
        match self.shared.line.write(1) {
            Ok(()) => {}
            // The counter is saturated: the line has plenty of edges to deliver already.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => crate::report::guest(format_args!("cannot raise an interrupt: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interrupt() -> Interrupt {
        Interrupt::new(EventFd::new(libc::EFD_NONBLOCK).unwrap())
    }

    #[test]
    fn status_is_set_before_the_line_and_cleared_by_acknowledge() {
        let interrupt = interrupt();
        interrupt.used_buffer();
        interrupt.config_changed();
        assert_eq!(interrupt.line().read().unwrap(), 2);
        assert_eq!(interrupt.status(), USED_BUFFER | CONFIG_CHANGE);
        interrupt.acknowledge(USED_BUFFER);
        assert_eq!(interrupt.status(), CONFIG_CHANGE);
    }

    #[test]
    fn needs_reset_survives_acknowledge_and_ends_with_reset() {
        let interrupt = interrupt();
        interrupt.needs_reset();
        interrupt.acknowledge(u32::MAX);
        assert!(interrupt.is_reset_needed());
        interrupt.reset();
        assert!(!interrupt.is_reset_needed());
        assert_eq!(interrupt.status(), 0);
    }

    #[test]
    fn a_saturated_line_neither_blocks_nor_fails() {
        let interrupt = interrupt();
        interrupt.line().write(u64::MAX - 1).unwrap();
        interrupt.used_buffer();
        assert_eq!(interrupt.status(), USED_BUFFER);
    }
}
