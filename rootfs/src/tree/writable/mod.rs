//! The writable layer: a directory with a journal of metadata and a file for each content.
//!
//! Its state is in memory ([`Delta`]); the journal is how the state comes back after the process
//! ends, in whatever way. What holds it together:
//!
//! - Everything since the last record goes into the next as a whole. A crash gives back a state
//!   that was, at worst an older one; what was synced is in it.
//! - A content file is there before the journal says so, and stays until the journal no longer says so.
//! - A failed write to the journal changes nothing in memory and is tried again with what came since.
//!
//! A frozen layer ([`FrozenLayer`]) is one that is not written any more: the same files, and the
//! layer above says in its journal's header which ones.

mod cache;
mod change;
mod contents;
mod delta;
mod frozen;
mod journal;
mod node;

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

pub(crate) use cache::FileCache;
pub(crate) use contents::file_name as content_name;
pub(crate) use delta::{Counts, Delta};
pub(crate) use frozen::{FrozenLayer, Guard};
pub(crate) use journal::JournalId;
pub(crate) use node::{Node, NodeContent, NodeEntry, Xattrs};

use self::contents::{Contents, errno};
use self::journal::Journal;
use super::{Durability, Ino, OpenError};

/// How many bytes of changes wait in memory before they are written to the journal.
const PENDING_BYTES: usize = 64 << 10;

/// How many changed inodes wait in memory before they are written to the journal.
const PENDING_INODES: usize = 512;

/// A journal shorter than this is not worth writing anew.
const CHECKPOINT_MIN: u64 = 1 << 20;

/// A journal this many times as long as the state was when it began is written anew.
const CHECKPOINT_RATIO: u64 = 4;

/// Length of the records of a checkpoint.
const CHECKPOINT_PIECE: usize = 1 << 20;

/// How many unneeded content files may wait for the disk to know that they are unneeded.
const UNNEEDED_MAX: usize = 1024;

/// How many bytes such files may take.
const UNNEEDED_BYTES: u64 = 64 << 20;

/// The writable layer.
#[derive(Debug)]
pub(crate) struct Writable {
    dir: OwnedFd,
    stack_id: [u8; 32],
    durability: Durability,
    delta: Delta,
    contents: Contents,
    journal: Journal,
    /// Length of the journal when it was last written anew.
    checkpoint_len: u64,
    /// Changes of names since the last record.
    pending: Vec<u8>,
    /// Inodes changed since the last record.
    dirty: HashSet<Ino>,
    /// Inodes whose content files go once the journal no longer says that they are there.
    unneeded: Vec<Ino>,
    unneeded_bytes: u64,
}

