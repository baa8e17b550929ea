//! Directories: entries one after the other in blocks (`ext4_dir_entry_2`).

use super::BLOCK;
use super::scan::{Planned, number};
use crate::tree::FileType;

/// Bytes of an entry before its name.
const HEADER: usize = 8;

fn entry_len(name: usize) -> usize {
    (HEADER + name).next_multiple_of(4)
}

/// How many blocks a directory takes.
pub(super) fn count(children: &[(Vec<u8>, usize)]) -> u64 {
    let (mut blocks, mut at) = (1, entry_len(1) + entry_len(2));
    for (name, _) in children {
        let len = entry_len(name.len());
        if at + len > BLOCK as usize {
            blocks += 1;
            at = 0;
        }
        at += len;
    }
    blocks
}

/// The blocks of the directory at place `index`.
pub(super) fn blocks(
    index: usize,
    parent: usize,
    children: &[(Vec<u8>, usize)],
    planned: &[Planned],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Where the last entry is.
    let mut last = 0;
    let dots = [(&b"."[..], index), (&b".."[..], parent)];
    let named = children
        .iter()
        .map(|(name, place)| (name.as_slice(), *place));
    for (name, place) in dots.into_iter().chain(named) {
        let room = BLOCK as usize - bytes.len() % BLOCK as usize;
        if entry_len(name.len()) > room {
            fill(&mut bytes, last);
        }
        last = bytes.len();
        let len = entry_len(name.len());
        bytes.extend(number(place).to_le_bytes());
        bytes.extend((len as u16).to_le_bytes());
        bytes.push(name.len() as u8);
        bytes.push(file_type(planned[place].file_type()));
        bytes.extend(name);
        bytes.resize(last + len, 0);
    }
    fill(&mut bytes, last);
    bytes
}

/// Lets the last entry of a block reach to its end.
fn fill(bytes: &mut Vec<u8>, last: usize) {
    bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
    let len = (bytes.len() - last) as u16;
    bytes[last + 4..last + 6].copy_from_slice(&len.to_le_bytes());
}

/// `EXT4_FT_*`.
fn file_type(file_type: FileType) -> u8 {
    match file_type {
        FileType::Regular => 1,
        FileType::Directory => 2,
        FileType::CharDevice => 3,
        FileType::BlockDevice => 4,
        FileType::Fifo => 5,
        FileType::Socket => 6,
        FileType::Symlink => 7,
    }
}
