//! Listing directories, in the order of the paths' bytes, with bounded memory.
//!
//! Of a directory its names are read and sorted. A directory among them stands there twice: as
//! the entry `name`, and as what is in it, `name/`, since `name.txt` sorts between the two. Names
//! that can only come after the last entry that is to be sent are dropped as they are read.

use std::collections::BinaryHeap;
use std::os::fd::{AsFd, OwnedFd};

use pyro_agent_protocol::{ENTRIES_MAX, Entry, FileEvent, FileKind, GuestPath, List, PATH_MAX};
use rustix::fs::{AtFlags, Dir, FileType, fstat, readlinkat, statat};
use rustix::io::Errno;

use super::FileError;
use super::resolve::{Base, Found, as_it_is, kind};
use super::stat::entry;

/// Bytes of paths after which a step ends: in JSON a byte may take six, and all has to fit a frame.
const STEP_BYTES: usize = 24 << 10;
/// Entries after which a step ends.
const STEP_ENTRIES: usize = 256;
/// Bytes of names that one listing holds.
const NAMES_MAX: usize = 16 << 20;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Lister {
    top: Top,
    recursive: bool,
    /// Entries that may still be sent.
    left: u64,
    sent: u64,
    truncated: bool,
    unreadable: u64,
    /// The directory being listed last, its parents before it.
    levels: Vec<Level>,
    /// Bytes of all names in `levels`.
    held: usize,
}

#[derive(Debug)]
enum Top {
    Directory(Base),
    /// This alone.
    Entry(Option<Entry>),
}

#[derive(Debug)]
struct Level {
    /// From the top.
    path: Vec<u8>,
    /// Dropped while a directory in it is listed.
    fd: Option<OwnedFd>,
    /// What is still to come, the next last.
    keys: Vec<Vec<u8>>,
}

impl Lister {
    pub(super) fn open(request: &List) -> Result<(Self, FileEvent), FileError> {
        let system = |errno| FileError::system(request.path.as_bytes(), "cannot be listed", errno);
        let base = Base::open(&request.beneath)?;
        let place = base.walk(&request.path, true, &as_it_is)?;
        let path = base.absolute(&place.path);
        let Found::Real(fd) = place.found else {
            return Err(FileError::NotFound {
                path: request.path.clone(),
            });
        };
        let stat = fstat(&fd).map_err(system)?;
        let mut lister = Self {
            top: Top::Entry(None),
            recursive: request.recursive,
            left: request.max_entries.min(ENTRIES_MAX),
            sent: 0,
            truncated: false,
            unreadable: 0,
            levels: Vec::new(),
            held: 0,
        };
        if kind(&stat) == FileType::Directory {
            let top = Base::at(fd, path.clone());
            let directory = top.directory(b"").map_err(system)?;
            lister.top = Top::Directory(top);
            lister.enter(Vec::new(), directory).map_err(system)?;
        } else if lister.left == 0 {
            lister.truncated = true;
        } else {
            lister.top = Top::Entry(Some(entry(GuestPath::default(), &stat)));
        }
        Ok((lister, FileEvent::Listing { path }))
    }

    /// Lists a piece. Gives frames, and whether they are the last.
    pub(super) fn step(&mut self) -> Result<(Vec<u8>, bool), FileError> {
        let mut entries = Vec::new();
        if let Top::Entry(single) = &mut self.top {
            entries.extend(single.take());
        }
        let mut bytes = 0;
        while entries.len() < STEP_ENTRIES && bytes < STEP_BYTES {
            let Some(level) = self.levels.last_mut() else {
                break;
            };
            let Some(mut key) = level.keys.pop() else {
                self.levels.pop();
                continue;
            };
            self.held -= key.len();
            if key.last() == Some(&b'/') {
                key.pop();
                self.descend(&key);
            } else if self.left == 0 {
                self.truncated = true;
                self.levels.clear();
            } else if let Some(entry) = self.entry(&key) {
                self.left -= 1;
                let target = entry
                    .target
                    .as_ref()
                    .map_or(0, |path| path.as_bytes().len());
                bytes += entry.path.as_bytes().len() + target;
                entries.push(entry);
            }
        }
        self.sent += entries.len() as u64;
        let mut frames = Vec::new();
        if !entries.is_empty() {
            frames.extend(super::message(&FileEvent::Entries { entries }));
        }
        let done = self.levels.is_empty();
        if done {
            frames.extend(super::message(&FileEvent::Listed {
                entries: self.sent,
                truncated: self.truncated,
                unreadable: self.unreadable,
            }));
        }
        Ok((frames, done))
    }

