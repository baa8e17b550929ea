//! The console ring: the last bytes a guest wrote to its console, for people and error reports.
//!
//! A guest can flood it; the ring is bounded, and it counts what it drops. Writing never blocks.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes kept.
pub const CAPACITY: usize = 64 << 10;

/// The ring. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Console {
    ring: Arc<Mutex<Ring>>,
    /// Also copy everything to standard error.
    echo: bool,
}

#[derive(Debug, Default)]
struct Ring {
    bytes: VecDeque<u8>,
    dropped: u64,
}

impl Console {
    /// An empty ring; with `echo`, everything is copied to standard error.
    pub fn new(echo: bool) -> Self {
        Self {
            ring: Arc::default(),
            echo,
        }
    }

    /// The last bytes, at most `max`, with invalid UTF-8 replaced, and how many bytes came before
    /// them.
    pub fn tail(&self, max: usize) -> (String, u64) {
        let ring = self.lock();
        let skipped = ring.bytes.len().saturating_sub(max);
        let bytes: Vec<u8> = ring.bytes.iter().skip(skipped).copied().collect();
        (
            String::from_utf8_lossy(&bytes).into_owned(),
            ring.dropped + skipped as u64,
        )
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        // The ring is valid after every step, so a panic elsewhere does not matter.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut ring = self.lock();
        let kept = &bytes[bytes.len().saturating_sub(CAPACITY)..];
        let overflow = (ring.bytes.len() + kept.len()).saturating_sub(CAPACITY);
        ring.bytes.drain(..overflow);
        ring.dropped += (overflow + bytes.len() - kept.len()) as u64;
        ring.bytes.extend(kept);
        // Nobody who asks for the tail waits for a reader of the echo.
        drop(ring);
        if self.echo {
            // Debugging help; nobody is told when it fails.
            let _ = io::stderr().write_all(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_keeps_the_last_bytes_and_counts_the_others() {
        let mut console = Console::new(false);
        for _ in 0..CAPACITY {
            console.write_all(b"ab").unwrap();
        }
        console.write_all(b"end").unwrap();
        let (text, dropped) = console.tail(usize::MAX);
        assert_eq!(text.len(), CAPACITY);
        assert!(text.ends_with("end"));
        assert_eq!(dropped, CAPACITY as u64 + 3);
        assert_eq!(console.tail(3), ("end".to_owned(), 2 * CAPACITY as u64));
    }

    #[test]
    fn one_write_larger_than_the_ring_is_cut_at_its_front() {
        let mut console = Console::new(false);
        console.write_all(&vec![b'x'; CAPACITY + 5]).unwrap();
        assert_eq!(console.tail(0).1, CAPACITY as u64 + 5);
    }

    #[test]
    fn invalid_utf8_is_replaced() {
        let mut console = Console::new(false);
        console.write_all(&[b'a', 0xff]).unwrap();
        assert_eq!(console.tail(9).0, "a\u{fffd}");
    }
}
