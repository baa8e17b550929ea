//! All spellings of all values at once, byte by byte.

use std::collections::HashMap;

use aho_corasick::automaton::{Automaton as _, StateID};
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, MatchKind};

/// An Aho-Corasick automaton that also knows how much of its past still matters.
pub(super) struct Automaton {
    nfa: NFA,
    start: StateID,
    /// Of each state but the start: how many of the last bytes may be the begin of a match that is
    /// yet to end.
    open: HashMap<StateID, usize>,
    spellings: Vec<Vec<u8>>,
}

impl Automaton {
    /// Of different, non-empty spellings.
    pub(super) fn new(spellings: Vec<Vec<u8>>) -> Self {
        let nfa = NFA::builder()
            .match_kind(MatchKind::Standard)
            .prefilter(false)
            .build(&spellings)
            .expect("a few secrets of bounded length make a small automaton");
        let start = nfa
            .start_state(Anchored::No)
            .expect("an automaton is not anchored unless asked for");
        let walk = |bytes: &[u8]| {
            bytes.iter().fold(start, |state, byte| {
                nfa.next_state(Anchored::No, state, *byte)
            })
        };
        // After the begin of a spelling, and nothing before it, the automaton knows all of it.
        let mut open = HashMap::new();
        for spelling in &spellings {
            let mut state = start;
            for (length, byte) in (1..spelling.len()).zip(spelling) {
                state = nfa.next_state(Anchored::No, state, *byte);
                open.insert(state, length);
            }
        }
        // Where one ends that no other continues, a shorter one may have begun.
        for spelling in &spellings {
            let end = walk(spelling);
            if open.contains_key(&end) {
                continue;
            }
            let mut rest = &spelling[1..];
            let length = loop {
                let state = walk(rest);
                if state == start {
                    break 0;
                }
                if let Some(length) = open.get(&state) {
                    break *length;
                }
                // The rest ends with a whole spelling that no other continues.
                let longest = (0..nfa.match_len(state))
                    .map(|index| nfa.pattern_len(nfa.match_pattern(state, index)))
                    .max()
                    .unwrap_or(1);
                rest = &rest[rest.len() - longest.min(rest.len()) + 1..];
            };
            open.insert(end, length);
        }
        Self {
            nfa,
            start,
            open,
            spellings,
        }
    }

    pub(super) fn start(&self) -> StateID {
        self.start
    }

    pub(super) fn next(&self, state: StateID, byte: u8) -> StateID {
        self.nfa.next_state(Anchored::No, state, byte)
    }

    /// The length of the longest spelling that ends here.
    pub(super) fn ends(&self, state: StateID) -> Option<usize> {
        if !self.nfa.is_match(state) {
            return None;
        }
        (0..self.nfa.match_len(state))
            .map(|index| self.nfa.pattern_len(self.nfa.match_pattern(state, index)))
            .max()
    }

    /// How many of the last bytes may be the begin of a match.
    pub(super) fn open(&self, state: StateID) -> usize {
        self.open.get(&state).copied().unwrap_or(0)
    }

    /// How many bytes at the begin of `bytes` are the end of a spelling whose begin is missing.
    pub(super) fn orphan(&self, bytes: &[u8]) -> usize {
        let of_one = |spelling: &Vec<u8>| {
            (1..spelling.len())
                .map(|cut| &spelling[cut..])
                .take_while(|rest| rest.len() >= super::MIN_VALUE)
                .find(|rest| bytes.starts_with(rest))
                .map_or(0, <[u8]>::len)
        };
        self.spellings.iter().map(of_one).max().unwrap_or(0)
    }

    /// Whether such an end may be longer than `bytes`, which are all that is there by now.
    pub(super) fn may_be_orphan(&self, bytes: &[u8]) -> bool {
        let longest = |spelling: &Vec<u8>| {
            (1..spelling.len())
                .map(|cut| &spelling[cut..])
                .take_while(|rest| rest.len() >= super::MIN_VALUE && rest.len() > bytes.len())
                .any(|rest| rest.starts_with(bytes))
        };
        self.spellings.iter().any(longest)
    }
}
