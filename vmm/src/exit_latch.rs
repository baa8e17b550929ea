//! Why the VM ends: the first reason counts, and the control thread is woken for it.

use std::sync::{Arc, Mutex, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use crate::control::ExitReason;

/// Takes the first reason. Clones share it.
#[derive(Debug, Clone)]
pub struct ExitLatch {
    shared: Arc<(Mutex<Option<ExitReason>>, EventFd)>,
}

impl ExitLatch {
    /// An open latch.
    ///
    /// # Errors
    /// When the host has no descriptor left.
    pub fn new() -> std::io::Result<Self> {
        let wake = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        Ok(Self {
            shared: Arc::new((Mutex::new(None), wake)),
        })
    }

    /// Ends the VM for this reason, unless there is one already.
    pub fn set(&self, reason: ExitReason) {
        let (slot, wake) = &*self.shared;
        slot.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(reason);
        // It is readable from the first write on.
        let _ = wake.write(1);
    }

    /// The reason, if there is one.
    pub fn get(&self) -> Option<ExitReason> {
        self.shared
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Readable once there is a reason.
    pub fn wake(&self) -> &EventFd {
        &self.shared.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_counts() {
        let latch = ExitLatch::new().unwrap();
        assert_eq!(latch.get(), None);
        latch.clone().set(ExitReason::PowerOff);
        latch.set(ExitReason::Reset);
        assert_eq!(latch.get(), Some(ExitReason::PowerOff));
        assert!(latch.wake().read().is_ok());
    }
}
