//! The superblock, the groups' descriptors and their bitmaps (`ext4_super_block`, `ext4_group_desc`).

use super::BLOCK;
use super::inode::{EXTRA, INODE};
use super::layout::{DESCRIPTOR, GROUP, Layout, has_superblock};
use crate::export::ExportError;
use crate::tree::Timestamp;

/// Where in its block the superblock is, for the first of them.
const FIRST_AT: u64 = 1024;

const MAGIC: u16 = 0xef53;

/// `COMPAT_EXT_ATTR`.
const COMPAT: u32 = 0x8;

/// `INCOMPAT_FILETYPE`, `INCOMPAT_EXTENTS`.
const INCOMPAT: u32 = 0x2 | 0x40;

/// `RO_COMPAT_` `SPARSE_SUPER`, `LARGE_FILE`, `HUGE_FILE`, `DIR_NLINK`, `EXTRA_ISIZE`.
const RO_COMPAT: u32 = 0x1 | 0x2 | 0x8 | 0x20 | 0x40;

/// `EXT4_DEFM_XATTR_USER`, `EXT4_DEFM_ACL`.
const MOUNT_OPTIONS: u32 = 0x4 | 0x8;

/// Writes everything but inodes and contents, which reach up to block `end` and inode `last`.
pub(super) fn write(
    layout: &Layout,
    end: u64,
    last: u64,
    directories: &[u16],
    write: &impl Fn(&[u8], u64) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let mut descriptors = Vec::new();
    let mut free_inodes = 0;
    for (group, &directories) in directories.iter().enumerate() {
        let blocks = layout.group_blocks(group);
        let used = layout.used_of_group(group, end);
        let inodes = last
            .saturating_sub(layout.group_inodes * group as u64)
            .min(layout.group_inodes);
        free_inodes += layout.group_inodes - inodes;
        let at = layout.bitmaps(group);
        write(&bitmap(used, blocks), at * BLOCK)?;
        write(&bitmap(inodes, layout.group_inodes), (at + 1) * BLOCK)?;
        for number in [at, at + 1, at + 2] {
            descriptors.extend((number as u32).to_le_bytes());
        }
        for number in [blocks - used, layout.group_inodes - inodes] {
            descriptors.extend((number as u16).to_le_bytes());
        }
        descriptors.extend(directories.to_le_bytes());
        descriptors.resize((group + 1) * DESCRIPTOR as usize, 0);
    }
    let mut superblock = superblock(layout, end, free_inodes)?;
    for group in (0..layout.groups()).filter(|&group| has_superblock(group)) {
        let begin = GROUP * group as u64 * BLOCK;
        superblock[90..92].copy_from_slice(&(group as u16).to_le_bytes());
        write(&superblock, begin + if group == 0 { FIRST_AT } else { 0 })?;
        write(&descriptors, begin + BLOCK)?;
    }
    Ok(())
}

/// A bitmap whose first `used` bits are set, and all after the first `len`.
fn bitmap(used: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK as usize];
    for bit in (0..used).chain(len..8 * BLOCK) {
        bytes[(bit / 8) as usize] |= 1 << (bit % 8);
    }
    bytes
}

fn superblock(layout: &Layout, end: u64, free_inodes: u64) -> Result<[u8; 1024], ExportError> {
    let mut bytes = [0; 1024];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    let now = Timestamp::now().secs as u32;
    for (at, number) in [
        (0, (layout.group_inodes * layout.groups() as u64) as u32),
        (4, layout.blocks as u32),
        (12, (layout.blocks - layout.used_blocks(end)) as u32),
        (16, free_inodes as u32),
        // Blocks and clusters are 1024 << 2 bytes.
        (24, 2),
        (28, 2),
        (32, GROUP as u32),
        (36, GROUP as u32),
        (40, layout.group_inodes as u32),
        (48, now),
        (64, now),
        // Revision 1: inodes of any size.
        (76, 1),
        // The first inode that is not reserved.
        (84, 11),
        (92, COMPAT),
        (96, INCOMPAT),
        (100, RO_COMPAT),
        (256, MOUNT_OPTIONS),
        (264, now),
    ] {
        put(at, &number.to_le_bytes());
    }
    for (at, number) in [
        // No check after so many mounts.
        (54, u16::MAX),
        (56, MAGIC),
        // Clean; go on after errors.
        (58, 1),
        (60, 1),
        (88, INODE as u16),
        (348, EXTRA),
        (350, EXTRA),
    ] {
        put(at, &number.to_le_bytes());
    }
    let mut uuid = [0; 16];
    rustix::rand::getrandom(&mut uuid, rustix::rand::GetRandomFlags::empty())
        .map_err(ExportError::write(b""))?;
    // RFC 9562, version 4.
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    put(104, &uuid);
    Ok(bytes)
}
