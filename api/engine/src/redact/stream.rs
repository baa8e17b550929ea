//! A stream of bytes that comes in chunks.

use std::ops::Range;
use std::sync::Arc;

use aho_corasick::automaton::StateID;

use super::MARK;
use super::automaton::Automaton;

/// Takes values out of bytes as they come. It holds back what may be the begin of one: never more
/// than the longest value is long.
pub(crate) struct Stream {
    automaton: Option<Arc<Automaton>>,
    state: StateID,
    /// Bytes that were taken.
    taken: u64,
    /// Of these, the last ones that were not given.
    held: Vec<u8>,
    /// What in them is to be redacted, in order, apart from each other.
    found: Vec<Range<u64>>,
    /// Until where a mark that was given stands for what was printed.
    covered: u64,
    /// Whether what comes next follows a gap.
    after_gap: bool,
}

impl Stream {
    pub(super) fn new(automaton: Option<Arc<Automaton>>) -> Self {
        Self {
            state: automaton
                .as_ref()
                .map_or(StateID::ZERO, |automaton| automaton.start()),
            automaton,
            taken: 0,
            held: Vec::new(),
            found: Vec::new(),
            covered: 0,
            after_gap: false,
        }
    }

    /// Takes the next bytes; gives what is certain by now.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let Some(automaton) = self.automaton.clone() else {
            return bytes.to_vec();
        };
        if self.after_gap && !bytes.is_empty() {
            self.after_gap = false;
            let orphan = automaton.orphan(bytes) as u64;
            if orphan > 0 {
                self.found.push(self.taken..self.taken + orphan);
            }
        }
        for byte in bytes {
            self.state = automaton.next(self.state, *byte);
            self.taken += 1;
            if let Some(length) = automaton.ends(self.state) {
                self.find(self.taken - length as u64..self.taken);
            }
        }
        self.held.extend_from_slice(bytes);
        self.give(self.taken - automaton.open(self.state) as u64)
    }

    /// How many of the bytes that were taken are held back.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Gives what was held back: nothing follows it.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let rest = self.give(self.taken);
        if let Some(automaton) = &self.automaton {
            self.state = automaton.start();
        }
        rest
    }

    /// Gives what was held back: what follows it is missing, but more comes after that. Bytes there
    /// that may be the end of a value are redacted.
    pub(crate) fn gap(&mut self) -> Vec<u8> {
        let rest = self.finish();
        self.after_gap = self.automaton.is_some();
        rest
    }

    /// Notes an occurrence. They come in the order of their ends.
    fn find(&mut self, mut range: Range<u64>) {
        while let Some(last) = self.found.last() {
            if last.end <= range.start {
                break;
            }
            range.start = range.start.min(last.start);
            range.end = range.end.max(last.end);
            self.found.pop();
        }
        self.found.push(range);
    }

    /// Gives everything before `end`, and all of an occurrence that begins there.
    fn give(&mut self, end: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let mut at = self.taken - self.held.len() as u64;
        let mut found = std::mem::take(&mut self.found).into_iter().peekable();
        while let Some(range) = found.next_if(|range| range.start < end) {
            if range.start >= self.covered {
                out.extend(self.slice(at..range.start));
                out.extend_from_slice(MARK.as_bytes());
            }
            at = at.max(range.end);
            self.covered = self.covered.max(range.end);
        }
        self.found = found.collect();
        if at < end {
            out.extend(self.slice(at..end));
            at = end;
        }
        let given = self.held.len() as u64 - (self.taken - at);
        self.held
            .drain(..usize::try_from(given).unwrap_or(usize::MAX));
        out
    }

    /// Bytes that are held, without those that a mark stands for already.
    fn slice(&self, range: Range<u64>) -> &[u8] {
        let first = self.taken - self.held.len() as u64;
        let index = |at: u64| usize::try_from(at.saturating_sub(first)).unwrap_or(usize::MAX);
        &self.held[index(range.start.max(self.covered).min(range.end))..index(range.end)]
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never what it holds.
        f.debug_struct("Stream")
            .field("taken", &self.taken)
            .field("held", &self.held.len())
            .finish()
    }
}
