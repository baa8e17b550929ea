//! Inodes (`ext4_inode`).

use super::scan::Planned;
use super::{BLOCK, scan::Body};
use crate::tree::{FileType, Timestamp};

/// Length of an inode.
pub(super) const INODE: u64 = 256;

/// Bytes of `i_block`; a shorter target of a link is there.
pub(super) const INLINE: usize = 60;

/// `i_extra_isize`: all fields that have a name.
pub(super) const EXTRA: u16 = 32;

/// `EXT4_EXTENTS_FL`.
const EXTENTS: u32 = 0x8_0000;

/// More names than this are said as 1 of directories (`EXT4_LINK_MAX`, `dir_nlink`).
const LINK_MAX: u32 = 65_000;

/// What an inode says of its contents.
pub(super) struct InodeData {
    pub(super) size: u64,
    /// Blocks of all kinds.
    pub(super) blocks: u64,
    /// `i_block`.
    pub(super) block: [u8; INLINE],
    /// Whether that is no tree of extents.
    pub(super) inline: bool,
    pub(super) xattr_block: u64,
}

impl Default for InodeData {
    fn default() -> Self {
        Self {
            size: 0,
            blocks: 0,
            block: [0; INLINE],
            inline: false,
            xattr_block: 0,
        }
    }
}

/// The inode's bytes.
pub(super) fn encode(node: &Planned, data: &InodeData) -> [u8; INODE as usize] {
    let mut bytes = [0; INODE as usize];
    if matches!(node.body, Body::None) {
        return bytes;
    }
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    let half = |number: u32| {
        (
            (number as u16).to_le_bytes(),
            ((number >> 16) as u16).to_le_bytes(),
        )
    };
    let word = |number: u64| {
        (
            (number as u32).to_le_bytes(),
            ((number >> 32) as u32).to_le_bytes(),
        )
    };
    // Of lost+found nothing is known.
    let mode = node.attr.map_or(0o700, |attr| u32::from(attr.mode));
    let (uid, gid) = node.attr.map_or((0, 0), |attr| (attr.uid, attr.gid));
    let links = match node.file_type() {
        FileType::Directory if node.links > LINK_MAX => 1,
        _ => node.links,
    };
    let sectors = data.blocks * (BLOCK / 512);
    put(0, &half(node.file_type().mode_bits() | mode).0);
    put(2, &half(uid).0);
    put(4, &word(data.size).0);
    put(24, &half(gid).0);
    put(26, &half(links).0);
    put(28, &word(sectors).0);
    let flags = if data.inline { 0 } else { EXTENTS };
    put(32, &flags.to_le_bytes());
    put(40, &data.block);
    put(104, &word(data.xattr_block).0);
    put(108, &word(data.size).1);
    put(116, &word(sectors).1[..2]);
    put(118, &word(data.xattr_block).1[..2]);
    put(120, &half(uid).1);
    put(122, &half(gid).1);
    put(128, &EXTRA.to_le_bytes());
    if let Some(attr) = node.attr {
        for (at, extra_at, time) in [
            (8, 140, attr.atime),
            (12, 132, attr.ctime),
            (16, 136, attr.mtime),
        ] {
            let (low, extra) = split(time);
            put(at, &low);
            put(extra_at, &extra);
        }
    }
    bytes
}

/// The old 32 bits of a time, and those that add the epoch and nanoseconds.
fn split(time: Timestamp) -> ([u8; 4], [u8; 4]) {
    // Signed 32 bits and two bits of epoch reach from 1901 to 2446.
    let secs = time
        .secs
        .clamp(i64::from(i32::MIN), (3 << 32) + i64::from(i32::MAX));
    let low = secs as i32;
    let epoch = ((secs - i64::from(low)) >> 32) as u32 & 3;
    let nanos = time.nanos.min(999_999_999);
    (low.to_le_bytes(), (nanos << 2 | epoch).to_le_bytes())
}

/// The begin of `i_block` of a device: the old form where the numbers are small, else the new one.
pub(super) fn device(rdev: u32) -> [u8; 8] {
    let (major, minor) = (
        (rdev >> 8) & 0xfff,
        (rdev & 0xff) | ((rdev >> 12) & 0xf_ff00),
    );
    let mut bytes = [0; 8];
    if major < 256 && minor < 256 {
        bytes[..4].copy_from_slice(&(major << 8 | minor).to_le_bytes());
    } else {
        bytes[4..].copy_from_slice(&rdev.to_le_bytes());
    }
    bytes
}
