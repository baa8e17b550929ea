//! Contents of regular files: READ, WRITE and their relatives.
//!
//! Bytes go straight between the transport's buffer and a host file that the tree has open; only
//! regular files have contents here, and no other host file is ever touched.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::super::abi::{
    CopyFileRangeIn, FSYNC_FDATASYNC, FallocateIn, FsyncIn, ReadIn, WriteFlags, WriteIn, WriteOut,
};
use super::super::args::{Args, read_struct};
use super::super::transport::{Reply, Request, Short};
use super::{Server, expect_room, put, room};
use crate::tree::{Attr, Content, FileType, Ino, Timestamp};

/// Most that one COPY_FILE_RANGE copies: others wait meanwhile, and callers ask again.
const COPY_MAX: u64 = 8 << 20;

/// The offset after `len` bytes from `offset`, within what a file may have (`MAX_LFS_FILESIZE`).
fn end_of(offset: u64, len: u64) -> Result<u64, Errno> {
    offset
        .checked_add(len)
        .filter(|end| i64::try_from(*end).is_ok())
        .ok_or(Errno::FBIG)
}

/// Appends exactly `len` bytes of `file` to the reply, or up to the file's end.
fn fill(
    reply: &mut impl Reply,
    file: &File,
    mut offset: u64,
    mut len: usize,
) -> Result<usize, Errno> {
    let mut filled = 0;
    while len > 0 {
        let n = reply.fill_from(file.as_fd(), offset, len)?;
        if n == 0 {
            break;
        }
        offset += n as u64;
        len = len.saturating_sub(n);
        filled += n;
    }
    Ok(filled)
}

impl Server {
    /// Attributes of a regular file; all else has no content.
    fn regular(&self, node: Ino) -> Result<Attr, Errno> {
        let attr = self.tree.attr(node)?;
        match attr.file_type {
            FileType::Regular => Ok(attr),
            FileType::Directory => Err(Errno::ISDIR),
            _ => Err(Errno::INVAL),
        }
    }

    /// READ.
    pub(super) fn read(
        &mut self,
        node: Ino,
        args: &mut Args<'_>,
        reply: &mut impl Reply,
    ) -> Result<(), Errno> {
        let read: ReadIn = args.fixed()?;
        if read.size > super::MAX_WRITE {
            // No kernel asks for more than the pages of a request.
            return Err(Errno::INVAL);
        }
        let size = self.regular(node)?.size;
        let offset = read.offset;
        let wanted = u64::from(read.size)
            .min(size.saturating_sub(offset))
            .min(room(reply) as u64);
        // `wanted` is at most what the reply buffer holds.
        let wanted = wanted as usize;
        let filled = match self.tree.content(node)? {
            Content::Hole => 0,
            Content::File { file } => fill(reply, file, offset, wanted)?,
            Content::Packed {
                file,
                offset: base,
                len,
            } => {
                let stored = len.saturating_sub(offset).min(wanted as u64) as usize;
                let from = base.checked_add(offset).ok_or(Errno::IO)?;
                let filled = if stored == 0 {
                    0
                } else {
                    fill(reply, file, from, stored)?
                };
                if filled < stored {
                    // The layer's data file is shorter than its index says.
                    return Err(Errno::IO);
                }
                filled
            }
        };
        // What is below the size and not stored reads as zeros.
        reply
            .zeros(wanted.saturating_sub(filled))
            .map_err(|Short| Errno::IO)
    }

    /// WRITE, of which `len` bytes follow the header.
    pub(super) fn write(
        &mut self,
        node: Ino,
        len: usize,
        request: &mut impl Request,
        reply: &mut impl Reply,
    ) -> Result<(), Errno> {
        let payload = len.checked_sub(size_of::<WriteIn>()).ok_or(Errno::INVAL)?;
        let write: WriteIn = read_struct(request).map_err(|Short| Errno::INVAL)?;
        let size = write.size as usize;
        if size > payload || write.size > super::MAX_WRITE {
            return Err(Errno::INVAL);
        }
        end_of(write.offset, u64::from(write.size))?;
        expect_room::<WriteOut>(reply)?;
        self.regular(node)?;
        let flags = WriteFlags::from_bits_truncate(write.write_flags);
        if size > 0 {
            self.store(node, flags, write.offset, size, request)
                .and_then(|written| {
                    put(
                        reply,
                        &WriteOut {
                            size: written,
                            padding: 0,
                        },
                    )
                })
        } else {
            put(reply, &WriteOut::default())
        }
    }

