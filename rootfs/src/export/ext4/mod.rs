//! A whole tree as a raw ext4 image.
//!
//! Written by ourselves: `mke2fs -d` of a directory cannot keep owners and devices without root, and
//! `debugfs` scripts need every content in a file of its own and cannot say every name. What is written
//! is the plain form that every ext4 since 2008 reads: extents, 256-byte inodes, 4 KiB blocks; no journal, no checksums,
//! no hashed directories. `tune2fs` and `resize2fs` make more of it.
//!
//! The order makes it small: first everything is counted (contents are read once, to know their holes), then every block
//! gets its number from the first to the last, then all is written. So what is used is one run of blocks, but for
//! what each group begins with, and no bitmap has to be kept.
//!
//! - `scan`: the tree as a list of inodes to be.
//! - `layout`: groups, and where in them blocks and inodes are.
//! - `extents`, `directory`, `xattrs`, `inode`, `superblock`: the structures on the disk, by the names of the kernel's
//!   documentation (`Documentation/filesystems/ext4`).

mod directory;
mod extents;
mod inode;
mod layout;
mod scan;
mod superblock;
mod xattrs;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::io::Errno;

use self::extents::{Extent, extent_tree};
use self::inode::InodeData;
use self::layout::{Allocator, Layout};
use self::scan::{Body, Planned, scan};
use super::host::create_file;
use super::read::{CopyError, PAGE, read_data};
use super::{Existing, ExportError, ExportSkipped, ExportSummary, ReadTree};

/// Size of a block.
pub(super) const BLOCK: u64 = 4096;

/// How an image is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ext4Options {
    /// Size of the image in bytes, taken down to whole blocks; without it what is used, an eighth more, and 16 MiB.
    pub size: Option<u64>,
}

/// What is in an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ext4Summary {
    /// Size of the image in bytes; it is sparse.
    pub size: u64,
    /// Bytes in blocks that are used.
    pub used: u64,
    /// Inodes of the tree.
    pub inodes: u64,
    /// Extended attributes that have no room in a block.
    pub skipped: Vec<ExportSkipped>,
    /// How many those are in all.
    pub skipped_count: u64,
}

/// Writes the whole tree as an ext4 image to `output` of the host: all of it or none. Owners, modes, times,
/// device nodes, hard links, extended attributes and holes are kept. The image is on the disk then, name included.
/// Blocks for as long as that takes.
///
/// # Errors
/// See [`ExportError`]; then `output` is as it was, unless it was only its new name that could not be synced. [`ExportError::TooLarge`] when the tree does not fit the size
/// that was asked for.
pub fn export_ext4(
    tree: &mut impl ReadTree,
    output: &Path,
    existing: Existing,
    options: Ext4Options,
) -> Result<Ext4Summary, ExportError> {
    create_file(output, existing, |image| write_ext4(tree, image, options))
}

/// Writes the whole tree as an ext4 image to `image`, a file opened for writing whose content is lost. Nothing is
/// synced.
///
/// # Errors
/// See [`export_ext4`]; what is in the file then is no image.
pub fn write_ext4(
    tree: &mut impl ReadTree,
    image: &File,
    options: Ext4Options,
) -> Result<Ext4Summary, ExportError> {
    let mut skipped = ExportSummary::default();
    let planned = scan(tree, &mut skipped)?;
    let need = planned.iter().map(Planned::blocks).sum();
    let layout = Layout::new(planned.len() as u64, need, options.size)?;
    let write = |bytes: &[u8], offset: u64| {
        image
            .write_all_at(bytes, offset)
            .map_err(ExportError::write(b""))
    };
    image
        .set_len(0)
        .and_then(|()| image.set_len(layout.blocks * BLOCK))
        .map_err(ExportError::write(b""))?;
    let mut allocator = Allocator::new(&layout);
    let mut directories = vec![0_u16; layout.groups()];
    for (index, node) in planned.iter().enumerate() {
        let number = scan::number(index);
        if matches!(node.body, Body::Directory(_)) {
            let group = layout.group_of_inode(number);
            directories[group] = directories[group].saturating_add(1);
        }
        let data = put_node(tree, &planned, index, &mut allocator, &write)?;
        if allocator.used() > layout.blocks {
            return Err(ExportError::TooLarge {
                limit: layout.blocks * BLOCK,
                unit: "bytes that the image may have",
            });
        }
        write(&inode::encode(node, &data), layout.inode_offset(number))?;
    }
    let last = scan::number(planned.len().saturating_sub(1));
    let used = allocator.used();
    superblock::write(&layout, used, u64::from(last), &directories, &write)?;
    Ok(Ext4Summary {
        size: layout.blocks * BLOCK,
        used: layout.used_blocks(used) * BLOCK,
        inodes: planned.iter().filter(|node| node.attr.is_some()).count() as u64,
        skipped: skipped.skipped,
        skipped_count: skipped.skipped_count,
    })
}

