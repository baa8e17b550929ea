//! A tar stream as the source of a layer.
//!
//! What GNU tar, bsdtar and mmdebstrap write is understood: ustar, GNU long names, PAX records
//! with extended attributes. Members are read by [`members`] one after the other in bounded
//! memory; `reader` knows nothing of layers, and this file nothing of blocks and paddings.

mod extension;
pub(crate) mod members;

use std::fs::File;
use std::io::Read;

use tar::EntryType;

use self::members::{Member, Members};
use super::{Metadata, PackError, PackLimits, PackSummary, PackedWriter};
use crate::tree::{FileType, Timestamp};

/// How many bytes of an archive pass between two calls of `progress`.
const PROGRESS_STEP: u64 = 4 << 20;

/// Packs a tar stream into an immutable layer: `index_out` and `data_out` are files opened for
/// reading and writing whose content is lost. `progress` hears the count of bytes read from
/// `reader` so far, every few MiB and at the end. The caller makes the files durable.
///
/// Refused with the member's name: paths that are absolute or hold `..` or pass through something
/// that is no directory, hard links to what did not come before, sparse and multi-volume members, sizes
/// that contradict each other. Refused too: an archive that ends early or exceeds `limits`.
///
/// # Errors
/// See [`PackError`]. What is in the two files then is of no use.
pub fn pack_tar(
    reader: impl Read,
    index_out: &File,
    data_out: &File,
    limits: PackLimits,
    progress: &mut dyn FnMut(u64),
) -> Result<PackSummary, PackError> {
    let mut writer = PackedWriter::new(index_out, data_out, limits)?;
    let mut members = Members::new(Counting {
        inner: reader,
        count: 0,
    });
    let mut reported = 0;
    let mut seen = false;
    while let Some(member) = members.next()? {
        seen = true;
        add(&mut writer, &member, &mut members)?;
        members.skip_rest()?;
        let count = members.source().count;
        if count - reported >= PROGRESS_STEP {
            reported = count;
            progress(count);
        }
    }
    if !seen {
        return Err(PackError::Empty);
    }
    members.drain()?;
    progress(members.source().count);
    writer.finish()
}

fn add(
    writer: &mut PackedWriter<'_>,
    member: &Member,
    content: &mut Members<impl Read>,
) -> Result<(), PackError> {
    let path = &member.path;
    let meta = metadata(member)?;
    if member.size > 0 && !is_file(member.entry_type) {
        return Err(member.refuse("it has content, which its type does not allow"));
    }
    match member.entry_type {
        // Before POSIX, a directory was a file with a name that ends in a slash.
        EntryType::Regular if path.ends_with(b"/") && member.size == 0 => {
            writer.add_directory(path, meta)
        }
        EntryType::Regular | EntryType::Continuous => {
            writer.add_file(path, meta, content, member.size)
        }
        EntryType::Directory => writer.add_directory(path, meta),
        EntryType::Symlink => writer.add_symlink(path, meta, &member.link),
        EntryType::Link => writer.add_hard_link(path, &member.link),
        EntryType::Char => writer.add_node(path, meta, FileType::CharDevice, rdev(member)?),
        EntryType::Block => writer.add_node(path, meta, FileType::BlockDevice, rdev(member)?),
        EntryType::Fifo => writer.add_node(path, meta, FileType::Fifo, 0),
        EntryType::GNUSparse => Err(member.refuse("sparse members are not understood")),
        _ => Err(member.refuse("members of its type are not understood")),
    }
}

fn is_file(entry_type: EntryType) -> bool {
    matches!(entry_type, EntryType::Regular | EntryType::Continuous)
}

fn metadata(member: &Member) -> Result<Metadata, PackError> {
    let id = |id: u64| u32::try_from(id).map_err(|_| member.refuse("its owner is out of range"));
    let mode = member
        .header
        .mode()
        .map_err(|_| member.refuse("its mode is no number"))?;
    Ok(Metadata {
        mode: (mode & 0o7777) as u16,
        uid: id(member.uid)?,
        gid: id(member.gid)?,
        mtime: Timestamp {
            secs: member.mtime.secs,
            nanos: member.mtime.nanos,
        },
        xattrs: member.xattrs.clone(),
    })
}

/// The device number in the form of Linux' `new_encode_dev` (`linux/kdev_t.h`).
fn rdev(member: &Member) -> Result<u32, PackError> {
    let number = |number: std::io::Result<Option<u32>>| {
        number
            .ok()
            .flatten()
            .ok_or_else(|| member.refuse("its device number is missing"))
    };
    let major = number(member.header.device_major())?;
    let minor = number(member.header.device_minor())?;
    if major > 0xfff || minor > 0xf_ffff {
        return Err(member.refuse("its device number is out of range"));
    }
    Ok((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}

/// Counts what is read.
struct Counting<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.count += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests;
