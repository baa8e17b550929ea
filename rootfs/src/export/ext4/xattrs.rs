//! Extended attributes: one block for an inode's (`ext4_xattr_header`, `ext4_xattr_entry`).

use super::BLOCK;

/// `EXT4_XATTR_MAGIC`.
const MAGIC: u32 = 0xea02_0000;

const HEADER: usize = 32;
const ENTRY: usize = 16;

/// Zeros that end the entries.
const END: usize = 4;

/// Prefixes that are numbers on the disk; what follows is the name.
const PREFIXES: [(&[u8], u8); 5] = [
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
];

/// An attribute as the disk has it.
struct Entry {
    index: u8,
    name: Vec<u8>,
    value: Vec<u8>,
}

/// The block with these attributes, if there are any; and how many have no room or no place on ext4.
pub(super) fn block(list: &[(Vec<u8>, Vec<u8>)]) -> (Option<Vec<u8>>, usize) {
    let mut entries = Vec::new();
    let mut room = BLOCK as usize - HEADER - END;
    for (name, value) in list {
        let Some(entry) = entry(name, value) else {
            continue;
        };
        let takes =
            (ENTRY + entry.name.len()).next_multiple_of(4) + entry.value.len().next_multiple_of(4);
        if takes <= room {
            room -= takes;
            entries.push(entry);
        }
    }
    let left_out = list.len() - entries.len();
    if entries.is_empty() {
        return (None, left_out);
    }
    entries.sort_by(|a, b| (a.index, a.name.len(), &a.name).cmp(&(b.index, b.name.len(), &b.name)));
    let mut block = vec![0; BLOCK as usize];
    let (mut at, mut values) = (HEADER, BLOCK as usize);
    let mut all = 0_u32;
    for entry in &entries {
        let len = entry.value.len();
        values -= len.next_multiple_of(4);
        block[values..values + len].copy_from_slice(&entry.value);
        let hash = hash(
            &entry.name,
            &block[values..values + len.next_multiple_of(4)],
        );
        all = all.rotate_left(16) ^ hash;
        let offset = if len == 0 { 0 } else { values as u16 };
        block[at] = entry.name.len() as u8;
        block[at + 1] = entry.index;
        block[at + 2..at + 4].copy_from_slice(&offset.to_le_bytes());
        block[at + 8..at + 12].copy_from_slice(&(len as u32).to_le_bytes());
        block[at + 12..at + 16].copy_from_slice(&hash.to_le_bytes());
        block[at + ENTRY..at + ENTRY + entry.name.len()].copy_from_slice(&entry.name);
        at += (ENTRY + entry.name.len()).next_multiple_of(4);
    }
    for (i, number) in [MAGIC, 1, 1, all].into_iter().enumerate() {
        block[i * 4..i * 4 + 4].copy_from_slice(&number.to_le_bytes());
    }
    (Some(block), left_out)
}

fn entry(name: &[u8], value: &[u8]) -> Option<Entry> {
    let (prefix, index) = PREFIXES
        .iter()
        .find(|(prefix, _)| name.starts_with(prefix))?;
    let name = name[prefix.len()..].to_vec();
    let value = match index {
        2 | 3 => acl(value)?,
        _ => value.to_vec(),
    };
    Some(Entry {
        index: *index,
        name,
        value,
    })
}

/// An ACL as programs see it (version 2, entries of eight bytes) in the form of the disk (version 1, the id only where
/// there is one).
fn acl(value: &[u8]) -> Option<Vec<u8>> {
    const USER: u16 = 2;
    const GROUP: u16 = 8;
    let entries = value.strip_prefix(&2_u32.to_le_bytes())?;
    let mut out = 1_u32.to_le_bytes().to_vec();
    let (entries, rest) = entries.as_chunks::<8>();
    for entry in entries {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let len = if matches!(tag, USER | GROUP) { 8 } else { 4 };
        out.extend(&entry[..len]);
    }
    rest.is_empty().then_some(out)
}

/// The hash of an entry (`ext4_xattr_hash_entry`); the value is padded.
fn hash(name: &[u8], value: &[u8]) -> u32 {
    let name = name
        .iter()
        .fold(0_u32, |hash, byte| hash.rotate_left(5) ^ u32::from(*byte));
    let (words, _) = value.as_chunks::<4>();
    words.iter().fold(name, |hash, word| {
        hash.rotate_left(16) ^ u32::from_le_bytes(*word)
    })
}
