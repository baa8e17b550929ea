//! The writable layer's state in memory: what differs from the layers beneath.

use std::collections::{HashMap, HashSet};

use super::change::{self, Change, Reason};
use super::node::{DirDelta, Node, NodeContent, NodeEntry};
use crate::tree::{FileType, Ino};

/// Inodes and names that this layer made, changed or removed.
#[derive(Debug)]
pub(crate) struct Delta {
    nodes: HashMap<Ino, Node>,
    dirs: HashMap<Ino, DirDelta>,
    /// Inodes of layers beneath that have no name any more.
    gone: HashSet<Ino>,
    /// The lowest number that this layer may give.
    first_ino: Ino,
    /// The lowest number that it did not give yet.
    next_ino: Ino,
    counts: Counts,
}

/// What the quota counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Bytes that content files take.
    pub(crate) bytes: u64,
    /// Inodes that this layer made.
    pub(crate) inodes: u64,
    /// Names that this layer made.
    pub(crate) names: u64,
    /// Bytes of extended attributes and of symbolic links' targets.
    pub(crate) held_bytes: u64,
}

impl Counts {
    /// The sum of two.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            inodes: self.inodes.saturating_add(other.inodes),
            names: self.names.saturating_add(other.names),
            held_bytes: self.held_bytes.saturating_add(other.held_bytes),
        }
    }
}

impl Delta {
    /// Nothing yet over layers whose numbers end below `first_ino`.
    pub(crate) fn new(first_ino: Ino) -> Self {
        Self {
            nodes: HashMap::new(),
            dirs: HashMap::new(),
            gone: HashSet::new(),
            first_ino,
            next_ino: first_ino,
            counts: Counts::default(),
        }
    }

    /// Whether this layer, not one beneath, gave `ino` its number.
    pub(crate) fn made(&self, ino: Ino) -> bool {
        ino >= self.first_ino
    }

    /// Gives a number.
    pub(crate) fn take_ino(&mut self) -> Ino {
        let ino = self.next_ino;
        self.next_ino = Ino(ino.0 + 1);
        ino
    }

    /// The lowest number that was not given yet.
    pub(crate) fn next_ino(&self) -> Ino {
        self.next_ino
    }

    /// What the quota counts.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// What it knows of `ino`.
    pub(crate) fn node(&self, ino: Ino) -> Option<&Node> {
        self.nodes.get(&ino)
    }

    /// Whether `ino`, of a layer beneath, has no name any more.
    pub(crate) fn is_gone(&self, ino: Ino) -> bool {
        self.gone.contains(&ino)
    }

    /// Puts an inode's state, new or changed.
    pub(crate) fn put_node(&mut self, node: Node) {
        let ino = node.attr.ino;
        self.count_node(&node, true);
        if let Some(before) = self.nodes.insert(ino, node) {
            self.count_node(&before, false);
        }
    }

    /// Changes an inode that the delta has; `None` when it has not.
    pub(crate) fn update<T>(&mut self, ino: Ino, change: impl FnOnce(&mut Node) -> T) -> Option<T> {
        let node = self.nodes.get_mut(&ino)?;
        let before = (own_bytes(node), node.held_bytes());
        let result = change(node);
        let after = (own_bytes(node), node.held_bytes());
        self.counts.bytes = self
            .counts
            .bytes
            .saturating_sub(before.0)
            .saturating_add(after.0);
        self.counts.held_bytes = self
            .counts
            .held_bytes
            .saturating_sub(before.1)
            .saturating_add(after.1);
        Some(result)
    }

