//! Advisory locks: `flock(2)`, which ends with its holder however that dies.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::Error;

/// A held lock; dropping it lets go.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held for its descriptor")] File);

/// How a lock is held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// With others that share it.
    Shared,
    /// Alone.
    Exclusive,
}

/// Waits for the lock file at `path`, which is made when it is not there.
pub(crate) fn lock(path: &Path, mode: Mode) -> Result<Lock, Error> {
    let operation = match mode {
        Mode::Shared => FlockOperation::LockShared,
        Mode::Exclusive => FlockOperation::LockExclusive,
    };
    let file = open(path)?;
    loop {
        match flock(&file, operation) {
            Ok(()) => return Ok(Lock(file)),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::store("lock", path, errno)),
        }
    }
}

/// As [`lock`], alone, and `None` at once when somebody else holds it.
pub(crate) fn try_lock(path: &Path) -> Result<Option<Lock>, Error> {
    let file = open(path)?;
    match try_exclusive(&file) {
        Ok(true) => Ok(Some(Lock(file))),
        Ok(false) => Ok(None),
        Err(errno) => Err(Error::store("lock", path, errno)),
    }
}

/// Locks an open file alone; `false` when somebody else holds it.
pub(crate) fn try_exclusive(file: impl AsFd) -> Result<bool, Errno> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn open(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|error| Error::store("open", path, error))
}
