//! Patches: what a unified diff makes of the files of a running workspace.
//!
//! The files that a patch names are read through the agent, what they become is planned on the
//! host ([`crate::patch`]), and the agent carries it out as one transaction that also checks that
//! the files are still what was read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pyro_agent_protocol as protocol;
use pyro_agent_protocol::{Change, ErrorCode, Expect, FileEvent, GuestPath, Mode, Request};
use pyro_client::types::{ApplyPatch, ChangeKind, ListFiles, PatchApplied, PatchedFile};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::files::{list, read_path, send_changes};
use super::{Engine, blocking, to_the_end};
use crate::agent::{AgentError, Conversation, refused};
use crate::error::{Code, Error, Result};
use crate::machine::guest::Guest;
use crate::patch::{FileChange, FileMode, Found, Patch, PatchError};

/// Largest file that is patched.
const FILE_MAX: u64 = 64 << 20;
/// Most bytes of all files that one patch is for.
const FILES_BYTES: u64 = 512 << 20;

impl Engine {
    /// Applies a patch to a running workspace: all of it or nothing.
    ///
    /// # Errors
    /// [`Code::PatchRefused`]; [`Code::PatchMismatch`] with the file, the hunk and the first line
    /// that differs; [`Code::ContentChanged`] when a file changed meanwhile.
    pub async fn patch_apply(
        self: &Arc<Self>,
        workspace: &str,
        request: ApplyPatch,
    ) -> Result<PatchApplied> {
        let slot = self.find(workspace)?;
        let engine = Arc::clone(self);
        to_the_end(async move {
            let operation = engine.begin(&slot)?;
            let guest = slot.steady_guest().await?;
            let dry_run = request.dry_run;
            let patch = blocking(move || {
                Patch::parse(request.patch.as_bytes()).map_err(|error| refused_patch(&error))
            })
            .await?;
            let before = engine
                .in_time(&guest, look(&guest, &engine.root, &patch))
                .await?;
            let (before, plan) = blocking(move || {
                let plan = patch
                    .plan(|path| Ok(before.found(path)))
                    .map_err(|error| refused_patch(&error))?;
                Ok((before, plan))
            })
            .await?;
            let entries = outcome(&before, &plan);
            let listing = emptied(&guest, &engine.root, &plan);
            let emptied = engine.in_time(&guest, listing).await?;
            let changes = changes(&before, plan, emptied);
            let (frames, sent) = mpsc::channel(4);
            tokio::spawn(async move {
                // A receiver that is gone has its answer.
                let _ = send_changes(frames, changes, dry_run).await;
            });
            engine.in_time(&guest, engine.apply(&guest, sent)).await?;
            if !dry_run {
                operation.changed();
            }
            let count = |kind: ChangeKind| {
                entries.iter().filter(|entry| entry.change == kind).count() as u64
            };
            Ok(PatchApplied {
                workspace_id: slot.id().to_string(),
                dry_run,
                added: count(ChangeKind::Added),
                modified: count(ChangeKind::Modified) + count(ChangeKind::TypeChanged),
                deleted: count(ChangeKind::Deleted),
                entries,
            })
        })
        .await
    }
}

/// What was at the paths that a patch names, and above them.
#[derive(Debug, Default)]
struct Before {
    paths: BTreeMap<Vec<u8>, There>,
}

#[derive(Debug, Clone)]
enum There {
    Absent,
    Directory,
    File { mode: u32, content: Vec<u8> },
    Symlink(Vec<u8>),
    Other,
}

impl Before {
    fn found(&self, path: &[u8]) -> Found {
        for above in above(path) {
            match self.paths.get(above) {
                Some(There::Directory) => {}
                Some(There::Absent) | None => return Found::Absent,
                Some(_) => return Found::Blocked { at: above.to_vec() },
            }
        }
        match self.paths.get(path) {
            None | Some(There::Absent) => Found::Absent,
            Some(There::Directory) => Found::Directory,
            Some(There::Other) => Found::Other,
            Some(There::Symlink(target)) => Found::File {
                mode: FileMode::Symlink,
                content: target.clone(),
            },
            Some(There::File { mode, content }) => Found::File {
                mode: match mode & 0o100 {
                    0 => FileMode::Regular,
                    _ => FileMode::Executable,
                },
                content: content.clone(),
            },
        }
    }

