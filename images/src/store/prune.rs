//! Removing what nothing refers to.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::Serialize;

use super::lock::{self, Mode};
use super::{Store, work};
use crate::{Catalogue, Error};

/// What a prune removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// Directories of environments that the catalogue does not have.
    pub environments: Vec<String>,
    /// Number of artefacts.
    pub artefacts: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Number of work directories that a killed pull left.
    pub work_directories: usize,
}

impl Store {
    /// Removes environments that are not in `catalogue`, artefacts that no manifest names, and
    /// what killed pulls left. A running guest keeps what it has open; a pull in another process
    /// is never disturbed: its files are in its work directory until it publishes, and publishing
    /// and pruning exclude each other.
    pub fn prune(&self, catalogue: &Catalogue) -> Result<Pruned, Error> {
        self.prune_except(catalogue, || Ok::<_, Error>(Vec::new()))
    }

    /// The same, but keeps what the manifests name that `pinned` gives. It is called while nobody
    /// can open an environment: whoever writes a manifest down and opens it with
    /// [`Store::open_pinned`] after that either has it or is told.
    pub fn prune_except<E: From<Error>>(
        &self,
        catalogue: &Catalogue,
        pinned: impl FnOnce() -> Result<Vec<crate::Manifest>, E>,
    ) -> Result<Pruned, E> {
        if !self.root().is_dir() {
            return Ok(Pruned::default());
        }
        self.prepare()?;
        let mut pruned = Pruned {
            work_directories: work::collect(&self.tmp(), &self.tmp_lock())?,
            ..Pruned::default()
        };
        let _alone = lock::lock(&self.store_lock(), Mode::Exclusive)?;
        let pinned = pinned()?;
        let known: BTreeSet<String> = catalogue
            .recipes()
            .map(|recipe| recipe.name.component())
            .collect();
        for name in names(&self.environments())? {
            if !known.contains(&name) {
                let path = self.environments().join(&name);
                fs::remove_dir_all(&path).map_err(|error| Error::store("remove", path, error))?;
                pruned.environments.push(name);
            }
        }
        let needed: BTreeSet<String> = catalogue
            .recipes()
            .filter_map(|recipe| self.manifest(recipe).ok().flatten())
            .chain(pinned)
            .flat_map(|manifest| manifest.artefacts())
            .map(|(_, artefact)| artefact.sha256.to_string())
            .collect();
        for name in names(&self.artefacts())? {
            if needed.contains(&name) {
                continue;
            }
            let path = self.artefacts().join(&name);
            let size = fs::symlink_metadata(&path).map_or(0, |meta| meta.len());
            fs::remove_file(&path).map_err(|error| Error::store("remove", path, error))?;
            pruned.artefacts += 1;
            pruned.bytes += size;
        }
        for name in names(&self.stamps())? {
            if !needed.contains(&name) {
                let _ = fs::remove_file(self.stamps().join(name));
            }
        }
        Ok(pruned)
    }
}

fn names(directory: &Path) -> Result<Vec<String>, Error> {
    let mut names = fs::read_dir(directory)
        .and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect()
        })
        .map_err(|error| Error::store("read", directory, error))?;
    let names_in_order: &mut Vec<String> = &mut names;
    names_in_order.sort();
    Ok(names)
}
