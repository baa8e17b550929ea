//! Environments as the engine uses them: the store of [`pyro_images`] at this host's place, with
//! the engine's errors.

use pyro_client::types::{Environment, EnvironmentList, EnvironmentState};
use pyro_images::store::Pruned;
use pyro_images::{Catalogue, Installed, Manifest, Recipe, State, Store, Summary};

use crate::error::{Code, Error, Result};
use crate::machine::Artefacts;
use crate::paths::Paths;
use crate::records::state;

impl From<pyro_images::Error> for Error {
    fn from(error: pyro_images::Error) -> Self {
        Error::new(Code::Store(error.code()), error.to_string(), error.remedy()).caused_by(error)
    }
}

/// An environment that is open and verified.
#[derive(Debug)]
pub struct Opened {
    /// What a VM boots from.
    pub artefacts: Artefacts,
    /// What it is.
    pub manifest: Manifest,
    /// [`State::Warm`] or [`State::Stale`].
    pub state: State,
}

/// The store at this host's place.
pub fn store(paths: &Paths) -> Store {
    Store::new(&paths.images)
}

/// The recipe of a name; an unknown one is refused with the nearest.
pub fn recipe(name: &str) -> Result<&'static Recipe> {
    Ok(Catalogue::builtin().recipe(name)?)
}

/// All environments with their states.
pub fn list(paths: &Paths) -> Vec<Summary> {
    store(paths).list(Catalogue::builtin())
}

/// All environments as the API tells of them. Blocks.
pub fn overview(paths: &Paths) -> EnvironmentList {
    let environment = |summary: Summary| Environment {
        name: summary.name.to_string(),
        summary: summary.summary,
        state: match summary.state {
            State::Cold => EnvironmentState::Cold,
            State::Warm => EnvironmentState::Warm,
            State::Stale => EnvironmentState::Stale,
            State::Damaged => EnvironmentState::Damaged,
        },
        problem: summary.problem,
        size_bytes: summary.size,
    };
    EnvironmentList {
        environments: list(paths).into_iter().map(environment).collect(),
    }
}

/// Opens an environment. One that is not installed, or so old that it cannot be used, is pulled
/// first, or refused when `pull` is false. Blocks.
///
/// # Errors
/// The store's, among them `environment_cold` and `environment_damaged`: that is never repaired
/// silently.
pub fn open_or_pull(paths: &Paths, recipe: &Recipe, pull: bool) -> Result<Opened> {
    use pyro_images::Error::{EnvironmentCold, EnvironmentStale};
    let store = store(paths);
    match store.open(recipe) {
        Err(EnvironmentCold { .. } | EnvironmentStale { .. }) if pull => {
            tracing::info!(environment = %recipe.name, "pulling");
            pyro_images::pull(&store, recipe, &mut pyro_images::Quiet)?;
            Ok(store.open(recipe)?.into())
        }
        opened => Ok(opened?.into()),
    }
}

/// Removes from the store what neither the catalogue nor a workspace of this state directory
/// needs. Blocks.
///
/// # Errors
/// [`Code::RecordUnreadable`] when a workspace's record cannot be read: what it needs is not
/// known, and nothing is removed then.
pub fn prune(paths: &Paths) -> Result<Pruned> {
    store(paths).prune_except(Catalogue::builtin(), || {
        let found = state::peek(&paths.state)?;
        if let Some(unreadable) = found.unreadable.into_iter().next() {
            return Err(unreadable.error);
        }
        let records = found.records.into_iter();
        Ok(records.map(|record| record.environment.manifest).collect())
    })
}

impl From<Installed> for Opened {
    fn from(installed: Installed) -> Self {
        let Installed {
            kernel,
            modules,
            network_modules,
            layers,
            manifest,
            state,
            ..
        } = installed;
        let layers = layers
            .into_iter()
            .map(|layer| (layer.index, layer.data))
            .collect();
        Self {
            artefacts: Artefacts {
                kernel,
                modules,
                layers,
                network_modules,
            },
            manifest,
            state,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest() {
        let error = recipe("debain:12").expect_err("unknown");

        assert_eq!(error.code().as_str(), "unknown_environment");
        assert!(error.remedy().contains("debian:12"), "{}", error.remedy());
    }

    #[test]
    fn a_store_that_does_not_exist_has_only_cold_environments() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let paths = Paths::from_variables(
            |name| (name == "PYRO_IMAGE_DIR").then(|| folder.path().join("none").into()),
            None,
        );

        assert!(
            list(&paths)
                .iter()
                .all(|summary| summary.state == State::Cold)
        );
        let recipe = recipe("debian:12").expect("known");
        let error = open_or_pull(&paths, recipe, false).expect_err("not installed");
        assert_eq!(error.code().as_str(), "environment_cold");
        assert_eq!(error.code().kind(), Kind::Conflict);
        assert!(!folder.path().join("none").exists());
    }
}