    /// Looks at one name of the innermost directory. `None` when it is gone.
    fn entry(&mut self, name: &[u8]) -> Option<Entry> {
        let Top::Directory(top) = &self.top else {
            return None;
        };
        let level = self.levels.last_mut()?;
        if level.fd.is_none() {
            // Moved or replaced meanwhile: what was in it is elsewhere.
            level.fd = Some(top.directory(&level.path).ok()?);
        }
        let directory = level.fd.as_ref()?;
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let path = joined(&level.path, name);
        let mut entry = entry(GuestPath::from_bytes(path), &stat);
        match entry.kind {
            FileKind::Symlink => {
                let target = readlinkat(directory, name, Vec::new()).ok()?;
                entry.target = Some(GuestPath::from_bytes(target.into_bytes()));
            }
            FileKind::Directory if self.recursive => {
                let key = [name, b"/"].concat();
                // In its place behind those that begin with the name and a smaller byte.
                let at = level.keys.partition_point(|other| *other > key);
                self.held += key.len();
                level.keys.insert(at, key);
            }
            _ => {}
        }
        Some(entry)
    }

    /// Goes on with a directory of the innermost one.
    fn descend(&mut self, name: &[u8]) {
        let (Top::Directory(top), Some(level)) = (&self.top, self.levels.last_mut()) else {
            return;
        };
        let path = joined(&level.path, name);
        // The innermost directory alone stays open, however deep it is.
        level.fd = None;
        let entered = if path.len() > PATH_MAX {
            Err(Errno::NAMETOOLONG)
        } else {
            top.directory(&path)
                .and_then(|directory| self.enter(path, directory))
        };
        match entered {
            // Gone, or replaced by something else.
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(_) => self.unreadable += 1,
        }
    }

    /// Reads a directory's names.
    fn enter(&mut self, path: Vec<u8>, directory: OwnedFd) -> Result<(), Errno> {
        // One more than may be sent, to see whether there are more.
        let most = usize::try_from(self.left.saturating_add(1)).unwrap_or(usize::MAX);
        let mut names: BinaryHeap<Vec<u8>> = BinaryHeap::new();
        let mut bytes = 0;
        for entry in Dir::read_from(directory.as_fd())? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            bytes += name.len();
            names.push(name.to_vec());
            while names.len() > most || bytes > NAMES_MAX {
                let Some(dropped) = names.pop() else { break };
                bytes -= dropped.len();
                self.truncated = true;
            }
        }
        let mut keys = names.into_sorted_vec();
        keys.reverse();
        self.held += bytes;
        self.levels.push(Level {
            path,
            fd: Some(directory),
            keys,
        });
        self.forget_the_last();
        Ok(())
    }

    /// Drops the names that come last of all, while there are more than will ever be sent.
    fn forget_the_last(&mut self) {
        let most = usize::try_from(self.left.saturating_add(1)).unwrap_or(usize::MAX);
        let mut count: usize = self.levels.iter().map(|level| level.keys.len()).sum();
        for level in &mut self.levels {
            // Keys that stand for what is in a directory are no entries, so one for each may stay.
            let surplus = count.saturating_sub(most.saturating_mul(2));
            let mut dropped = surplus.min(level.keys.len());
            let mut lost: usize = level.keys[..dropped].iter().map(Vec::len).sum();
            while self.held - lost > NAMES_MAX && dropped < level.keys.len() {
                lost += level.keys[dropped].len();
                dropped += 1;
            }
            if dropped > 0 {
                level.keys.drain(..dropped);
                self.held -= lost;
                count -= dropped;
                self.truncated = true;
            }
        }
    }
}

fn joined(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() {
        name.to_vec()
    } else {
        [directory, b"/", name].concat()
    }
}