impl Writable {
    /// Opens the layer in `dir` above layers that are called `stack_id` and gave numbers below
    /// `first_ino`.
    pub(crate) fn open(
        dir: OwnedFd,
        stack_id: [u8; 32],
        first_ino: Ino,
        durability: Durability,
    ) -> Result<Self, OpenError> {
        match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(OpenError::InUse),
            Err(error) => {
                return Err(OpenError::Io {
                    action: "lock the writable layer",
                    source: error.into(),
                });
            }
        }
        let contents = Contents::open(&dir)?;
        let mut delta = Delta::new(first_ino);
        let journal = Journal::open(&dir, &stack_id, &mut |mut changes| {
            while !changes.is_empty() {
                delta.apply(change::next(&mut changes)?)?;
            }
            Ok(())
        })?;
        let mut writable = Self {
            dir,
            stack_id,
            durability,
            delta,
            contents,
            checkpoint_len: 0,
            journal,
            pending: Vec::new(),
            dirty: HashSet::new(),
            unneeded: Vec::new(),
            unneeded_bytes: 0,
        };
        writable.collect()?;
        Ok(writable)
    }

    /// Removes what was unlinked and in use when the journal ended, and files that nothing needs.
    fn collect(&mut self) -> Result<(), OpenError> {
        for ino in self.delta.orphans() {
            self.delta.remove_node(ino);
            self.dirty.insert(ino);
        }
        // Their files go only after the journal has let them go.
        self.flush().map_err(|error| OpenError::Io {
            action: "write the journal",
            source: error.into(),
        })?;
        let wanted = self.delta.with_content().collect();
        self.contents.collect(&wanted)
    }

    /// The state.
    pub(crate) fn delta(&self) -> &Delta {
        &self.delta
    }

    /// Called before a change: writes what waits when there is enough of it, and makes sure that
    /// the journal has room for it.
    ///
    /// # Errors
    /// The host's own; `NOSPC` when what room there is, is for removals. A removal does not ask
    /// whether this fails.
    pub(crate) fn before_change(&mut self) -> Result<(), Errno> {
        if self.pending.len() >= PENDING_BYTES || self.dirty.len() >= PENDING_INODES {
            self.flush()?;
        }
        let room =
            self.journal.keep_headroom() || (self.make_room()? && self.journal.keep_headroom());
        if room { Ok(()) } else { Err(Errno::NOSPC) }
    }

    /// Gives a number for a new inode.
    pub(crate) fn take_ino(&mut self) -> Ino {
        self.delta.take_ino()
    }

    /// Puts an inode's state, new or changed.
    pub(crate) fn put_node(&mut self, node: Node) {
        self.dirty.insert(node.attr.ino);
        self.delta.put_node(node);
    }

    /// Changes an inode that the delta has; `None` when it has not.
    pub(crate) fn update<T>(&mut self, ino: Ino, change: impl FnOnce(&mut Node) -> T) -> Option<T> {
        let result = self.delta.update(ino, change)?;
        self.dirty.insert(ino);
        Some(result)
    }

    /// Says `entry` of a name, or nothing any more.
    pub(crate) fn set_entry(&mut self, dir: Ino, name: &[u8], entry: Option<NodeEntry>) {
        match entry {
            Some(entry) => change::put_entry(&mut self.pending, dir, name, entry),
            None => change::put_entry_gone(&mut self.pending, dir, name),
        }
        self.delta.set_entry(dir, name, entry);
    }

    /// Forgets the names of a directory that is no more.
    pub(crate) fn remove_dir(&mut self, dir: Ino) {
        self.delta.remove_dir(dir);
    }

    /// Removes an inode that has no name and no user.
    pub(crate) fn remove_node(&mut self, ino: Ino) {
        let journaled = match self.delta.remove_node(ino) {
            Some(node) => {
                if node.content == NodeContent::Own {
                    self.drop_content(&node);
                }
                node.journaled
            }
            None => false,
        };
        // The journal needs to hear of it if it knows it, or if layers beneath do.
        if journaled || !self.delta.made(ino) {
            self.dirty.insert(ino);
        } else {
            self.dirty.remove(&ino);
        }
    }

    fn drop_content(&mut self, node: &Node) {
        let ino = node.attr.ino;
        self.contents.forget(ino);
        if node.journaled {
            self.unneeded.push(ino);
            self.unneeded_bytes = self
                .unneeded_bytes
                .saturating_add(node.attr.blocks.saturating_mul(512));
        } else {
            // What stays is collected when the layer is opened again.
            let _ = self.contents.remove(ino);
        }
    }

    /// The content file of `ino`, which has one.
    pub(crate) fn content(&mut self, ino: Ino) -> Result<&File, Errno> {
        let size = self.delta.node(ino).ok_or(Errno::STALE)?.attr.size;
        self.contents.get(ino, size)
    }

    /// Makes an empty content file for `ino`, which has none. The caller says in the inode that
    /// it is there, or removes it.
    pub(crate) fn create_content(&mut self, ino: Ino) -> Result<&File, Errno> {
        self.contents.create(ino)
    }

    /// Removes a content file that [`Writable::create_content`] made in vain.
    pub(crate) fn discard_content(&mut self, ino: Ino) {
        let _ = self.contents.remove(ino);
    }

    /// Says that the content file of `ino` was written.
    pub(crate) fn wrote_content(&mut self, ino: Ino) {
        self.contents.wrote(ino);
    }

    /// Makes sure that nothing lies in the content file of `ino` beyond its size.
    pub(crate) fn trim_content(&mut self, ino: Ino) -> Result<(), Errno> {
        let size = self.delta.node(ino).ok_or(Errno::STALE)?.attr.size;
        contents::trim(self.contents.get(ino, size)?, size)?;
        if size == 0 {
            self.contents.forget(ino);
        }
        Ok(())
    }

    /// Writes all changes to the journal, without waiting for the disk.
    pub(crate) fn flush(&mut self) -> Result<(), Errno> {
        self.append()?;
        self.checkpoint_when_due()?;
        self.remove_unneeded()
    }

    fn append(&mut self) -> Result<(), Errno> {
        if !self.pending.is_empty() || !self.dirty.is_empty() {
            let mut record = Vec::with_capacity(self.pending.len() + 160 * self.dirty.len() + 16);
            record.extend_from_slice(&self.pending);
            for &ino in &self.dirty {
                match self.delta.node(ino) {
                    Some(node) => change::put_inode(&mut record, node),
                    None => change::put_gone(&mut record, ino),
                }
            }
            change::put_next_ino(&mut record, self.delta.next_ino());
            self.journal
                .append(&record)
                .map_err(|error| errno(&error))?;
            self.pending.clear();
            for ino in std::mem::take(&mut self.dirty) {
                self.delta.set_journaled(ino);
            }
        }
        Ok(())
    }

    fn remove_unneeded(&mut self) -> Result<(), Errno> {
        if self.unneeded.is_empty() {
            return Ok(());
        }
        let many = self.unneeded.len() > UNNEEDED_MAX || self.unneeded_bytes > UNNEEDED_BYTES;
        if self.durability == Durability::Host && !self.journal.is_synced() {
            if !many {
                return Ok(());
            }
            self.journal
                .sync(&self.dir)
                .map_err(|error| errno(&error))?;
        }
        for ino in std::mem::take(&mut self.unneeded) {
            // What stays is collected when the layer is opened again.
            let _ = self.contents.remove(ino);
        }
        self.unneeded_bytes = 0;
        Ok(())
    }

    /// Removes content files that wait for the disk to know that they are unneeded, when there are
    /// any: whether there were.
    pub(crate) fn make_room(&mut self) -> Result<bool, Errno> {
        if self.unneeded.is_empty() {
            return Ok(false);
        }
        self.sync_journal()?;
        Ok(true)
    }

    fn checkpoint_when_due(&mut self) -> Result<(), Errno> {
        let limit = (self.checkpoint_len * CHECKPOINT_RATIO).max(CHECKPOINT_MIN);
        if self.journal.len() < limit && !self.journal.is_suspect() {
            return Ok(());
        }
        match self.checkpoint() {
            Ok(()) => Ok(()),
            // The old journal goes on; it is tried again when it has grown as much once more.
            Err(_) if !self.journal.is_suspect() => {
                self.checkpoint_len = self.journal.len();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Writes the journal anew, with nothing in it but the present state.
    fn checkpoint(&mut self) -> Result<(), Errno> {
        let delta = &self.delta;
        let mut write = |journal: &mut Journal| -> io::Result<()> {
            delta.snapshot(CHECKPOINT_PIECE, &mut |changes| journal.append(changes))
        };
        self.journal
            .replace(&self.dir, &self.stack_id, self.durability, &mut write)
            .map_err(|error| errno(&error))?;
        self.checkpoint_len = self.journal.len();
        Ok(())
    }

    /// Makes the content of `ino` durable, and all metadata.
    pub(crate) fn sync_one(&mut self, ino: Ino) -> Result<(), Errno> {
        if self.durability == Durability::Host {
            self.contents.sync_one(ino)?;
        }
        self.sync_journal()
    }

    /// Makes everything durable.
    pub(crate) fn sync_all(&mut self) -> Result<(), Errno> {
        if self.durability == Durability::Host {
            self.contents.sync_all()?;
        }
        self.sync_journal()
    }

    fn sync_journal(&mut self) -> Result<(), Errno> {
        self.flush()?;
        if self.durability == Durability::Host {
            self.journal
                .sync(&self.dir)
                .map_err(|error| errno(&error))?;
            self.remove_unneeded()?;
        }
        Ok(())
    }

    /// Makes all that changed last, as [`Writable::sync_all`] does, so that the layer can be
    /// frozen; what the layer above has to call it. It takes as long as what is dirty takes, and
    /// never as long as all of the layer: the journal is not written anew for it.
    pub(crate) fn prepare_freeze(&mut self) -> Result<JournalId, Errno> {
        if self.journal.is_suspect() {
            self.flush()?;
        }
        self.append()?;
        if self.durability == Durability::Host {
            self.contents.sync_all()?;
            self.journal
                .sync(&self.dir)
                .map_err(|error| errno(&error))?;
        }
        self.remove_unneeded()?;
        Ok(self.journal.id())
    }

    /// The layer, frozen; `id` is what [`Writable::prepare_freeze`] said right before.
    pub(crate) fn freeze(self, id: JournalId) -> FrozenLayer {
        // A lock that stays exclusive is stricter than need be, and nothing worse.
        let _ = flock(&self.dir, FlockOperation::NonBlockingLockShared);
        let contents = self.contents.into_dir();
        FrozenLayer::new(self.dir, Some(contents), self.delta, id)
    }

    /// What a sync means here.
    pub(crate) fn durability(&self) -> Durability {
        self.durability
    }

    /// Whether nothing was ever written here.
    pub(crate) fn is_new(&self) -> bool {
        self.journal.is_new()
    }

    /// Whether `dir` is this layer's directory.
    pub(crate) fn is_at(&self, dir: impl AsFd) -> Result<bool, Errno> {
        let (here, there) = (rustix::fs::fstat(&self.dir)?, rustix::fs::fstat(dir)?);
        Ok((here.st_dev, here.st_ino) == (there.st_dev, there.st_ino))
    }

    /// Sizes of the host's file system.
    pub(crate) fn host_stat(&self) -> Result<rustix::fs::StatVfs, Errno> {
        rustix::fs::fstatvfs(&self.dir)
    }
}
