//! The immutable layers of a stack, together.
//!
//! Every question is put to the layers from the top down; the first that knows the inode or the
//! name answers. A directory's listing is the layers' listings one after the other from the
//! bottom up, because each layer's cookies begin where those beneath end.

use std::collections::HashSet;
use std::ops::ControlFlow;

use rustix::io::Errno;

use super::format::{InodeRecord, XattrIter};
use super::layer::{PackedContent, PackedDir, PackedLayer, Slot};
use crate::tree::{Attr, Content, Cookie, DirEntry, FileType, Ino, Name, OpenError, PackedFiles};

/// An inode and the topmost layer that knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    /// Its place in the stack.
    place: usize,
    layer: &'a PackedLayer,
    record: &'a InodeRecord,
}

/// Immutable layers, the lowest first.
#[derive(Debug)]
pub(crate) struct PackedStack {
    layers: Vec<PackedLayer>,
}

impl PackedStack {
    /// Opens all of them.
    pub(crate) fn open(files: Vec<PackedFiles>) -> Result<Self, OpenError> {
        let mut layers = Vec::with_capacity(files.len());
        for (place, files) in files.into_iter().enumerate() {
            let layer = PackedLayer::open(files, place, layers.last())?;
            layers.push(layer);
        }
        if layers.is_empty() {
            Err(OpenError::NoLayers)
        } else {
            Ok(Self { layers })
        }
    }

    fn top(&self) -> &PackedLayer {
        self.layers.last().expect("a stack has a layer")
    }

    /// The lowest number that the layer above may give.
    pub(crate) fn next_ino(&self) -> Ino {
        self.top().next_ino()
    }

    /// What the whole of it is called by the layer above.
    pub(crate) fn id(&self) -> &[u8; 32] {
        self.top().id()
    }

    /// How many inodes there are, those that layers above change counted again.
    pub(crate) fn inode_count(&self) -> u64 {
        self.layers.iter().map(PackedLayer::inode_count).sum()
    }

    /// The inode `ino`; `NOENT` when no layer knows it.
    pub(crate) fn inode(&self, ino: Ino) -> Result<Found<'_>, Errno> {
        for (place, layer) in self.layers.iter().enumerate().rev() {
            match layer.inode(ino) {
                Err(Errno::NOENT) => {}
                found => {
                    return found.map(|record| Found {
                        place,
                        layer,
                        record,
                    });
                }
            }
        }
        Err(Errno::NOENT)
    }

    /// What directory `dir` has at `name`, if anything.
    pub(crate) fn entry(&self, dir: Ino, name: Name<'_>) -> Result<Option<(Ino, FileType)>, Errno> {
        for place in (0..self.layers.len()).rev() {
            match self.slot(place, dir, name)? {
                Some(Slot::Child { ino, file_type }) => return Ok(Some((ino, file_type))),
                Some(Slot::Whiteout) => return Ok(None),
                None => {}
            }
        }
        Ok(None)
    }

    /// Directory `dir` in the layer at `place`, when that knows it.
    fn dir(&self, place: usize, dir: Ino) -> Result<Option<PackedDir<'_>>, Errno> {
        let layer = &self.layers[place];
        match layer.inode(dir) {
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
            Ok(record) if record.file_type()? == FileType::Directory => layer.dir(record).map(Some),
            Ok(_) => Err(Errno::NOTDIR),
        }
    }

    fn slot(&self, place: usize, dir: Ino, name: Name<'_>) -> Result<Option<Slot>, Errno> {
        match self.dir(place, dir)? {
            Some(dir) => dir.get(name),
            None => Ok(None),
        }
    }

    /// The cookie that the layer above may give first in directory `dir`.
    pub(crate) fn next_cookie(&self, dir: Ino) -> Result<u64, Errno> {
        for place in (0..self.layers.len()).rev() {
            if let Some(dir) = self.dir(place, dir)? {
                return Ok(dir.next_cookie());
            }
        }
        Ok(Cookie::FIRST_NAMED)
    }

    /// Visits the named entries of directory `dir` after `after`, until `visit` breaks; whether all
    /// were visited.
    pub(crate) fn read_dir(
        &self,
        dir: Ino,
        after: Cookie,
        visit: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Errno> {
        let mut lowest_allowed = Cookie::FIRST_NAMED;
        for place in 0..self.layers.len() {
            let Some(here) = self.dir(place, dir)? else {
                continue;
            };
            // Layers that give one cookie twice would make a listing skip or go round.
            if here.first_cookie() < lowest_allowed {
                return Err(Errno::IO);
            }
            lowest_allowed = here.next_cookie();
            for entry in here.after(after) {
                let (cookie, entry) = entry?;
                let Slot::Child { ino, file_type } = entry.slot else {
                    continue;
                };
                if self.hidden(place, dir, entry.name)? {
                    continue;
                }
                let entry = DirEntry {
                    ino,
                    name: entry.name,
                    file_type,
                    cookie,
                };
                if visit(entry).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Whether a layer above `place` has its own answer for this name.
    fn hidden(&self, place: usize, dir: Ino, name: &[u8]) -> Result<bool, Errno> {
        if place + 1 == self.layers.len() {
            return Ok(false);
        }
        let name = Name::new(name).map_err(|_| Errno::IO)?;
        for above in place + 1..self.layers.len() {
            if self.slot(above, dir, name)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Visits every name that a layer gives to an inode of `wanted`: inode, directory, name. Layers
    /// above may have hidden it. Costs a look at every name.
    pub(crate) fn names_of(
        &self,
        wanted: &HashSet<Ino>,
        visit: &mut dyn FnMut(Ino, Ino, &[u8]),
    ) -> Result<(), Errno> {
        self.layers
            .iter()
            .try_for_each(|layer| layer.names_of(wanted, visit))
    }

    /// Where the content of regular file `ino` is.
    pub(crate) fn content(&self, ino: Ino) -> Result<Content<'_>, Errno> {
        let found = self.inode(ino)?;
        if found.file_type()? != FileType::Regular {
            return Err(Errno::INVAL);
        }
        for layer in self.layers[..=found.place].iter().rev() {
            let record = match layer.inode(ino) {
                Err(Errno::NOENT) => continue,
                record => record?,
            };
            match layer.content(record)? {
                PackedContent::Hole => return Ok(Content::Hole),
                PackedContent::Here { offset, len } => {
                    return Ok(Content::Packed {
                        file: layer.data(),
                        offset,
                        len,
                    });
                }
                PackedContent::Beneath => {}
            }
        }
        Err(Errno::IO)
    }
}

impl<'a> Found<'a> {
    /// Its type.
    pub(crate) fn file_type(&self) -> Result<FileType, Errno> {
        self.record.file_type()
    }

    /// Its attributes.
    pub(crate) fn attr(&self) -> Result<Attr, Errno> {
        self.record.attr()
    }

    /// Of a directory: the one that holds it.
    pub(crate) fn parent(&self) -> Ino {
        Ino(self.record.parent.get())
    }

    /// Of a symbolic link: its target.
    pub(crate) fn target(&self) -> Result<&'a [u8], Errno> {
        self.layer.target(self.record)
    }

    /// Its extended attributes.
    pub(crate) fn xattrs(&self) -> Result<XattrIter<'a>, Errno> {
        self.layer.xattrs(self.record)
    }
}
