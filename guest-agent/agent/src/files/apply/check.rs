//! From changes to acts: what each means for the tree as those before it leave it. Nothing is
//! changed here.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use pyro_agent_protocol::{Change, Expect, GuestPath, Mode, Sha256, Write};
use rustix::fs::{Dir, FileType, Mode as Bits, OFlags, Stat, fstat, openat};
use rustix::io::Errno;
use sha2::Digest;

use super::FileError;
use crate::files::read::described;
use crate::files::resolve::{Base, Found, Place, Planned, kind, reopen};

/// Permission bits of a directory that nobody has given any.
const DIRECTORY_MODE: u32 = 0o755;
/// Permission bits of a file that nobody has given any.
const FILE_MODE: u32 = 0o644;
/// Longest target of a link.
const TARGET_MAX: usize = 4095;

/// Something to do. Paths are those of places; numbers are those of changes.
#[derive(Debug)]
pub(super) enum Act {
    /// Makes a directory.
    Mkdir { path: Vec<u8>, mode: u32 },
    /// Puts what is staged for a change in its place.
    Put {
        path: Vec<u8>,
        number: usize,
        /// Of a file.
        meta: Option<Meta>,
        /// What it replaces.
        over: Over,
    },
    /// Deletes a file or a link.
    Remove {
        path: Vec<u8>,
        number: usize,
        seen: Option<Seen>,
    },
    /// Deletes an empty directory.
    Rmdir { path: Vec<u8> },
    /// Renames a file or a link.
    Rename {
        from: Vec<u8>,
        to: Vec<u8>,
        seen: Option<Seen>,
    },
    /// Sets permission bits.
    SetMode { path: Vec<u8>, mode: u32 },
}

/// What is in the place of something new.
#[derive(Debug, Clone, Copy)]
pub(super) enum Over {
    Nothing,
    /// A file or a link; this one, if that matters.
    Something(Option<Seen>),
}

/// Permission bits, and an owner that is not the agent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meta {
    pub(super) mode: u32,
    pub(super) owner: Option<(u32, u32)>,
}

/// By what a file is known again that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    device: u64,
    inode: u64,
    size: i64,
    modified: (i64, i64),
}

impl Seen {
    pub(super) fn new(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size,
            modified: (
                stat.st_mtime,
                i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
            ),
        }
    }
}

/// How much there is to do.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) created: u64,
    pub(super) modified: u64,
    pub(super) deleted: u64,
    pub(super) renamed: u64,
    pub(super) directories: u64,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) acts: Vec<Act>,
    pub(super) totals: Totals,
}

/// Finds out what is to be done, or why it cannot.
pub(super) fn check(base: &Base, changes: &[Change]) -> Result<Plan, FileError> {
    let mut checker = Checker {
        base,
        planned: BTreeMap::new(),
        plan: Plan::default(),
    };
    for (number, change) in changes.iter().enumerate() {
        checker.change(number, change)?;
    }
    Ok(checker.plan)
}

struct Checker<'a> {
    base: &'a Base,
    /// What the changes so far make of a place, and with what permission bits.
    planned: BTreeMap<Vec<u8>, (Planned, Option<Meta>)>,
    plan: Plan,
}

