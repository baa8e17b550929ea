//! A packed layer while it is built: the tree in memory, contents already in the data file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

use super::data::{DataWriter, Extent};
use super::index::build;
use super::{PackError, PackLimits, PackSummary};
use crate::tree::packed::format::MAX_SIZE;
use crate::tree::{
    FileType, NAME_MAX, Name, SYMLINK_MAX, Timestamp, XATTR_NAME_MAX, XATTR_SIZE_MAX,
};

/// What an inode of a layer has besides its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits (`07777`).
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// All three times.
    pub mtime: Timestamp,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What a node is.
pub(super) enum Kind {
    Directory(BTreeMap<Vec<u8>, usize>),
    File(Extent),
    Symlink(Vec<u8>),
    Node(FileType, u32),
}

/// An inode to be.
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) meta: Metadata,
}

/// Builds the lowest layer of a stack, member by member.
///
/// Paths are relative to the root, components separated by `/`; empty components and `.` are
/// skipped, `..` and a leading `/` refused. Directories that nobody added are made with mode 0755.
/// The same members give the same bytes.
pub struct PackedWriter<'a> {
    index: &'a File,
    data: DataWriter<'a>,
    limits: PackLimits,
    bytes: u64,
    /// The first is the root. Replaced ones stay, with no name.
    nodes: Vec<Node>,
}

impl<'a> PackedWriter<'a> {
    /// Begins a layer in two files opened for reading and writing; what is in them is lost.
    ///
    /// # Errors
    /// [`PackError::Write`].
    pub fn new(index: &'a File, data: &'a File, limits: PackLimits) -> Result<Self, PackError> {
        let root = Node {
            kind: Kind::Directory(BTreeMap::new()),
            meta: implied(),
        };
        Ok(Self {
            index,
            data: DataWriter::new(data)?,
            limits,
            bytes: 0,
            nodes: vec![root],
        })
    }

    /// Adds a directory, or gives one that is there its metadata. An empty path is the root.
    ///
    /// # Errors
    /// [`PackError::Member`] and [`PackError::TooLarge`].
    pub fn add_directory(&mut self, path: &[u8], meta: Metadata) -> Result<(), PackError> {
        check_xattrs(path, &meta)?;
        let components = components(path)?;
        let node = self.directory(path, &components)?;
        self.nodes[node].meta = meta;
        Ok(())
    }

    /// Adds a regular file of the `len` bytes that come from `content`.
    ///
    /// # Errors
    /// Any of [`PackError`].
    pub fn add_file(
        &mut self,
        path: &[u8],
        meta: Metadata,
        content: &mut dyn Read,
        len: u64,
    ) -> Result<(), PackError> {
        let bytes = self
            .bytes
            .checked_add(len)
            .filter(|&sum| sum <= self.limits.bytes);
        let Some(bytes) = bytes.filter(|_| len <= MAX_SIZE) else {
            return Err(PackError::TooLarge {
                limit: self.limits.bytes,
                unit: "bytes",
            });
        };
        self.bytes = bytes;
        let extent = self.data.store(content, len)?;
        self.add(
            path,
            Node {
                kind: Kind::File(extent),
                meta,
            },
        )
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// [`PackError::Member`] and [`PackError::TooLarge`].
    pub fn add_symlink(
        &mut self,
        path: &[u8],
        meta: Metadata,
        target: &[u8],
    ) -> Result<(), PackError> {
        if target.is_empty() || target.len() > SYMLINK_MAX || target.contains(&0) {
            return Err(member(
                path,
                "its target is empty, too long, or holds a NUL",
            ));
        }
        self.add(
            path,
            Node {
                kind: Kind::Symlink(target.to_vec()),
                meta,
            },
        )
    }

    /// Adds a device node, FIFO or socket; `rdev` is in Linux' `new_encode_dev` form.
    ///
    /// # Errors
    /// [`PackError::Member`] and [`PackError::TooLarge`].
    pub fn add_node(
        &mut self,
        path: &[u8],
        meta: Metadata,
        file_type: FileType,
        rdev: u32,
    ) -> Result<(), PackError> {
        match file_type {
            FileType::CharDevice | FileType::BlockDevice => self.add(
                path,
                Node {
                    kind: Kind::Node(file_type, rdev),
                    meta,
                },
            ),
            FileType::Fifo | FileType::Socket => self.add(
                path,
                Node {
                    kind: Kind::Node(file_type, 0),
                    meta,
                },
            ),
            FileType::Regular => self.add(
                path,
                Node {
                    kind: Kind::File(Extent::default()),
                    meta,
                },
            ),
            FileType::Directory | FileType::Symlink => Err(member(
                path,
                "a directory or symbolic link is not a device node",
            )),
        }
    }

    /// Adds one more name for the non-directory that `target` is.
    ///
    /// # Errors
    /// [`PackError::Member`] when `target` is not there or a directory.
    pub fn add_hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), PackError> {
        let target_components = components(target)?;
        let mut node = 0;
        for name in &target_components {
            let Kind::Directory(entries) = &self.nodes[node].kind else {
                return Err(member(
                    path,
                    "the target of the hard link is not in the archive",
                ));
            };
            node = *entries.get(*name).ok_or_else(|| {
                member(
                    path,
                    "the target of the hard link is not in the archive before it",
                )
            })?;
        }
        if matches!(self.nodes[node].kind, Kind::Directory(_)) {
            return Err(member(path, "a hard link to a directory"));
        }
        self.name(path, node)
    }

