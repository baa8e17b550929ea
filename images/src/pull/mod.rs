//! Pulling: from a recipe to an installed environment.
//!
//! One pull of an environment runs at a time; another one waits and then finds the work done. A
//! pull verifies what is installed, builds only the half that is missing or damaged (the root, or
//! the kernel with its modules), and publishes it. Until the last `rename` nothing shows, so an
//! error or a death at any point leaves what was installed before.

pub mod progress;
mod source;
#[cfg(test)]
mod tests;

use std::time::SystemTime;

use rustix::fs::statvfs;
use serde::Serialize;

pub use progress::{Phase, Progress, Quiet};

use self::source::{Debian, Source};
use crate::bootstrap::command::Wanted;
use crate::store::lock::{self, Mode};
use crate::store::manifest::{FORMAT, Manifest};
use crate::store::work::Work;
use crate::store::{self, State, Store};
use crate::{Catalogue, Error, Recipe};

/// What a pull did.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// What is installed now.
    pub manifest: Manifest,
    /// How it came there.
    pub done: Done,
}

/// How an environment came to be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Done {
    /// It was there, current and verified.
    Nothing,
    /// What did not verify was built again.
    Repaired,
    /// All of it was built.
    Installed,
}

/// Makes sure that `recipe` is installed in `store`, current and verified.
///
/// Blocks, for seconds to minutes, on the calling thread; the processes that it starts die with
/// that thread. Two pulls of one environment, in whatever processes, do the work once.
///
/// # Errors
/// Nothing is changed in the store by a pull that fails.
pub fn pull(store: &Store, recipe: &Recipe, progress: &mut dyn Progress) -> Result<Outcome, Error> {
    pull_from(&Debian, store, recipe, progress)
}

/// Whether this machine has what a pull needs besides space: programs, namespaces, a mirror in
/// apt's configuration. Changes nothing and asks no network.
///
/// # Errors
/// The first thing that is missing, with its remedy.
pub fn check() -> Result<(), Error> {
    Debian.check()
}

fn pull_from(
    source: &dyn Source,
    store: &Store,
    recipe: &Recipe,
    progress: &mut dyn Progress,
) -> Result<Outcome, Error> {
    store.prepare()?;
    let lock_path = store.environment_lock(&recipe.name);
    let _one_at_a_time = match lock::try_lock(&lock_path)? {
        Some(lock) => lock,
        None => {
            progress.phase(Phase::Waiting);
            lock::lock(&lock_path, Mode::Exclusive)?
        }
    };
    progress.phase(Phase::Verify);
    let installed = usable(store, recipe);
    let wanted = match &installed {
        None => Wanted::ALL,
        Some(manifest) => {
            let damage = store.damage(manifest);
            if damage.is_empty() {
                return Ok(Outcome {
                    manifest: manifest.clone(),
                    done: Done::Nothing,
                });
            }
            Wanted {
                root: damage.iter().any(|(part, _)| !part.of_kernel()),
                kernel: damage.iter().any(|(part, _)| part.of_kernel()),
            }
        }
    };
    source.check()?;
    check_space(store, recipe, wanted)?;
    build(source, store, recipe, wanted, installed, progress).map_err(|error| match error {
        // The work directory that it happened in is gone when a person hears of it.
        Error::NoSpace { what, .. } => Error::NoSpace {
            what,
            path: store.root().to_owned(),
        },
        error => error,
    })
}

/// Builds what is wanted in a work directory, and publishes it.
fn build(
    source: &dyn Source,
    store: &Store,
    recipe: &Recipe,
    wanted: Wanted,
    installed: Option<Manifest>,
    progress: &mut dyn Progress,
) -> Result<Outcome, Error> {
    let work = Work::create(&store.tmp(), &store.tmp_lock())?;
    let built = source.build(recipe, wanted, work.path(), progress)?;
    progress.phase(Phase::Publish);
    let done = if installed.is_some() {
        Done::Repaired
    } else {
        Done::Installed
    };
    let files = built.files.clone();
    let manifest = describe(recipe, installed, built)?;
    store.publish(&files, &manifest, work.path())?;
    Ok(Outcome { manifest, done })
}

/// The manifest of what is installed, when a pull may keep parts of it.
fn usable(store: &Store, recipe: &Recipe) -> Option<Manifest> {
    let manifest = store.manifest(recipe).ok().flatten()?;
    (store::currency(&manifest, recipe) == State::Warm).then_some(manifest)
}

fn describe(
    recipe: &Recipe,
    installed: Option<Manifest>,
    built: source::Built,
) -> Result<Manifest, Error> {
    let (kernel, layers, packages, archives) = match (built.root, built.kernel, installed) {
        (Some(root), Some(kernel), _) => (kernel, vec![root.layer], root.packages, built.archives),
        (Some(root), None, Some(old)) => {
            (old.kernel, vec![root.layer], root.packages, built.archives)
        }
        (None, Some(kernel), Some(old)) => (kernel, old.layers, old.packages, old.archives),
        _ => {
            return Err(Error::Bootstrap {
                detail: "it built less than was asked for".to_owned(),
            });
        }
    };
    Ok(Manifest {
        format: FORMAT,
        catalogue_version: Catalogue::builtin().version().to_owned(),
        recipe: recipe.clone(),
        recipe_digest: recipe.digest(),
        created: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        kernel,
        layers,
        packages,
        archives,
    })
}

/// Refuses a pull that would fill the disk, before it downloads anything.
fn check_space(store: &Store, recipe: &Recipe, wanted: Wanted) -> Result<(), Error> {
    /// What unpacking a kernel package takes.
    const KERNEL_MIB: u64 = 300;
    let needed_mib = if wanted.root {
        recipe.work_space_mib
    } else {
        KERNEL_MIB
    };
    let stat =
        statvfs(store.root()).map_err(|errno| Error::store("examine", store.root(), errno))?;
    let free_mib = stat.f_bavail.saturating_mul(stat.f_frsize) >> 20;
    if free_mib < needed_mib {
        return Err(Error::NoSpace {
            what: format!(
                "{} ({needed_mib} MiB needed, {free_mib} MiB free)",
                recipe.name
            ),
            path: store.root().to_owned(),
        });
    }
    Ok(())
}