    /// Marks an inode as known to the journal.
    pub(super) fn set_journaled(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.journaled = true;
        }
    }

    /// Removes an inode for good.
    pub(crate) fn remove_node(&mut self, ino: Ino) -> Option<Node> {
        self.remove_dir(ino);
        if !self.made(ino) {
            self.gone.insert(ino);
        }
        let node = self.nodes.remove(&ino)?;
        self.count_node(&node, false);
        Some(node)
    }

    /// What it says of the names of `dir`.
    pub(crate) fn dir(&self, dir: Ino) -> Option<&DirDelta> {
        self.dirs.get(&dir)
    }

    /// Forgets all names of `dir`.
    pub(crate) fn remove_dir(&mut self, dir: Ino) {
        if let Some(dir) = self.dirs.remove(&dir) {
            self.counts.names = self.counts.names.saturating_sub(dir.len().0 as u64);
        }
    }

    /// Says `entry` of a name, or nothing any more.
    pub(crate) fn set_entry(&mut self, dir: Ino, name: &[u8], entry: Option<NodeEntry>) {
        let delta = self.dirs.entry(dir).or_insert_with(DirDelta::new);
        let before = match entry {
            Some(entry) => delta.insert(name, entry),
            None => delta.remove(name),
        };
        let is_child =
            |entry: Option<NodeEntry>| u64::from(matches!(entry, Some(NodeEntry::Child { .. })));
        self.counts.names = (self.counts.names + is_child(entry)).saturating_sub(is_child(before));
    }

    fn count_node(&mut self, node: &Node, more: bool) {
        let made = u64::from(self.made(node.attr.ino));
        let count = |sum: &mut u64, n: u64| {
            *sum = if more {
                sum.saturating_add(n)
            } else {
                sum.saturating_sub(n)
            };
        };
        count(&mut self.counts.inodes, made);
        count(&mut self.counts.bytes, own_bytes(node));
        count(&mut self.counts.held_bytes, node.held_bytes());
    }

    /// Takes one change from the journal.
    pub(super) fn apply(&mut self, change: Change) -> Result<(), Reason> {
        match change {
            Change::Inode(node) => {
                self.next_ino = self.next_ino.max(Ino(node.attr.ino.0 + 1));
                self.put_node(*node);
            }
            Change::Gone(ino) => {
                self.remove_node(ino);
            }
            Change::Entry(dir, name, entry) => {
                self.set_entry(dir, &name, Some(entry));
            }
            Change::EntryGone(dir, name) => self.set_entry(dir, &name, None),
            Change::NextIno(ino) => self.next_ino = self.next_ino.max(ino),
        }
        Ok(())
    }

    /// Inodes without a name: those that were in use when the journal ended.
    pub(super) fn orphans(&self) -> Vec<Ino> {
        self.nodes
            .values()
            .filter(|node| node.attr.nlink == 0)
            .map(|node| node.attr.ino)
            .collect()
    }

    /// Inodes that it has something to say of, in no order; some may come twice.
    pub(crate) fn touched(&self) -> impl Iterator<Item = Ino> {
        self.nodes.keys().chain(&self.gone).copied()
    }

    /// What it says of names, by directory.
    pub(crate) fn dirs(&self) -> impl Iterator<Item = (Ino, &DirDelta)> {
        self.dirs.iter().map(|(&dir, delta)| (dir, delta))
    }

    /// All inodes that it has.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// Inodes with a content file.
    pub(super) fn with_content(&self) -> impl Iterator<Item = Ino> {
        self.nodes
            .values()
            .filter(|node| node.content == NodeContent::Own)
            .map(|node| node.attr.ino)
    }

    /// Says all of it in changes, handing them on in pieces of about `piece` bytes.
    pub(super) fn snapshot<E>(
        &self,
        piece: usize,
        hand: &mut dyn FnMut(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut out = Vec::new();
        change::put_next_ino(&mut out, self.next_ino);
        for node in self.nodes.values() {
            change::put_inode(&mut out, node);
            if out.len() >= piece {
                hand(&mut out)?;
                out.clear();
            }
        }
        for &ino in &self.gone {
            change::put_gone(&mut out, ino);
            if out.len() >= piece {
                hand(&mut out)?;
                out.clear();
            }
        }
        for (&dir, delta) in &self.dirs {
            for (name, entry) in delta.iter() {
                change::put_entry(&mut out, dir, name, entry);
                if out.len() >= piece {
                    hand(&mut out)?;
                    out.clear();
                }
            }
        }
        hand(&mut out)
    }
}

/// Bytes that the quota counts for a file's content.
fn own_bytes(node: &Node) -> u64 {
    match (node.attr.file_type, node.content) {
        (FileType::Regular, NodeContent::Own) => node.attr.blocks.saturating_mul(512),
        _ => 0,
    }
}
