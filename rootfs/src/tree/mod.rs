//! Storage: the tree of a guest's root over a stack of layers.
//!
//! A root is a copy-on-write *inode space*, not an overlay of paths. Every inode has one number
//! for ever, and a layer is a delta of two maps over those beneath it: inode to record, and
//! directory and name to inode. A question goes from the top down to the first layer that has an
//! answer. So hard links, renamed directories and changed owners of what lies in lower layers
//! need no special case, and metadata never costs a copy of content.
//!
//! - `packed`: immutable layers, searched where they lie in mapped memory.
//! - `writable`: the layer on top, in memory with a journal and content files behind it.
//! - [`Tree`] is both as POSIX sees them: `lookup`, `names`, `rename`, `attributes`, `xattrs` and `data` hold its
//!   operations, `durable` what outlives the process.
//!
//! Nothing that a guest says is ever a path of the host: names are bytes in maps, contents are
//! files called by inode number.

mod attributes;
mod copy;
mod data;
mod durable;
mod error;
mod lookup;
mod names;
pub(crate) mod packed;
mod rename;
mod types;
mod writable;
mod xattrs;

use std::collections::HashMap;

use rustix::io::Errno;

use self::packed::{Found, PackedStack};
use self::writable::{Node, NodeContent, Writable, Xattrs};

pub use error::OpenError;
pub use types::*;

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
    writable: Writable,
    quota: Quota,
    /// FUSE's lookup counts.
    references: HashMap<Ino, u64>,
    clock: fn() -> Timestamp,
}

/// An inode where the topmost layer that knows it has it.
#[derive(Clone, Copy)]
enum View<'a> {
    Node(&'a Node),
    Packed(Found<'a>),
}

impl Tree {
    /// Opens a stack; what a crash left of the writable layer is set right.
    ///
    /// # Errors
    /// See [`OpenError`]. Nothing that was synced is ever dropped to make it open.
    pub fn open(stack: StackFiles) -> Result<Tree, OpenError> {
        let packed = PackedStack::open(stack.layers)?;
        let writable = Writable::open(
            stack.writable,
            *packed.id(),
            packed.next_ino(),
            stack.durability,
        )?;
        Ok(Self {
            packed,
            writable,
            quota: stack.quota,
            references: HashMap::new(),
            clock: Timestamp::now,
        })
    }

    /// Attributes of `ino`.
    ///
    /// # Errors
    /// `STALE`, `IO`.
    pub fn attr(&self, ino: Ino) -> Result<Attr, Errno> {
        match self.view(ino)? {
            View::Node(node) => Ok(node.attr),
            View::Packed(found) => found.attr(),
        }
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// `INVAL` for anything else; `STALE`, `IO`.
    pub fn readlink(&self, ino: Ino) -> Result<Vec<u8>, Errno> {
        let view = self.view(ino)?;
        if self.attr(ino)?.file_type != FileType::Symlink {
            return Err(Errno::INVAL);
        }
        match view {
            View::Node(node) => Ok(node.target.to_vec()),
            View::Packed(found) => found.target().map(<[u8]>::to_vec),
        }
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
        let delta = self.writable.delta();
        if let Some(node) = delta.node(ino) {
            return Ok(View::Node(node));
        }
        if delta.made(ino) || delta.is_gone(ino) {
            return Err(Errno::STALE);
        }
        match self.packed.inode(ino) {
            Err(Errno::NOENT) => Err(Errno::STALE),
            found => found.map(View::Packed),
        }
    }

    /// Attributes of directory `ino`; `NOTDIR` for anything else.
    fn dir_attr(&self, ino: Ino) -> Result<Attr, Errno> {
        let attr = self.attr(ino)?;
        if attr.file_type == FileType::Directory {
            Ok(attr)
        } else {
            Err(Errno::NOTDIR)
        }
    }

    /// Attributes of regular file `ino`; `ISDIR` or `INVAL` for anything else.
    fn file_attr(&self, ino: Ino) -> Result<Attr, Errno> {
        let attr = self.attr(ino)?;
        match attr.file_type {
            FileType::Regular => Ok(attr),
            FileType::Directory => Err(Errno::ISDIR),
            _ => Err(Errno::INVAL),
        }
    }

    /// Takes the metadata of `ino` into the writable layer, to be changed there.
    fn own(&mut self, ino: Ino) -> Result<(), Errno> {
        let View::Packed(found) = self.view(ino)? else {
            return Ok(());
        };
        let attr = found.attr()?;
        let mut xattrs = Xattrs::new();
        for xattr in found.xattrs()? {
            let (name, value) = xattr?;
            xattrs.insert(name.into(), value.into());
        }
        let node = Node {
            attr,
            parent: match attr.file_type {
                FileType::Directory => found.parent(),
                _ => Ino::ROOT,
            },
            content: match (attr.file_type, attr.size) {
                (FileType::Regular, 1..) => NodeContent::Beneath,
                _ => NodeContent::Hole,
            },
            target: match attr.file_type {
                FileType::Symlink => found.target()?.into(),
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
        let unlinked = self
            .writable
            .delta()
            .node(ino)
            .is_some_and(|node| node.attr.nlink == 0);
        if unlinked && !self.references.contains_key(&ino) {
            self.writable.remove_node(ino);
        }
    }
}

#[cfg(test)]
mod tests;
