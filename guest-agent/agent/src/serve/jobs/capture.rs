//! What is kept of one output of a job: its first and its last part, or its last part alone.

use std::collections::VecDeque;

use pyro_agent_protocol::{CAPTURE_MAX, Captured, Keep, TAIL_MIN};

/// By how much a program may be ahead of a stream that it waits for, beyond what is kept anyway.
const AHEAD: usize = 256 << 10;

/// See the [module](self). Cursors count from the output's first byte.
#[derive(Debug)]
pub(super) struct Capture {
    head: Vec<u8>,
    head_limit: usize,
    tail: VecDeque<u8>,
    tail_limit: usize,
    /// How much of `tail_limit` it has in any case.
    tail_min: usize,
    /// How much of `tail_limit` it has at present.
    allowed: usize,
    tail_from: u64,
}

/// What is at a cursor.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum At<'a> {
    /// These bytes, and perhaps more.
    Bytes(&'a [u8]),
    /// So many bytes that are not kept any more.
    Gap(u64),
    /// Nothing yet.
    End,
}

impl Capture {
    pub(super) fn new(keep: Keep) -> Self {
        let (Keep::HeadTail { bytes } | Keep::Tail { bytes }) = keep;
        let bytes = usize::try_from(bytes.min(CAPTURE_MAX)).unwrap_or(0);
        let (head_limit, tail_min) = match keep {
            Keep::HeadTail { .. } => (bytes / 2, 0),
            Keep::Tail { .. } => (0, bytes.min(TAIL_MIN)),
        };
        let tail_limit = bytes - head_limit;
        Self {
            head: Vec::new(),
            head_limit,
            tail: VecDeque::new(),
            tail_limit,
            tail_min,
            allowed: tail_limit,
            tail_from: 0,
        }
    }

    /// Takes what the program wrote. Unless it `may_grow`, no part becomes longer for good, but for
    /// what it has in any case.
    pub(super) fn push(&mut self, bytes: &[u8], may_grow: bool, held: Option<u64>) {
        let mut rest = bytes;
        if self.tail_from == self.head.len() as u64 && self.tail.is_empty() {
            if !may_grow {
                self.head_limit = self.head.len();
            }
            let (first, after) = rest.split_at(rest.len().min(self.head_limit - self.head.len()));
            self.head.extend_from_slice(first);
            self.tail_from = self.head.len() as u64;
            rest = after;
        }
        self.allowed = if may_grow {
            self.tail_limit
        } else {
            self.allowed.min(self.tail.len()).max(self.tail_min)
        };
        self.tail.extend(rest);
        self.trim(held);
    }

    /// Lets go of what is neither kept nor waited for by a stream whose cursor is `held`.
    pub(super) fn trim(&mut self, held: Option<u64>) {
        let surplus = self.tail.len().saturating_sub(self.allowed);
        let free = held.map_or(u64::MAX, |held| held.saturating_sub(self.tail_from));
        let count = surplus.min(usize::try_from(free).unwrap_or(usize::MAX));
        self.tail.drain(..count);
        self.tail_from += count as u64;
        if surplus > 0 && self.tail.capacity() > 2 * (self.allowed + AHEAD) {
            self.tail.shrink_to(self.allowed);
        }
    }

    /// Whether the program may write on.
    pub(super) fn has_room(&self) -> bool {
        self.tail.len() < self.allowed + AHEAD
    }

