//! Extents: which blocks of a file are where, and the tree that says so.

use super::BLOCK;

/// `EXT4_EXT_MAGIC`.
const MAGIC: u16 = 0xf30a;

/// Length of a header and of an entry.
const ENTRY: usize = 12;

/// Entries in an inode.
const ROOT_MAX: usize = 4;

/// Entries in a block.
const BLOCK_MAX: usize = (BLOCK as usize - ENTRY) / ENTRY;

/// The most blocks of an extent (`EXT_INIT_MAX_LEN`).
const LEN_MAX: u32 = 1 << 15;

/// A run of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// The first block's number in the file.
    pub(super) logical: u32,
    /// Its number in the image.
    pub(super) physical: u64,
    /// How many.
    pub(super) len: u32,
}

impl Extent {
    /// Adds a run, to the last one where that goes on.
    pub(super) fn push(extents: &mut Vec<Self>, mut logical: u32, mut physical: u64, mut len: u32) {
        while len > 0 {
            let n = match extents.last_mut() {
                Some(last)
                    if last.len < LEN_MAX
                        && last.logical + last.len == logical
                        && last.physical + u64::from(last.len) == physical =>
                {
                    let n = len.min(LEN_MAX - last.len);
                    last.len += n;
                    n
                }
                _ => {
                    let n = len.min(LEN_MAX);
                    extents.push(Self {
                        logical,
                        physical,
                        len: n,
                    });
                    n
                }
            };
            logical += n;
            physical += u64::from(n);
            len -= n;
        }
    }
}

/// How many blocks the tree of so many extents takes.
pub(super) fn tree_blocks(extents: usize) -> u64 {
    let (mut entries, mut blocks) = (extents, 0);
    while entries > ROOT_MAX {
        entries = entries.div_ceil(BLOCK_MAX);
        blocks += entries as u64;
    }
    blocks
}

/// The tree: what the inode holds of it, and its blocks with their numbers, which `take` gives.
pub(super) fn extent_tree(
    extents: &[Extent],
    take: &mut dyn FnMut() -> u64,
) -> ([u8; 60], Vec<(u64, Vec<u8>)>) {
    let mut blocks = Vec::new();
    let mut depth = 0;
    let mut level: Vec<(u32, [u8; ENTRY])> = extents.iter().map(leaf).collect();
    while level.len() > ROOT_MAX {
        level = level
            .chunks(BLOCK_MAX)
            .map(|chunk| {
                let number = take();
                blocks.push((number, node(chunk, BLOCK_MAX, depth, BLOCK as usize)));
                (chunk[0].0, index(chunk[0].0, number))
            })
            .collect();
        depth += 1;
    }
    let root = node(&level, ROOT_MAX, depth, 60);
    (root.try_into().expect("60 bytes were asked for"), blocks)
}

fn leaf(extent: &Extent) -> (u32, [u8; ENTRY]) {
    let mut entry = [0; ENTRY];
    entry[0..4].copy_from_slice(&extent.logical.to_le_bytes());
    entry[4..6].copy_from_slice(&(extent.len as u16).to_le_bytes());
    entry[6..8].copy_from_slice(&((extent.physical >> 32) as u16).to_le_bytes());
    entry[8..12].copy_from_slice(&(extent.physical as u32).to_le_bytes());
    (extent.logical, entry)
}

fn index(logical: u32, block: u64) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry[0..4].copy_from_slice(&logical.to_le_bytes());
    entry[4..8].copy_from_slice(&(block as u32).to_le_bytes());
    entry[8..10].copy_from_slice(&((block >> 32) as u16).to_le_bytes());
    entry
}

fn node(entries: &[(u32, [u8; ENTRY])], max: usize, depth: u16, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    for number in [MAGIC, entries.len() as u16, max as u16, depth, 0, 0] {
        bytes.extend(number.to_le_bytes());
    }
    entries.iter().for_each(|(_, entry)| bytes.extend(entry));
    bytes.resize(len, 0);
    bytes
}
