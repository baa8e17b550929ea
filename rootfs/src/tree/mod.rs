//! Storage: the tree of a guest's root over a stack of layers.
//!
//! A root is a copy-on-write *inode space*, not an overlay of paths. Every inode has one number
//! for ever, and a layer is a delta of two maps over those beneath it: inode to record, and
//! directory and name to inode. A question goes from the top down to the first layer that has an
//! answer. So hard links, renamed directories and changed owners of what lies in lower layers
//! need no special case, and metadata never costs a copy of content.
//!
//! - `packed`: immutable layers, searched where they lie in mapped memory.
//! - `writable`: the layer on top, in memory with a journal and content files behind it, and
//!   frozen layers, which were that once.
//! - `layers`: reading all of them as one.
//! - [`Tree`] is all of it as POSIX sees it: `lookup`, `names`, `rename`, `attributes`, `xattrs` and `data` hold its
//!   operations, `durable` what outlives the process.
//!
//! - [`StackReader`] reads a stack that nobody serves, or that another process does: attributes,
//!   listings, contents and paths, and with `changes` what differs from an older state.
//!
//! Nothing that a guest says is ever a path of the host: names are bytes in maps, contents are
//! files called by inode number.

mod attributes;
mod changes;
mod copy;
mod data;
mod durable;
mod error;
mod freeze;
mod layers;
mod lookup;
mod names;
pub(crate) mod packed;
mod reader;
mod rename;
mod resolve;
mod types;
mod verify;
mod writable;
mod xattrs;

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;

use self::layers::{Layers, View};
use self::packed::PackedStack;
use self::writable::{
    Counts, FileCache, FrozenLayer, Guard, JournalId, Node, NodeContent, Writable,
};

pub use changes::{Change, ChangeKind};
pub use error::{FreezeError, OpenError};
pub use reader::StackReader;
pub use resolve::ResolveError;
pub use types::*;
pub use verify::{DAMAGES_MAX, Damage, Verified};

/// A guest's root file system over its stack of layers.
///
/// One owner uses it at a time; every method does its work before it returns and holds nothing
/// after. Errors are exactly those that the guest shall see: `STALE` for an inode number that
/// names nothing, `IO` for a damaged layer, the host's own where the host fails.
///
/// Changes are in memory first and reach the journal in groups; [`Tree::sync`] and
/// [`Tree::fsync`] are what makes them last.
#[derive(Debug)]
pub struct Tree {
    packed: PackedStack,
    /// The lowest first.
    frozen: Vec<Arc<FrozenLayer>>,
    /// What the quota counts of them.
    frozen_counts: Counts,
    /// Content files of frozen layers, by the layer's place.
    frozen_files: FileCache<(usize, Ino)>,
    writable: Writable,
    quota: Quota,
    /// FUSE's lookup counts.
    references: HashMap<Ino, u64>,
    clock: fn() -> Timestamp,
}

impl Tree {
    /// Opens a stack; what a crash left of the writable layer is set right.
    ///
    /// # Errors
    /// See [`OpenError`]. Nothing that was synced is ever dropped to make it open.
    pub fn open(stack: StackFiles) -> Result<Tree, OpenError> {
        let packed = PackedStack::open(stack.layers)?;
        let (frozen, id, next_ino) = open_frozen(&packed, stack.frozen, Guard::Locked)?;
        let writable = Writable::open(stack.writable, id, next_ino, stack.durability)?;
        let frozen_counts = frozen.iter().fold(Counts::default(), |sum, layer| {
            sum.plus(layer.delta().counts())
        });
        Ok(Self {
            packed,
            frozen,
            frozen_counts,
            frozen_files: FileCache::new(),
            writable,
            quota: stack.quota,
            references: HashMap::new(),
            clock: Timestamp::now,
        })
    }