    /// Bytes of memory in use.
    pub(super) fn held(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    pub(super) fn written(&self) -> u64 {
        self.tail_from + self.tail.len() as u64
    }

    pub(super) fn captured(&self) -> Captured {
        Captured {
            written: self.written(),
            head: self.head.len() as u64,
            tail: self.tail_from,
        }
    }

    pub(super) fn at(&self, cursor: u64) -> At<'_> {
        let index = |from: u64| usize::try_from(cursor - from).unwrap_or(usize::MAX);
        if let Some(bytes @ [_, ..]) = self.head.get(index(0)..) {
            return At::Bytes(bytes);
        }
        if cursor < self.tail_from {
            return At::Gap(self.tail_from - cursor);
        }
        let (first, second) = self.tail.as_slices();
        let index = index(self.tail_from);
        let bytes = match first.get(index..) {
            Some(bytes @ [_, ..]) => bytes,
            _ => second
                .get(index.saturating_sub(first.len())..)
                .unwrap_or_default(),
        };
        match bytes {
            [] => At::End,
            bytes => At::Bytes(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that is kept from a cursor on; gaps as `None`.
    fn replay(capture: &Capture, mut cursor: u64) -> Vec<Option<Vec<u8>>> {
        let mut pieces: Vec<Option<Vec<u8>>> = Vec::new();
        loop {
            match capture.at(cursor) {
                At::Bytes(bytes) => {
                    cursor += bytes.len() as u64;
                    match pieces.last_mut() {
                        Some(Some(piece)) => piece.extend_from_slice(bytes),
                        _ => pieces.push(Some(bytes.to_vec())),
                    }
                }
                At::Gap(bytes) => {
                    cursor += bytes;
                    pieces.push(None);
                }
                At::End => return pieces,
            }
        }
    }

    #[test]
    fn the_first_and_the_last_bytes_stay() {
        let mut capture = Capture::new(Keep::HeadTail { bytes: 10 });
        for byte in 0..100u8 {
            capture.push(&[byte], true, None);
        }
        let expected = Captured {
            written: 100,
            head: 5,
            tail: 95,
        };
        assert_eq!(capture.captured(), expected);
        let (first, last) = (vec![0, 1, 2, 3, 4], vec![95, 96, 97, 98, 99]);
        assert_eq!(replay(&capture, 0), [Some(first), None, Some(last.clone())]);
        assert_eq!(replay(&capture, 50), [None, Some(last)]);
        assert_eq!(replay(&capture, 98), [Some(vec![98, 99])]);
        assert_eq!(replay(&capture, 100), []);
    }

    #[test]
    fn all_of_a_short_output_stays_without_a_gap() {
        let mut capture = Capture::new(Keep::HeadTail { bytes: 10 });
        capture.push(b"abcdefg", true, None);
        assert_eq!(replay(&capture, 0), [Some(b"abcdefg".to_vec())]);
        assert_eq!(replay(&capture, 6), [Some(b"g".to_vec())]);
    }

    #[test]
    fn nothing_that_is_waited_for_is_lost() {
        let mut capture = Capture::new(Keep::HeadTail { bytes: 0 });
        let piece = [7; 64 << 10];
        let mut pushed = 0;
        while capture.has_room() {
            capture.push(&piece, true, Some(10));
            pushed += piece.len();
        }
        assert!(pushed >= AHEAD && pushed < AHEAD + 2 * piece.len());
        assert_eq!(capture.captured().tail, 10);
        capture.trim(Some(100_000));
        assert_eq!(capture.captured().tail, 100_000);
        assert!(capture.has_room());
        capture.trim(None);
        assert_eq!(capture.held(), 0);
        assert_eq!(capture.written(), pushed as u64);
    }

    #[test]
    fn what_may_not_grow_keeps_its_length() {
        let mut capture = Capture::new(Keep::HeadTail { bytes: 100 });
        capture.push(b"abc", true, None);
        capture.push(b"defgh", false, None);
        assert_eq!(replay(&capture, 0), [Some(b"abc".to_vec()), None]);
        let mut capture = Capture::new(Keep::HeadTail { bytes: 10 });
        capture.push(b"abcdefg", true, None);
        capture.push(b"hij", false, None);
        let pieces = [Some(b"abcde".to_vec()), None, Some(b"ij".to_vec())];
        assert_eq!(replay(&capture, 0), pieces);
    }

    #[test]
    fn a_tail_keeps_the_last_bytes_and_no_first_ones() {
        let mut capture = Capture::new(Keep::Tail { bytes: 10 });
        for byte in 0..100u8 {
            capture.push(&[byte], true, None);
        }
        let last = (90..100).collect();
        assert_eq!(replay(&capture, 0), [None, Some(last)]);
        let captured = capture.captured();
        assert_eq!(
            (captured.head, captured.tail, captured.written),
            (0, 90, 100)
        );
    }

    #[test]
    fn a_tail_that_may_not_grow_keeps_what_is_its_own_and_grows_again_later() {
        let mut capture = Capture::new(Keep::Tail { bytes: 1 << 20 });
        let piece = [7; 50_000];
        for _ in 0..10 {
            capture.push(&piece, false, None);
        }
        assert_eq!(capture.held(), TAIL_MIN);
        for _ in 0..10 {
            capture.push(&piece, true, None);
        }
        assert_eq!(capture.held(), TAIL_MIN + 500_000);
        capture.push(&piece, false, None);
        assert_eq!(capture.held(), TAIL_MIN + 500_000);
        capture.push(&piece, true, None);
        assert_eq!(capture.held(), TAIL_MIN + 550_000);
    }

    #[test]
    fn what_a_holder_had_to_be_given_does_not_stay_when_nothing_may_grow() {
        let mut capture = Capture::new(Keep::HeadTail { bytes: 1 << 20 });
        capture.push(&[1; 100], false, Some(0));
        assert_eq!(capture.held(), 100);
        capture.trim(Some(100));
        assert_eq!(capture.held(), 0);
    }
}
