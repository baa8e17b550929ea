//! The tree as a list of inodes to be, with all that has to be counted.

use std::collections::HashMap;

use rustix::io::Errno;

use super::super::read::{Child, CopyError, PAGE, children, read_data};
use super::extents::tree_blocks;
use super::{directory, inode, xattrs};
use crate::export::error::shown;
use crate::export::{ExportError, ExportSummary, ReadTree};
use crate::tree::{Attr, FileType, Ino};

/// How many inodes are reserved.
const RESERVED: usize = 10;

/// More inodes than this have no room in 32 bits of blocks.
const INODES_MAX: u64 = 1 << 28;

/// The root's place in the list; 0 is the place of reserved inodes' number 1.
pub(super) const ROOT: usize = 1;

/// What an inode holds.
pub(super) enum Body {
    /// Nothing at all: it is reserved.
    None,
    /// Names, and places in the list.
    Directory(Vec<(Vec<u8>, usize)>),
    /// Blocks with data: the first, and how many.
    File(Vec<(u32, u32)>),
    Symlink(Vec<u8>),
    Device(u32),
    /// A pipe or a socket.
    Bare,
}

/// An inode to be.
pub(super) struct Planned {
    /// `None` for one that is not the tree's.
    pub(super) attr: Option<Attr>,
    pub(super) body: Body,
    /// The place of the directory of its first name.
    pub(super) parent: usize,
    name: Vec<u8>,
    pub(super) links: u32,
    /// The block of its extended attributes.
    pub(super) xattrs: Option<Vec<u8>>,
}

impl Planned {
    fn new(attr: Option<Attr>, body: Body, parent: usize, name: &[u8]) -> Self {
        Self {
            attr,
            body,
            parent,
            name: name.to_vec(),
            links: 0,
            xattrs: None,
        }
    }

    /// How many blocks it takes. A run that is cut by the begin of a group may take an extent more, and
    /// those a block more, for which [`super::Layout`] leaves room.
    pub(super) fn blocks(&self) -> u64 {
        let data = match &self.body {
            Body::Directory(children) => directory::count(children),
            Body::File(runs) => {
                let data: u64 = runs.iter().map(|run| u64::from(run.1)).sum();
                data + tree_blocks(runs.len() + (data >> 14) as usize)
            }
            Body::Symlink(target) if target.len() >= inode::INLINE => 1,
            _ => 0,
        };
        data + u64::from(self.xattrs.is_some())
    }

    pub(super) fn file_type(&self) -> FileType {
        self.attr.map_or(FileType::Directory, |attr| attr.file_type)
    }
}

/// The number of the inode at a place of the list.
pub(super) fn number(index: usize) -> u32 {
    u32::try_from(index + 1).expect("INODES_MAX fits")
}

pub(super) fn too_large(path: &[u8]) -> ExportError {
    ExportError::Unsupported {
        path: shown(path),
        reason: "it is larger than ext4 allows",
    }
}

/// The path of what is at a place of the list.
pub(super) fn path(planned: &[Planned], mut index: usize) -> Vec<u8> {
    let mut names = Vec::new();
    while index != ROOT {
        names.push(planned[index].name.as_slice());
        index = planned[index].parent;
    }
    names.reverse();
    names.join(&b'/')
}

/// Lists all of the tree, the number of each inode less one as its place.
pub(super) fn scan(
    tree: &mut impl ReadTree,
    skipped: &mut ExportSummary,
) -> Result<Vec<Planned>, ExportError> {
    let mut planned: Vec<Planned> = (0..RESERVED)
        .map(|_| Planned::new(None, Body::None, ROOT, b""))
        .collect();
    let root = tree.attr(Ino::ROOT).map_err(ExportError::read(b""))?;
    planned[ROOT] = Planned::new(Some(root), Body::Directory(Vec::new()), ROOT, b"");
    planned[ROOT].links = 2;
    let mut places = HashMap::from([(Ino::ROOT, ROOT)]);
    let mut next = ROOT;
    while next < planned.len() {
        let Some(attr) = planned[next].attr else {
            next += 1;
            continue;
        };
        planned[next].xattrs = attributes(tree, &planned, next, &attr, skipped)?;
        match attr.file_type {
            FileType::Directory => list(tree, &mut planned, next, &attr, &mut places)?,
            FileType::Regular => {
                planned[next].body = Body::File(runs(tree, &planned, next, &attr)?)
            }
            FileType::Symlink => {
                let target = tree.readlink(attr.ino);
                let target =
                    target.map_err(|errno| ExportError::read(&path(&planned, next))(errno));
                planned[next].body = Body::Symlink(target?);
            }
            FileType::CharDevice | FileType::BlockDevice => {
                planned[next].body = Body::Device(attr.rdev);
            }
            FileType::Fifo | FileType::Socket => planned[next].body = Body::Bare,
        }
        next += 1;
    }
    Ok(planned)
}

