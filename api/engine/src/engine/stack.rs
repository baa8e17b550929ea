//! A workspace's disk, read on the host without the guest's help.
//!
//! A running guest has to write out what it holds first; its monitor does so as well. What
//! programs of the guest write meanwhile is seen or not.

use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use pyro_client::types::{FileEntry, FileKind};
use pyro_rootfs::export::ReadTree;
use pyro_rootfs::tree::{
    Attr, Content, Cookie, FileType, Ino, OpenError, ResolveError, StackReader,
};
use rustix::io::Errno;

use super::create::{damaged, open_packed};
use super::slot::Slot;
use super::{Engine, blocking};
use crate::environments;
use crate::error::{Code, Error, Result};
use crate::records::Record;

/// Bytes of names and targets in one listing.
const LISTING_BYTES: usize = 64 << 20;

impl Engine {
    /// Lets a guest that runs write out what it holds, while others may stop it.
    pub(super) async fn write_out(&self, slot: &Arc<Slot>) -> Result<()> {
        let Ok(guest) = slot.steady_guest().await else {
            return Ok(());
        };
        match super::snapshots::sync(&guest).await {
            // One that has ended holds nothing any more.
            Err(_) if guest.has_ended() => Ok(()),
            synced => synced,
        }
    }

    /// The disk as its monitor knows it now. The caller sees to it that the layers stay.
    pub(super) async fn disk(&self, slot: &Arc<Slot>) -> Result<StackReader> {
        if let Ok(guest) = slot.guest() {
            guest.sync_root().await?;
        }
        let record = slot.record();
        let (state, store) = (self.state.clone(), environments::store(&self.paths));
        blocking(move || open(&state, &store, &record)).await
    }
}

fn open(
    state: &crate::records::state::StateDir,
    store: &pyro_images::Store,
    record: &Record,
) -> Result<StackReader> {
    let packed = open_packed(store, &record.environment)?;
    let deltas = record
        .disk
        .stack()
        .map(|id| state.layers().open(id))
        .collect::<Result<Vec<_>>>()?;
    StackReader::open(packed, &deltas).map_err(|error: OpenError| damaged().caused_by(error))
}

/// What a path leads to; relative ones start at `within`, which they may not leave.
pub(super) fn resolve(disk: &StackReader, path: &str, within: &str) -> Result<Attr> {
    disk.resolve(path.as_bytes(), within.as_bytes(), true)
        .map_err(|error| unresolved(error, path, within))
}

fn unresolved(error: ResolveError, path: &str, within: &str) -> Error {
    let (code, remedy) = match error {
        ResolveError::NotFound => (
            Code::FileNotFound,
            "list the directory to see what there is",
        ),
        ResolveError::NotADirectory => (Code::FileKind, "list the directory to see what there is"),
        ResolveError::Leaves => {
            let message = format!("{path:?} leaves {within}");
            return Error::new(Code::PathEscapes, message, "pass a path that stays inside");
        }
        ResolveError::Loop | ResolveError::Invalid => (Code::InvalidPath, "check the path"),
        _ => return damaged().caused_by(error),
    };
    Error::new(code, format!("{path:?}: {error}"), remedy)
}

/// The error for layers that cannot be read.
pub(super) fn unreadable(errno: Errno) -> Error {
    damaged().caused_by(io::Error::from(errno))
}

/// What kind of thing an inode is.
pub(super) fn kind(file_type: FileType) -> FileKind {
    match file_type {
        FileType::Regular => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        _ => FileKind::Other,
    }
}

/// Up to `most` bytes of a regular file from `offset`. Blocks.
pub(super) fn read(disk: &mut StackReader, attr: &Attr, offset: u64, most: u64) -> Result<Vec<u8>> {
    let length = attr.size.saturating_sub(offset).min(most);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    let filled = match disk.content(attr.ino).map_err(unreadable)? {
        Content::Hole => Ok(()),
        Content::File { file } => read_at(file, &mut bytes, offset),
        Content::Packed {
            file,
            offset: start,
            len,
        } => {
            let there = len.saturating_sub(offset).min(length);
            let there = usize::try_from(there).unwrap_or(usize::MAX);
            read_at(file, &mut bytes[..there], start.saturating_add(offset))
        }
    };
    filled.map_err(|e| damaged().caused_by(e))?;
    Ok(bytes)
}