impl Checker<'_> {
    fn change(&mut self, number: usize, change: &Change) -> Result<(), FileError> {
        match change {
            Change::Write(write) => self.write(number, write),
            Change::Mkdir { path, mode } => self.mkdir(path, *mode),
            Change::Symlink {
                path,
                target,
                expect,
            } => self.symlink(number, path, target, *expect),
            Change::Delete { path, expect } => self.delete(number, path, *expect),
            Change::Rename { from, to, expect } => self.rename(from, to, *expect),
            Change::SetMode { path, mode } => self.set_mode(path, *mode),
            Change::Commit { .. } => Ok(()),
        }
    }

    fn walk(&self, path: &GuestPath, follow: bool) -> Result<Place, FileError> {
        let planned = |path: &[u8]| self.planned.get(path).map(|(planned, _)| *planned);
        self.base.walk(path, follow, &planned)
    }

    fn write(&mut self, number: usize, write: &Write) -> Result<(), FileError> {
        let path = &write.path;
        let set = match write.mode {
            Mode::Set(mode) => Some(bits(path, mode)?),
            Mode::Keep => None,
        };
        let place = self.walk(path, write.follow)?;
        let (over, before) = self.replaceable(path, &place, write.expect)?;
        let mut meta = before.unwrap_or(Meta {
            mode: FILE_MODE,
            owner: None,
        });
        meta.mode = set.unwrap_or(meta.mode);
        self.planned
            .insert(place.path.clone(), (Planned::File, Some(meta)));
        self.plan.acts.push(Act::Put {
            path: place.path,
            number,
            meta: Some(meta),
            over,
        });
        Ok(())
    }

    fn symlink(
        &mut self,
        number: usize,
        path: &GuestPath,
        target: &GuestPath,
        expect: Expect,
    ) -> Result<(), FileError> {
        let text = target.as_bytes();
        if text.is_empty() || text.len() > TARGET_MAX || text.contains(&0) {
            return Err(FileError::Invalid {
                path: path.clone(),
                problem: "the link's target is empty, too long or contains a NUL byte",
            });
        }
        let place = self.walk(path, false)?;
        let (over, _) = self.replaceable(path, &place, expect)?;
        self.planned
            .insert(place.path.clone(), (Planned::Link, None));
        self.plan.acts.push(Act::Put {
            path: place.path,
            number,
            meta: None,
            over,
        });
        Ok(())
    }

    /// Whether a file or a link can be put at a place; makes the parents. Gives what it replaces,
    /// and a replaced file's permission bits and owner.
    fn replaceable(
        &mut self,
        path: &GuestPath,
        place: &Place,
        expect: Expect,
    ) -> Result<(Over, Option<Meta>), FileError> {
        let replaced = match &place.found {
            Found::Nothing { existing } => {
                expected_nothing(path, expect)?;
                self.parents(&place.path, *existing);
                self.plan.totals.created += 1;
                return Ok((Over::Nothing, None));
            }
            Found::Planned(Planned::File | Planned::Link) => {
                expected_planned(path, expect)?;
                let meta = self.planned.get(&place.path).and_then(|(_, meta)| *meta);
                (Over::Something(None), meta)
            }
            Found::Planned(_) => {
                return Err(FileError::NotAFile {
                    path: path.clone(),
                    found: described(FileType::Directory),
                });
            }
            Found::Real(fd) => {
                let stat = look(path, fd)?;
                let seen = expected(path, fd.as_fd(), &stat, expect)?;
                let meta = match kind(&stat) {
                    FileType::RegularFile => Some(Meta {
                        mode: stat.st_mode & 0o7777,
                        owner: Some((stat.st_uid, stat.st_gid)),
                    }),
                    FileType::Symlink => None,
                    other => {
                        return Err(FileError::NotAFile {
                            path: path.clone(),
                            found: described(other),
                        });
                    }
                };
                (Over::Something(seen), meta)
            }
        };
        self.plan.totals.modified += 1;
        Ok(replaced)
    }

    fn mkdir(&mut self, path: &GuestPath, mode: Mode) -> Result<(), FileError> {
        let set = match mode {
            Mode::Set(mode) => Some(bits(path, mode)?),
            Mode::Keep => None,
        };
        let place = self.walk(path, true)?;
        match &place.found {
            Found::Nothing { existing } => {
                self.parents(&place.path, *existing);
                let mode = set.unwrap_or(DIRECTORY_MODE);
                self.make_directory(place.path, mode);
                return Ok(());
            }
            Found::Planned(Planned::Directory) => {}
            Found::Real(fd) if kind(&look(path, fd)?) == FileType::Directory => {}
            _ => return Err(FileError::NotADirectory { path: path.clone() }),
        }
        if let Some(mode) = set {
            self.plan.acts.push(Act::SetMode {
                path: place.path,
                mode,
            });
        }
        Ok(())
    }

    fn delete(&mut self, number: usize, path: &GuestPath, expect: Expect) -> Result<(), FileError> {
        let place = self.walk(path, false)?;
        let (directory, seen) = match &place.found {
            Found::Nothing { .. } | Found::Planned(Planned::Absent) => {
                return Err(FileError::NotFound { path: path.clone() });
            }
            Found::Planned(Planned::Directory) => (true, None),
            Found::Planned(_) => {
                expected_planned(path, expect)?;
                (false, None)
            }
            Found::Real(fd) => {
                let stat = look(path, fd)?;
                let seen = expected(path, fd.as_fd(), &stat, expect)?;
                let directory = kind(&stat) == FileType::Directory;
                if directory {
                    self.expect_no_entries(path, &place.path, fd.as_fd())?;
                }
                (directory, seen)
            }
        };
        if place.path.is_empty() {
            return Err(FileError::Invalid {
                path: path.clone(),
                problem: "the directory to stay in cannot be deleted",
            });
        }
        if directory && self.plans_entries(&place.path) {
            return Err(FileError::NotEmpty { path: path.clone() });
        }
        self.planned
            .insert(place.path.clone(), (Planned::Absent, None));
        self.plan.totals.deleted += 1;
        let path = place.path;
        self.plan.acts.push(if directory {
            Act::Rmdir { path }
        } else {
            Act::Remove { path, number, seen }
        });
        Ok(())
    }

    fn rename(
        &mut self,
        from: &GuestPath,
        to: &GuestPath,
        expect: Expect,
    ) -> Result<(), FileError> {
        let source = self.walk(from, false)?;
        let (planned, meta, seen) = match &source.found {
            Found::Nothing { .. } | Found::Planned(Planned::Absent) => {
                return Err(FileError::NotFound { path: from.clone() });
            }
            Found::Planned(planned @ (Planned::File | Planned::Link)) => {
                expected_planned(from, expect)?;
                let meta = self.planned.get(&source.path).and_then(|(_, meta)| *meta);
                (*planned, meta, None)
            }
            Found::Planned(Planned::Directory) => return Err(a_directory(from)),
            Found::Real(fd) => {
                let stat = look(from, fd)?;
                let seen = expected(from, fd.as_fd(), &stat, expect)?;
                match kind(&stat) {
                    FileType::Directory => return Err(a_directory(from)),
                    FileType::Symlink => (Planned::Link, None, seen),
                    _ => {
                        let meta = Meta {
                            mode: stat.st_mode & 0o7777,
                            owner: Some((stat.st_uid, stat.st_gid)),
                        };
                        (Planned::File, Some(meta), seen)
                    }
                }
            }
        };
        let destination = self.walk(to, false)?;
        let Found::Nothing { existing } = destination.found else {
            return Err(FileError::AlreadyExists { path: to.clone() });
        };
        self.parents(&destination.path, existing);
        self.planned
            .insert(source.path.clone(), (Planned::Absent, None));
        self.planned
            .insert(destination.path.clone(), (planned, meta));
        self.plan.totals.renamed += 1;
        self.plan.acts.push(Act::Rename {
            from: source.path,
            to: destination.path,
            seen,
        });
        Ok(())
    }

    fn set_mode(&mut self, path: &GuestPath, mode: u32) -> Result<(), FileError> {
        let mode = bits(path, mode)?;
        let place = self.walk(path, false)?;
        match &place.found {
            Found::Nothing { .. } | Found::Planned(Planned::Absent) => {
                return Err(FileError::NotFound { path: path.clone() });
            }
            Found::Planned(Planned::Link) => {
                return Err(FileError::NotAFile {
                    path: path.clone(),
                    found: described(FileType::Symlink),
                });
            }
            Found::Planned(Planned::File | Planned::Directory) => {
                if let Some((_, Some(meta))) = self.planned.get_mut(&place.path) {
                    meta.mode = mode;
                }
            }
            Found::Real(fd) => match kind(&look(path, fd)?) {
                FileType::RegularFile | FileType::Directory => {}
                other => {
                    return Err(FileError::NotAFile {
                        path: path.clone(),
                        found: described(other),
                    });
                }
            },
        }
        self.plan.totals.modified += 1;
        self.plan.acts.push(Act::SetMode {
            path: place.path,
            mode,
        });
        Ok(())
    }

    /// Plans the directories of a path that are not there; all up to `existing` are.
    fn parents(&mut self, path: &[u8], existing: usize) {
        // A name is not empty, so what follows the existing part begins after its slash.
        for at in existing + 1..path.len() {
            if path[at] == b'/' {
                self.make_directory(path[..at].to_vec(), DIRECTORY_MODE);
            }
        }
    }

    fn make_directory(&mut self, path: Vec<u8>, mode: u32) {
        self.plan.totals.directories += 1;
        self.planned
            .insert(path.clone(), (Planned::Directory, None));
        self.plan.acts.push(Act::Mkdir { path, mode });
    }

    /// Whether all that is in a directory will be gone.
    fn expect_no_entries(
        &self,
        path: &GuestPath,
        place: &[u8],
        directory: BorrowedFd<'_>,
    ) -> Result<(), FileError> {
        let system = |errno| FileError::system(path.as_bytes(), "cannot be listed", errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(directory, c".", flags, Bits::empty()).map_err(system)?;
        for entry in Dir::read_from(&directory).map_err(system)? {
            let entry = entry.map_err(system)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let child = [place, b"/", name].concat();
            if !matches!(self.planned.get(&child), Some((Planned::Absent, _))) {
                return Err(FileError::NotEmpty { path: path.clone() });
            }
        }
        Ok(())
    }

    /// Whether the changes so far put something into a directory.
    fn plans_entries(&self, place: &[u8]) -> bool {
        let prefix = [place, b"/"].concat();
        self.planned
            .range(prefix.clone()..)
            .take_while(|(path, _)| path.starts_with(&prefix))
            .any(|(_, (planned, _))| *planned != Planned::Absent)
    }
}