    /// Writes `size` bytes of the request; how many were written.
    fn store(
        &mut self,
        node: Ino,
        flags: WriteFlags,
        offset: u64,
        size: usize,
        request: &mut impl Request,
    ) -> Result<u32, Errno> {
        let cached = flags.contains(WriteFlags::CACHE);
        // The kernel took the time when it dirtied the pages, and will send it.
        let when = (!cached).then(Timestamp::now);
        let mut written = 0;
        let stored = self.tree.with_room(|tree| {
            let at = |written| offset + written as u64;
            tree.reserve(node, at(written), (size - written) as u64)?;
            let file = tree.content_mut(node)?;
            let mut stored = Ok(());
            while written < size && stored.is_ok() {
                match request.write_to(file.as_fd(), at(written), size - written) {
                    Ok(0) => stored = Err(Errno::IO),
                    Ok(n) => written += n,
                    Err(errno) => stored = Err(errno),
                }
            }
            if written > 0 {
                tree.wrote(node, at(written), when)?;
            }
            stored
        });
        if written > 0 && flags.contains(WriteFlags::KILL_SUIDGID) {
            self.tree.kill_privileges(node)?;
        }
        match stored {
            // Writeback looks at errors and not at counts: a short write must not pass for a
            // whole one.
            Err(errno) if cached || written == 0 => Err(errno),
            // At most `MAX_WRITE`.
            _ => Ok(written as u32),
        }
    }

    /// FALLOCATE.
    pub(super) fn fallocate(&mut self, node: Ino, args: &mut Args<'_>) -> Result<(), Errno> {
        let fallocate: FallocateIn = args.fixed()?;
        let mode = FallocateFlags::from_bits(fallocate.mode).ok_or(Errno::OPNOTSUPP)?;
        if fallocate.length == 0 {
            return Err(Errno::INVAL);
        }
        end_of(fallocate.offset, fallocate.length)?;
        self.regular(node)?;
        self.tree
            .with_room(|tree| tree.fallocate(node, fallocate.offset, fallocate.length, mode))
    }

    /// COPY_FILE_RANGE, after the kernel has written both ranges' dirty pages.
    pub(super) fn copy_file_range(
        &mut self,
        node: Ino,
        args: &mut Args<'_>,
        reply: &mut impl Reply,
    ) -> Result<(), Errno> {
        let copy: CopyFileRangeIn = args.fixed()?;
        if copy.flags != 0 {
            return Err(Errno::INVAL);
        }
        let target = Ino(copy.nodeid_out);
        let len = copy.len.min(COPY_MAX);
        end_of(copy.off_in, len)?;
        end_of(copy.off_out, len)?;
        expect_room::<WriteOut>(reply)?;
        let source = self.regular(node)?;
        self.regular(target)?;
        if copy.off_in >= source.size {
            // The kernel saw data there, or it would not have asked: its dirty pages further on
            // make the file longer than we know. It copies through its cache instead.
            return Err(Errno::OPNOTSUPP);
        }
        let copied = self
            .tree
            .with_room(|tree| tree.copy_range(node, copy.off_in, target, copy.off_out, len))?;
        // At most `COPY_MAX`.
        put(
            reply,
            &WriteOut {
                size: copied as u32,
                padding: 0,
            },
        )
    }

    /// FSYNC, FSYNCDIR.
    pub(super) fn fsync(&mut self, node: Ino, args: &mut Args<'_>) -> Result<(), Errno> {
        let fsync: FsyncIn = args.fixed()?;
        self.tree
            .fsync(node, fsync.fsync_flags & FSYNC_FDATASYNC != 0)
    }
}
