//! The beginning and the end of an output, as many bytes of each as are kept.

use std::collections::VecDeque;

/// Keeps the first and the last half of what it is given, up to a bound, and counts all.
#[derive(Debug)]
pub(in crate::engine) struct Ends {
    half: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    total: u64,
}

impl Ends {
    /// Keeps at most `limit` bytes.
    pub(in crate::engine) fn new(limit: u64) -> Self {
        Self {
            half: usize::try_from(limit / 2).unwrap_or(usize::MAX),
            head: Vec::new(),
            tail: VecDeque::new(),
            total: 0,
        }
    }

    /// Takes the next bytes.
    pub(in crate::engine) fn push(&mut self, bytes: &[u8]) {
        self.total = self.total.saturating_add(bytes.len() as u64);
        let (first, rest) = bytes.split_at(bytes.len().min(self.half - self.head.len()));
        self.head.extend_from_slice(first);
        let rest = &rest[rest.len().saturating_sub(self.half)..];
        let excess = (self.tail.len() + rest.len()).saturating_sub(self.half);
        self.tail.drain(..excess);
        self.tail.extend(rest);
    }

    /// Notes that this many bytes never came.
    pub(in crate::engine) fn skip(&mut self, bytes: u64) {
        self.total = self.total.saturating_add(bytes);
        self.tail.clear();
    }

    /// Bytes that there were, kept or not.
    pub(in crate::engine) fn total(&self) -> u64 {
        self.total
    }

    /// Whether some are missing.
    pub(in crate::engine) fn truncated(&self) -> bool {
        self.total > (self.head.len() + self.tail.len()) as u64
    }

    /// What is kept, as text. Characters that the cut went through are left out, other bytes that
    /// are not UTF-8 replaced.
    pub(in crate::engine) fn text(&self) -> String {
        let (a, b) = self.tail.as_slices();
        if !self.truncated() {
            return String::from_utf8_lossy(&[&self.head, a, b].concat()).into_owned();
        }
        let head = match std::str::from_utf8(&self.head) {
            Err(error) if error.error_len().is_none() => &self.head[..error.valid_up_to()],
            _ => &self.head,
        };
        let tail = [a, b].concat();
        let continued = tail
            .iter()
            .take(3)
            .take_while(|byte| **byte & 0xc0 == 0x80)
            .count();
        let mut text = String::from_utf8_lossy(head).into_owned();
        text.push_str(&String::from_utf8_lossy(&tail[continued..]));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_kept_however_the_bytes_come() {
        let all: Vec<u8> = (b'a'..=b'z').collect();
        for size in [1, 3, 5, 26] {
            let mut ends = Ends::new(10);
            for chunk in all.chunks(size) {
                ends.push(chunk);
            }
            assert_eq!(ends.text(), "abcdevwxyz", "{size}");
            assert_eq!((ends.total(), ends.truncated()), (26, true));
        }
    }

    #[test]
    fn what_fits_is_whole() {
        let mut ends = Ends::new(10);
        ends.push(b"0123456789");
        assert_eq!(
            (ends.text().as_str(), ends.truncated()),
            ("0123456789", false)
        );
    }

    #[test]
    fn characters_that_the_cut_went_through_are_left_out() {
        let mut ends = Ends::new(10);
        ends.push("aaaaéxxéaaaa".as_bytes());
        assert_eq!(ends.text(), "aaaaaaaa");
        assert!(ends.truncated());
    }

    #[test]
    fn a_gap_is_counted_and_nothing_before_it_stays_but_the_head() {
        let mut ends = Ends::new(8);
        ends.push(b"headtail");
        ends.skip(100);
        ends.push(b"END");
        assert_eq!(ends.text(), "headEND");
        assert_eq!((ends.total(), ends.truncated()), (111, true));
    }
}