/// Reads what there is; the rest stays zero, as a sparse file's end does.
fn read_at(file: &std::fs::File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.read_at(bytes, offset) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                bytes = &mut bytes[n..];
                offset += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The entries of a directory, or the one entry of what is none, sorted by path; whether there
/// are more than `most`, or than there is room for. Blocks.
pub(super) fn list(
    disk: &StackReader,
    attr: &Attr,
    path: &str,
    recursive: bool,
    most: usize,
) -> Result<(Vec<FileEntry>, bool)> {
    if attr.file_type != FileType::Directory {
        return Ok((vec![entry(disk, attr, path.to_string())?], false));
    }
    let mut entries = Vec::new();
    // A guest may nest directories so deep that paths are long: all that is kept counts.
    let mut room = LISTING_BYTES;
    let mut take = |bytes: usize| match room.checked_sub(bytes) {
        Some(left) => {
            room = left;
            true
        }
        None => false,
    };
    let mut truncated = false;
    // Directories whose entries are still to come, the next one last.
    let mut stack = Vec::new();
    let mut enter = Some((attr.ino, path.trim_end_matches('/').to_string()));
    loop {
        if let Some((dir, path)) = enter.take() {
            let (names, all) = children(disk, dir, &mut take)?;
            truncated |= !all;
            stack.push((path, names));
        }
        let Some((dir, names)) = stack.last_mut() else {
            break;
        };
        let Some((ino, name)) = names.pop() else {
            stack.pop();
            continue;
        };
        let attr = disk.attr(ino).map_err(unreadable)?;
        let target = match attr.file_type {
            FileType::Symlink => usize::try_from(attr.size).unwrap_or(usize::MAX),
            _ => 0,
        };
        let length = (dir.len() + 1 + name.len()).saturating_add(target);
        if entries.len() == most || !take(length) {
            truncated = true;
            break;
        }
        let path = format!("{dir}/{name}");
        if recursive && attr.file_type == FileType::Directory {
            if !take(path.len()) {
                truncated = true;
                break;
            }
            enter = Some((ino, path.clone()));
        }
        entries.push(entry(disk, &attr, path)?);
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok((entries, truncated))
}

/// The names in a directory, the first one last, and whether that is all of them; `take` says
/// whether there is room for so many bytes more.
fn children(
    disk: &StackReader,
    dir: Ino,
    take: &mut impl FnMut(usize) -> bool,
) -> Result<(Vec<(Ino, String)>, bool)> {
    let mut children = Vec::new();
    let mut all = true;
    disk.read_dir(dir, Cookie::DOT_DOT, &mut |entry| {
        if !take(entry.name.len()) {
            all = false;
            return ControlFlow::Break(());
        }
        let name = String::from_utf8_lossy(entry.name).into_owned();
        children.push((entry.ino, name));
        ControlFlow::Continue(())
    })
    .map_err(unreadable)?;
    children.sort_by(|a, b| b.1.cmp(&a.1));
    Ok((children, all))
}

fn entry(disk: &StackReader, attr: &Attr, path: String) -> Result<FileEntry> {
    let kind = kind(attr.file_type);
    let link_target = match kind {
        FileKind::Symlink => {
            let target = disk.readlink(attr.ino).map_err(unreadable)?;
            Some(String::from_utf8_lossy(&target).into_owned())
        }
        _ => None,
    };
    Ok(FileEntry {
        path,
        kind,
        size_bytes: if kind == FileKind::File { attr.size } else { 0 },
        mode: format!("{:04o}", attr.mode),
        link_target,
    })
}

#[cfg(test)]
mod tests {
    use pyro_rootfs::pack::{Metadata, PackLimits, PackedWriter};
    use pyro_rootfs::tree::{
        Durability, Name, NewNode, Owner, PackedFiles, Quota, StackFiles, Tree,
    };

    use super::*;

    /// Depth of the nest: its paths are more than a gigabyte, and so are those of what lies there.
    const DEPTH: usize = 3_000;

    fn nest() -> StackReader {
        let file = || tempfile::NamedTempFile::new().expect("a file");
        let (index, data) = (file(), file());
        let mut pack = PackedWriter::new(index.as_file(), data.as_file(), PackLimits::default())
            .expect("a layer");
        pack.add_directory(b"shallow/sub", Metadata::default())
            .expect("added");
        pack.finish().expect("packed");
        let again = |file: &tempfile::NamedTempFile| file.reopen().expect("opened");
        let packed = || PackedFiles {
            index: again(&index),
            data: again(&data),
        };
        let top = tempfile::tempdir().expect("a folder");
        let folder = || std::fs::File::open(top.path()).expect("opened").into();
        let mut tree = Tree::open(StackFiles {
            layers: vec![packed()],
            frozen: Vec::new(),
            writable: folder(),
            quota: Quota::UNLIMITED,
            durability: Durability::Process,
        })
        .expect("a tree");
        let long = "n".repeat(255);
        let mut at = Ino::ROOT;
        for _ in 0..DEPTH {
            at = tree
                .mkdir(NewNode {
                    parent: at,
                    name: Name::new(long.as_bytes()).expect("a name"),
                    mode: 0o755,
                    owner: Owner { uid: 0, gid: 0 },
                })
                .expect("made")
                .ino;
        }
        tree.sync().expect("synced");
        drop(tree);
        StackReader::open(vec![packed()], &[folder()]).expect("a reader")
    }

    #[test]
    fn a_listing_of_a_deep_nest_ends_within_its_bytes_and_says_so() {
        let disk = nest();
        let root = disk.attr(Ino::ROOT).expect("the root");

        let (entries, truncated) = list(&disk, &root, "/", true, 100_000).expect("listed");

        assert!(truncated);
        let bytes: usize = entries.iter().map(|entry| entry.path.len()).sum();
        assert!(bytes <= LISTING_BYTES, "{bytes}");
        assert!(entries.len() > 100, "{}", entries.len());
        let (flat, truncated) = list(&disk, &root, "/", false, 100_000).expect("listed");
        assert_eq!((flat.len(), truncated), (2, false));
        assert_eq!(flat[1].path, "/shallow");
        let (one, truncated) = list(&disk, &root, "/", false, 1).expect("listed");
        assert_eq!((one.len(), truncated), (1, true));
    }
}
