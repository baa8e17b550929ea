//! Going through what is exported, once for all kinds of output.

use std::collections::HashMap;

use super::error::shown;
use super::read::{Child, children};
use super::{ExportError, ExportLimits, ExportSummary, ReadTree, Resolved, resolve_inside};
use crate::tree::{Attr, FileType, Ino};

/// How deep directories may lie in each other; an output may hold a descriptor for each.
const DEPTH_MAX: usize = 256;

/// How many components of links' targets are looked at in all.
const LINK_STEPS: u64 = 20_000_000;

/// Permission bits that go along: no set-user-id, no set-group-id.
pub(super) const MODE: u16 = 0o1777;

/// An entry on its way out.
pub(super) struct Item<'a> {
    /// Its path beneath what is exported; empty for that itself.
    pub(super) path: &'a [u8],
    /// The last component of the path.
    pub(super) name: &'a [u8],
    pub(super) attr: Attr,
}

/// What takes the entries: directories before what is in them, names in the order of their bytes.
pub(super) trait Output {
    /// Begins a directory; what comes until [`Output::leave`] is in it.
    fn enter(&mut self, item: &Item<'_>) -> Result<(), ExportError>;
    /// Ends the directory that was entered last.
    fn leave(&mut self, item: &Item<'_>) -> Result<(), ExportError>;
    /// Takes a regular file; `first` is the path of one that is the same, and was taken already.
    fn file(
        &mut self,
        tree: &mut impl ReadTree,
        item: &Item<'_>,
        first: Option<&[u8]>,
    ) -> Result<(), ExportError>;
    /// Takes a symbolic link that stays inside.
    fn symlink(&mut self, item: &Item<'_>, target: &[u8]) -> Result<(), ExportError>;
}

/// A directory on the way.
struct Level {
    attr: Attr,
    /// Entries still to come, the next one last.
    todo: Vec<Child>,
    /// Length of its path.
    path: usize,
    /// Where its name begins in the path.
    name: usize,
}

struct Walk<'a, T, O> {
    tree: &'a mut T,
    output: &'a mut O,
    root: Ino,
    limits: ExportLimits,
    summary: ExportSummary,
    entries: u64,
    steps: u64,
    first: HashMap<Ino, Box<[u8]>>,
    levels: Vec<Level>,
    path: Vec<u8>,
}

/// Passes the file or directory `ino` and all beneath it to `output`.
pub(super) fn walk<T: ReadTree, O: Output>(
    tree: &mut T,
    ino: Ino,
    limits: ExportLimits,
    output: &mut O,
) -> Result<ExportSummary, ExportError> {
    let attr = tree.attr(ino).map_err(ExportError::read(b""))?;
    let mut walk = Walk {
        tree,
        output,
        root: ino,
        limits,
        summary: ExportSummary::default(),
        entries: 0,
        steps: LINK_STEPS,
        first: HashMap::new(),
        levels: Vec::new(),
        path: Vec::new(),
    };
    match attr.file_type {
        FileType::Directory | FileType::Regular => walk.entry(attr, 0)?,
        _ => {
            return Err(ExportError::Unsupported {
                path: ".".into(),
                reason: "only files and directories can be exported",
            });
        }
    }
    while walk.step()? {}
    Ok(walk.summary)
}

impl<T: ReadTree, O: Output> Walk<'_, T, O> {
    /// Takes one entry; whether there may be more.
    fn step(&mut self) -> Result<bool, ExportError> {
        let Some(level) = self.levels.last_mut() else {
            return Ok(false);
        };
        self.path.truncate(level.path);
        let Some(child) = level.todo.pop() else {
            let item = Item {
                path: &self.path,
                name: &self.path[level.name..],
                attr: level.attr,
            };
            self.output.leave(&item)?;
            self.levels.pop();
            return Ok(true);
        };
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        let name = self.path.len();
        self.path.extend_from_slice(&child.name);
        let attr = self.tree.attr(child.ino);
        self.entry(attr.map_err(ExportError::read(&self.path))?, name)?;
        Ok(true)
    }

    /// Takes what is at `self.path`, whose last component begins at `name`.
    fn entry(&mut self, attr: Attr, name: usize) -> Result<(), ExportError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(self.too_many());
        }
        let item = Item {
            path: &self.path,
            name: &self.path[name..],
            attr,
        };
        match attr.file_type {
            FileType::Directory => {
                if self.levels.len() >= DEPTH_MAX {
                    return Err(ExportError::Unsupported {
                        path: shown(&self.path),
                        reason: "directories lie in each other too deeply",
                    });
                }
                self.summary.directories += 1;
                self.output.enter(&item)?;
                let listed = children(self.tree, attr.ino, self.limits.entries)
                    .map_err(ExportError::read(&self.path))?;
                let mut todo = listed.ok_or_else(|| self.too_many())?;
                todo.reverse();
                self.levels.push(Level {
                    attr,
                    todo,
                    path: self.path.len(),
                    name,
                });
            }
            FileType::Regular => {
                let first = self.first.get(&attr.ino);
                if first.is_none() {
                    self.summary.files += 1;
                    self.summary.bytes = self.summary.bytes.saturating_add(attr.size);
                    if self.summary.bytes > self.limits.bytes {
                        return Err(ExportError::TooLarge {
                            limit: self.limits.bytes,
                            unit: "bytes",
                        });
                    }
                }
                let first = first.map(|path| &**path);
                self.output.file(self.tree, &item, first)?;
                if attr.nlink > 1 && first.is_none() {
                    self.first.insert(attr.ino, self.path.as_slice().into());
                }
            }
            FileType::Symlink => {
                let read = |errno| ExportError::read(&self.path)(errno);
                let target = self.tree.readlink(attr.ino).map_err(read)?;
                // The root is no link, so a level is there.
                let dir = self.levels.last().map_or(self.root, |level| level.attr.ino);
                let leads = resolve_inside(self.tree, self.root, dir, &target, &mut self.steps);
                match leads.map_err(read)? {
                    Resolved::Outside => {
                        let reason = "it links to a place outside of what is exported";
                        self.summary.skip(&self.path, reason);
                    }
                    Resolved::Loop if self.steps == 0 => {
                        let reason = "links are chained too often to follow them";
                        self.summary.skip(&self.path, reason);
                    }
                    Resolved::Found(_) | Resolved::Missing | Resolved::Loop => {
                        self.summary.symlinks += 1;
                        self.output.symlink(&item, &target)?;
                    }
                }
            }
            FileType::CharDevice | FileType::BlockDevice | FileType::Fifo | FileType::Socket => {
                self.summary
                    .skip(&self.path, "it is a device, a pipe or a socket");
            }
        }
        Ok(())
    }

    fn too_many(&self) -> ExportError {
        ExportError::TooLarge {
            limit: self.limits.entries,
            unit: "files, directories and links",
        }
    }
}
