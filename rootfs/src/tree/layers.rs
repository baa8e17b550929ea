//! What is read of a stack: packed layers, deltas above them, from the top down.
//!
//! [`Layers`] is a stack, or its lower part, as a plain borrowed value. All reading of metadata is
//! here, so a running root, a stopped one and an older state of either answer alike.

use std::fs::File;
use std::ops::ControlFlow;
use std::sync::Arc;

use rustix::io::Errno;

use super::packed::{Found, PackedStack};
use super::writable::{Delta, FrozenLayer, Node, NodeContent, NodeEntry};
use super::{Attr, Content, Cookie, DirEntry, FileType, Ino, Name};

/// A stack, or the part of one below some layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layers<'a> {
    pub(crate) packed: &'a PackedStack,
    pub(crate) frozen: &'a [Arc<FrozenLayer>],
    /// The writable layer.
    pub(crate) top: Option<&'a Delta>,
}

/// An inode where the topmost layer that knows it has it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum View<'a> {
    Node(&'a Node),
    Packed(Found<'a>),
}

/// Where the content of a regular file is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stored<'a> {
    /// Nowhere: all zeros.
    Hole,
    /// In a content file of the writable layer.
    Top,
    /// In the first `len` bytes of a content file of the frozen layer at `place`.
    Frozen { place: usize, len: u64 },
    /// In a packed layer's data.
    Packed {
        file: &'a File,
        offset: u64,
        len: u64,
    },
}

/// Takes name and value of an extended attribute.
pub(crate) type VisitXattr<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

impl Stored<'_> {
    /// How much of it an immutable layer has.
    pub(crate) fn len(&self) -> Option<u64> {
        match *self {
            Self::Frozen { len, .. } | Self::Packed { len, .. } => Some(len),
            Self::Hole | Self::Top => None,
        }
    }
}

