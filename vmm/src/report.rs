//! Standard error, for what a guest can cause.
//!
//! A guest can break its devices as often as it likes. What is said about it is bounded, so that
//! it can neither fill a log nor, through a pipe that nobody reads, hold a thread up.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

/// Messages in the life of a process; together they fit any pipe.
const MESSAGES_MAX: u32 = 32;

static MESSAGES: AtomicU32 = AtomicU32::new(0);

/// Says something about the guest, unless too much has been said.
pub(crate) fn guest(message: fmt::Arguments<'_>) {
    let next = |said: u32| (said < MESSAGES_MAX).then_some(said + 1);
    if let Ok(said) = MESSAGES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
        eprintln!("pyro-vmm: {message}");
        if said + 1 == MESSAGES_MAX {
            eprintln!("pyro-vmm: no more messages about the guest");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_messages_ends() {
        for number in 0..1000 {
            guest(format_args!("message {number}"));
        }
        assert_eq!(MESSAGES.load(Ordering::Relaxed), MESSAGES_MAX);
    }
}
