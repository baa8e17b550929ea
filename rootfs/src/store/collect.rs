//! Removing layers that no stack refers to.

use std::collections::HashSet;

use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, flock, openat, unlinkat};
use rustix::io::Errno;

use super::{LayerId, LayerStore, StoreError, failed};

/// What [`LayerStore::collect`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Layers that are gone.
    pub removed: Vec<LayerId>,
    /// Layers that nobody refers to and that a process has open still; collect again later.
    pub in_use: Vec<LayerId>,
    /// What is in the store and is no layer of ours, or has more in it than layers have; it is
    /// left alone.
    pub foreign: Vec<String>,
}

impl LayerStore {
    /// Removes every layer that is not in `wanted`, was kept, and is open nowhere. Takes as long
    /// as removing its files takes. When it is cut short, the next call finishes.
    ///
    /// # Errors
    /// What the host says; what was removed until then stays removed.
    pub fn collect(&self, wanted: &HashSet<LayerId>) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        let listing = Dir::read_from(&self.dir).map_err(failed("list the layers"))?;
        let mut names = Vec::new();
        for entry in listing {
            let entry = entry.map_err(failed("list the layers"))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !matches!(name.as_str(), "." | "..") {
                names.push(name);
            }
        }
        names.sort_unstable();
        for name in names {
            let Ok(id) = name.parse::<LayerId>() else {
                collected.foreign.push(name);
                continue;
            };
            if wanted.contains(&id) || self.unkept(|new| new.contains(&id)) {
                continue;
            }
            match self.remove(id)? {
                Removal::Done => collected.removed.push(id),
                Removal::InUse => collected.in_use.push(id),
                Removal::Foreign => collected.foreign.push(name),
            }
        }
        Ok(collected)
    }

    fn remove(&self, id: LayerId) -> Result<Removal, StoreError> {
        let layer = match self.layer(id) {
            Err(StoreError::Missing(_)) => return Ok(Removal::Done),
            layer => layer?,
        };
        match flock(&layer, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(Removal::InUse),
            Err(error) => return Err(failed("lock a layer")(error)),
        }
        // The journal first: without it the rest is no layer any more, whatever is left of it.
        for name in ["journal", "journal.new"] {
            gone(unlinkat(&layer, name, AtFlags::empty()))
                .map_err(failed("remove a layer's journal"))?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match openat(&layer, "content", flags, Mode::empty()) {
            Err(Errno::NOENT) => {}
            Err(error) => return Err(failed("open a layer's contents")(error)),
            Ok(contents) => {
                for entry in Dir::read_from(&contents).map_err(failed("list a layer's contents"))? {
                    let entry = entry.map_err(failed("list a layer's contents"))?;
                    if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                        gone(unlinkat(&contents, entry.file_name(), AtFlags::empty()))
                            .map_err(failed("remove a layer's content"))?;
                    }
                }
                gone(unlinkat(&layer, "content", AtFlags::REMOVEDIR))
                    .map_err(failed("remove a layer's contents"))?;
            }
        }
        match unlinkat(&self.dir, id.to_string(), AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(Removal::Foreign),
            done => gone(done)
                .map(|()| Removal::Done)
                .map_err(failed("remove a layer")),
        }
    }
}

enum Removal {
    Done,
    InUse,
    Foreign,
}

/// What is not there is gone.
fn gone(done: Result<(), Errno>) -> Result<(), Errno> {
    match done {
        Err(Errno::NOENT) => Ok(()),
        done => done,
    }
}