impl<'a> Layers<'a> {
    /// The deltas from the top down.
    fn deltas(self) -> impl Iterator<Item = &'a Delta> {
        let frozen = self.frozen.iter().rev().map(|layer| layer.delta());
        self.top.into_iter().chain(frozen)
    }

    /// The delta at `place`: frozen layers from the bottom up, then the writable one.
    fn delta_at(self, place: usize) -> Option<&'a Delta> {
        match self.frozen.get(place) {
            Some(layer) => Some(layer.delta()),
            None if place == self.frozen.len() => self.top,
            None => None,
        }
    }

    /// The topmost record of an inode; `STALE` when it names nothing.
    pub(crate) fn view(self, ino: Ino) -> Result<View<'a>, Errno> {
        for delta in self.deltas() {
            if let Some(node) = delta.node(ino) {
                return Ok(View::Node(node));
            }
            if delta.made(ino) || delta.is_gone(ino) {
                return Err(Errno::STALE);
            }
        }
        match self.packed.inode(ino) {
            Err(Errno::NOENT) => Err(Errno::STALE),
            found => found.map(View::Packed),
        }
    }

    /// Attributes of an inode.
    pub(crate) fn attr(self, ino: Ino) -> Result<Attr, Errno> {
        match self.view(ino)? {
            View::Node(node) => Ok(node.attr),
            View::Packed(found) => found.attr(),
        }
    }

    /// Attributes of an inode that an entry names: it has to be there.
    pub(crate) fn named_attr(self, ino: Ino) -> Result<Attr, Errno> {
        self.attr(ino).map_err(|_| Errno::IO)
    }

    /// Attributes of directory `ino`; `NOTDIR` for anything else.
    pub(crate) fn dir_attr(self, ino: Ino) -> Result<Attr, Errno> {
        let attr = self.attr(ino)?;
        if attr.file_type == FileType::Directory {
            Ok(attr)
        } else {
            Err(Errno::NOTDIR)
        }
    }

    /// Attributes of regular file `ino`; `ISDIR` or `INVAL` for anything else.
    pub(crate) fn file_attr(self, ino: Ino) -> Result<Attr, Errno> {
        let attr = self.attr(ino)?;
        match attr.file_type {
            FileType::Regular => Ok(attr),
            FileType::Directory => Err(Errno::ISDIR),
            _ => Err(Errno::INVAL),
        }
    }

    /// The target of symbolic link `ino`; `INVAL` for anything else.
    pub(crate) fn readlink(self, ino: Ino) -> Result<&'a [u8], Errno> {
        let view = self.view(ino)?;
        if self.attr(ino)?.file_type != FileType::Symlink {
            return Err(Errno::INVAL);
        }
        match view {
            View::Node(node) => Ok(&node.target),
            View::Packed(found) => found.target(),
        }
    }

    /// Visits extended attributes until `visit` breaks.
    pub(crate) fn xattrs(self, ino: Ino, visit: &mut VisitXattr<'_>) -> Result<(), Errno> {
        match self.view(ino)? {
            View::Node(node) => {
                for (name, value) in &node.xattrs {
                    if visit(name, value).is_break() {
                        break;
                    }
                }
            }
            View::Packed(found) => {
                for xattr in found.xattrs()? {
                    let (name, value) = xattr?;
                    if visit(name, value).is_break() {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Value of an extended attribute; `NODATA` when there is none of that name.
    pub(crate) fn get_xattr(self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut found = None;
        self.xattrs(ino, &mut |this, value| {
            if this == name {
                found = Some(value.to_vec());
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        found.ok_or(Errno::NODATA)
    }

    /// Names of all extended attributes, each followed by NUL.
    pub(crate) fn list_xattr(self, ino: Ino) -> Result<Vec<u8>, Errno> {
        let mut names = Vec::new();
        self.xattrs(ino, &mut |name, _| {
            names.extend_from_slice(name);
            names.push(0);
            ControlFlow::Continue(())
        })?;
        Ok(names)
    }

    /// The directory that holds directory `dir`; the root's is the root.
    pub(crate) fn parent_of(self, dir: Ino) -> Result<Ino, Errno> {
        self.dir_attr(dir)?;
        Ok(match self.view(dir)? {
            _ if dir == Ino::ROOT => Ino::ROOT,
            View::Node(node) => node.parent,
            View::Packed(found) => found.parent(),
        })
    }

    /// What directory `parent` has at `name`.
    pub(crate) fn entry(
        self,
        parent: Ino,
        name: Name<'_>,
    ) -> Result<Option<(Ino, FileType)>, Errno> {
        if self.dir_attr(parent)?.nlink == 0 {
            return Ok(None);
        }
        for delta in self.deltas() {
            match delta.dir(parent).and_then(|dir| dir.get(name.as_bytes())) {
                Some(NodeEntry::Child { ino, file_type, .. }) => return Ok(Some((ino, file_type))),
                Some(NodeEntry::Whiteout) => return Ok(None),
                None if delta.made(parent) => return Ok(None),
                None => {}
            }
        }
        self.packed.entry(parent, name)
    }

    /// The inode that `name` in directory `parent` is.
    pub(crate) fn lookup(self, parent: Ino, name: Name<'_>) -> Result<Attr, Errno> {
        let (ino, _) = self.entry(parent, name)?.ok_or(Errno::NOENT)?;
        self.named_attr(ino)
    }

    /// The cookie that the layer above may give first in directory `dir`.
    pub(crate) fn next_cookie(self, dir: Ino) -> Result<u64, Errno> {
        let mut next = Cookie::FIRST_NAMED;
        for delta in self.deltas() {
            if let Some(changed) = delta.dir(dir) {
                next = next.max(changed.next_cookie());
            }
            if delta.made(dir) {
                return Ok(next);
            }
        }
        Ok(self.packed.next_cookie(dir)?.max(next))
    }

    /// Lists directory `ino`, `.` and `..` first; see [`Tree::read_dir`](super::Tree::read_dir).
    pub(crate) fn read_dir(
        self,
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

    /// Lists the named entries; whether all of them were visited. A listing is the layers'
    /// listings one after the other from the bottom up, each layer's cookies above those beneath.
    pub(crate) fn read_named(
        self,
        dir: Ino,
        after: Cookie,
        visit: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Errno> {
        if self.dir_attr(dir)?.nlink == 0 {
            return Ok(ControlFlow::Continue(()));
        }
        let places = self.frozen.len() + usize::from(self.top.is_some());
        let maker = (0..places).find(|&place| self.delta_at(place).is_some_and(|it| it.made(dir)));
        if maker.is_none() {
            let flow = self.packed.read_dir(dir, after, &mut |entry| {
                if self.hidden(0, dir, entry.name) {
                    ControlFlow::Continue(())
                } else {
                    visit(entry)
                }
            })?;
            if flow.is_break() {
                return Ok(flow);
            }
        }
        for place in maker.unwrap_or(0)..places {
            let changed = self.delta_at(place).and_then(|delta| delta.dir(dir));
            for (cookie, name, ino, file_type) in
                changed.iter().flat_map(|changed| changed.after(after))
            {
                if self.hidden(place + 1, dir, name) {
                    continue;
                }
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
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Whether a delta from `place` upwards has its own answer for a name.
    fn hidden(self, place: usize, dir: Ino, name: &[u8]) -> bool {
        (place..=self.frozen.len())
            .filter_map(|place| self.delta_at(place)?.dir(dir))
            .any(|changed| changed.get(name).is_some())
    }

    /// Where the content of regular file `ino` is.
    pub(crate) fn stored(self, ino: Ino) -> Result<Stored<'a>, Errno> {
        self.file_attr(ino)?;
        for place in (0..=self.frozen.len()).rev() {
            let Some(node) = self.delta_at(place).and_then(|delta| delta.node(ino)) else {
                continue;
            };
            match node.content {
                NodeContent::Hole => return Ok(Stored::Hole),
                NodeContent::Own if place == self.frozen.len() => return Ok(Stored::Top),
                NodeContent::Own => {
                    let len = node.attr.size;
                    return Ok(Stored::Frozen { place, len });
                }
                NodeContent::Beneath => {}
            }
        }
        Ok(match self.packed.content(ino)? {
            Content::Packed { file, offset, len } => Stored::Packed { file, offset, len },
            Content::File { .. } | Content::Hole => Stored::Hole,
        })
    }
}
