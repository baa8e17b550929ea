//! Names: looking up and listing.

use std::ops::ControlFlow;

use rustix::io::Errno;

use super::{Attr, Cookie, DirEntry, FileType, Ino, Name, Tree};

impl Tree {
    /// The inode that `name` in directory `parent` is.
    ///
    /// # Errors
    /// `NOENT`, `NOTDIR`, `STALE`, `IO`.
    pub fn lookup(&self, parent: Ino, name: Name<'_>) -> Result<Attr, Errno> {
        self.layers().lookup(parent, name)
    }

    /// Attributes of an inode that an entry names: it has to be there.
    pub(super) fn named_attr(&self, ino: Ino) -> Result<Attr, Errno> {
        self.layers().named_attr(ino)
    }

    /// What directory `parent` has at `name`.
    pub(super) fn entry(
        &self,
        parent: Ino,
        name: Name<'_>,
    ) -> Result<Option<(Ino, FileType)>, Errno> {
        self.layers().entry(parent, name)
    }

    /// The directory that holds directory `dir`; the root's is the root.
    ///
    /// # Errors
    /// `NOTDIR`, `STALE`, `IO`.
    pub fn parent_of(&self, dir: Ino) -> Result<Ino, Errno> {
        self.layers().parent_of(dir)
    }

    /// Lists directory `ino` from the entry after `after`, until `visit` breaks. `.` and `..`
    /// come first. Entries that are there all the time are visited once, whatever is made or
    /// removed in between.
    ///
    /// # Errors
    /// `NOTDIR`, `STALE`, `IO`.
    pub fn read_dir(
        &self,
        ino: Ino,
        after: Cookie,
        visit: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<(), Errno> {
        self.layers().read_dir(ino, after, visit)
    }

    /// Whether directory `dir` has no entries but `.` and `..`.
    pub(super) fn is_empty(&self, dir: Ino) -> Result<bool, Errno> {
        let flow = self
            .layers()
            .read_named(dir, Cookie::START, &mut |_| ControlFlow::Break(()))?;
        Ok(flow.is_continue())
    }
}
