//! A stream of bytes that comes in chunks.

use std::ops::Range;
use std::sync::Arc;

use aho_corasick::automaton::StateID;

use super::automaton::Automaton;
use super::{MARK, MIN_VALUE};

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
    /// What came after a gap, as long as more of it may be the end of a value.
    orphan: Vec<u8>,
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
            orphan: Vec::new(),
        }
    }

    /// Takes the next bytes; gives what is certain by now.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let Some(automaton) = self.automaton.clone() else {
            return bytes.to_vec();
        };
        if !self.after_gap || bytes.is_empty() {
            return self.take(&automaton, bytes);
        }
        self.orphan.extend_from_slice(bytes);
        if automaton.may_be_orphan(&self.orphan) {
            return Vec::new();
        }
        self.take_orphan(&automaton)
    }

    /// Takes what followed a gap.
    fn take_orphan(&mut self, automaton: &Automaton) -> Vec<u8> {
        self.after_gap = false;
        let bytes = std::mem::take(&mut self.orphan);
        let orphan = automaton.orphan(&bytes) as u64;
        if orphan > 0 {
            self.found.push(self.taken..self.taken + orphan);
        }
        self.take(automaton, &bytes)
    }

    fn take(&mut self, automaton: &Automaton, bytes: &[u8]) -> Vec<u8> {
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
        self.held.len() + self.orphan.len()
    }

    /// Gives what was held back: nothing follows it.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        self.end(false)
    }

    /// Gives what was held back: what follows it is missing, but more comes after that. Bytes on both
    /// sides of the gap that may be parts of a value are redacted, [`MIN_VALUE`] of them or more.
    pub(crate) fn gap(&mut self) -> Vec<u8> {
        let rest = self.end(true);
        self.after_gap = self.automaton.is_some();
        rest
    }

    fn end(&mut self, cut: bool) -> Vec<u8> {
        let Some(automaton) = self.automaton.clone() else {
            return Vec::new();
        };
        let mut rest = self.take_orphan(&automaton);
        let open = automaton.open(self.state);
        if cut && open >= MIN_VALUE {
            self.find(self.taken - open as u64..self.taken);
        }
        rest.extend(self.give(self.taken));
        self.state = automaton.start();
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
            .field("held", &(self.held.len() + self.orphan.len()))
            .finish()
    }
}
