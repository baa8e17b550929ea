//! How a workspace differs from its baseline.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pyro_client::types::{Change, ChangeKind, Diff, FileKind};
use pyro_rootfs::export::ReadTree;
use pyro_rootfs::tree::{self, Attr, FileType, StackReader};
use rustix::io::Errno;

use super::{Engine, blocking, stack};
use crate::error::{Code, Error, Result};
use crate::patch::{self, BinaryFiles, DiffCounts, FileMode, Side};

/// Most bytes of a patch.
const PATCH_MAX: usize = 16 << 20;
/// How long lines are compared, all files together.
const PATCH_TIME: Duration = Duration::from_secs(60);
/// Largest file whose lines are compared.
const FILE_MAX: u64 = 8 << 20;
/// Where the workspace's files are, from the root.
const WORKSPACE: &[u8] = b"workspace/";
/// Where Git looks for a NUL byte before it takes a file for binary.
const BINARY_PREFIX: usize = 8000;

impl Engine {
    /// How `/workspace` differs from the create-time baseline. What a running guest has in its
    /// memory is written out first.
    ///
    /// # Errors
    /// [`Code::DiffTooLarge`] for paths without end.
    pub async fn diff(self: &Arc<Self>, workspace: &str) -> Result<Diff> {
        let slot = self.find(workspace)?;
        let _operation = self.begin(&slot)?;
        self.write_out(&slot).await?;
        let _steady = slot.steady().await?;
        let disk = self.disk(&slot).await?;
        let since = slot.record().disk.baseline.len();
        let id = slot.id().to_string();
        blocking(move || compare(disk, since, id)).await
    }
}

fn compare(mut new: StackReader, since: usize, workspace_id: String) -> Result<Diff> {
    let mut old = new.at(since);
    let mut changes = Vec::new();
    for change in new.changes(since).map_err(uncomparable)? {
        let change = change.map_err(stack::unreadable)?;
        if change.path.starts_with(WORKSPACE) {
            changes.push(change);
        }
    }
    let implied = implied(&changes);
    let mut diff = Diff {
        workspace_id,
        changed: false,
        added: 0,
        modified: 0,
        deleted: 0,
        metadata: 0,
        non_text: 0,
        entries: Vec::new(),
        patch: String::new(),
        patch_truncated: false,
    };
    let mut text = Vec::new();
    let started = Instant::now();
    let mut counts = DiffCounts::default();
    for change in &changes {
        let path = &change.path[WORKSPACE.len()..];
        let both_directories = [change.old, change.new]
            .iter()
            .flatten()
            .all(|attr| attr.file_type == FileType::Directory);
        let Some(kind) = kind(change) else {
            continue;
        };
        if both_directories && implied.contains(path) && kind != ChangeKind::Metadata {
            continue;
        }
        let sides = match kind {
            // Nobody needs to read what is the same.
            ChangeKind::Metadata => Sides {
                old: None,
                new: None,
            },
            _ => Sides {
                old: side(&mut old, change.old.as_ref())?,
                new: side(&mut new, change.new.as_ref())?,
            },
        };
        let what = change.new.or(change.old);
        let entry = Change {
            path: String::from_utf8_lossy(path).into_owned(),
            change: kind,
            kind: what.map_or(FileKind::Other, |attr| stack::kind(attr.file_type)),
            binary: sides.binary(),
            too_large: sides.too_large(),
        };
        match kind {
            ChangeKind::Added => diff.added += 1,
            ChangeKind::Deleted => diff.deleted += 1,
            ChangeKind::Modified | ChangeKind::TypeChanged => diff.modified += 1,
            ChangeKind::Metadata => diff.metadata += 1,
        }
        diff.non_text += u64::from(entry.binary || entry.too_large);
        diff.entries.push(entry);
        // Git knows neither directories nor owners.
        let told = !both_directories && kind != ChangeKind::Metadata;
        diff.patch_truncated |= started.elapsed() > PATCH_TIME;
        if !diff.patch_truncated && told {
            let before = text.len();
            let change = patch::Change {
                path,
                old: sides.old.as_ref().map(Bytes::side),
                new: sides.new.as_ref().map(Bytes::side),
            };
            patch::write_change(&mut text, &change, BinaryFiles::Whole, &mut counts)
                .map_err(|e| super::create::damaged().caused_by(e))?;
            if text.len() > PATCH_MAX {
                text.truncate(before);
                diff.patch_truncated = true;
            }
        }
    }
    diff.changed = !diff.entries.is_empty();
    diff.patch = match String::from_utf8(text) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    };
    Ok(diff)
}

