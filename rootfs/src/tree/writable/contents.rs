//! Content files of the writable layer: `content/<inode in hex>`, opened beneath a directory
//! descriptor, a bounded number of them at a time.
//!
//! The host tells only once, and only whoever has the file open, that it could not write something
//! back; it may drop the pages then, and the next fsync succeeds (fsync(2)). So a content whose sync failed
//! is *lost* until it is removed or emptied: no later sync of it succeeds. One that was closed
//! before it was synced is synced with its whole file system, which remembers failures of all files.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, fsync, mkdirat, openat, syncfs, unlinkat};
use rustix::io::Errno;

use super::cache::FileCache;
use crate::tree::{Ino, OpenError};

const NAME: &str = "content";

/// From how many unsynced files on the whole host file system is synced at once.
const SYNCFS_FROM: usize = 64;

/// A FUSE file system, as statfs(2) says it (Linux, `fs/fuse/inode.c`).
const FUSE_SUPER_MAGIC: rustix::fs::FsWord = 0x6573_5546;

/// The content files.
#[derive(Debug)]
pub(super) struct Contents {
    dir: OwnedFd,
    /// Whether syncfs(2) waits. FUSE's need not (Linux, fs/fs-writeback.c, `wait_sb_inodes`).
    syncfs_waits: bool,
    open: FileCache<Ino>,
    /// Files with writes that the disk may not have.
    unsynced: HashSet<Ino>,
    /// Those of them that were closed in between.
    reopened: HashSet<Ino>,
    /// Files that the disk does not have as they were written, and why.
    lost: HashMap<Ino, Errno>,
    /// Whether files were made whose names the disk may not have.
    dir_unsynced: bool,
    /// Why the disk does not have names of files that were made.
    dir_lost: Option<Errno>,
}

