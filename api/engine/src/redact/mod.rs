//! The one redactor: what a guest printed goes through it before anybody else sees it.
//!
//! Every byte that belongs to an occurrence of a secret's value is taken out, and [`MARK`] put in
//! its place: one mark for occurrences that overlap, one each for those that touch. Where the bytes
//! were cut into chunks makes no difference, so a value that comes in two pieces is found as well.
//!
//! A value is looked for as it is, without the newlines at its end (programs seldom print those), and
//! as a terminal prints it (a newline becomes CR LF). Not looked for are other spellings of it: a
//! program that prints a value in base64, in reverse or letter by letter, prints it.

mod automaton;
mod stream;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use pyro_client::types::ApiError;

use automaton::Automaton;
pub(crate) use stream::Stream;

use crate::error::Error;

/// What is put in the place of a value.
pub(crate) const MARK: &str = "[REDACTED]";
/// Shortest value, in bytes and without newlines at its end. Shorter ones would be found everywhere.
pub(crate) const MIN_VALUE: usize = 4;

/// Finds values. Cheap to clone; without values it lets everything pass.
#[derive(Clone, Default)]
pub(crate) struct Redactor(Option<Arc<Automaton>>);

impl Redactor {
    /// Takes out these values; those that are shorter than [`MIN_VALUE`] are not looked for.
    pub(crate) fn new<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut spellings: Vec<Vec<u8>> = Vec::new();
        for value in values {
            spellings.extend(self::spellings(value));
        }
        spellings.sort_unstable();
        spellings.dedup();
        if spellings.is_empty() {
            return Self(None);
        }
        Self(Some(Arc::new(Automaton::new(spellings))))
    }

    /// Begins a stream of bytes.
    pub(crate) fn stream(&self) -> Stream {
        Stream::new(self.0.clone())
    }

    /// All of some bytes.
    pub(crate) fn bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        if self.0.is_none() {
            return Cow::Borrowed(bytes);
        }
        let mut stream = self.stream();
        let mut out = stream.push(bytes);
        out.extend(stream.finish());
        Cow::Owned(out)
    }

    /// All of a text.
    pub(crate) fn text(&self, text: &str) -> String {
        match self.bytes(text.as_bytes()) {
            Cow::Borrowed(_) => text.to_string(),
            // A value may end in the middle of a character.
            Cow::Owned(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    /// What is told of a failure: it may quote what the guest said.
    pub(crate) fn error(&self, error: ApiError) -> ApiError {
        if self.0.is_none() {
            return error;
        }
        ApiError {
            code: error.code,
            message: self.text(&error.message),
            remedy: self.text(&error.remedy),
            detail: error.detail.map(|detail| self.text(&detail)),
        }
    }
}

impl Redactor {
    /// An error of ours: its detail may have what the guest printed, its causes what it said.
    pub(crate) fn ours(&self, error: Error) -> Error {
        if self.0.is_none() {
            return error;
        }
        let code = error.code();
        let told = self.error(error.to_api());
        Error::new(code, told.message, told.remedy).with_detail(told.detail.unwrap_or_default())
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the values.
        f.debug_struct("Redactor")
            .field("active", &self.0.is_some())
            .finish()
    }
}

/// A value without the newlines at its end.
pub(crate) fn trimmed(value: &[u8]) -> &[u8] {
    let end = value
        .iter()
        .rposition(|byte| !matches!(byte, b'\n' | b'\r'))
        .map_or(0, |last| last + 1);
    &value[..end]
}

/// The forms in which a value is looked for. What contains the trimmed one is found by it.
fn spellings(value: &[u8]) -> Vec<Vec<u8>> {
    let value = trimmed(value);
    if value.len() < MIN_VALUE {
        return Vec::new();
    }
    let mut spellings = vec![value.to_vec()];
    if value.contains(&b'\n') {
        let mut printed = Vec::with_capacity(value.len() + 16);
        for byte in value {
            if *byte == b'\n' {
                printed.push(b'\r');
            }
            printed.push(*byte);
        }
        spellings.push(printed);
    }
    spellings
}

/// Where values are in some bytes.
#[derive(Debug)]
pub(crate) struct Redacted {
    /// In order, apart from each other.
    ranges: Vec<std::ops::Range<usize>>,
    /// What comes from here on may begin a value.
    pub(crate) certain: usize,
}

impl Redactor {
    /// Where values are in some bytes, before which others may be missing, and after which others may
    /// follow unless they are `complete`.
    pub(crate) fn find(&self, bytes: &[u8], after_gap: bool, complete: bool) -> Redacted {
        let Some(automaton) = &self.0 else {
            return Redacted {
                ranges: Vec::new(),
                certain: bytes.len(),
            };
        };
        let mut ranges: Vec<std::ops::Range<usize>> = Vec::new();
        let orphan = if after_gap {
            automaton.orphan(bytes)
        } else {
            0
        };
        if orphan > 0 {
            ranges.push(0..orphan);
        }
        let mut state = automaton.start();
        for (at, byte) in bytes.iter().enumerate() {
            state = automaton.next(state, *byte);
            let Some(length) = automaton.ends(state) else {
                continue;
            };
            let mut range = at + 1 - length..at + 1;
            while let Some(last) = ranges.pop_if(|last| last.end > range.start) {
                range.start = range.start.min(last.start);
                range.end = range.end.max(last.end);
            }
            ranges.push(range);
        }
        let open = if complete { 0 } else { automaton.open(state) };
        let certain = bytes.len() - open;
        // A value that is there is redacted, whatever it may yet be a part of.
        let certain = ranges
            .iter()
            .find(|range| range.contains(&certain))
            .map_or(certain, |range| range.end);
        Redacted { ranges, certain }
    }
}

impl Redacted {
    /// The occurrence that a byte belongs to.
    pub(crate) fn covers(&self, at: usize) -> Option<&std::ops::Range<usize>> {
        let index = self.ranges.partition_point(|range| range.end <= at);
        self.ranges.get(index).filter(|range| range.contains(&at))
    }

    /// Where the next occurrence begins after a byte that belongs to none.
    pub(crate) fn next(&self, at: usize) -> usize {
        let index = self.ranges.partition_point(|range| range.end <= at);
        self.ranges
            .get(index)
            .map_or(usize::MAX, |range| range.start)
    }

    /// A part of the bytes, with marks in the place of values. One that the part begins within has
    /// its mark there.
    pub(crate) fn bytes(&self, bytes: &[u8], part: std::ops::Range<usize>) -> Vec<u8> {
        let mut out = Vec::with_capacity(part.len());
        let mut at = part.start;
        while at < part.end {
            if let Some(range) = self.covers(at) {
                // Of one that begins before, the mark was in the part before.
                if range.start >= part.start || part.start == 0 {
                    out.extend_from_slice(MARK.as_bytes());
                }
                at = range.end;
                continue;
            }
            let end = self.next(at).min(part.end);
            out.extend_from_slice(&bytes[at..end]);
            at = end;
        }
        out
    }
}