fn uncomparable(errno: Errno) -> Error {
    if errno != Errno::TOOBIG {
        return stack::unreadable(errno);
    }
    Error::new(
        Code::DiffTooLarge,
        "what changed has more than 256 MiB of paths",
        "remove what is nested deepest, or look at it with exec",
    )
}

/// Directories that something changed beneath: that says enough of them.
fn implied(changes: &[tree::Change]) -> BTreeSet<&[u8]> {
    let mut implied = BTreeSet::new();
    for change in changes {
        let path = &change.path[WORKSPACE.len()..];
        for (at, byte) in path.iter().enumerate().rev() {
            if *byte == b'/' {
                // Where one is known, so are those above it.
                if !implied.insert(&path[..at]) {
                    break;
                }
            }
        }
    }
    implied
}

/// What kind of change it is; `None` for what nobody wants to know, such as another time.
fn kind(change: &tree::Change) -> Option<ChangeKind> {
    Some(match change.kind() {
        tree::ChangeKind::Added => ChangeKind::Added,
        tree::ChangeKind::Removed => ChangeKind::Deleted,
        tree::ChangeKind::TypeChanged => ChangeKind::TypeChanged,
        tree::ChangeKind::Modified => {
            let mode = |attr: &Option<Attr>| attr.map(|attr| attr.mode);
            let owner = |attr: &Option<Attr>| attr.map(|attr| (attr.uid, attr.gid));
            if change.content || mode(&change.old) != mode(&change.new) {
                ChangeKind::Modified
            } else if owner(&change.old) != owner(&change.new) {
                ChangeKind::Metadata
            } else {
                return None;
            }
        }
    })
}

/// What is compared.
struct Sides {
    old: Option<Bytes>,
    new: Option<Bytes>,
}

enum Bytes {
    File(FileMode, Vec<u8>),
    Opaque(FileMode),
    Special(&'static str),
}

impl Bytes {
    fn side(&self) -> Side<'_> {
        match self {
            Self::File(mode, content) => Side::File(*mode, content),
            Self::Opaque(mode) => Side::Opaque(*mode),
            Self::Special(what) => Side::Special(what),
        }
    }
}

impl Sides {
    fn too_large(&self) -> bool {
        [&self.old, &self.new]
            .into_iter()
            .flatten()
            .any(|side| matches!(side, Bytes::Opaque(_)))
    }

    fn binary(&self) -> bool {
        [&self.old, &self.new]
            .into_iter()
            .flatten()
            .any(|side| match side {
                Bytes::File(_, content) => {
                    let start = &content[..content.len().min(BINARY_PREFIX)];
                    start.contains(&0) || std::str::from_utf8(content).is_err()
                }
                Bytes::Opaque(_) | Bytes::Special(_) => false,
            })
    }
}

fn side(disk: &mut StackReader, attr: Option<&Attr>) -> Result<Option<Bytes>> {
    let Some(attr) = attr else {
        return Ok(None);
    };
    let mode = match attr.mode & 0o100 {
        0 => FileMode::Regular,
        _ => FileMode::Executable,
    };
    Ok(Some(match attr.file_type {
        FileType::Regular if attr.size > FILE_MAX => Bytes::Opaque(mode),
        FileType::Regular => Bytes::File(mode, stack::read(disk, attr, 0, FILE_MAX)?),
        FileType::Symlink => {
            let target = disk.readlink(attr.ino).map_err(stack::unreadable)?;
            Bytes::File(FileMode::Symlink, target)
        }
        FileType::Directory => Bytes::Special("directory"),
        FileType::CharDevice | FileType::BlockDevice => Bytes::Special("device"),
        FileType::Fifo => Bytes::Special("named pipe"),
        FileType::Socket => Bytes::Special("socket"),
    }))
}