    /// All layers.
    fn layers(&self) -> Layers<'_> {
        Layers {
            top: Some(self.writable.delta()),
            ..self.beneath()
        }
    }

    /// All layers but the writable one.
    fn beneath(&self) -> Layers<'_> {
        Layers {
            packed: &self.packed,
            frozen: &self.frozen,
            top: None,
        }
    }

    /// What the quota counts, in all layers but the packed ones.
    fn counts(&self) -> Counts {
        self.frozen_counts.plus(self.writable.delta().counts())
    }

    /// Attributes of `ino`.
    ///
    /// # Errors
    /// `STALE`, `IO`.
    pub fn attr(&self, ino: Ino) -> Result<Attr, Errno> {
        self.layers().attr(ino)
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// `INVAL` for anything else; `STALE`, `IO`.
    pub fn readlink(&self, ino: Ino) -> Result<Vec<u8>, Errno> {
        self.layers().readlink(ino).map(<[u8]>::to_vec)
    }

    /// Counts one more reference of the server's client to `ino` (FUSE's lookup count).
    pub fn retain(&mut self, ino: Ino) {
        let count = self.references.entry(ino).or_insert(0);
        *count = count.saturating_add(1);
    }

    /// Takes `n` references back; an unlinked inode without any is freed. Too large an `n`
    /// takes all.
    pub fn forget(&mut self, ino: Ino, n: u64) {
        let Some(count) = self.references.get_mut(&ino) else {
            return;
        };
        *count = count.saturating_sub(n);
        if *count == 0 {
            self.references.remove(&ino);
            self.free_if_unused(ino);
        }
    }

    /// Takes all references back, as when the client is gone.
    pub fn forget_all(&mut self) {
        for (ino, _) in std::mem::take(&mut self.references) {
            self.free_if_unused(ino);
        }
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }

    fn view(&self, ino: Ino) -> Result<View<'_>, Errno> {
        self.layers().view(ino)
    }

    /// Attributes of directory `ino`; `NOTDIR` for anything else.
    fn dir_attr(&self, ino: Ino) -> Result<Attr, Errno> {
        self.layers().dir_attr(ino)
    }

    /// Attributes of regular file `ino`; `ISDIR` or `INVAL` for anything else.
    fn file_attr(&self, ino: Ino) -> Result<Attr, Errno> {
        self.layers().file_attr(ino)
    }

    /// Takes the metadata of `ino` into the writable layer, to be changed there.
    fn own(&mut self, ino: Ino) -> Result<(), Errno> {
        if self.writable.delta().node(ino).is_some() {
            return Ok(());
        }
        let layers = self.beneath();
        let attr = self.attr(ino)?;
        let mut xattrs = BTreeMap::new();
        layers.xattrs(ino, &mut |name, value| {
            xattrs.insert(name.into(), value.into());
            ControlFlow::Continue(())
        })?;
        let node = Node {
            attr,
            parent: match attr.file_type {
                FileType::Directory => layers.parent_of(ino)?,
                _ => Ino::ROOT,
            },
            content: match (attr.file_type, attr.size) {
                (FileType::Regular, 1..) => match layers.view(ino)? {
                    View::Node(node) if node.content == NodeContent::Hole => NodeContent::Hole,
                    _ => NodeContent::Beneath,
                },
                _ => NodeContent::Hole,
            },
            target: match attr.file_type {
                FileType::Symlink => layers.readlink(ino)?.into(),
                _ => Box::default(),
            },
            xattrs,
            journaled: false,
        };
        self.writable.put_node(node);
        Ok(())
    }

    /// Changes an inode, taking it into the writable layer first.
    fn update<T>(&mut self, ino: Ino, change: impl FnOnce(&mut Node) -> T) -> Result<T, Errno> {
        self.own(ino)?;
        self.writable.update(ino, change).ok_or(Errno::STALE)
    }

    /// Frees `ino` when it has neither a name nor a user.
    fn free_if_unused(&mut self, ino: Ino) {
        let unlinked = matches!(self.view(ino), Ok(View::Node(node)) if node.attr.nlink == 0);
        if unlinked && !self.references.contains_key(&ino) {
            self.writable.remove_node(ino);
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // A tree that is closed in order has been synced; this is for those that are not.
        let _ = self.writable.flush();
    }
}

/// Opens frozen layers above `packed`; what the layer above calls them, and the lowest number that
/// it may give.
fn open_frozen(
    packed: &PackedStack,
    frozen: Vec<OwnedFd>,
    guard: Guard,
) -> Result<(Vec<Arc<FrozenLayer>>, JournalId, Ino), OpenError> {
    let (mut id, mut next_ino) = (*packed.id(), packed.next_ino());
    let mut layers = Vec::with_capacity(frozen.len());
    for dir in frozen {
        let layer = FrozenLayer::open(dir, id, next_ino, guard)?;
        (id, next_ino) = (layer.id(), layer.delta().next_ino());
        layers.push(Arc::new(layer));
    }
    Ok((layers, id, next_ino))
}

#[cfg(test)]
mod tests;
