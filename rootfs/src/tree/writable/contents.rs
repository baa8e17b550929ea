//! Content files of the writable layer: `content/<inode in hex>`, opened beneath a directory
//! descriptor, a bounded number of them at a time.

use std::collections::HashSet;
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

/// The content files.
#[derive(Debug)]
pub(super) struct Contents {
    dir: OwnedFd,
    open: FileCache<Ino>,
    /// Files with writes that the disk may not have.
    unsynced: HashSet<Ino>,
    /// Whether files were made whose names the disk may not have.
    dir_unsynced: bool,
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
        Ok(Self {
            dir,
            open: FileCache::new(),
            unsynced: HashSet::new(),
            dir_unsynced: false,
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
        let dir = &self.dir;
        self.open.get_or_open(ino, || {
            let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let file = match openat(dir, file_name(ino), flags, Mode::empty()) {
                // It was there when the journal said so.
                Err(Errno::NOENT) => return Err(Errno::IO),
                file => File::from(file?),
            };
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
        self.unsynced.remove(&ino);
        match unlinkat(&self.dir, file_name(ino), AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            result => result,
        }
    }

    /// Says that the content of `ino` changed.
    pub(super) fn wrote(&mut self, ino: Ino) {
        self.unsynced.insert(ino);
    }

    /// Makes the content of `ino` durable.
    pub(super) fn sync_one(&mut self, ino: Ino, size: u64) -> Result<(), Errno> {
        if self.unsynced.contains(&ino) {
            self.get(ino, size)?
                .sync_data()
                .map_err(|error| errno(&error))?;
            self.unsynced.remove(&ino);
        }
        self.sync_dir()
    }

    /// Makes all contents durable.
    pub(super) fn sync_all(&mut self, size: impl Fn(Ino) -> u64) -> Result<(), Errno> {
        if self.unsynced.len() >= SYNCFS_FROM {
            syncfs(&self.dir)?;
            self.unsynced.clear();
        }
        let unsynced: Vec<_> = self.unsynced.iter().copied().collect();
        for ino in unsynced {
            self.sync_one(ino, size(ino))?;
        }
        self.sync_dir()
    }

    fn sync_dir(&mut self) -> Result<(), Errno> {
        if self.dir_unsynced {
            fsync(&self.dir)?;
            self.dir_unsynced = false;
        }
        Ok(())
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
