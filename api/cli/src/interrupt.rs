//! The signals that ask us to stop, and what is theirs to ignore.
//!
//! A signal that our parent told us to ignore (as `nohup` does) stays ignored. The others end a run:
//! the VM is stopped and removed, then `pyro` exits with 128 plus the signal's number.

use std::fs;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A signal that asks us to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interrupt(i32);

impl Interrupt {
    /// 128 plus the signal's number.
    pub(crate) fn exit_status(self) -> u8 {
        u8::try_from(128 + self.0).unwrap_or(u8::MAX)
    }
}

/// From when this is made, the signals do not end the process any more.
#[derive(Debug)]
pub(crate) struct Interrupts {
    signals: Vec<(Interrupt, Signal)>,
}

impl Interrupts {
    /// Takes the signals over. Needs tokio's runtime.
    pub(crate) fn install() -> io::Result<Self> {
        let ignored = fs::read_to_string("/proc/self/status").map_or(0, |text| ignored(&text));
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
            SignalKind::quit(),
        ];
        let signals = kinds
            .into_iter()
            .filter(|kind| ignored >> (kind.as_raw_value() - 1) & 1 == 0)
            .map(|kind| Ok((Interrupt(kind.as_raw_value()), signal(kind)?)))
            .collect::<io::Result<_>>()?;
        Ok(Self { signals })
    }

    /// Waits for the first of them.
    pub(crate) async fn next(mut self) -> Interrupt {
        self.wait().await
    }

    /// Waits for the next of them. May be dropped and called again without losing one.
    pub(crate) async fn wait(&mut self) -> Interrupt {
        std::future::poll_fn(|context| {
            for (interrupt, signal) in &mut self.signals {
                if signal.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*interrupt);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

/// The mask of ignored signals of a `/proc/PID/status`.
fn ignored(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_hexadecimal() {
        assert_eq!(ignored("Name:\tx\nSigIgn:\t0000000000000001\n"), 1);
        assert_eq!(ignored("nothing"), 0);
    }

    #[test]
    fn the_exit_status_is_that_of_a_shell() {
        assert_eq!(Interrupt(2).exit_status(), 130);
        assert_eq!(Interrupt(15).exit_status(), 143);
    }
}
