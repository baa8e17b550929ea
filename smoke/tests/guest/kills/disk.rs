//! What a workspace's disk must hold, may hold, and may not.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// How sure it is that a file is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sure {
    /// Somebody tried to write it. There may be a part of it, unless it was written as a whole.
    Tried,
    /// It was written, and is there for as long as the guest runs.
    Written,
    /// Whatever is killed, it is there.
    Synced,
}

/// The files that were ever written to a disk, each under a name of its own that is never used
/// again. What is on the disk and not in here came from nowhere, or was to be gone by a reset.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    files: BTreeMap<String, Sure>,
}

/// What a file of this name holds: between one line and a hundred pages.
pub(super) fn content(name: &str) -> String {
    format!("{name}\n").repeat(lines(name))
}

/// Lines of the file of this name; each is the name.
pub(super) fn lines(name: &str) -> usize {
    let sum: usize = name.bytes().map(usize::from).sum();
    1 + sum * sum * 37 % 50_000
}

/// A command that prints what [`Disk::check`] reads.
pub(super) const LISTING: &str = "sha256sum -- [a-z]-* 2>/dev/null || true";

impl Disk {
    /// A write is on its way.
    pub(super) fn trying(&mut self, name: &str) {
        self.files.insert(name.to_string(), Sure::Tried);
    }

    /// The write was answered.
    pub(super) fn written(&mut self, name: &str) {
        self.files.insert(name.to_string(), Sure::Written);
    }

    /// All that was written is durable now.
    pub(super) fn synced(&mut self) {
        for sure in self.files.values_mut() {
            if *sure == Sure::Written {
                *sure = Sure::Synced;
            }
        }
    }

    /// The guest may have ended without writing out what it held.
    pub(super) fn maybe_lost(&mut self) {
        for sure in self.files.values_mut() {
            if *sure == Sure::Written {
                *sure = Sure::Tried;
            }
        }
    }

    /// How many files must be there whatever happens.
    pub(super) fn count(&self) -> usize {
        let synced = self.files.values().filter(|sure| **sure == Sure::Synced);
        synced.count()
    }

    /// Holds what the guest listed against what must be there.
    pub(super) fn check(&self, listing: &str) -> Result<(), String> {
        let found: BTreeMap<&str, &str> = listing
            .lines()
            .filter_map(|line| line.split_once("  "))
            .map(|(sum, name)| (name, sum))
            .collect();
        let mut wrong = String::new();
        for (name, sure) in &self.files {
            // What the API writes is there as a whole or not at all, and so says its first letter.
            let whole = name.starts_with('w') || *sure > Sure::Tried;
            match found.get(name.as_str()) {
                Some(sum) if **sum != sum_of(name) && whole => {
                    let _ = writeln!(wrong, "{name} ({sure:?}) is not what was written");
                }
                None if *sure > Sure::Tried => {
                    let _ = writeln!(wrong, "{name} ({sure:?}) is not there");
                }
                _ => {}
            }
        }
        for name in found.keys() {
            if !self.files.contains_key(*name) {
                let _ = writeln!(wrong, "{name} must not be there");
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

fn sum_of(name: &str) -> String {
    let sum = Sha256::digest(content(name).as_bytes());
    sum.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
