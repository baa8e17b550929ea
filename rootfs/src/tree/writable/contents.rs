//! Content files of the writable layer: `content/<inode in hex>`, opened beneath a directory
//! descriptor, a bounded number of them at a time.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, fsync, mkdirat, openat, syncfs, unlinkat};
use rustix::io::Errno;

use crate::tree::{Ino, OpenError};

const NAME: &str = "content";

/// How many content files are kept open.
const OPEN_MAX: usize = 128;

/// From how many unsynced files on the whole host file system is synced at once.
const SYNCFS_FROM: usize = 64;

/// The content files.
#[derive(Debug)]
pub(super) struct Contents {
    dir: OwnedFd,
    open: HashMap<Ino, Open>,
    clock: u64,
    /// Files with writes that the disk may not have.
    unsynced: HashSet<Ino>,
    /// Whether files were made whose names the disk may not have.
    dir_unsynced: bool,
}

#[derive(Debug)]
struct Open {
    file: File,
    last_use: u64,
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
            open: HashMap::new(),
            clock: 0,
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
        if !self.open.contains_key(&ino) {
            let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let file = match openat(&self.dir, file_name(ino), flags, Mode::empty()) {
                // It was there when the journal said so.
                Err(Errno::NOENT) => return Err(Errno::IO),
                file => File::from(file?),
            };
            trim(&file, size)?;
            self.insert(ino, file);
        }
        self.used(ino)
    }

    /// Makes an empty content file for `ino`.
    pub(super) fn create(&mut self, ino: Ino) -> Result<&File, Errno> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat(&self.dir, file_name(ino), flags, Mode::RUSR | Mode::WUSR)?;
        self.dir_unsynced = true;
        self.insert(ino, File::from(file));
        self.used(ino)
    }

    /// Removes the content file of `ino`.
    pub(super) fn remove(&mut self, ino: Ino) -> Result<(), Errno> {
        self.open.remove(&ino);
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

    fn insert(&mut self, ino: Ino, file: File) {
        if self.open.len() >= OPEN_MAX
            && let Some(oldest) = self.open.iter().min_by_key(|(_, open)| open.last_use)
        {
            let oldest = *oldest.0;
            self.open.remove(&oldest);
        }
        self.open.insert(
            ino,
            Open {
                file,
                last_use: self.clock,
            },
        );
    }

    fn used(&mut self, ino: Ino) -> Result<&File, Errno> {
        self.clock += 1;
        let open = self.open.get_mut(&ino).ok_or(Errno::IO)?;
        open.last_use = self.clock;
        Ok(&open.file)
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

fn file_name(ino: Ino) -> String {
    format!("{:x}", ino.0)
}

fn parse_name(name: &[u8]) -> Option<Ino> {
    let ino = Ino(u64::from_str_radix(std::str::from_utf8(name).ok()?, 16).ok()?);
    (file_name(ino).as_bytes() == name).then_some(ino)
}