fn look(path: &GuestPath, fd: impl AsFd) -> Result<Stat, FileError> {
    fstat(fd).map_err(|errno| FileError::system(path.as_bytes(), "cannot be looked at", errno))
}

fn a_directory(path: &GuestPath) -> FileError {
    FileError::NotAFile {
        path: path.clone(),
        found: described(FileType::Directory),
    }
}

fn bits(path: &GuestPath, mode: u32) -> Result<u32, FileError> {
    if mode <= 0o7777 {
        Ok(mode)
    } else {
        Err(FileError::Invalid {
            path: path.clone(),
            problem: "the mode has more than permission bits",
        })
    }
}

fn conflict(path: &GuestPath, problem: &'static str) -> FileError {
    FileError::Conflict {
        path: path.clone(),
        problem,
    }
}

/// Holds what is expected against nothing.
fn expected_nothing(path: &GuestPath, expect: Expect) -> Result<(), FileError> {
    match expect {
        Expect::Anything | Expect::Absent => Ok(()),
        Expect::Sha256(_) => Err(conflict(path, "does not exist, and was expected to")),
    }
}

/// Holds what is expected against what an earlier change puts there.
fn expected_planned(path: &GuestPath, expect: Expect) -> Result<(), FileError> {
    match expect {
        Expect::Anything => Ok(()),
        Expect::Absent => Err(conflict(path, "exists, and was expected not to")),
        Expect::Sha256(_) => Err(FileError::Invalid {
            path: path.clone(),
            problem: "no content can be expected of what the same transaction puts there",
        }),
    }
}

