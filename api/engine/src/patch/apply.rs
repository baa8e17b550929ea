//! What a patch makes of the files that it is for.

use std::collections::{BTreeMap, BTreeSet};

use super::error::shown;
use super::parse::{FilePatch, Origin};
use super::{FileMode, Patch, PatchError, lines};

/// How many lines are compared, for all hunks together, to find places.
const COMPARE_MAX: u64 = 50_000_000;

/// How many bytes all files may have together, before and after.
const BYTES_MAX: usize = 512 << 20;

/// What is at a path before the patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing, and the directories above are directories, or not there either.
    Absent,
    /// A file or a symbolic link itself.
    File {
        /// What kind.
        mode: FileMode,
        /// Its content, or target.
        content: Vec<u8>,
    },
    /// A directory.
    Directory,
    /// A device, a pipe or a socket; or a file that is too large to be patched.
    Other,
    /// A component above the path is no directory: a file, or a symbolic link, which is never followed.
    Blocked {
        /// The path of that component.
        at: Vec<u8>,
    },
}

/// What a file becomes. Paths are relative, their components plain names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileChange {
    /// The file goes; and directories above it that are empty then, as Git does it.
    Delete {
        /// Which.
        path: Vec<u8>,
    },
    /// The file is written; directories above it are made.
    Write {
        /// Which.
        path: Vec<u8>,
        /// What kind it is. Other permission bits than for execution are those of `like`.
        mode: FileMode,
        /// Its content, or target.
        content: Vec<u8>,
        /// The file whose owner and permission bits it keeps: itself, or what it was renamed or copied
        /// from. `None` for a new one.
        like: Option<Vec<u8>>,
    },
}

impl FileChange {
    /// The path that changes.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        match self {
            Self::Delete { path } | Self::Write { path, .. } => path,
        }
    }
}

impl Patch {
    /// What the files become, given by `find` as they are now. Deletions come first, each kind in the order of
    /// paths; carried out in this order, all of them at once, they are the patch.
    ///
    /// # Errors
    /// [`PatchError::File`] and [`PatchError::Mismatch`] where the patch does not go with what is
    /// there, and what `find` gives.
    pub fn plan(
        &self,
        mut find: impl FnMut(&[u8]) -> Result<Found, PatchError>,
    ) -> Result<Vec<FileChange>, PatchError> {
        let vacated = self.vacated()?;
        let mut budget = COMPARE_MAX;
        let mut bytes = 0_usize;
        let mut writes = BTreeMap::new();
        for file in &self.files {
            let new = file.new.as_slice();
            if file.new != file.old || file.origin == Origin::New {
                refuse_taken(new, find(new)?, &vacated)?;
            }
            let (mode, content) = match file.origin {
                Origin::New => (FileMode::Regular, Vec::new()),
                _ => present(file, find(&file.old)?)?,
            };
            bytes = bytes.saturating_add(content.len());
            let result = patched(file, &content, &mut budget)?;
            bytes = bytes.saturating_add(result.len());
            if bytes > BYTES_MAX {
                return Err(PatchError::TooLarge {
                    limit: BYTES_MAX,
                    unit: "bytes in its files",
                });
            }
            if file.origin == Origin::Deleted {
                if !result.is_empty() {
                    let reason = "the file is to go, and holds more than the patch takes out";
                    return Err(conflict(&file.old, reason));
                }
                continue;
            }
            let mode = file.new_mode.unwrap_or(mode);
            if mode == FileMode::Symlink && (result.is_empty() || result.contains(&0)) {
                return Err(conflict(
                    new,
                    "the target of the symbolic link is empty or holds a NUL",
                ));
            }
            let like = (file.origin != Origin::New).then(|| file.old.clone());
            writes.insert(file.new.clone(), (mode, result, like));
        }
        refuse_nested(&writes)?;
        let deletes = vacated
            .into_iter()
            .filter(|path| !writes.contains_key(path.as_slice()))
            .map(|path| FileChange::Delete { path });
        let mut plan: Vec<_> = deletes.collect();
        plan.extend(
            writes
                .into_iter()
                .map(|(path, (mode, content, like))| FileChange::Write {
                    path,
                    mode,
                    content,
                    like,
                }),
        );
        Ok(plan)
    }

    /// The paths where nothing is after the patch, or something else; refuses files that two parts speak of.
    fn vacated(&self) -> Result<BTreeSet<Vec<u8>>, PatchError> {
        let mut vacated = BTreeSet::new();
        let mut written = BTreeSet::new();
        let stays: BTreeSet<_> = self
            .files
            .iter()
            .filter(|file| file.origin == Origin::Same)
            .map(|file| file.old.as_slice())
            .collect();
        // A file may be deleted and made anew, which is how Git says that its type changes.
        for file in &self.files {
            let twice = || conflict(&file.new, "two parts of the patch are about this file");
            let leaves = matches!(file.origin, Origin::Deleted | Origin::Renamed);
            if leaves && (!vacated.insert(file.old.clone()) || stays.contains(file.old.as_slice()))
            {
                return Err(twice());
            }
            if file.origin != Origin::Deleted && !written.insert(file.new.clone()) {
                return Err(twice());
            }
        }
        Ok(vacated)
    }
}

