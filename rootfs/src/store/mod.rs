//! Layers on the disk, and what stacks are made of.
//!
//! A [`LayerStore`] is a directory with one directory a layer, called by a random [`LayerId`]. It
//! knows nothing of stacks. A stack is a plain value, [`StackSpec`], which its owner keeps in a
//! record of its own and replaces atomically; all layer operations are arithmetic on it:
//!
//! - *freeze*: make a layer, write down [`StackSpec::frozen_under`] it, then, when the stack is
//!   running, [`Tree::freeze`](crate::tree::Tree::freeze) into it;
//! - *drop* (reset) and *branch*: make a layer, write down [`StackSpec::over`] a [`Point`];
//! - *collect*: [`LayerStore::collect`] removes what no record refers to.
//!
//! So everything is done or not done with the one replacement of the record, and a kill at any
//! moment leaves at worst a layer that nobody refers to.

mod collect;
mod spec;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, Mode, OFlags, fsync, mkdirat, openat, unlinkat};
use rustix::io::Errno;

use crate::tree::{PackedFiles, StackFiles};

pub use collect::Collected;
pub use spec::{BadLayerId, LayerId, Point, StackSpec};

/// Why the store does not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A stack refers to a layer that is not there.
    #[error("layer {0} is missing")]
    Missing(LayerId),
    /// A host system call failed.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the host said.
        source: io::Error,
    },
}

fn failed(action: &'static str) -> impl Fn(Errno) -> StoreError {
    move |error| StoreError::Io {
        action,
        source: error.into(),
    }
}

/// A directory of layers. One process uses it at a time.
#[derive(Debug)]
pub struct LayerStore {
    dir: OwnedFd,
    /// Layers that no record refers to yet.
    new: Mutex<HashSet<LayerId>>,
}

impl LayerStore {
    /// The store in `dir`, which holds nothing else.
    #[must_use]
    pub fn new(dir: OwnedFd) -> Self {
        Self {
            dir,
            new: Mutex::default(),
        }
    }

    /// Makes an empty layer; waits for the disk to have its name. It goes again unless
    /// [`NewLayer::keep`] says that a record refers to it.
    ///
    /// # Errors
    /// What the host says.
    pub fn create(&self) -> Result<NewLayer<'_>, StoreError> {
        let id = LayerId::random().map_err(failed("choose a layer's name"))?;
        self.unkept(|new| new.insert(id));
        let layer = NewLayer { store: self, id };
        mkdirat(&self.dir, id.to_string(), Mode::RWXU).map_err(failed("make a layer"))?;
        fsync(&self.dir).map_err(failed("sync the layers"))?;
        Ok(layer)
    }

    /// The directory of a layer.
    ///
    /// # Errors
    /// `Missing`, and what the host says.
    pub fn layer(&self, id: LayerId) -> Result<OwnedFd, StoreError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match openat(&self.dir, id.to_string(), flags, Mode::empty()) {
            Err(Errno::NOENT) => Err(StoreError::Missing(id)),
            layer => layer.map_err(failed("open a layer")),
        }
    }

    /// The directories of `point`'s layers, the lowest first.
    ///
    /// # Errors
    /// Those of [`LayerStore::layer`].
    pub fn layers(&self, point: &Point) -> Result<Vec<OwnedFd>, StoreError> {
        point.layers().iter().map(|&id| self.layer(id)).collect()
    }

    /// Everything that a [`Tree`](crate::tree::Tree) over `packed` is opened from.
    ///
    /// # Errors
    /// Those of [`LayerStore::layer`].
    pub fn stack(
        &self,
        packed: Vec<PackedFiles>,
        stack: &StackSpec,
    ) -> Result<StackFiles, StoreError> {
        let mut files = StackFiles::new(packed, self.layer(stack.top())?);
        files.frozen = self.layers(stack.beneath())?;
        Ok(files)
    }

    fn unkept<T>(&self, with: impl FnOnce(&mut HashSet<LayerId>) -> T) -> T {
        with(&mut self.new.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A layer that no record refers to yet; dropping it removes it.
#[derive(Debug)]
pub struct NewLayer<'a> {
    store: &'a LayerStore,
    id: LayerId,
}

impl NewLayer<'_> {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> LayerId {
        self.id
    }

    /// Its directory.
    ///
    /// # Errors
    /// Those of [`LayerStore::layer`].
    pub fn dir(&self) -> Result<OwnedFd, StoreError> {
        self.store.layer(self.id)
    }

    /// Says that a record refers to it, which is on the disk; what happens to it is up to
    /// [`LayerStore::collect`] now.
    pub fn keep(self) -> LayerId {
        self.store.unkept(|new| new.remove(&self.id));
        self.id
    }
}

impl Drop for NewLayer<'_> {
    fn drop(&mut self) {
        if self.store.unkept(|new| new.remove(&self.id)) {
            // One that was used already is collected later.
            let _ = unlinkat(&self.store.dir, self.id.to_string(), AtFlags::REMOVEDIR);
        }
    }
}
