//! Reading a stack without serving it: no guest, no lock, nothing changed.
//!
//! The topmost delta may be the writable layer of a root that is running. What its journal says at
//! that moment counts: all that was synced, and the records after that which are whole. A content
//! that its owner removed in the meantime is `STALE`; opening again shows the newer state.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;

use super::data::host_len;
use super::layers::{Layers, Stored};
use super::packed::PackedStack;
use super::writable::{FileCache, FrozenLayer, Guard};
use super::{
    Attr, Content, Cookie, DirEntry, Ino, Name, OpenError, PackedFiles, ResolveError, open_frozen,
    resolve,
};
use crate::export::ReadTree;

/// How often a stack is opened that is frozen while it is read.
const ATTEMPTS: usize = 3;

/// A stack of layers, for reading only.
#[derive(Debug)]
pub struct StackReader {
    packed: Arc<PackedStack>,
    /// The lowest first, the writable layer last.
    deltas: Vec<Arc<FrozenLayer>>,
    files: FileCache<(usize, Ino)>,
}

impl StackReader {
    /// Opens packed layers and the directories of the deltas above them: frozen layers, the lowest
    /// first, and last, if it shall be seen, the writable one.
    ///
    /// # Errors
    /// See [`OpenError`]; never `InUse`.
    pub fn open(layers: Vec<PackedFiles>, deltas: &[OwnedFd]) -> Result<Self, OpenError> {
        let packed = PackedStack::open(layers)?;
        let mut attempt = 1;
        let deltas = loop {
            let again = deltas
                .iter()
                .map(OwnedFd::try_clone)
                .collect::<Result<_, _>>()
                .map_err(|source| OpenError::Io {
                    action: "take a layer's descriptor",
                    source,
                })?;
            match open_frozen(&packed, again, Guard::None) {
                Ok((layers, _, _)) => break layers,
                // Frozen after the lower journal was read and before the upper one was.
                Err(OpenError::OtherStack) if attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        };
        Ok(Self {
            packed: Arc::new(packed),
            deltas,
            files: FileCache::new(),
        })
    }

    /// How many deltas there are.
    #[must_use]
    pub fn deltas(&self) -> usize {
        self.deltas.len()
    }

    /// The same stack with the lowest `deltas` deltas only: what it was before the others.
    #[must_use]
    pub fn at(&self, deltas: usize) -> Self {
        Self {
            packed: self.packed.clone(),
            deltas: self.deltas[..deltas.min(self.deltas.len())].to_vec(),
            files: FileCache::new(),
        }
    }

    /// All layers.
    pub(super) fn layers(&self) -> Layers<'_> {
        Layers {
            packed: &self.packed,
            frozen: &self.deltas,
            top: None,
        }
    }

    /// All layers of the lowest `deltas` deltas.
    pub(super) fn layers_at(&self, deltas: usize) -> Layers<'_> {
        Layers {
            frozen: &self.deltas[..deltas.min(self.deltas.len())],
            ..self.layers()
        }
    }

    /// What `path` leads to, links followed as the guest would: the last component's too, when
    /// `follow` says so. A relative path begins at `within`, and whatever is not in the directory
    /// `within` or beneath it is refused; `/` refuses nothing. The host is never asked.
    ///
    /// # Errors
    /// See [`ResolveError`].
    pub fn resolve(&self, path: &[u8], within: &[u8], follow: bool) -> Result<Attr, ResolveError> {
        resolve::resolve(self.layers(), path, within, follow)
    }
}

impl ReadTree for StackReader {
    fn attr(&self, ino: Ino) -> Result<Attr, Errno> {
        self.layers().attr(ino)
    }

    fn lookup(&self, parent: Ino, name: Name<'_>) -> Result<Attr, Errno> {
        self.layers().lookup(parent, name)
    }

    fn parent_of(&self, dir: Ino) -> Result<Ino, Errno> {
        self.layers().parent_of(dir)
    }

    fn read_dir(
        &self,
        dir: Ino,
        after: Cookie,
        visit: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<(), Errno> {
        self.layers().read_dir(dir, after, visit)
    }

    fn readlink(&self, ino: Ino) -> Result<Vec<u8>, Errno> {
        self.layers().readlink(ino).map(<[u8]>::to_vec)
    }

    fn list_xattr(&self, ino: Ino) -> Result<Vec<u8>, Errno> {
        self.layers().list_xattr(ino)
    }

    fn get_xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, Errno> {
        self.layers().get_xattr(ino, name)
    }

    /// Where a file's content is; `STALE` when its owner removed it since the stack was opened.
    fn content(&mut self, ino: Ino) -> Result<Content<'_>, Errno> {
        let layers = Layers {
            packed: &self.packed,
            frozen: &self.deltas,
            top: None,
        };
        match layers.stored(ino)? {
            Stored::Hole | Stored::Top => Ok(Content::Hole),
            Stored::Packed { file, offset, len } => Ok(Content::Packed { file, offset, len }),
            Stored::Frozen { place, len } => {
                let layer = &self.deltas[place];
                let file = self
                    .files
                    .get_or_open((place, ino), || open_content(layer, ino))?;
                let len = len.min(host_len(file)?);
                Ok(Content::Packed {
                    file,
                    offset: 0,
                    len,
                })
            }
        }
    }
}

/// Opens the content file of `ino`, which `layer` has, or had.
pub(super) fn open_content(layer: &FrozenLayer, ino: Ino) -> Result<File, Errno> {
    layer.open_content(ino).map_err(|error| match error {
        Errno::NOENT => Errno::STALE,
        error => error,
    })
}