    fn add(&mut self, path: &[u8], node: Node) -> Result<(), PackError> {
        check_xattrs(path, &node.meta)?;
        let index = self.push(node)?;
        self.name(path, index)
    }

    fn push(&mut self, node: Node) -> Result<usize, PackError> {
        if self.nodes.len() as u64 >= self.limits.inodes {
            return Err(PackError::TooLarge {
                limit: self.limits.inodes,
                unit: "inodes",
            });
        }
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    /// Makes `path` a name of the non-directory `node`; a later member replaces an earlier one.
    fn name(&mut self, path: &[u8], node: usize) -> Result<(), PackError> {
        let components = components(path)?;
        let Some((name, parents)) = components.split_last() else {
            return Err(member(path, "the root can only be a directory"));
        };
        let parent = self.directory(path, parents)?;
        let there = self.entries(parent).get(*name).copied();
        if there.is_some_and(|there| matches!(self.nodes[there].kind, Kind::Directory(_))) {
            return Err(member(path, "a directory of this name is already there"));
        }
        self.entries(parent).insert(name.to_vec(), node);
        Ok(())
    }

    /// The directory at `components`, made when it is not there.
    fn directory(&mut self, path: &[u8], components: &[&[u8]]) -> Result<usize, PackError> {
        let mut node = 0;
        for name in components {
            node = match self.entries(node).get(*name).copied() {
                Some(there) => there,
                None => {
                    let kind = Kind::Directory(BTreeMap::new());
                    let made = self.push(Node {
                        kind,
                        meta: implied(),
                    })?;
                    self.entries(node).insert(name.to_vec(), made);
                    made
                }
            };
            if !matches!(self.nodes[node].kind, Kind::Directory(_)) {
                return Err(member(path, "something on its path is not a directory"));
            }
        }
        Ok(node)
    }

    fn entries(&mut self, directory: usize) -> &mut BTreeMap<Vec<u8>, usize> {
        match &mut self.nodes[directory].kind {
            Kind::Directory(entries) => entries,
            _ => unreachable!("callers checked that it is a directory"),
        }
    }

    /// Writes the index. The caller makes both files durable.
    ///
    /// # Errors
    /// [`PackError::Write`], and [`PackError::TooLarge`] when names exceed what an index can hold.
    pub fn finish(self) -> Result<PackSummary, PackError> {
        let (data_bytes, data_sha256) = self.data.finish()?;
        let (index, inodes) = build(&self.nodes, data_bytes, data_sha256)?;
        self.index.set_len(0).map_err(PackError::Write)?;
        self.index
            .write_all_at(&index, 0)
            .map_err(PackError::Write)?;
        Ok(PackSummary {
            index_sha256: Sha256::digest(&index).into(),
            data_sha256,
            index_bytes: index.len() as u64,
            data_bytes,
            inodes,
            bytes: self.bytes,
        })
    }
}

fn implied() -> Metadata {
    Metadata {
        mode: 0o755,
        ..Metadata::default()
    }
}

fn member(path: &[u8], reason: &'static str) -> PackError {
    // A hostile path may be long; the start of it tells which it is.
    let shown = &path[..path.len().min(NAME_MAX)];
    PackError::Member {
        member: String::from_utf8_lossy(shown).into_owned(),
        reason,
    }
}

fn check_xattrs(path: &[u8], meta: &Metadata) -> Result<(), PackError> {
    for (name, value) in &meta.xattrs {
        if name.is_empty() || name.len() > XATTR_NAME_MAX || name.contains(&0) {
            return Err(member(
                path,
                "the name of an extended attribute is empty or too long",
            ));
        }
        if value.len() > XATTR_SIZE_MAX {
            return Err(member(path, "an extended attribute is larger than 64 KiB"));
        }
    }
    Ok(())
}

/// The components of a member's path; none for the root.
fn components(path: &[u8]) -> Result<Vec<&[u8]>, PackError> {
    if path.first() == Some(&b'/') {
        return Err(member(path, "its path is absolute"));
    }
    let mut components = Vec::new();
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err(member(path, "its path leaves the tree with ..")),
            name => {
                Name::new(name).map_err(|_| {
                    member(path, "a component of its path is too long or holds a NUL")
                })?;
                components.push(name);
            }
        }
    }
    Ok(components)
}
