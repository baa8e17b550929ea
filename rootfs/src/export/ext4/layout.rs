//! Groups, and where in them blocks and inodes are.
//!
//! Each group begins with what describes it: in some a copy of the superblock and of all group descriptors
//! (`sparse_super`: groups 0, 1 and powers of 3, 5 and 7), then its two bitmaps and its part of the inode table.

use super::BLOCK;
use super::extents::Extent;
use super::inode::INODE;
use crate::export::ExportError;

/// Blocks of a group: as many as a bitmap of one block has bits.
pub(super) const GROUP: u64 = 8 * BLOCK;

/// Length of a group's descriptor.
pub(super) const DESCRIPTOR: u64 = 32;

/// A last group with less room than this is left out.
const LAST_MIN: u64 = 64;

/// The most blocks that numbers of 32 bits count.
const BLOCKS_MAX: u64 = u32::MAX as u64;

/// The geometry of an image.
pub(super) struct Layout {
    /// All blocks.
    pub(super) blocks: u64,
    /// Inodes of each group.
    pub(super) group_inodes: u64,
}

impl Layout {
    /// A geometry for `inodes` inodes and `need` blocks of contents, in `size` bytes if that is said.
    pub(super) fn new(inodes: u64, need: u64, size: Option<u64>) -> Result<Self, ExportError> {
        // Room for trees of extents that groups cut.
        let need = need + need / 4096 + 16;
        if let Some(size) = size {
            let too_small = ExportError::TooLarge {
                limit: size,
                unit: "bytes that the image may have",
            };
            let layout = Self::of(inodes, (size / BLOCK).min(BLOCKS_MAX));
            return layout
                .filter(|layout| layout.capacity() >= need)
                .ok_or(too_small);
        }
        let want = need + need / 8 + (16 << 20) / BLOCK;
        let mut blocks = want + 8;
        // Each round adds what the groups of the last one take for themselves.
        while blocks <= BLOCKS_MAX {
            match Self::of(inodes + inodes / 8 + 64, blocks) {
                Some(layout) if layout.capacity() >= want => return Ok(layout),
                Some(layout) => blocks += (want - layout.capacity()).max(LAST_MIN),
                None => blocks += GROUP,
            }
        }
        Err(ExportError::TooLarge {
            limit: BLOCKS_MAX * BLOCK,
            unit: "bytes, which is the largest image",
        })
    }

    /// The geometry with so many blocks; `None` when they hold no such number of inodes.
    fn of(inodes: u64, blocks: u64) -> Option<Self> {
        let groups = blocks.div_ceil(GROUP).max(1);
        let block_inodes = BLOCK / INODE;
        let group_inodes = inodes
            .div_ceil(groups)
            .next_multiple_of(block_inodes)
            .max(block_inodes);
        let layout = Self {
            blocks,
            group_inodes,
        };
        let last = layout.groups().checked_sub(1)?;
        if layout.group_blocks(last) < layout.overhead(last) + LAST_MIN {
            return match last {
                0 => None,
                _ => Self::of(inodes, GROUP * last as u64),
            };
        }
        let all = layout.group_inodes * layout.groups() as u64;
        (group_inodes <= GROUP && all >= inodes && all <= u64::from(u32::MAX)).then_some(layout)
    }

    pub(super) fn groups(&self) -> usize {
        usize::try_from(self.blocks.div_ceil(GROUP)).expect("BLOCKS_MAX bounds it")
    }

    pub(super) fn group_blocks(&self, group: usize) -> u64 {
        (self.blocks - GROUP * group as u64).min(GROUP)
    }

    /// Blocks of all group descriptors.
    pub(super) fn descriptor_blocks(&self) -> u64 {
        (self.groups() as u64 * DESCRIPTOR).div_ceil(BLOCK)
    }

    /// Blocks of a group's part of the inode table.
    fn table_blocks(&self) -> u64 {
        self.group_inodes * INODE / BLOCK
    }

    /// Where a group's block bitmap is; its inode bitmap and table come after.
    pub(super) fn bitmaps(&self, group: usize) -> u64 {
        let copy = if has_superblock(group) {
            1 + self.descriptor_blocks()
        } else {
            0
        };
        GROUP * group as u64 + copy
    }

    /// Blocks that a group has for itself.
    pub(super) fn overhead(&self, group: usize) -> u64 {
        self.bitmaps(group) - GROUP * group as u64 + 2 + self.table_blocks()
    }

    /// Blocks for contents.
    fn capacity(&self) -> u64 {
        (0..self.groups())
            .map(|group| {
                self.group_blocks(group)
                    .saturating_sub(self.overhead(group))
            })
            .sum()
    }

    pub(super) fn group_of_inode(&self, number: u32) -> usize {
        usize::try_from(u64::from(number - 1) / self.group_inodes).expect("fewer than blocks")
    }

    /// Where in the image an inode is.
    pub(super) fn inode_offset(&self, number: u32) -> u64 {
        let table = (self.bitmaps(self.group_of_inode(number)) + 2) * BLOCK;
        table + u64::from(number - 1) % self.group_inodes * INODE
    }

    /// Used blocks of a group, when contents reach up to block `end`; they are its first.
    pub(super) fn used_of_group(&self, group: usize, end: u64) -> u64 {
        let begin = GROUP * group as u64;
        self.overhead(group)
            .max(end.saturating_sub(begin).min(self.group_blocks(group)))
    }

    /// Used blocks of all groups.
    pub(super) fn used_blocks(&self, end: u64) -> u64 {
        (0..self.groups())
            .map(|group| self.used_of_group(group, end))
            .sum()
    }
}

/// Whether a group has a copy of the superblock.
pub(super) fn has_superblock(group: usize) -> bool {
    let power = |base: usize| {
        let mut power = base;
        while power < group {
            power *= base;
        }
        power == group
    };
    group <= 1 || power(3) || power(5) || power(7)
}

/// Hands out blocks from the first to the last.
pub(super) struct Allocator<'a> {
    layout: &'a Layout,
    next: u64,
}

impl<'a> Allocator<'a> {
    pub(super) fn new(layout: &'a Layout) -> Self {
        Self {
            layout,
            next: layout.overhead(0),
        }
    }

    /// Where contents end.
    pub(super) fn used(&self) -> u64 {
        self.next
    }

    /// Takes blocks for `len` of a file from `logical` on.
    pub(super) fn take(&mut self, mut logical: u32, mut len: u32, extents: &mut Vec<Extent>) {
        while len > 0 {
            let group = usize::try_from(self.next / GROUP).expect("BLOCKS_MAX bounds it");
            let begin = GROUP * group as u64;
            self.next = self.next.max(begin + self.layout.overhead(group));
            let room = begin + GROUP - self.next;
            let n = u64::from(len).min(room);
            if n == 0 {
                self.next = begin + GROUP;
                continue;
            }
            let n = n as u32;
            Extent::push(extents, logical, self.next, n);
            self.next += u64::from(n);
            logical += n;
            len -= n;
        }
    }
}
