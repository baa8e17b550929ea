//! A directory of the host as a seed.
//!
//! Somebody may change it meanwhile, even with intent: every entry is opened beneath the descriptor
//! of its directory without following a link, and what was opened is asked what it is.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;

use super::git::Rules;
use super::target::{FileError, Meta, Target};
use super::{IgnoredFiles, ImportError, ImportLimits, ImportSummary};
use crate::tree::{FileType, Ino, Name, Timestamp, Tree};

/// How deep directories may lie in each other; each one on the way is an open descriptor.
const DEPTH_MAX: usize = 256;

/// A directory on the way.
struct Level {
    dir: OwnedFd,
    ino: Ino,
    rules: Option<Rules>,
    /// Entries still to come, the next one last.
    names: Vec<Vec<u8>>,
    /// Length of its path in the seed.
    path: usize,
}

struct Walk<'a, 'b> {
    target: &'a mut Target<'b>,
    limits: ImportLimits,
    levels: Vec<Level>,
    /// Files of the host with several names, and what they became.
    linked: HashMap<(u64, u64), Ino>,
    path: Vec<u8>,
}

/// Imports the directory at `path` of the host into directory `dest`; `path` itself may be a link
/// to it. Blocks for as long as reading takes.
///
/// # Errors
/// See [`ImportError`]. Part of the directory may be in the tree then.
pub fn import_directory(
    tree: &mut Tree,
    dest: Ino,
    path: &Path,
    ignored: IgnoredFiles,
    limits: ImportLimits,
) -> Result<ImportSummary, ImportError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let unreadable = |errno: Errno| ImportError::Seed {
        path: path.display().to_string(),
        source: errno.into(),
    };
    let dir = rustix::fs::open(path, flags, Mode::empty()).map_err(unreadable)?;
    let rules = match ignored {
        IgnoredFiles::LeaveBehind => Rules::of_seed(path, &dir),
        IgnoredFiles::Take => None,
    };
    let names = names(&dir, limits.entries).map_err(unreadable)?;
    let mut target = Target::new(tree, dest, limits);
    let mut walk = Walk {
        target: &mut target,
        limits,
        levels: vec![Level {
            dir,
            ino: dest,
            rules,
            names,
            path: 0,
        }],
        linked: HashMap::new(),
        path: Vec::new(),
    };
    while walk.step()? {}
    target.finish()
}

impl Walk<'_, '_> {
    /// Takes one entry; whether there may be more.
    fn step(&mut self) -> Result<bool, ImportError> {
        let Some(level) = self.levels.last_mut() else {
            return Ok(false);
        };
        self.path.truncate(level.path);
        let Some(name) = level.names.pop() else {
            self.levels.pop();
            return Ok(true);
        };
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(&name);
        let stat = match statat(&level.dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(errno) => return self.skip(errno).map(|()| true),
        };
        let file_type = FileType::from_mode(stat.st_mode);
        let is_dir = file_type == Some(FileType::Directory);
        if let Some(rules) = &level.rules
            && rules.ignores(&name, is_dir)
        {
            self.target.ignored();
            return Ok(true);
        }
        match file_type {
            Some(FileType::Directory) => self.directory(&name),
            Some(FileType::Regular) => self.file(&name),
            Some(FileType::Symlink) => self.symlink(&name, &stat),
            _ => {
                self.target
                    .skip(&self.path, "it is a device, a pipe or a socket");
                Ok(())
            }
        }?;
        Ok(true)
    }

    fn here(&self) -> &Level {
        self.levels.last().expect("a step is within a level")
    }

    /// Leaves out what cannot be read; what says more of the host than of the entry ends the import.
    fn skip(&mut self, errno: Errno) -> Result<(), ImportError> {
        let reason = match errno {
            Errno::ACCESS | Errno::PERM => "it may not be read",
            Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO => {
                "it changed while the seed was read"
            }
            Errno::MFILE | Errno::NFILE | Errno::NOMEM => {
                return Err(ImportError::Seed {
                    path: super::error::shown(&self.path),
                    source: errno.into(),
                });
            }
            _ => "it cannot be read",
        };
        self.target.skip(&self.path, reason);
        Ok(())
    }

