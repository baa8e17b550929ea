//! Where a seed goes: a directory of a tree, written member by member, within limits.

use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use rustix::io::Errno;

use super::error::shown;
use super::{ImportError, ImportLimits, ImportSummary, ROOT, SKIPPED_MAX, Skipped};
use crate::export::{Resolved, data_runs, resolve_inside};
use crate::tree::{Attr, FileType, Ino, Name, NewNode, SetAttr, Timestamp, Tree};

/// Permission bits that a seed may set: no set-user-id, no set-group-id.
const MODE: u32 = 0o1777;

/// How much content is read at a time.
const CHUNK: usize = 256 << 10;

/// How many components of links' targets are looked at in all: links can be built so that each
/// passes forty others.
const LINK_STEPS: u64 = 20_000_000;

/// What a member has besides its content.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meta {
    pub(super) mode: u32,
    pub(super) mtime: Timestamp,
}

/// Why a file did not get in.
pub(super) enum FileError {
    /// Its content cannot be read; it is not in the tree.
    Source(io::Error),
    /// It may not, or does not fit.
    Import(ImportError),
}

impl From<ImportError> for FileError {
    fn from(error: ImportError) -> Self {
        Self::Import(error)
    }
}

/// A symbolic link that was made, to be judged when all that it may pass is there.
struct Link {
    ino: Ino,
    dir: Ino,
    path: Box<[u8]>,
}

/// The receiver of a seed.
pub(super) struct Target<'a> {
    tree: &'a mut Tree,
    root: Ino,
    limits: ImportLimits,
    entries: u64,
    summary: ImportSummary,
    /// Times of directories, which making things in them changes.
    times: Vec<(Ino, Timestamp)>,
    links: Vec<Link>,
    buffer: Vec<u8>,
}

impl<'a> Target<'a> {
    pub(super) fn new(tree: &'a mut Tree, root: Ino, limits: ImportLimits) -> Self {
        Self {
            tree,
            root,
            limits,
            entries: 0,
            summary: ImportSummary::default(),
            times: Vec::new(),
            links: Vec::new(),
            buffer: vec![0; CHUNK],
        }
    }

    pub(super) fn root(&self) -> Ino {
        self.root
    }

    pub(super) fn skip(&mut self, path: &[u8], reason: &'static str) {
        self.summary.skipped_count += 1;
        if self.summary.skipped.len() < SKIPPED_MAX {
            let path = shown(path);
            self.summary.skipped.push(Skipped { path, reason });
        }
    }

    pub(super) fn ignored(&mut self) {
        self.summary.ignored += 1;
    }

