//! Paths in a Git index (gitformat-index(5), versions 2 to 4): what Git tracks it does not ignore.

use std::collections::BTreeSet;

/// Stat data, object name (SHA-1) and flags of an entry.
const ENTRY: usize = 62;

/// Flag of an entry: two more bytes of flags follow.
const EXTENDED: u16 = 0x4000;

/// The longest path that is believed.
const PATH_MAX: usize = 4096;

/// How many bytes all paths may have together; those of version 4 are compressed.
const PATHS_MAX: usize = 256 << 20;

/// The paths in `index` and the directories above them; `None` when it is damaged or of a kind that
/// is not understood.
pub(super) fn tracked(index: &[u8]) -> Option<BTreeSet<Vec<u8>>> {
    let version = be32(index, 4)?;
    if !index.starts_with(b"DIRC") || !(2..=4).contains(&version) {
        return None;
    }
    let mut paths = BTreeSet::new();
    let mut budget = PATHS_MAX;
    let mut path = Vec::new();
    let mut at = 12;
    for _ in 0..be32(index, 8)? {
        let begin = at;
        let flags = u16::from_be_bytes(index.get(at + ENTRY - 2..at + ENTRY)?.try_into().ok()?);
        at += ENTRY;
        if flags & EXTENDED != 0 {
            at += 2;
        }
        if version == 4 {
            let keep = path.len().checked_sub(offset(index, &mut at)?)?;
            path.truncate(keep);
        } else {
            path.clear();
        }
        let rest = index.get(at..)?;
        let len = rest.iter().position(|&byte| byte == 0)?;
        path.extend_from_slice(&rest[..len]);
        if path.len() > PATH_MAX {
            return None;
        }
        // Versions 2 and 3 pad with one to eight NULs to a multiple of eight.
        at = match version {
            4 => at + len + 1,
            _ => begin + (at + len - begin + 8) / 8 * 8,
        };
        let mut here = path.as_slice();
        while paths.insert(here.to_vec()) {
            budget = budget.checked_sub(here.len() + 64)?;
            match here.iter().rposition(|&byte| byte == b'/') {
                Some(slash) => here = &here[..slash],
                None => break,
            }
        }
    }
    Some(paths)
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A number as offsets in packs are written (gitformat-pack(5), "offset encoding").
fn offset(bytes: &[u8], at: &mut usize) -> Option<usize> {
    let mut value = 0_usize;
    loop {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value = value
            .checked_shl(7)?
            .checked_add(usize::from(byte & 0x7f))?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
        value = value.checked_add(1)?;
        if value > PATH_MAX {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(version: u32, entries: &[&[u8]]) -> Vec<u8> {
        let mut bytes = b"DIRC".to_vec();
        bytes.extend(version.to_be_bytes());
        bytes.extend((entries.len() as u32).to_be_bytes());
        for entry in entries {
            let begin = bytes.len();
            bytes.resize(begin + ENTRY, 0);
            bytes.extend(*entry);
            bytes.push(0);
            while version < 4 && !(bytes.len() - begin).is_multiple_of(8) {
                bytes.push(0);
            }
        }
        bytes
    }

    #[test]
    fn paths_and_the_directories_above_them_are_found_in_all_versions() {
        let want = BTreeSet::from([b"a".to_vec(), b"a/bc".to_vec(), b"a/d".to_vec()]);
        assert_eq!(tracked(&index(2, &[b"a/bc", b"a/d"])), Some(want.clone()));
        // The second keeps all but two bytes of the first.
        assert_eq!(tracked(&index(4, &[b"\0a/bc", b"\x02d"])), Some(want));
    }

    #[test]
    fn a_damaged_index_is_none_and_never_panics() {
        let whole = index(4, &[b"\0a/bc", b"\x02d"]);
        for at in 0..whole.len() {
            assert_eq!(tracked(&whole[..at]), None, "cut at {at}");
            for value in [0x7f, 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                let _ = tracked(&changed);
            }
        }
    }
}