    /// Opens an entry that was seen to be `wanted`; `None` when it is none any more.
    fn open(&self, name: &[u8], wanted: FileType) -> Result<(OwnedFd, Stat), Errno> {
        let mut flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        if wanted == FileType::Directory {
            flags |= OFlags::DIRECTORY;
        }
        let fd = openat(&self.here().dir, name, flags, Mode::empty())?;
        let stat = fstat(&fd)?;
        match FileType::from_mode(stat.st_mode) == Some(wanted) {
            true => Ok((fd, stat)),
            false => Err(Errno::NOENT),
        }
    }

    fn directory(&mut self, name: &[u8]) -> Result<(), ImportError> {
        if self.levels.len() >= DEPTH_MAX {
            let reason = "directories lie in each other too deeply";
            return Err(ImportError::member(&self.path, reason));
        }
        let opened = self
            .open(name, FileType::Directory)
            .and_then(|(dir, stat)| Ok((names(&dir, self.limits.entries)?, dir, stat)));
        let (names, dir, stat) = match opened {
            Ok(opened) => opened,
            Err(errno) => return self.skip(errno),
        };
        let (ino, rules) = {
            let level = self.levels.last().expect("a step is within a level");
            let entry = entry_name(name, &self.path)?;
            let made = self
                .target
                .directory(level.ino, entry, Some(meta(&stat)), &self.path);
            let rules = level.rules.as_ref().map(|rules| rules.enter(name, &dir));
            (made?, rules)
        };
        self.levels.push(Level {
            dir,
            ino,
            rules,
            names,
            path: self.path.len(),
        });
        Ok(())
    }

    fn file(&mut self, name: &[u8]) -> Result<(), ImportError> {
        let (file, stat) = match self.open(name, FileType::Regular) {
            Ok((fd, stat)) => (File::from(fd), stat),
            Err(errno) => return self.skip(errno),
        };
        let parent = self.here().ino;
        let entry = entry_name(name, &self.path)?;
        let key = (stat.st_dev, stat.st_ino);
        if let Some(&ino) = self.linked.get(&key) {
            return self.target.hard_link(parent, entry, ino, &self.path);
        }
        let made = self
            .target
            .file(parent, entry, meta(&stat), &mut &file, &self.path);
        match made {
            Ok(ino) => {
                if stat.st_nlink > 1 {
                    self.linked.insert(key, ino);
                }
                Ok(())
            }
            Err(FileError::Import(error)) => Err(error),
            Err(FileError::Source(error)) => {
                self.skip(Errno::from_io_error(&error).unwrap_or(Errno::IO))
            }
        }
    }

    fn symlink(&mut self, name: &[u8], stat: &Stat) -> Result<(), ImportError> {
        let target = match readlinkat(&self.here().dir, name, Vec::new()) {
            Ok(target) => target.into_bytes(),
            // It is no link any more.
            Err(Errno::INVAL) => return self.skip(Errno::NOENT),
            Err(errno) => return self.skip(errno),
        };
        let parent = self.here().ino;
        let entry = entry_name(name, &self.path)?;
        self.target
            .symlink(parent, entry, meta(stat), &target, &self.path)
    }
}

fn entry_name<'n>(name: &'n [u8], path: &[u8]) -> Result<Name<'n>, ImportError> {
    Name::new(name).map_err(|_| ImportError::member(path, "its name is longer than 255 bytes"))
}

/// The names in a directory, sorted, the first one last; not many more than `limit`.
fn names(dir: impl AsFd, limit: u64) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
        if names.len() as u64 > limit {
            // Taking them will say so.
            break;
        }
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

fn meta(stat: &Stat) -> Meta {
    Meta {
        mode: stat.st_mode,
        mtime: Timestamp {
            secs: stat.st_mtime,
            nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        },
    }
}