/// Holds what is expected against what is there. Gives by what to know it again if it matters.
fn expected(
    path: &GuestPath,
    fd: BorrowedFd<'_>,
    stat: &Stat,
    expect: Expect,
) -> Result<Option<Seen>, FileError> {
    match expect {
        Expect::Anything => Ok(None),
        Expect::Absent => Err(conflict(path, "exists, and was expected not to")),
        Expect::Sha256(_) if kind(stat) != FileType::RegularFile => {
            Err(conflict(path, "is no regular file, as was expected"))
        }
        Expect::Sha256(wanted) => {
            let found = digest(fd).map_err(|errno| {
                FileError::system(path.as_bytes(), "its content cannot be checked", errno)
            })?;
            if found == wanted {
                Ok(Some(Seen::new(stat)))
            } else {
                Err(conflict(
                    path,
                    "does not have the content that was expected",
                ))
            }
        }
    }
}

fn digest(looked_at: BorrowedFd<'_>) -> Result<Sha256, Errno> {
    let file = reopen(looked_at)?;
    let mut digest = sha2::Sha256::new();
    let mut piece = vec![MaybeUninit::<u8>::uninit(); 128 << 10];
    loop {
        match rustix::io::read(&file, &mut piece[..]) {
            Ok(([], _)) => return Ok(Sha256(digest.finalize().into())),
            Ok((bytes, _)) => digest.update(bytes),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
