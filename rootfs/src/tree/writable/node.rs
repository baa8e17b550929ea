//! What the writable layer knows of one inode and of one directory's names.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use crate::tree::{Attr, Cookie, FileType, Ino};

/// Extended attributes of one inode.
pub(crate) type Xattrs = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// Where the content of a regular file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeContent {
    /// Nowhere: all zeros. Also that of everything that is no regular file.
    Hole,
    /// In a content file of this layer.
    Own,
    /// Where the layers beneath say, the part that lies below the inode's size.
    Beneath,
}

/// All of an inode that this layer made or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Its attributes; `blocks` of a file with a content file is what the quota counts.
    pub(crate) attr: Attr,
    /// Of a directory: the one that holds it. Otherwise the root, and of no meaning.
    pub(crate) parent: Ino,
    pub(crate) content: NodeContent,
    /// Of a symbolic link.
    pub(crate) target: Box<[u8]>,
    pub(crate) xattrs: Xattrs,
    /// Whether the journal knows it. Not part of its state.
    pub(crate) journaled: bool,
}

impl Node {
    /// Bytes that its extended attributes take.
    pub(crate) fn xattr_bytes(&self) -> u64 {
        self.xattrs
            .iter()
            .map(|(name, value)| (name.len() + value.len()) as u64)
            .sum()
    }

    /// Bytes of the guest's that it holds in memory, names apart.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.xattr_bytes() + self.target.len() as u64
    }
}

/// What this layer says of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeEntry {
    /// It names an inode.
    Child {
        /// Which one.
        ino: Ino,
        /// Of this type.
        file_type: FileType,
        /// Its place in listings.
        cookie: u64,
    },
    /// The name that layers beneath have is gone.
    Whiteout,
}

/// What this layer says of a directory's names.
#[derive(Clone, Debug)]
pub(crate) struct DirDelta {
    entries: HashMap<Arc<[u8]>, NodeEntry>,
    by_cookie: BTreeMap<u64, Arc<[u8]>>,
    next_cookie: u64,
}

impl DirDelta {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            entries: HashMap::new(),
            by_cookie: BTreeMap::new(),
            next_cookie: 0,
        }
    }

    /// What it says of `name`.
    pub(crate) fn get(&self, name: &[u8]) -> Option<NodeEntry> {
        self.entries.get(name).copied()
    }

    /// Beyond the cookies that its entries had so far. Those of layers beneath are not counted.
    pub(crate) fn next_cookie(&self) -> u64 {
        self.next_cookie
    }

    /// Number of names that it has, and number of names that it hides.
    pub(crate) fn len(&self) -> (usize, usize) {
        (
            self.by_cookie.len(),
            self.entries.len() - self.by_cookie.len(),
        )
    }

    /// Says `entry` of `name` from now on; what it said before.
    pub(crate) fn insert(&mut self, name: &[u8], entry: NodeEntry) -> Option<NodeEntry> {
        let before = self.remove(name);
        let name: Arc<[u8]> = name.into();
        if let NodeEntry::Child { cookie, .. } = entry {
            self.next_cookie = self.next_cookie.max(cookie.saturating_add(1));
            self.by_cookie.insert(cookie, name.clone());
        }
        self.entries.insert(name, entry);
        before
    }

    /// Says nothing of `name` from now on; what it said before.
    pub(crate) fn remove(&mut self, name: &[u8]) -> Option<NodeEntry> {
        let before = self.entries.remove(name)?;
        if let NodeEntry::Child { cookie, .. } = before {
            self.by_cookie.remove(&cookie);
        }
        Some(before)
    }

    /// The names that it has whose cookies are greater than `after`, in the order of cookies.
    pub(crate) fn after(
        &self,
        after: Cookie,
    ) -> impl Iterator<Item = (Cookie, &[u8], Ino, FileType)> {
        let beyond = (Bound::Excluded(after.0), Bound::Unbounded);
        self.by_cookie
            .range(beyond)
            .filter_map(|(&cookie, name)| match self.entries.get(name) {
                Some(&NodeEntry::Child { ino, file_type, .. }) => {
                    Some((Cookie(cookie), name.as_ref(), ino, file_type))
                }
                _ => None,
            })
    }

    /// The names that it has, and what they name.
    pub(crate) fn children(&self) -> impl Iterator<Item = (&Arc<[u8]>, Ino)> {
        self.entries
            .iter()
            .filter_map(|(name, entry)| match *entry {
                NodeEntry::Child { ino, .. } => Some((name, ino)),
                NodeEntry::Whiteout => None,
            })
    }

    /// All that it says.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], NodeEntry)> {
        self.entries
            .iter()
            .map(|(name, &entry)| (name.as_ref(), entry))
    }
}