/// Refuses to make a file where something is and stays.
fn refuse_taken(path: &[u8], found: Found, vacated: &BTreeSet<Vec<u8>>) -> Result<(), PatchError> {
    match found {
        Found::Absent => Ok(()),
        Found::File { .. } if vacated.contains(path) => Ok(()),
        Found::File { .. } => Err(conflict(
            path,
            "the file is to be new, and is there already",
        )),
        Found::Directory => {
            let beneath = [path, b"/"].concat();
            let next = vacated.range(beneath.clone()..).next();
            match next.is_some_and(|next| next.starts_with(&beneath)) {
                // It may be empty then; who carries the plan out sees.
                true => Ok(()),
                false => Err(conflict(path, "there is a directory of this name")),
            }
        }
        Found::Other => Err(conflict(
            path,
            "there is something of this name that is no file",
        )),
        Found::Blocked { at } if vacated.contains(&at) => Ok(()),
        Found::Blocked { .. } => Err(blocked(path)),
    }
}

/// The file that a part of a patch is about.
fn present(file: &FilePatch, found: Found) -> Result<(FileMode, Vec<u8>), PatchError> {
    let path = &file.old;
    let (mode, content) = match found {
        Found::File { mode, content } => (mode, content),
        Found::Absent => return Err(conflict(path, "there is no such file")),
        Found::Directory => return Err(conflict(path, "it is a directory")),
        Found::Other => return Err(conflict(path, "it is no file that can be patched")),
        Found::Blocked { .. } => return Err(blocked(path)),
    };
    let says_link = file.old_mode == Some(FileMode::Symlink);
    let is_link = mode == FileMode::Symlink;
    if is_link && !says_link && !(file.hunks.is_empty() && file.new_mode.is_none()) {
        return Err(conflict(
            path,
            "it is a symbolic link, which a patch does not follow",
        ));
    }
    if says_link && !is_link {
        return Err(conflict(path, "it is no symbolic link"));
    }
    let becomes_link = file.new_mode == Some(FileMode::Symlink);
    if file.new_mode.is_some() && becomes_link != is_link {
        return Err(conflict(
            path,
            "a file does not become a symbolic link by its mode",
        ));
    }
    Ok((mode, content))
}

fn patched(file: &FilePatch, content: &[u8], budget: &mut u64) -> Result<Vec<u8>, PatchError> {
    if file.hunks.is_empty() {
        return Ok(content.to_vec());
    }
    let old = lines(content);
    let mut out = Vec::with_capacity(content.len());
    let mut done = 0;
    // How far the last hunk was from where it said.
    let mut shift = 0_isize;
    for (i, hunk) in file.hunks.iter().enumerate() {
        let expected = hunk.old_start.saturating_add_signed(shift);
        let Some(at) = hunk.place(&old, done, expected, budget) else {
            let (line, expected, found) = hunk.difference(&old, expected.max(done));
            return Err(PatchError::Mismatch {
                path: shown(&file.old),
                hunk: i + 1,
                line: line + 1,
                expected: shown(expected),
                found: found.map(shown),
            });
        };
        shift = at.wrapping_sub(hunk.old_start).cast_signed();
        out.extend(old[done..at].iter().copied().flatten());
        // Only the last line of a file may have no end.
        if !out.is_empty() && !out.ends_with(b"\n") && !hunk.new.is_empty() {
            return Err(conflict(
                &file.new,
                "a hunk adds lines after one that has no end",
            ));
        }
        out.extend(hunk.new.iter().flatten());
        done = at + hunk.old.len();
        if done < old.len() && !out.is_empty() && !out.ends_with(b"\n") {
            return Err(conflict(
                &file.new,
                "a hunk takes the end off a line in the middle",
            ));
        }
    }
    out.extend(old[done..].iter().copied().flatten());
    Ok(out)
}

/// Refuses files beneath files.
fn refuse_nested<T>(writes: &BTreeMap<Vec<u8>, T>) -> Result<(), PatchError> {
    for path in writes.keys() {
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        for (at, _) in slashes {
            if writes.contains_key(&path[..at]) {
                return Err(conflict(
                    path,
                    "the patch makes a file of a directory above it",
                ));
            }
        }
    }
    Ok(())
}

fn conflict(path: &[u8], reason: &'static str) -> PatchError {
    PatchError::File {
        path: shown(path),
        reason,
    }
}

fn blocked(path: &[u8]) -> PatchError {
    PatchError::Path {
        path: shown(path),
        reason: "a symbolic link or a file is on its path, where directories have to be",
    }
}