    /// Permission bits of a file that was there.
    fn mode(&self, path: &[u8]) -> Option<u32> {
        match self.paths.get(path) {
            Some(There::File { mode, .. }) => Some(*mode),
            _ => None,
        }
    }

    /// What must still be there.
    fn expect(&self, path: &[u8]) -> Expect {
        match self.paths.get(path) {
            None | Some(There::Absent) => Expect::Absent,
            Some(There::File { content, .. }) => {
                Expect::Sha256(protocol::Sha256(Sha256::digest(content).into()))
            }
            Some(_) => Expect::Anything,
        }
    }
}

/// The directories above a path, the highest first.
fn above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    slashes.map(|(at, _)| &path[..at])
}

/// Looks at all that a patch names.
async fn look(
    guest: &Guest,
    beneath: &str,
    patch: &Patch,
) -> std::result::Result<Before, AgentError> {
    let mut before = Before::default();
    let mut left = FILES_BYTES;
    let paths: BTreeSet<Vec<u8>> = patch.paths().map(<[u8]>::to_vec).collect();
    for path in paths {
        let mut reachable = true;
        for above in above(&path) {
            if !before.paths.contains_key(above) {
                let there = stat(guest, beneath, above, &mut left).await?;
                before.paths.insert(above.to_vec(), there);
            }
            if !matches!(before.paths.get(above), Some(There::Directory)) {
                reachable = false;
                break;
            }
        }
        if reachable && !before.paths.contains_key(&path) {
            let there = stat(guest, beneath, &path, &mut left).await?;
            before.paths.insert(path, there);
        }
    }
    Ok(before)
}

/// What is at a path, with its content.
async fn stat(
    guest: &Guest,
    beneath: &str,
    path: &[u8],
    left: &mut u64,
) -> std::result::Result<There, AgentError> {
    let request = Request::Stat(protocol::Stat {
        path: GuestPath::from_bytes(path.to_vec()),
        beneath: GuestPath::from(beneath),
        follow: false,
    });
    let mut conversation = Conversation::begin(guest, &request).await?;
    let frame = conversation.frame().await?;
    let entry = match frame.message::<FileEvent>().map_err(AgentError::Protocol)? {
        FileEvent::Stat { entry } => entry,
        FileEvent::Failed {
            code: ErrorCode::NotFound,
            ..
        } => return Ok(There::Absent),
        FileEvent::Failed { code, message } => return Err(refused(code, &message)),
        _ => return Err(AgentError::OutOfTurn("the answer to another request")),
    };
    Ok(match entry.kind {
        protocol::FileKind::Directory => There::Directory,
        protocol::FileKind::Symlink => {
            There::Symlink(entry.target.unwrap_or_default().as_bytes().to_vec())
        }
        protocol::FileKind::File if entry.size <= FILE_MAX.min(*left) => {
            let most = FILE_MAX.min(*left) + 1;
            let path = GuestPath::from_bytes(path.to_vec());
            let read = read_path(guest, beneath, path, 0, most).await?;
            if read.truncated {
                There::Other
            } else {
                *left = left.saturating_sub(read.bytes.len() as u64);
                There::File {
                    mode: entry.mode & 0o7777,
                    content: read.bytes,
                }
            }
        }
        _ => There::Other,
    })
}

