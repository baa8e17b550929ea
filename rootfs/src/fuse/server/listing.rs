//! READDIR and READDIRPLUS.
//!
//! An offset is the cookie of the last entry that was read. Listings are built in a buffer of our
//! own and copied to the reply at once.

use std::ops::ControlFlow;

use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::super::abi::{Dirent, EntryOut, ReadIn};
use super::super::args::Args;
use super::super::transport::{Reply, Short};
use super::names::entry;
use super::{Server, room};
use crate::tree::{Cookie, DirEntry, Ino};

/// Records begin at multiples of this (`FUSE_DIRENT_ALIGN`).
const ALIGN: usize = 8;

/// Longest listing in one reply, whatever the buffer: bounds our own.
const LISTING_MAX: usize = 1 << 20;

/// Appends `dirent` to `listing`, after `before` (READDIRPLUS' attributes); whether it fitted.
fn append(listing: &mut Vec<u8>, limit: usize, before: &[u8], dirent: DirEntry<'_>) -> bool {
    let unpadded = before.len() + size_of::<Dirent>() + dirent.name.len();
    let len = unpadded.next_multiple_of(ALIGN);
    if listing.len() + len > limit {
        return false;
    }
    let record = Dirent {
        ino: dirent.ino.0,
        off: dirent.cookie.0,
        // At most 255.
        namelen: dirent.name.len() as u32,
        kind: dirent.file_type.dirent_type(),
    };
    listing.extend_from_slice(before);
    listing.extend_from_slice(record.as_bytes());
    listing.extend_from_slice(dirent.name);
    listing.resize(listing.len() + len - unpadded, 0);
    true
}

/// What READDIRPLUS says about an entry without its attributes: the kernel looks it up when it
/// wants them, and counts nothing. Always so for `.` and `..`, which it never counts.
fn unknown() -> EntryOut {
    EntryOut::default()
}

/// Sends a listing; `full` says that entries were left out for want of room.
fn put_listing(reply: &mut impl Reply, listing: &[u8], full: bool) -> Result<(), Errno> {
    if listing.is_empty() && full {
        // Not even one entry fits. Nothing would mean the end of the directory.
        return Err(Errno::INVAL);
    }
    reply.write(listing).map_err(|Short| Errno::INVAL)
}

/// How long a listing may get.
fn limit(read: &ReadIn, reply: &impl Reply) -> usize {
    room(reply).min(read.size as usize).min(LISTING_MAX)
}

impl Server {
    /// READDIR.
    pub(super) fn readdir(
        &mut self,
        node: Ino,
        args: &mut Args<'_>,
        reply: &mut impl Reply,
    ) -> Result<(), Errno> {
        let read: ReadIn = args.fixed()?;
        let limit = limit(&read, reply);
        let listing = &mut self.listing;
        listing.clear();
        let mut full = false;
        self.tree
            .read_dir(node, Cookie(read.offset), &mut |dirent| {
                if append(listing, limit, &[], dirent) {
                    return ControlFlow::Continue(());
                }
                full = true;
                ControlFlow::Break(())
            })?;
        put_listing(reply, listing, full)
    }

    /// READDIRPLUS: READDIR and a LOOKUP of each entry that fitted.
    pub(super) fn readdirplus(
        &mut self,
        node: Ino,
        args: &mut Args<'_>,
        reply: &mut impl Reply,
    ) -> Result<(), Errno> {
        let read: ReadIn = args.fixed()?;
        let limit = limit(&read, reply);
        let tree = &self.tree;
        let listing = &mut self.listing;
        listing.clear();
        let mut told = Vec::new();
        let mut full = false;
        tree.read_dir(node, Cookie(read.offset), &mut |dirent| {
            let attr = match dirent.name {
                b"." | b".." => None,
                _ => tree.attr(dirent.ino).ok(),
            };
            let plus = attr.map_or_else(unknown, entry);
            if !append(listing, limit, plus.as_bytes(), dirent) {
                full = true;
                return ControlFlow::Break(());
            }
            told.extend(attr.map(|attr| attr.ino));
            ControlFlow::Continue(())
        })?;
        put_listing(reply, listing, full)?;
        for ino in told {
            self.tree.retain(ino);
        }
        Ok(())
    }
}
