//! From a path to what it names, without leaving a directory.
//!
//! The kernel's own `RESOLVE_BENEATH` (openat2(2)) refuses every absolute link, also those that
//! stay inside, so the path is walked here, name by name, each opened in the directory before it
//! and not followed. Nothing is compared but names that the walk itself went through: a directory
//! that somebody moves away meanwhile is walked on where it is, and `..` goes back to where the
//! walk came from.

use std::os::fd::{AsFd, OwnedFd};

use pyro_agent_protocol::{GuestPath, PATH_MAX};
use rustix::fs::{FileType, Stat};
use rustix::fs::{Mode, OFlags, fstat, open, openat, readlinkat};
use rustix::io::Errno;

use super::FileError;

/// Links that are followed on one way, as the kernel has it.
const LINKS_MAX: usize = 40;

/// What is opened to be looked at only.
const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory that resolution does not leave.
#[derive(Debug)]
pub(super) struct Base {
    fd: OwnedFd,
    /// As the request has it.
    path: GuestPath,
    names: Vec<Vec<u8>>,
}

/// What a transaction plans for a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Planned {
    /// It will be gone.
    Absent,
    /// A directory will be made.
    Directory,
    /// A file will be there.
    File,
    /// A link will be there.
    Link,
}

/// Where a path leads.
#[derive(Debug)]
pub(super) struct Place {
    /// From the base, without links and dots. Empty for the base itself.
    pub(super) path: Vec<u8>,
    pub(super) found: Found,
}

/// What is there.
#[derive(Debug)]
pub(super) enum Found {
    /// This, opened with `O_PATH`.
    Real(OwnedFd),
    /// What a transaction plans.
    Planned(Planned),
    /// Nothing, not even some of the parents when `existing` (a length of the place's path) does
    /// not reach to the last name.
    Nothing { existing: usize },
}

impl Base {
    pub(super) fn open(path: &GuestPath) -> Result<Self, FileError> {
        let invalid = |problem| FileError::Invalid {
            path: path.clone(),
            problem,
        };
        let bytes = path.as_bytes();
        if !bytes.starts_with(b"/") {
            return Err(invalid("the directory to stay in has to be absolute"));
        }
        check(path)?;
        let names: Vec<Vec<u8>> = names(bytes).map(<[u8]>::to_vec).collect();
        if names.iter().any(|name| name == b"..") {
            return Err(invalid(
                "the directory to stay in cannot be named with \"..\"",
            ));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = open(bytes, flags, Mode::empty())
            .map_err(|errno| FileError::system(bytes, "cannot be opened", errno))?;
        Ok(Self {
            fd,
            path: path.clone(),
            names,
        })
    }

    /// A directory that a walk has found, as a base of its own.
    pub(super) fn at(fd: OwnedFd, path: GuestPath) -> Self {
        let names = names(path.as_bytes()).map(<[u8]>::to_vec).collect();
        Self { fd, path, names }
    }

    /// The absolute path of a place.
    pub(super) fn absolute(&self, path: &[u8]) -> GuestPath {
        let mut absolute = Vec::new();
        let within = (!path.is_empty()).then_some(path);
        for name in self.names.iter().map(Vec::as_slice).chain(within) {
            absolute.push(b'/');
            absolute.extend_from_slice(name);
        }
        if absolute.is_empty() {
            absolute.push(b'/');
        }
        GuestPath::from_bytes(absolute)
    }

    /// Walks to where `path` leads. A link at its end is opened itself unless `follow` is set.
    /// What `planned` gives for a place goes before what is there.
    pub(super) fn walk(
        &self,
        path: &GuestPath,
        follow: bool,
        planned: &dyn Fn(&[u8]) -> Option<Planned>,
    ) -> Result<Place, FileError> {
        check(path)?;
        let outside = || FileError::Outside {
            path: path.clone(),
            beneath: self.path.clone(),
        };
        let not_a_directory = || FileError::NotADirectory { path: path.clone() };
        let system = |errno| FileError::system(path.as_bytes(), "cannot be looked at", errno);

        // The names still to go, the next one last.
        let mut way: Vec<Vec<u8>> = Vec::new();
        self.plan(path.as_bytes(), &mut way).ok_or_else(outside)?;
        let mut walked = Walked::default();
        let mut links = 0;
        while let Some(name) = way.pop() {
            if name == b".." {
                if !walked.back() && !self.names.is_empty() {
                    return Err(outside());
                }
                continue;
            }
            let parent = walked.path.len();
            walked.name(&name);
            let last = way.is_empty();
            match planned(&walked.path) {
                Some(Planned::Directory) => {
                    walked.enter(parent, None);
                    continue;
                }
                Some(plan @ (Planned::File | Planned::Link)) => {
                    if !last {
                        return Err(not_a_directory());
                    }
                    return Ok(Place {
                        path: walked.path,
                        found: Found::Planned(plan),
                    });
                }
                Some(Planned::Absent) => return walked.nothing(parent, way, path),
                None => {}
            }
            let directory = match walked.steps.last() {
                None => &self.fd,
                Some((_, Some(directory))) => directory,
                // In a directory that is only planned there is nothing.
                Some((_, None)) => return walked.nothing(parent, way, path),
            };
            let found = match openat(directory, name.as_slice(), LOOK, Mode::empty()) {
                Ok(found) => found,
                Err(Errno::NOENT) => return walked.nothing(parent, way, path),
                Err(errno) => return Err(system(errno)),
            };
            match kind(&fstat(&found).map_err(system)?) {
                FileType::Directory => walked.enter(parent, Some(found)),
                FileType::Symlink if !last || follow => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(FileError::Invalid {
                            path: path.clone(),
                            problem: "too many links on the way",
                        });
                    }
                    let target = readlinkat(&found, c"", Vec::new()).map_err(system)?;
                    walked.path.truncate(parent);
                    if target.as_bytes().starts_with(b"/") {
                        walked = Walked::default();
                    }
                    self.plan(target.as_bytes(), &mut way).ok_or_else(outside)?;
                    if way.len() > PATH_MAX {
                        return Err(FileError::Invalid {
                            path: path.clone(),
                            problem: "the links on the way are too long",
                        });
                    }
                }
                _ if last => {
                    return Ok(Place {
                        path: walked.path,
                        found: Found::Real(found),
                    });
                }
                _ => return Err(not_a_directory()),
            }
        }
        let found = match walked.steps.pop() {
            Some((_, Some(directory))) => Found::Real(directory),
            Some((_, None)) => Found::Planned(Planned::Directory),
            None => Found::Real(self.fd.try_clone().map_err(|_| system(Errno::MFILE))?),
        };
        Ok(Place {
            path: walked.path,
            found,
        })
    }

    /// Puts the names of a path on the way. `None` when it is absolute and elsewhere.
    fn plan(&self, path: &[u8], way: &mut Vec<Vec<u8>>) -> Option<()> {
        let mut rest = names(path);
        if path.starts_with(b"/") {
            for name in &self.names {
                if rest.next()? != name {
                    return None;
                }
            }
        }
        let rest: Vec<_> = rest.map(<[u8]>::to_vec).collect();
        way.extend(rest.into_iter().rev());
        Some(())
    }

    /// Opens a directory by a place's path, in which no link is left to follow: one that is there
    /// now has been put there meanwhile, and fails.
    pub(super) fn directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        use rustix::fs::ResolveFlags as Resolve;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if path.is_empty() {
            return openat(&self.fd, c".", flags, Mode::empty());
        }
        let resolve = Resolve::BENEATH | Resolve::NO_SYMLINKS | Resolve::NO_MAGICLINKS;
        rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), resolve)
    }
}