/// What a plan does, as it is told.
fn outcome(before: &Before, plan: &[FileChange]) -> Vec<PatchedFile> {
    let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    let deleted: BTreeSet<&[u8]> = plan
        .iter()
        .filter(|change| matches!(change, FileChange::Delete { .. }))
        .map(FileChange::path)
        .collect();
    let mut renamed: BTreeSet<&[u8]> = BTreeSet::new();
    let mut entries = Vec::new();
    for change in plan {
        let FileChange::Write {
            path, mode, like, ..
        } = change
        else {
            continue;
        };
        let from = like.as_deref().filter(|from| *from != path.as_slice());
        let from = from.filter(|from| deleted.contains(from) && renamed.insert(from));
        let kind = match before.paths.get(path) {
            _ if from.is_some() => ChangeKind::Modified,
            None | Some(There::Absent) => ChangeKind::Added,
            Some(There::Symlink(_)) if *mode != FileMode::Symlink => ChangeKind::TypeChanged,
            Some(There::File { .. }) if *mode == FileMode::Symlink => ChangeKind::TypeChanged,
            Some(_) => ChangeKind::Modified,
        };
        entries.push(PatchedFile {
            path: text(path),
            change: kind,
            renamed_from: from.map(text),
        });
    }
    let written: BTreeSet<&[u8]> = plan
        .iter()
        .filter(|change| matches!(change, FileChange::Write { .. }))
        .map(FileChange::path)
        .collect();
    for path in deleted {
        if !renamed.contains(path) && !written.contains(path) {
            entries.push(PatchedFile {
                path: text(path),
                change: ChangeKind::Deleted,
                renamed_from: None,
            });
        }
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries
}

/// The directories that a plan empties, the deepest first: they go too, as with Git.
async fn emptied(
    guest: &Guest,
    beneath: &str,
    plan: &[FileChange],
) -> std::result::Result<Vec<Vec<u8>>, AgentError> {
    let mut gone: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut kept: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut emptied = Vec::new();
    let mut check: BTreeSet<Vec<u8>> = BTreeSet::new();
    for change in plan {
        match change {
            FileChange::Delete { path } => {
                check.extend(above(path).map(<[u8]>::to_vec));
                gone.insert(path.clone());
            }
            FileChange::Write { path, .. } => kept.extend(above(path).map(<[u8]>::to_vec)),
        }
    }
    // Later ones first, so that what is beneath a directory comes before it.
    for dir in check.into_iter().rev() {
        let Ok(path) = String::from_utf8(dir.clone()) else {
            continue;
        };
        if kept.contains(&dir) {
            continue;
        }
        let request = ListFiles {
            path,
            recursive: false,
        };
        let (base, entries, truncated) = list(guest, beneath, &request).await?;
        let empty = !truncated
            && entries.iter().all(|entry| {
                let name = entry.path.strip_prefix(&base).unwrap_or_default();
                gone.contains(&[&dir, name.as_bytes()].concat())
            });
        if empty {
            gone.insert(dir.clone());
            emptied.push(dir);
        }
    }
    Ok(emptied)
}

/// A plan as the agent is told.
fn changes(
    before: &Before,
    plan: Vec<FileChange>,
    emptied: Vec<Vec<u8>>,
) -> Vec<(Change, Vec<u8>)> {
    let mut deletes = Vec::new();
    let mut writes = Vec::new();
    for change in plan {
        match change {
            FileChange::Delete { path } => {
                let expect = before.expect(&path);
                let path = GuestPath::from_bytes(path);
                deletes.push((Change::Delete { path, expect }, Vec::new()));
            }
            FileChange::Write {
                path,
                mode: FileMode::Symlink,
                content,
                ..
            } => {
                let expect = before.expect(&path);
                let change = Change::Symlink {
                    path: GuestPath::from_bytes(path),
                    target: GuestPath::from_bytes(content),
                    expect,
                };
                writes.push((change, Vec::new()));
            }
            FileChange::Write {
                path,
                mode,
                content,
                like,
            } => {
                let bits = like.and_then(|like| before.mode(&like)).unwrap_or(0o644);
                let bits = match mode {
                    FileMode::Executable => bits | ((bits & 0o444) >> 2),
                    _ => bits & !0o111,
                };
                let write = protocol::Write {
                    size: content.len() as u64,
                    mode: Mode::Set(bits),
                    expect: before.expect(&path),
                    follow: false,
                    path: GuestPath::from_bytes(path),
                };
                writes.push((Change::Write(write), content));
            }
        }
    }
    let directories = emptied.into_iter().map(|path| {
        let change = Change::Delete {
            path: GuestPath::from_bytes(path),
            expect: Expect::Anything,
        };
        (change, Vec::new())
    });
    deletes
        .into_iter()
        .chain(directories)
        .chain(writes)
        .collect()
}

fn refused_patch(error: &PatchError) -> Error {
    let code = match error {
        PatchError::Mismatch { .. } => Code::PatchMismatch,
        _ => Code::PatchRefused,
    };
    Error::new(code, error.to_string(), error.remedy())
}
