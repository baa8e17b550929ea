//! Where a link leads that may not leave its tree. The host is never asked.

use rustix::io::Errno;

use super::ReadTree;
use crate::tree::{Attr, FileType, Ino, Name};

/// How many symbolic links one path may pass (`MAXSYMLINKS` of Linux, `namei.h`).
const LINKS_MAX: u32 = 40;

/// Where a path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// To this.
    Found(Attr),
    /// To nothing that is there, but to a place inside.
    Missing,
    /// Out of the tree.
    Outside,
    /// Round and round.
    Loop,
}

/// Finds where the target `path` of a symbolic link in directory `dir`, which lies beneath
/// directory `inside`, leads: [`Resolved::Outside`] when it is absolute or passes above `inside`,
/// itself or by way of other links, and for what is not there yet by its letters. `steps` is how
/// many components may still be looked at, so that a caller can bound many links together; at 0
/// the answer is [`Resolved::Loop`].
///
/// # Errors
/// The tree's own.
pub fn resolve_inside(
    tree: &impl ReadTree,
    inside: Ino,
    dir: Ino,
    path: &[u8],
    steps: &mut u64,
) -> Result<Resolved, Errno> {
    let mut here = dir;
    // What was found last, when it is no directory.
    let mut last = None;
    // How many components beyond `here` are not there.
    let mut missing = 0_u64;
    let mut links = 0;
    let mut todo: Vec<Vec<u8>> = Vec::new();
    if !push(&mut todo, path) {
        return Ok(Resolved::Outside);
    }
    while let Some(component) = todo.pop() {
        let Some(left) = steps.checked_sub(1) else {
            return Ok(Resolved::Loop);
        };
        *steps = left;
        match component.as_slice() {
            b"" | b"." => continue,
            b".." => {
                if missing > 0 {
                    missing -= 1;
                } else if last.take().is_some() {
                    // "file/..": nothing for the kernel, `here` by its letters.
                } else if here == inside {
                    return Ok(Resolved::Outside);
                } else {
                    here = tree.parent_of(here)?;
                }
                continue;
            }
            _ => {}
        }
        if missing > 0 || last.is_some() {
            missing += 1;
            continue;
        }
        let found = match Name::new(&component) {
            Ok(name) => tree.lookup(here, name),
            Err(_) => Err(Errno::NOENT),
        };
        match found {
            Ok(attr) if attr.file_type == FileType::Directory => here = attr.ino,
            Ok(attr) if attr.file_type == FileType::Symlink => {
                links += 1;
                if links > LINKS_MAX {
                    return Ok(Resolved::Loop);
                }
                if !push(&mut todo, &tree.readlink(attr.ino)?) {
                    return Ok(Resolved::Outside);
                }
            }
            Ok(attr) => last = Some(attr),
            Err(Errno::NOENT) => missing = 1,
            Err(error) => return Err(error),
        }
    }
    match last {
        _ if missing > 0 => Ok(Resolved::Missing),
        Some(attr) => Ok(Resolved::Found(attr)),
        None => tree.attr(here).map(Resolved::Found),
    }
}

/// Puts the components of `path` before those that are still to do; whether it is relative.
fn push(todo: &mut Vec<Vec<u8>>, path: &[u8]) -> bool {
    todo.extend(path.split(|&byte| byte == b'/').rev().map(<[u8]>::to_vec));
    path.first() != Some(&b'/')
}