    /// What is at `name` in `dir`.
    pub(super) fn there(
        &self,
        dir: Ino,
        name: Name<'_>,
        path: &[u8],
    ) -> Result<Option<Attr>, ImportError> {
        match self.tree.lookup(dir, name) {
            Ok(attr) => Ok(Some(attr)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(ImportError::store(path)(error)),
        }
    }

    fn count(&mut self, path: &[u8]) -> Result<(), ImportError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(ImportError::TooLarge {
                member: shown(path),
                limit: self.limits.entries,
                unit: "files, directories and links",
            });
        }
        Ok(())
    }

    /// Makes way for something that is no directory.
    fn clear(&mut self, dir: Ino, name: Name<'_>, path: &[u8]) -> Result<(), ImportError> {
        match self.there(dir, name, path)? {
            None => Ok(()),
            Some(attr) if attr.file_type == FileType::Directory => Err(ImportError::member(
                path,
                "a directory of this name is already there",
            )),
            Some(_) => self
                .tree
                .unlink(dir, name)
                .map_err(ImportError::store(path)),
        }
    }

    fn node<'n>(dir: Ino, name: Name<'n>, mode: u32) -> NewNode<'n> {
        NewNode {
            parent: dir,
            name,
            owner: ROOT,
            mode: (mode & MODE) as u16,
        }
    }

    fn set(&mut self, ino: Ino, change: SetAttr, path: &[u8]) -> Result<(), ImportError> {
        self.tree
            .set_attr(ino, &change)
            .map(|_| ())
            .map_err(ImportError::store(path))
    }

    /// Makes a directory, or takes the one that is there; without `meta` one that no member spoke of.
    pub(super) fn directory(
        &mut self,
        dir: Ino,
        name: Name<'_>,
        meta: Option<Meta>,
        path: &[u8],
    ) -> Result<Ino, ImportError> {
        let mode = meta.map_or(0o755, |meta| meta.mode);
        let ino = match self.there(dir, name, path)? {
            None => {
                self.count(path)?;
                self.summary.directories += 1;
                let made = self.tree.mkdir(Self::node(dir, name, mode));
                made.map_err(ImportError::store(path))?.ino
            }
            Some(attr) if attr.file_type == FileType::Directory => {
                if meta.is_some() {
                    // Said again and again it still takes a place among the times.
                    self.count(path)?;
                    let change = SetAttr {
                        mode: Some((mode & MODE) as u16),
                        uid: Some(ROOT.uid),
                        gid: Some(ROOT.gid),
                        ..SetAttr::default()
                    };
                    self.set(attr.ino, change, path)?;
                }
                attr.ino
            }
            Some(_) => {
                return Err(ImportError::member(
                    path,
                    "something on its path is not a directory",
                ));
            }
        };
        if let Some(meta) = meta {
            self.times.push((ino, meta.mtime));
        }
        Ok(ino)
    }

    /// Makes a symbolic link; where it leads is judged in [`Target::finish`].
    pub(super) fn symlink(
        &mut self,
        dir: Ino,
        name: Name<'_>,
        meta: Meta,
        target: &[u8],
        path: &[u8],
    ) -> Result<(), ImportError> {
        self.count(path)?;
        self.clear(dir, name, path)?;
        let made = match self.tree.symlink(Self::node(dir, name, 0o777), target) {
            Err(Errno::NOENT | Errno::NAMETOOLONG | Errno::INVAL) => {
                return Err(ImportError::member(
                    path,
                    "its target is empty, too long, or holds a NUL",
                ));
            }
            made => made.map_err(ImportError::store(path))?,
        };
        self.links.push(Link {
            ino: made.ino,
            dir,
            path: path.into(),
        });
        self.summary.symlinks += 1;
        self.set(made.ino, times(meta.mtime), path)
    }

    /// Gives `ino`, which is no directory, one more name.
    pub(super) fn hard_link(
        &mut self,
        dir: Ino,
        name: Name<'_>,
        ino: Ino,
        path: &[u8],
    ) -> Result<(), ImportError> {
        self.count(path)?;
        let there = self.there(dir, name, path)?;
        if there.is_some_and(|there| there.ino == ino) {
            return Ok(());
        }
        self.clear(dir, name, path)?;
        let linked = self
            .tree
            .link(ino, dir, name)
            .map_err(ImportError::store(path))?;
        if linked.file_type == FileType::Symlink {
            // The same letters lead elsewhere from another directory.
            self.links.push(Link {
                ino,
                dir,
                path: path.into(),
            });
        }
        self.summary.hard_links += 1;
        Ok(())
    }

    /// Makes a regular file of what `content` gives up to its end.
    pub(super) fn file(
        &mut self,
        dir: Ino,
        name: Name<'_>,
        meta: Meta,
        content: &mut dyn Read,
        path: &[u8],
    ) -> Result<Ino, FileError> {
        self.count(path)?;
        self.clear(dir, name, path)?;
        let made = self.tree.create_file(Self::node(dir, name, meta.mode));
        let ino = made.map_err(ImportError::store(path))?.ino;
        let size = match self.fill(ino, content, path) {
            Ok(size) => size,
            Err(error) => {
                // Should this fail too, the layer that is thrown away has one file more.
                let _ = self.tree.unlink(dir, name);
                return Err(error);
            }
        };
        let change = SetAttr {
            size: Some(size),
            ..times(meta.mtime)
        };
        self.set(ino, change, path)?;
        self.summary.files += 1;
        Ok(ino)
    }

    /// Writes the content of the new file `ino`; pages of zeros become holes.
    fn fill(&mut self, ino: Ino, content: &mut dyn Read, path: &[u8]) -> Result<u64, FileError> {
        let mut size = 0;
        loop {
            let n = read_up_to(content, &mut self.buffer).map_err(FileError::Source)?;
            self.summary.bytes += n as u64;
            if self.summary.bytes > self.limits.bytes {
                return Err(FileError::Import(ImportError::TooLarge {
                    member: shown(path),
                    limit: self.limits.bytes,
                    unit: "bytes",
                }));
            }
            for (from, to) in data_runs(&self.buffer[..n]) {
                let bytes = &self.buffer[from..to];
                put(self.tree, ino, size + from as u64, bytes).map_err(ImportError::store(path))?;
            }
            size += n as u64;
            if n < self.buffer.len() {
                return Ok(size);
            }
        }
    }

    /// Judges the links, sets what had to wait, and says what came in.
    pub(super) fn finish(self) -> Result<ImportSummary, ImportError> {
        let mut steps = LINK_STEPS;
        for link in &self.links {
            let target = match self.tree.readlink(link.ino) {
                Ok(target) => target,
                // A later member replaced it.
                Err(Errno::STALE) => continue,
                Err(error) => return Err(ImportError::store(&link.path)(error)),
            };
            let leads = resolve_inside(self.tree, self.root, link.dir, &target, &mut steps)
                .map_err(ImportError::store(&link.path))?;
            let reason = match leads {
                Resolved::Outside => "it links to a place outside the seed",
                Resolved::Loop if steps == 0 => "links are chained too often to follow them",
                _ => continue,
            };
            return Err(ImportError::member(&link.path, reason));
        }
        // Those of directories in directories come last, so that they stay.
        for (ino, mtime) in self.times {
            match self.tree.set_attr(ino, &times(mtime)) {
                Ok(_) => {}
                Err(error) => return Err(ImportError::store(b"")(error)),
            }
        }
        Ok(self.summary)
    }
}

fn times(mtime: Timestamp) -> SetAttr {
    SetAttr {
        atime: Some(mtime),
        mtime: Some(mtime),
        ..SetAttr::default()
    }
}

fn put(tree: &mut Tree, ino: Ino, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
    tree.reserve(ino, offset, bytes.len() as u64)?;
    tree.content_mut(ino)?
        .write_all_at(bytes, offset)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    tree.wrote(ino, offset + bytes.len() as u64, None)
}

/// Fills the buffer as far as the source has something.
fn read_up_to(source: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match source.read(&mut buffer[done..]) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
