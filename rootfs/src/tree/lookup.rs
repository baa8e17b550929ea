//! Names: looking up and listing.

use std::ops::ControlFlow;

use rustix::io::Errno;

use super::writable::NodeEntry;
use super::{Attr, Cookie, DirEntry, FileType, Ino, Name, Tree, View};

impl Tree {
    /// The inode that `name` in directory `parent` is.
    ///
    /// # Errors
    /// `NOENT`, `NOTDIR`, `STALE`, `IO`.
    pub fn lookup(&self, parent: Ino, name: Name<'_>) -> Result<Attr, Errno> {
        let (ino, _) = self.entry(parent, name)?.ok_or(Errno::NOENT)?;
        self.named_attr(ino)
    }

    /// Attributes of an inode that an entry names: it has to be there.
    pub(super) fn named_attr(&self, ino: Ino) -> Result<Attr, Errno> {
        self.attr(ino).map_err(|_| Errno::IO)
    }

    /// What directory `parent` has at `name`.
    pub(super) fn entry(
        &self,
        parent: Ino,
        name: Name<'_>,
    ) -> Result<Option<(Ino, FileType)>, Errno> {
        if self.dir_attr(parent)?.nlink == 0 {
            return Ok(None);
        }
        let delta = self.writable.delta();
        match delta.dir(parent).and_then(|dir| dir.get(name.as_bytes())) {
            Some(NodeEntry::Child { ino, file_type, .. }) => Ok(Some((ino, file_type))),
            Some(NodeEntry::Whiteout) => Ok(None),
            None if delta.made(parent) => Ok(None),
            None => self.packed.entry(parent, name),
        }
    }

    /// The directory that holds directory `dir`; the root's is the root.
    ///
    /// # Errors
    /// `NOTDIR`, `STALE`, `IO`.
    pub fn parent_of(&self, dir: Ino) -> Result<Ino, Errno> {
        self.dir_attr(dir)?;
        Ok(match self.view(dir)? {
            _ if dir == Ino::ROOT => Ino::ROOT,
            View::Node(node) => node.parent,
            View::Packed(found) => found.parent(),
        })
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
        let parent = self.parent_of(ino)?;
        let file_type = FileType::Directory;
        for (cookie, name, ino) in [
            (Cookie::DOT, &b"."[..], ino),
            (Cookie::DOT_DOT, &b".."[..], parent),
        ] {
            let entry = DirEntry {
                ino,
                name,
                file_type,
                cookie,
            };
            if after < cookie && visit(entry).is_break() {
                return Ok(());
            }
        }
        self.read_named(ino, after, visit).map(|_| ())
    }

    /// Lists the named entries; whether all of them were visited.
    fn read_named(
        &self,
        dir: Ino,
        after: Cookie,
        visit: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Errno> {
        if self.dir_attr(dir)?.nlink == 0 {
            return Ok(ControlFlow::Continue(()));
        }
        let delta = self.writable.delta();
        let changed = delta.dir(dir);
        if !delta.made(dir) {
            let flow = self.packed.read_dir(dir, after, &mut |entry| match changed
                .and_then(|changed| changed.get(entry.name))
            {
                Some(_) => ControlFlow::Continue(()),
                None => visit(entry),
            })?;
            if flow.is_break() {
                return Ok(flow);
            }
        }
        let entries = changed.iter().flat_map(|changed| changed.after(after));
        for (cookie, name, ino, file_type) in entries {
            let flow = visit(DirEntry {
                ino,
                name,
                file_type,
                cookie,
            });
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Whether directory `dir` has no entries but `.` and `..`.
    pub(super) fn is_empty(&self, dir: Ino) -> Result<bool, Errno> {
        let flow = self.read_named(dir, Cookie::START, &mut |_| ControlFlow::Break(()))?;
        Ok(flow.is_continue())
    }
}