/// Gives places to what is in the directory at `index`.
fn list(
    tree: &mut impl ReadTree,
    planned: &mut Vec<Planned>,
    index: usize,
    attr: &Attr,
    places: &mut HashMap<Ino, usize>,
) -> Result<(), ExportError> {
    let read = |planned: &[Planned], errno| ExportError::read(&path(planned, index))(errno);
    let listed = children(tree, attr.ino, INODES_MAX).map_err(|errno| read(planned, errno))?;
    let listed: Vec<Child> = listed.ok_or_else(|| too_large(b""))?;
    let mut entries = Vec::with_capacity(listed.len());
    let name: &[u8] = b"lost+found";
    if index == ROOT && !listed.iter().any(|child| child.name == name) {
        // What a check of the file system finds has to go somewhere. By custom it is the first.
        entries.push((name.to_vec(), planned.len()));
        planned.push(Planned::new(None, Body::Directory(Vec::new()), ROOT, name));
        planned[RESERVED].links = 2;
        planned[ROOT].links += 1;
    }
    for child in listed {
        let attr = tree.attr(child.ino).map_err(|errno| read(planned, errno))?;
        let is_dir = attr.file_type == FileType::Directory;
        let place = match places.get(&child.ino) {
            // A directory has one name; in a damaged layer it may have more.
            Some(_) if is_dir => return Err(read(planned, Errno::IO)),
            Some(&place) => place,
            None => {
                let place = planned.len();
                if place as u64 >= INODES_MAX {
                    return Err(too_large(b""));
                }
                let body = match is_dir {
                    true => Body::Directory(Vec::new()),
                    false => Body::Bare,
                };
                planned.push(Planned::new(Some(attr), body, index, &child.name));
                places.insert(child.ino, place);
                place
            }
        };
        if is_dir {
            planned[place].links = 2;
            planned[index].links += 1;
        } else {
            planned[place].links += 1;
        }
        entries.push((child.name, place));
    }
    planned[index].body = Body::Directory(entries);
    Ok(())
}

/// The blocks of a file that hold data.
fn runs(
    tree: &mut impl ReadTree,
    planned: &[Planned],
    index: usize,
    attr: &Attr,
) -> Result<Vec<(u32, u32)>, ExportError> {
    if attr.size.div_ceil(PAGE as u64) > u64::from(u32::MAX) {
        return Err(too_large(&path(planned, index)));
    }
    let mut runs: Vec<(u32, u32)> = Vec::new();
    let counted = read_data(tree, attr, &mut |offset, bytes| {
        // Checked above: the file's last block has a number of 32 bits.
        let first = (offset / PAGE as u64) as u32;
        let len = bytes.len().div_ceil(PAGE) as u32;
        match runs.last_mut() {
            Some((start, count)) if *start + *count == first => *count += len,
            _ => runs.push((first, len)),
        }
        Ok::<(), std::convert::Infallible>(())
    });
    match counted {
        Err(CopyError::Read(errno)) => Err(ExportError::read(&path(planned, index))(errno)),
        Ok(()) | Err(CopyError::Put(_)) => Ok(runs),
    }
}

/// The block of an inode's extended attributes; `None` when it has none.
fn attributes(
    tree: &impl ReadTree,
    planned: &[Planned],
    index: usize,
    attr: &Attr,
    skipped: &mut ExportSummary,
) -> Result<Option<Vec<u8>>, ExportError> {
    let read = |errno| ExportError::read(&path(planned, index))(errno);
    let mut list = Vec::new();
    let names = tree.list_xattr(attr.ino).map_err(read)?;
    for name in names
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
    {
        list.push((name.to_vec(), tree.get_xattr(attr.ino, name).map_err(read)?));
    }
    let (block, left_out) = xattrs::block(&list);
    for _ in 0..left_out {
        let reason = "an extended attribute has no room in a block of the disk";
        skipped.skip(&path(planned, index), reason);
    }
    Ok(block)
}