impl Contents {
    /// Opens the directory of content files in the layer's directory `layer`, or makes it.
    pub(super) fn open(layer: impl AsFd) -> Result<Self, OpenError> {
        let io = |action| {
            move |error: Errno| OpenError::Io {
                action,
                source: error.into(),
            }
        };
        match mkdirat(&layer, NAME, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(io("make the directory of contents")(error)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let dir = openat(&layer, NAME, flags, Mode::empty())
            .map_err(io("open the directory of contents"))?;
        let host = rustix::fs::fstatfs(&dir).map_err(io("ask for the host's file system"))?;
        Ok(Self {
            dir,
            syncfs_waits: host.f_type != FUSE_SUPER_MAGIC,
            open: FileCache::new(),
            unsynced: HashSet::new(),
            reopened: HashSet::new(),
            lost: HashMap::new(),
            dir_unsynced: false,
            dir_lost: None,
        })
    }

    /// Removes files that belong to none of `wanted`: left by a crash between making a file and
    /// writing down that it is there, or between writing down that it is gone and removing it.
    pub(super) fn collect(&mut self, wanted: &HashSet<Ino>) -> Result<(), OpenError> {
        let io = |action| {
            move |error: Errno| OpenError::Io {
                action,
                source: error.into(),
            }
        };
        let listing = Dir::read_from(&self.dir).map_err(io("list the contents"))?;
        let mut stale = Vec::new();
        for entry in listing {
            let entry = entry.map_err(io("list the contents"))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if !parse_name(name.to_bytes()).is_some_and(|ino| wanted.contains(&ino)) {
                stale.push(name.to_owned());
            }
        }
        for name in stale {
            unlinkat(&self.dir, name, AtFlags::empty()).map_err(io("remove a stale content"))?;
        }
        Ok(())
    }

    /// The content file of `ino`, whose content is `size` bytes long.
    pub(super) fn get(&mut self, ino: Ino, size: u64) -> Result<&File, Errno> {
        let (dir, unsynced, reopened) = (&self.dir, &self.unsynced, &mut self.reopened);
        self.open.get_or_open(ino, || {
            if unsynced.contains(&ino) {
                reopened.insert(ino);
            }
            let file = open_own(dir, ino)?;
            trim(&file, size)?;
            Ok(file)
        })
    }

    /// Makes an empty content file for `ino`.
    pub(super) fn create(&mut self, ino: Ino) -> Result<&File, Errno> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat(&self.dir, file_name(ino), flags, Mode::RUSR | Mode::WUSR)?;
        self.dir_unsynced = true;
        Ok(self.open.insert(ino, File::from(file)))
    }

    /// The directory, when no content is written any more.
    pub(super) fn into_dir(self) -> OwnedFd {
        self.dir
    }

    /// Removes the content file of `ino`.
    pub(super) fn remove(&mut self, ino: Ino) -> Result<(), Errno> {
        self.open.remove(ino);
        self.forget(ino);
        match unlinkat(&self.dir, file_name(ino), AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            result => result,
        }
    }

    /// Says that the content of `ino` changed.
    pub(super) fn wrote(&mut self, ino: Ino) {
        self.unsynced.insert(ino);
    }

    /// Says that the content of `ino` has no bytes that anybody wants, so none are lost and none
    /// have to be synced.
    pub(super) fn forget(&mut self, ino: Ino) {
        self.synced(ino);
        self.lost.remove(&ino);
    }

    /// Says that nothing more is to be learned of what was written to `ino`.
    fn synced(&mut self, ino: Ino) {
        self.unsynced.remove(&ino);
        self.reopened.remove(&ino);
    }

    /// Whether `ino` was open all the time since it was written.
    fn stayed_open(&self, ino: Ino) -> bool {
        self.open.is_open(ino) && !self.reopened.contains(&ino)
    }

    /// Makes the content of `ino` durable.
    pub(super) fn sync_one(&mut self, ino: Ino) -> Result<(), Errno> {
        if self.unsynced.contains(&ino) {
            if self.stayed_open(ino) {
                self.sync_file(ino);
            } else {
                self.sync_whole();
            }
        }
        match self.lost.get(&ino) {
            Some(&error) => Err(error),
            None => self.sync_dir(),
        }
    }

    /// Makes all contents durable.
    pub(super) fn sync_all(&mut self) -> Result<(), Errno> {
        let closed = self.unsynced.iter().any(|&ino| !self.stayed_open(ino));
        if closed || self.unsynced.len() >= SYNCFS_FROM {
            self.sync_whole();
        } else {
            self.sync_each(None);
        }
        match self.lost.values().next() {
            Some(&error) => Err(error),
            None => self.sync_dir(),
        }
    }

    /// Syncs the file system of all of them. It may fail for files of others.
    fn sync_whole(&mut self) {
        match syncfs(&self.dir) {
            Ok(()) if self.syncfs_waits => {
                self.unsynced.clear();
                self.reopened.clear();
            }
            result => self.sync_each(result.err()),
        }
    }

    /// Syncs every file. Of those that were closed in between nothing is known after an `error` of
    /// their file system.
    fn sync_each(&mut self, error: Option<Errno>) {
        for ino in self.unsynced.iter().copied().collect::<Vec<_>>() {
            match error {
                Some(error) if !self.stayed_open(ino) => {
                    self.synced(ino);
                    self.lost.insert(ino, error);
                }
                _ => self.sync_file(ino),
            }
        }
    }

    /// Syncs one file.
    fn sync_file(&mut self, ino: Ino) {
        let dir = &self.dir;
        let synced = self
            .open
            .get_or_open(ino, || open_own(dir, ino))
            .and_then(|file| file.sync_data().map_err(|error| errno(&error)));
        self.synced(ino);
        if let Err(error) = synced {
            self.lost.insert(ino, error);
        }
    }

    fn sync_dir(&mut self) -> Result<(), Errno> {
        if self.dir_unsynced {
            self.dir_lost = self.dir_lost.or(fsync(&self.dir).err());
            self.dir_unsynced = false;
        }
        self.dir_lost.map_or(Ok(()), Err)
    }
}

/// Opens the content file of `ino`, which has one.
fn open_own(dir: impl AsFd, ino: Ino) -> Result<File, Errno> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match openat(dir, file_name(ino), flags, Mode::empty()) {
        Ok(file) => Ok(file.into()),
        // It was there when the journal said so.
        Err(Errno::NOENT) => Err(Errno::IO),
        Err(error) => Err(error),
    }
}

/// Cuts off what a crash, or a write that failed halfway, left beyond the content's end.
pub(super) fn trim(file: &File, size: u64) -> Result<(), Errno> {
    let len = file.metadata().map_err(|error| errno(&error))?.len();
    if len > size {
        file.set_len(size).map_err(|error| errno(&error))?;
    }
    Ok(())
}

/// The error number of a host error; `IO` for those that have none.
pub(super) fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Opens the directory of content files for reading only; `None` when there is none.
pub(super) fn open_dir(layer: impl AsFd) -> Result<Option<OwnedFd>, OpenError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match openat(layer, NAME, flags, Mode::empty()) {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(OpenError::Io {
            action: "open the directory of contents",
            source: error.into(),
        }),
    }
}

/// Opens the content file of `ino` in `dir` for reading only.
pub(super) fn open_file(dir: impl AsFd, ino: Ino) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    openat(dir, file_name(ino), flags, Mode::empty()).map(File::from)
}

/// What the content file of `ino` is called.
pub(crate) fn file_name(ino: Ino) -> String {
    format!("{:x}", ino.0)
}

fn parse_name(name: &[u8]) -> Option<Ino> {
    let ino = Ino(u64::from_str_radix(std::str::from_utf8(name).ok()?, 16).ok()?);
    (file_name(ino).as_bytes() == name).then_some(ino)
}
