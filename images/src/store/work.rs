//! Work directories: where a pull builds, and how what a killed one left is found.
//!
//! Each work directory is held by a `flock` on itself for as long as its owner lives. One that
//! nobody holds is stale and is removed by the next pull or prune. Making and collecting exclude
//! each other, so that a directory is never collected between being made and being held.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::lock::{self, Mode};
use crate::Error;
use crate::bootstrap::namespace;

/// A directory that is removed with everything in it when this is dropped.
#[derive(Debug)]
pub(crate) struct Work {
    path: PathBuf,
    _held: File,
}

impl Work {
    /// Makes one below `parent`, after collecting what is stale there.
    pub(crate) fn create(parent: &Path, gate: &Path) -> Result<Work, Error> {
        let _gate = lock::lock(gate, Mode::Exclusive)?;
        collect_gated(parent);
        let path = tempfile::Builder::new()
            .prefix("work-")
            .tempdir_in(parent)
            .map_err(|error| Error::store("create a directory in", parent, error))?
            .keep();
        let held = File::open(&path)
            .and_then(|held| Ok(lock::try_exclusive(&held).map(|_| held)?))
            .map_err(|error| Error::store("lock", &path, error))?;
        Ok(Work { path, _held: held })
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What cannot be removed now is stale once this process ends, and collected then.
        let _ = namespace::remove_tree(&self.path);
    }
}

/// Removes stale work directories below `parent` and counts them.
pub(crate) fn collect(parent: &Path, gate: &Path) -> Result<usize, Error> {
    let _gate = lock::lock(gate, Mode::Exclusive)?;
    Ok(collect_gated(parent))
}

fn collect_gated(parent: &Path) -> usize {
    let Ok(entries) = fs::read_dir(parent) else {
        return 0;
    };
    let stale = |path: &Path| {
        File::open(path).is_ok_and(|held| matches!(lock::try_exclusive(&held), Ok(true)))
    };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| stale(path) && namespace::remove_tree(path).is_ok())
        .count()
}
