//! Directories outside the tree in which contents wait.
//!
//! Each transaction has one of its own, which only root may enter. Its name tells which run of the
//! agent it belongs to, so that leftovers of an earlier one, whose guest was cut off, can be found
//! and deleted while new ones are made.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, fstat, mkdirat, openat, symlinkat, unlinkat};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::FileError;
use crate::files::remove_tree;

const PREFIX: &str = ".pyro-staging-";

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Where transactions of this run of the agent stage.
#[derive(Debug)]
pub(crate) struct StagingArea {
    directory: String,
    /// Begins the names of this run alone.
    prefix: String,
    next: AtomicU64,
}

/// The staging of one transaction.
#[derive(Debug)]
pub(super) struct Staging {
    parent: OwnedFd,
    name: CString,
    directory: OwnedFd,
}

impl StagingArea {
    /// Stages in `directory`, which has to be in the file system that is changed.
    pub(crate) fn new(directory: &str) -> Self {
        let now = clock_gettime(ClockId::Realtime);
        let own = rustix::process::getpid().as_raw_nonzero();
        Self {
            directory: directory.to_owned(),
            prefix: format!("{PREFIX}{own}-{:x}-{:x}-", now.tv_sec, now.tv_nsec),
            next: AtomicU64::new(0),
        }
    }

    /// Makes the staging of a transaction.
    pub(super) fn make(&self) -> Result<Staging, FileError> {
        let system = |errno| {
            let what = "no directory to stage in can be made in it";
            FileError::system(self.directory.as_bytes(), what, errno)
        };
        let parent = self.open().map_err(system)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name =
            CString::new(format!("{}{number}", self.prefix)).map_err(|_| system(Errno::INVAL))?;
        mkdirat(&parent, &name, Mode::RWXU).map_err(system)?;
        let directory = openat(&parent, &name, DIRECTORY, Mode::empty()).map_err(system)?;
        Ok(Staging {
            parent,
            name,
            directory,
        })
    }

    fn open(&self) -> Result<OwnedFd, Errno> {
        openat(CWD, &*self.directory, DIRECTORY, Mode::empty())
    }

    /// Deletes what earlier runs of the agent have left.
    pub(crate) fn remove_leftovers(&self) {
        let Ok(parent) = self.open() else { return };
        let Ok(entries) = Dir::read_from(&parent) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let bytes = name.to_bytes();
            if !bytes.starts_with(PREFIX.as_bytes()) || bytes.starts_with(self.prefix.as_bytes()) {
                continue;
            }
            if let Ok(directory) = openat(&parent, name, DIRECTORY, Mode::empty()) {
                let staging = Staging {
                    parent: match parent.try_clone() {
                        Ok(parent) => parent,
                        Err(_) => return,
                    },
                    name: name.to_owned(),
                    directory,
                };
                staging.discard();
            }
        }
    }
}

impl Staging {
    /// The file for the content of a change.
    pub(super) fn create(&self, number: usize) -> Result<OwnedFd, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        openat(&self.directory, new(number), flags, Mode::RUSR | Mode::WUSR)
    }

    /// A link for a change.
    pub(super) fn link(&self, number: usize, target: &[u8]) -> Result<(), Errno> {
        symlinkat(target, &self.directory, new(number))
    }

    pub(super) fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// Deletes all of it.
    pub(super) fn discard(self) {
        if let Ok(stat) = fstat(&self.directory) {
            remove_tree(self.directory.as_fd(), stat.st_dev, 16);
        }
        let _ = unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR);
    }
}

/// The name under which what a change puts in place waits, and then what it has replaced.
pub(super) fn new(number: usize) -> String {
    format!("n{number}")
}

/// The name under which what a change has deleted waits.
pub(super) fn old(number: usize) -> String {
    format!("o{number}")
}
