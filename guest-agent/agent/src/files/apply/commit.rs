//! Doing what was planned, act by act, each of which can be undone.
//!
//! What is replaced changes places with what replaces it, so there is no moment without a file;
//! what is deleted goes to the staging. Both are looked at there, where no program can change which
//! file it is: what was not expected goes back.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use pyro_agent_protocol::{Change, GuestPath};
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, RenameFlags, Uid, chmod, chownat, fstat, mkdirat, openat,
    renameat_with, statat, unlinkat,
};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::FileError;
use super::check::{Act, Meta, Over, Seen};
use super::staging::{Staging, new, old};
use crate::files::resolve::{Base, by_number, kind, split};

/// Does all acts or, on an error, none.
pub(super) fn commit(
    base: &Base,
    staging: &Staging,
    changes: &[Change],
    acts: &[Act],
) -> Result<(), FileError> {
    let mut committer = Committer {
        base,
        staging: staging.directory(),
        near: None,
    };
    prepare(staging, changes, acts)?;
    let mut undos = Vec::with_capacity(acts.len());
    for act in acts {
        match committer.act(act) {
            Ok(undo) => undos.push(undo),
            Err(error) => {
                let mut failed = false;
                for undo in undos.into_iter().rev() {
                    failed |= committer.undo(undo).is_err();
                }
                if failed {
                    // A program has used what was there for a moment; the rest is undone.
                    crate::log::warning(format_args!("a transaction could not be undone fully"));
                }
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Makes staged files what they are to be, and stages links.
fn prepare(staging: &Staging, changes: &[Change], acts: &[Act]) -> Result<(), FileError> {
    for act in acts {
        let Act::Put {
            path, number, meta, ..
        } = act
        else {
            continue;
        };
        let prepared = match (meta, changes.get(*number)) {
            (Some(meta), _) => equip(staging.directory(), &new(*number), meta),
            (None, Some(Change::Symlink { target, .. })) => {
                staging.link(*number, target.as_bytes())
            }
            _ => Err(Errno::INVAL),
        };
        prepared.map_err(|errno| FileError::system(path, "cannot be prepared", errno))?;
    }
    Ok(())
}

fn equip(staging: &OwnedFd, name: &str, meta: &Meta) -> Result<(), Errno> {
    // In this order: a new owner takes set-user-id bits away.
    if let Some((user, group)) = meta.owner {
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
        chownat(
            staging,
            name,
            Some(user),
            Some(group),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
    }
    rustix::fs::chmodat(
        staging,
        name,
        Mode::from_raw_mode(meta.mode),
        AtFlags::empty(),
    )
}

struct Committer<'a> {
    base: &'a Base,
    staging: &'a OwnedFd,
    /// The directory that was used last.
    near: Option<(Vec<u8>, OwnedFd)>,
}

/// How to undo an act.
enum Undo<'a> {
    Rmdir(&'a [u8]),
    /// Puts something back into the staging, perhaps in exchange for what it had replaced.
    Take {
        path: &'a [u8],
        staged: String,
        exchanged: bool,
    },
    Restore {
        path: &'a [u8],
        staged: String,
    },
    Mkdir(&'a [u8], Meta),
    Rename {
        from: &'a [u8],
        to: &'a [u8],
    },
    SetMode(&'a [u8], u32),
}

const SEEN_CHANGED: &str = "was changed by somebody else at the same moment";

impl Committer<'_> {
    fn act<'a>(&mut self, act: &'a Act) -> Result<Undo<'a>, FileError> {
        match act {
            Act::Mkdir { path, mode } => self
                .mkdir(path, *mode)
                .map(|()| Undo::Rmdir(path))
                .map_err(|errno| match errno {
                    Errno::EXIST | Errno::NOENT | Errno::NOTDIR => conflict(path, SEEN_CHANGED),
                    errno => system(path, "cannot be made", errno),
                }),
            Act::Put {
                path, number, over, ..
            } => self.put(path, new(*number), *over),
            Act::Remove { path, number, seen } => self.remove(path, old(*number), *seen),
            Act::Rmdir { path } => self
                .rmdir(path)
                .map(|meta| Undo::Mkdir(path, meta))
                .map_err(|errno| system(path, "cannot be deleted", errno)),
            Act::Rename { from, to, seen } => self.rename(from, to, *seen),
            Act::SetMode { path, mode } => self
                .set_mode(path, *mode)
                .map(|before| Undo::SetMode(path, before))
                .map_err(|errno| system(path, "its mode cannot be set", errno)),
        }
    }

    fn undo(&mut self, undo: Undo<'_>) -> Result<(), Errno> {
        match undo {
            Undo::Rmdir(path) => self.rmdir(path).map(drop),
            Undo::Take {
                path,
                staged,
                exchanged,
            } => {
                if exchanged {
                    self.exchange(path, &staged)
                } else {
                    self.take(path, &staged)
                }
            }
            Undo::Restore { path, staged } => self.bring(path, &staged),
            Undo::Mkdir(path, meta) => {
                self.mkdir(path, meta.mode)?;
                let (directory, name) = self.parent(path)?;
                let (user, group) = meta.owner.unwrap_or_default();
                let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                chownat(directory, name, Some(user), Some(group), flags)
            }
            Undo::Rename { from, to } => self.move_on(to, from),
            Undo::SetMode(path, mode) => self.set_mode(path, mode).map(drop),
        }
    }

    /// The directory that a path is in, and its name there.
    fn parent<'a>(&mut self, path: &'a [u8]) -> Result<(BorrowedFd<'_>, &'a [u8]), Errno> {
        let (parent, name) = split(path);
        if self.near.as_ref().is_none_or(|(near, _)| near != parent) {
            self.near = Some((parent.to_vec(), self.base.directory(parent)?));
        }
        match &self.near {
            Some((_, directory)) => Ok((directory.as_fd(), name)),
            None => Err(Errno::NOENT),
        }
    }

    fn mkdir(&mut self, path: &[u8], mode: u32) -> Result<(), Errno> {
        let (directory, name) = self.parent(path)?;
        mkdirat(directory, name, Mode::from_raw_mode(mode & 0o777))?;
        let made = look(directory, name)?;
        if kind(&fstat(&made)?) != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        // The umask has nothing to say here.
        chmod(by_number(&made), Mode::from_raw_mode(mode))
    }

    fn rmdir(&mut self, path: &[u8]) -> Result<Meta, Errno> {
        let (directory, name) = self.parent(path)?;
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        unlinkat(directory, name, AtFlags::REMOVEDIR)?;
        self.near = None;
        Ok(Meta {
            mode: stat.st_mode & 0o7777,
            owner: Some((stat.st_uid, stat.st_gid)),
        })
    }

    fn put<'a>(
        &mut self,
        path: &'a [u8],
        staged: String,
        over: Over,
    ) -> Result<Undo<'a>, FileError> {
        let error = |errno| match errno {
            Errno::EXIST | Errno::NOENT => conflict(path, SEEN_CHANGED),
            errno => system(path, "cannot be put in place", errno),
        };
        let Over::Something(seen) = over else {
            self.bring(path, &staged).map_err(error)?;
            return Ok(Undo::Take {
                path,
                staged,
                exchanged: false,
            });
        };
        self.exchange(path, &staged).map_err(error)?;
        if !self.is_as_seen(&staged, seen) {
            let _ = self.exchange(path, &staged);
            return Err(conflict(path, SEEN_CHANGED));
        }
        Ok(Undo::Take {
            path,
            staged,
            exchanged: true,
        })
    }

    fn remove<'a>(
        &mut self,
        path: &'a [u8],
        staged: String,
        seen: Option<Seen>,
    ) -> Result<Undo<'a>, FileError> {
        self.take(path, &staged).map_err(|errno| match errno {
            Errno::NOENT => conflict(path, SEEN_CHANGED),
            errno => system(path, "cannot be deleted", errno),
        })?;
        if !self.is_as_seen(&staged, seen) {
            let _ = self.bring(path, &staged);
            return Err(conflict(path, SEEN_CHANGED));
        }
        Ok(Undo::Restore { path, staged })
    }

    fn rename<'a>(
        &mut self,
        from: &'a [u8],
        to: &'a [u8],
        seen: Option<Seen>,
    ) -> Result<Undo<'a>, FileError> {
        self.move_on(from, to).map_err(|errno| match errno {
            Errno::NOENT => conflict(from, SEEN_CHANGED),
            Errno::EXIST => conflict(to, SEEN_CHANGED),
            errno => system(from, "cannot be renamed", errno),
        })?;
        let found = self
            .parent(to)
            .and_then(|(directory, name)| statat(directory, name, AtFlags::SYMLINK_NOFOLLOW));
        if !matches_seen(found.as_ref().ok(), seen) {
            let _ = self.move_on(to, from);
            return Err(conflict(from, SEEN_CHANGED));
        }
        Ok(Undo::Rename { from, to })
    }

    fn set_mode(&mut self, path: &[u8], mode: u32) -> Result<u32, Errno> {
        let found = if path.is_empty() {
            self.base.directory(path)?
        } else {
            let (directory, name) = self.parent(path)?;
            look(directory, name)?
        };
        let stat = fstat(&found)?;
        if kind(&stat) == FileType::Symlink {
            return Err(Errno::LOOP);
        }
        chmod(by_number(&found), Mode::from_raw_mode(mode))?;
        Ok(stat.st_mode & 0o7777)
    }

    /// Lets what is staged and what is at the path change places.
    fn exchange(&mut self, path: &[u8], staged: &str) -> Result<(), Errno> {
        let staging = self.staging;
        let (directory, name) = self.parent(path)?;
        renameat_with(staging, staged, directory, name, RenameFlags::EXCHANGE)
    }

    /// Moves from the staging to the path, where there is nothing.
    fn bring(&mut self, path: &[u8], staged: &str) -> Result<(), Errno> {
        let staging = self.staging;
        let (directory, name) = self.parent(path)?;
        renameat_with(staging, staged, directory, name, RenameFlags::NOREPLACE)
    }

    /// Moves from the path to the staging.
    fn take(&mut self, path: &[u8], staged: &str) -> Result<(), Errno> {
        let staging = self.staging;
        let (directory, name) = self.parent(path)?;
        renameat_with(directory, name, staging, staged, RenameFlags::NOREPLACE)
    }

    fn move_on(&mut self, from: &[u8], to: &[u8]) -> Result<(), Errno> {
        let (parent, name) = split(from);
        let source = self.base.directory(parent)?;
        let (directory, new_name) = self.parent(to)?;
        renameat_with(source, name, directory, new_name, RenameFlags::NOREPLACE)
    }

    /// Whether what came into the staging is what was looked at, and no directory in any case.
    fn is_as_seen(&self, staged: &str, seen: Option<Seen>) -> bool {
        let found = statat(self.staging, staged, AtFlags::SYMLINK_NOFOLLOW);
        matches_seen(found.as_ref().ok(), seen)
    }
}

fn matches_seen(found: Option<&Stat>, seen: Option<Seen>) -> bool {
    found.is_some_and(|stat| {
        kind(stat) != FileType::Directory && seen.is_none_or(|seen| Seen::new(stat) == seen)
    })
}

fn look(directory: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::empty())
}

fn conflict(path: &[u8], problem: &'static str) -> FileError {
    FileError::Conflict {
        path: GuestPath::from_bytes(path.to_vec()),
        problem,
    }
}

fn system(path: &[u8], what: &'static str, errno: Errno) -> FileError {
    match errno {
        Errno::XDEV => FileError::Invalid {
            path: GuestPath::from_bytes(path.to_vec()),
            problem: "it is on another file system than the guest's root, where nothing can be changed as a whole",
        },
        // A directory on the way has become a link or a file.
        Errno::LOOP => conflict(path, SEEN_CHANGED),
        errno => FileError::system(path, what, errno),
    }
}