/// Where a walk is.
#[derive(Default)]
struct Walked {
    path: Vec<u8>,
    /// For each directory: length of the path before it, and the directory unless it is planned.
    steps: Vec<(usize, Option<OwnedFd>)>,
}

impl Walked {
    fn name(&mut self, name: &[u8]) {
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
    }

    fn enter(&mut self, parent: usize, directory: Option<OwnedFd>) {
        self.steps.push((parent, directory));
    }

    /// Goes back to the parent. False at the base.
    fn back(&mut self) -> bool {
        let Some((parent, _)) = self.steps.pop() else {
            return false;
        };
        self.path.truncate(parent);
        true
    }

    /// The end of a walk at a name that is not there.
    fn nothing(
        mut self,
        existing: usize,
        mut way: Vec<Vec<u8>>,
        path: &GuestPath,
    ) -> Result<Place, FileError> {
        while let Some(name) = way.pop() {
            if name == b".." {
                return Err(FileError::NotFound { path: path.clone() });
            }
            self.name(&name);
        }
        if self.path.len() > PATH_MAX {
            return Err(FileError::Invalid {
                path: path.clone(),
                problem: "the path is too long",
            });
        }
        Ok(Place {
            path: self.path,
            found: Found::Nothing { existing },
        })
    }
}

/// The names in a path.
fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
}

/// Refuses what the kernel would not take as a path.
fn check(path: &GuestPath) -> Result<(), FileError> {
    let bytes = path.as_bytes();
    let problem = if bytes.len() > PATH_MAX {
        "the path is too long"
    } else if bytes.contains(&0) {
        "the path contains a NUL byte"
    } else {
        return Ok(());
    };
    let path = GuestPath::from_bytes(bytes[..bytes.len().min(200)].to_vec());
    Err(FileError::Invalid { path, problem })
}

/// Splits a place's path into its parent's and its name.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// The kind of file.
pub(super) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Opens a regular file to read it that was opened to be looked at.
pub(super) fn reopen(looked_at: impl AsFd) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    open(by_number(looked_at), flags, Mode::empty())
}

/// A path that leads to what is open, whatever its name is now.
pub(super) fn by_number(fd: impl AsFd) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// For requests that plan nothing.
pub(super) fn as_it_is(_: &[u8]) -> Option<Planned> {
    None
}