/// Writes all that an inode has besides itself; what the inode has to say of it.
fn put_node(
    tree: &mut impl ReadTree,
    planned: &[Planned],
    index: usize,
    allocator: &mut Allocator<'_>,
    write: &impl Fn(&[u8], u64) -> Result<(), ExportError>,
) -> Result<InodeData, ExportError> {
    let node = &planned[index];
    let mut data = InodeData::default();
    let mut take = |runs: &[(u32, u32)]| {
        let mut extents: Vec<Extent> = Vec::new();
        for &(logical, len) in runs {
            allocator.take(logical, len, &mut extents);
        }
        extents
    };
    let mut extents = Vec::new();
    match &node.body {
        Body::None => return Ok(data),
        Body::Directory(children) => {
            let bytes = directory::blocks(index, node.parent, children, planned);
            let count = u32::try_from(bytes.len() / PAGE).map_err(|_| scan::too_large(b""))?;
            extents = take(&[(0, count)]);
            data.size = bytes.len() as u64;
            for extent in &extents {
                let from = extent.logical as usize * PAGE;
                let bytes = &bytes[from..from + extent.len as usize * PAGE];
                write(bytes, extent.physical * BLOCK)?;
            }
        }
        Body::File(runs) => {
            extents = take(runs);
            data.size = node.attr.map_or(0, |attr| attr.size);
        }
        Body::Symlink(target) => {
            data.size = target.len() as u64;
            if target.len() < inode::INLINE {
                data.block[..target.len()].copy_from_slice(target);
                data.inline = true;
            } else {
                extents = take(&[(0, 1)]);
                write(target, extents[0].physical * BLOCK)?;
            }
        }
        Body::Device(rdev) => {
            data.block[..8].copy_from_slice(&inode::device(*rdev));
            data.inline = true;
        }
        Body::Bare => data.inline = true,
    }
    data.blocks = extents.iter().map(|extent| u64::from(extent.len)).sum();
    if !data.inline {
        let (root, blocks) = extent_tree(&extents, &mut || take(&[(0, 1)])[0].physical);
        data.block = root;
        data.blocks += blocks.len() as u64;
        for (number, bytes) in blocks {
            write(&bytes, number * BLOCK)?;
        }
    }
    if let Some(xattrs) = &node.xattrs {
        data.xattr_block = take(&[(0, 1)])[0].physical;
        data.blocks += 1;
        write(xattrs, data.xattr_block * BLOCK)?;
    }
    if let (Body::File(_), Some(attr)) = (&node.body, &node.attr) {
        let path = || scan::path(planned, index);
        let copied = read_data(tree, attr, &mut |offset, bytes| {
            put_content(&extents, offset, bytes, write)
        });
        match copied {
            Ok(()) => {}
            Err(CopyError::Read(errno)) => return Err(ExportError::read(&path())(errno)),
            Err(CopyError::Put(error)) => return Err(error),
        }
    }
    Ok(data)
}

/// Writes a piece of content to where its blocks are.
fn put_content(
    extents: &[Extent],
    offset: u64,
    mut bytes: &[u8],
    write: &impl Fn(&[u8], u64) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let mut logical = offset / BLOCK;
    while !bytes.is_empty() {
        let after = extents.partition_point(|extent| u64::from(extent.logical) <= logical);
        let extent = after.checked_sub(1).map(|before| extents[before]);
        // What was a hole when it was counted has to be one now.
        let changed = || ExportError::read(b"")(Errno::STALE);
        let extent = extent.ok_or_else(changed)?;
        let into = logical - u64::from(extent.logical);
        let left = u64::from(extent.len)
            .checked_sub(into)
            .filter(|&left| left > 0);
        let room = usize::try_from(left.ok_or_else(changed)? * BLOCK).unwrap_or(usize::MAX);
        let n = bytes.len().min(room);
        write(&bytes[..n], (extent.physical + into) * BLOCK)?;
        bytes = &bytes[n..];
        logical += (n as u64).div_ceil(BLOCK);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
