//! A command's output kept in memory, up to a bound.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

/// Keeps the first bytes that are written to it, counts and drops the rest.
#[derive(Debug, Clone)]
pub struct Capture {
    bytes: Vec<u8>,
    limit: usize,
    total: u64,
}

impl Capture {
    /// Keeps at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            limit,
            total: 0,
        }
    }

    /// What was kept. When something was dropped, a character cut in two at the bound is dropped
    /// too, so that text stays text.
    pub fn bytes(&self) -> &[u8] {
        if !self.truncated() {
            return &self.bytes;
        }
        match std::str::from_utf8(&self.bytes) {
            // An error without a length is a character that the bound has cut.
            Err(error) if error.error_len().is_none() => &self.bytes[..error.valid_up_to()],
            _ => &self.bytes,
        }
    }

    /// Whether something was dropped.
    pub fn truncated(&self) -> bool {
        self.total > self.bytes.len() as u64
    }

    /// Bytes written, kept or not.
    pub fn total(&self) -> u64 {
        self.total
    }
}

impl AsyncWrite for Capture {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let room = self.limit - self.bytes.len();
        self.bytes
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.total = self.total.saturating_add(bytes.len() as u64);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn the_first_bytes_are_kept_and_all_are_counted() {
        let mut capture = Capture::new(5);
        capture.write_all(b"abc").await.expect("written");
        assert!(!capture.truncated());
        capture.write_all(b"defg").await.expect("written");

        assert_eq!(capture.bytes(), b"abcde");
        assert!(capture.truncated());
        assert_eq!(capture.total(), 7);
    }

    #[tokio::test]
    async fn a_character_cut_at_the_bound_is_dropped() {
        let mut capture = Capture::new(4);
        capture.write_all("abcé".as_bytes()).await.expect("written");
        assert_eq!(capture.bytes(), b"abc");
    }
}
