//! The image store: a directory of verified, content-addressed files.
//!
//! ```text
//! artefacts/sha256/HEX            read-only files, named by their content
//! stamps/sha256/HEX               how a verified artefact looked (see `stamp`)
//! environments/debian-12/manifest.json
//! tmp/work-XXXXXX/                work in progress, held by a flock
//! locks/store.lock                shared by publishing and opening, alone by pruning
//! locks/tmp.lock                  making and collecting work directories
//! locks/debian-12.lock            one pull of an environment at a time
//! ```
//!
//! Promises: a manifest is there only when all that it names is durable; an artefact is handed
//! out only as a descriptor whose content was verified; a reader needs no write access, so a
//! store can be shared read-only.

pub mod digest;
pub(crate) mod lock;
pub mod manifest;
mod prune;
mod publish;
pub(crate) mod stamp;
pub(crate) mod work;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode as FileMode, OFlags};
use serde::Serialize;

use self::digest::Digest;
use self::lock::{Lock, Mode};
use self::manifest::{Artefact, FORMAT, Manifest, Part};
use self::stamp::Stamp;
use crate::catalogue::{Catalogue, EnvironmentName, Recipe};
use crate::error::Error;

pub use prune::Pruned;
pub(crate) use publish::Placed;

/// A manifest is smaller than this; what is larger is not one.
const MAX_MANIFEST: u64 = 1 << 20;

/// How far an environment is from being booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not installed.
    Cold,
    /// Installed, current, and verified.
    Warm,
    /// Installed and verified, but by another recipe or catalogue than today's.
    Stale,
    /// Something of it does not verify.
    Damaged,
}

/// One environment, for a listing.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The environment.
    pub name: EnvironmentName,
    /// One line for a person.
    pub summary: String,
    /// Whether it can be booted.
    pub state: State,
    /// What does not verify, when it is damaged.
    pub problem: Option<String>,
    /// Bytes of its artefacts; 0 when it is not installed.
    pub size: u64,
    /// What is installed.
    pub manifest: Option<Manifest>,
}

/// One immutable layer, open.
#[derive(Debug)]
pub struct Layer {
    /// The packed layer's index.
    pub index: File,
    /// The packed layer's data.
    pub data: File,
}

/// A verified environment, open: what happens to the store from now on does not touch it.
#[derive(Debug)]
pub struct Installed {
    /// The uncompressed ELF kernel.
    pub kernel: File,
    /// The modules' initramfs.
    pub modules: File,
    /// The initramfs that a guest with a network gets besides; none in an environment that was
    /// installed before there was one.
    pub network_modules: Option<File>,
    /// The root's layers, lowest first.
    pub layers: Vec<Layer>,
    /// What it is.
    pub manifest: Manifest,
    /// [`State::Warm`] or [`State::Stale`].
    pub state: State,
}

/// An image store in one directory, which need not exist yet.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The store in `root`. Nothing is touched until something is asked for.
    pub fn new(root: impl Into<PathBuf>) -> Store {
        Store { root: root.into() }
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Every environment of `catalogue` with its state. Hashes what was never verified.
    pub fn list(&self, catalogue: &Catalogue) -> Vec<Summary> {
        catalogue
            .recipes()
            .map(|recipe| self.inspect(recipe))
            .collect()
    }

    /// One environment with its state. Hashes what was never verified.
    pub fn inspect(&self, recipe: &Recipe) -> Summary {
        let _shared = self.share();
        let (state, problem, manifest) = match self.manifest(recipe) {
            Ok(None) => (State::Cold, None, None),
            Ok(Some(manifest)) => match self.damage(&manifest).first() {
                Some((part, why)) => (
                    State::Damaged,
                    Some(format!("{} {why}", part.label())),
                    Some(manifest),
                ),
                None => (currency(&manifest, recipe), None, Some(manifest)),
            },
            Err(Error::EnvironmentStale { .. }) => (State::Stale, None, None),
            Err(error) => (State::Damaged, Some(error.to_string()), None),
        };
        Summary {
            name: recipe.name.clone(),
            summary: recipe.summary.clone(),
            state,
            problem,
            size: manifest.as_ref().map_or(0, Manifest::size),
            manifest,
        }
    }

    /// Opens and verifies an environment. Verifies the opened descriptors; no path is used twice.
    ///
    /// # Errors
    /// [`Error::EnvironmentCold`], [`Error::EnvironmentStale`] when another generation of the
    /// store made it, [`Error::EnvironmentDamaged`]. An install of an older recipe opens, and its
    /// state says so.
    pub fn open(&self, recipe: &Recipe) -> Result<Installed, Error> {
        let _shared = self.share();
        let manifest = self
            .manifest(recipe)?
            .ok_or_else(|| Error::EnvironmentCold {
                name: recipe.name.to_string(),
            })?;
        self.open_parts(manifest, |manifest| currency(manifest, recipe))
    }

    /// Opens what `manifest` names, whatever is installed under its name by now.
    ///
    /// # Errors
    /// [`Error::EnvironmentDamaged`] when an artefact is gone or does not verify.
    pub fn open_pinned(&self, manifest: &Manifest) -> Result<Installed, Error> {
        let _shared = self.share();
        self.open_parts(manifest.clone(), |_| State::Stale)
    }

    fn open_parts(
        &self,
        manifest: Manifest,
        state: impl FnOnce(&Manifest) -> State,
    ) -> Result<Installed, Error> {
        let name = manifest.recipe.name.to_string();
        let open = |part: Part, artefact: Artefact| {
            self.open_artefact(artefact)
                .map_err(|damage| Error::EnvironmentDamaged {
                    name: name.clone(),
                    what: format!("{} {damage}", part.label()),
                })
        };
        let kernel = open(Part::Kernel, manifest.kernel.vmlinux)?;
        let modules = open(Part::Modules, manifest.kernel.modules)?;
        let network_modules = manifest
            .kernel
            .network_modules
            .map(|modules| open(Part::NetworkModules, modules))
            .transpose()?;
        let mut layers = Vec::new();
        for layer in &manifest.layers {
            let index = open(Part::Index, layer.index)?;
            let data = open(Part::Data, layer.data)?;
            layers.push(Layer { index, data });
        }
        // An install counts only when everything of it verifies, so also what no boot needs.
        open(Part::Packages, manifest.packages)?;
        let state = state(&manifest);
        Ok(Installed {
            kernel,
            modules,
            network_modules,
            layers,
            manifest,
            state,
        })
    }

    /// The manifest of an environment; `None` when it is not installed.
    pub(crate) fn manifest(&self, recipe: &Recipe) -> Result<Option<Manifest>, Error> {
        let path = self.manifest_path(&recipe.name);
        let damaged = |what: &str| Error::EnvironmentDamaged {
            name: recipe.name.to_string(),
            what: format!("its manifest {what}"),
        };
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::store("read", path, error)),
            Ok(meta) if meta.len() > MAX_MANIFEST => return Err(damaged("is too large")),
            Ok(_) => {}
        }
        let text = fs::read(&path).map_err(|error| Error::store("read", &path, error))?;
        let value: serde_json::Value =
            serde_json::from_slice(&text).map_err(|_| damaged("is not JSON"))?;
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(_) => {
                return Err(Error::EnvironmentStale {
                    name: recipe.name.to_string(),
                });
            }
            None => return Err(damaged("has no format")),
        }
        let manifest: Manifest =
            serde_json::from_value(value).map_err(|_| damaged("cannot be understood"))?;
        if manifest.recipe.name != recipe.name || manifest.layers.is_empty() {
            return Err(damaged("is of another environment"));
        }
        Ok(Some(manifest))
    }

    /// Which parts of an environment do not verify, and why.
    pub(crate) fn damage(&self, manifest: &Manifest) -> Vec<(Part, Damage)> {
        let parts = manifest.artefacts().into_iter();
        parts
            .filter_map(|(part, artefact)| Some((part, self.open_artefact(artefact).err()?)))
            .collect()
    }

    /// Opens an artefact and verifies what was opened.
    pub(crate) fn open_artefact(&self, artefact: Artefact) -> Result<File, Damage> {
        let path = self.artefact_path(artefact.sha256);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = rustix::fs::open(&path, flags, FileMode::empty())
            .map(File::from)
            .map_err(|errno| Damage::of(errno.into()))?;
        let meta = file.metadata().map_err(Damage::of)?;
        if !meta.is_file() {
            return Err(Damage::Unreadable("not a file".to_owned()));
        }
        if meta.len() != artefact.size {
            return Err(Damage::Size);
        }
        let stamp = Stamp::of(&file).map_err(Damage::of)?;
        let stamp_path = self.stamp_path(artefact.sha256);
        if stamp.is_at(&stamp_path) {
            return Ok(file);
        }
        let digest = Digest::of_file(&file).map_err(Damage::of)?;
        let unchanged = Stamp::of(&file).map_err(Damage::of)? == stamp;
        if digest != artefact.sha256 || !unchanged {
            return Err(Damage::Digest);
        }
        // A store that cannot be written to is verified again next time; that is all.
        let _ = stamp.leave(&stamp_path);
        Ok(file)
    }

    /// Makes the directories of a store that is to be written to.
    pub(crate) fn prepare(&self) -> Result<(), Error> {
        let directories = [
            self.artefacts(),
            self.stamps(),
            self.environments(),
            self.tmp(),
            self.locks(),
        ];
        for directory in directories {
            fs::create_dir_all(&directory)
                .map_err(|error| Error::store("create", &directory, error))?;
        }
        Ok(())
    }

    /// Keeps a prune away. Best effort: a read-only store has no prune.
    fn share(&self) -> Option<Lock> {
        self.locks()
            .is_dir()
            .then(|| lock::lock(&self.store_lock(), Mode::Shared).ok())
            .flatten()
    }

    pub(crate) fn artefacts(&self) -> PathBuf {
        self.root.join("artefacts/sha256")
    }

    pub(crate) fn stamps(&self) -> PathBuf {
        self.root.join("stamps/sha256")
    }

    pub(crate) fn environments(&self) -> PathBuf {
        self.root.join("environments")
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }

    pub(crate) fn store_lock(&self) -> PathBuf {
        self.locks().join("store.lock")
    }

    pub(crate) fn tmp_lock(&self) -> PathBuf {
        self.locks().join("tmp.lock")
    }

    pub(crate) fn environment_lock(&self, name: &EnvironmentName) -> PathBuf {
        self.locks().join(format!("{}.lock", name.component()))
    }

    pub(crate) fn artefact_path(&self, digest: Digest) -> PathBuf {
        self.artefacts().join(digest.to_string())
    }

    pub(crate) fn stamp_path(&self, digest: Digest) -> PathBuf {
        self.stamps().join(digest.to_string())
    }

    pub(crate) fn manifest_path(&self, name: &EnvironmentName) -> PathBuf {
        self.environments()
            .join(name.component())
            .join("manifest.json")
    }
}

/// Whether a verified install is what a pull would make today.
pub(crate) fn currency(manifest: &Manifest, recipe: &Recipe) -> State {
    let current = manifest.recipe_digest == recipe.digest()
        && manifest.catalogue_version == Catalogue::builtin().version();
    if current { State::Warm } else { State::Stale }
}

/// Why an artefact does not verify.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Damage {
    #[error("is missing")]
    Missing,
    #[error("has another size than when it was installed")]
    Size,
    #[error("has other contents than when it was installed")]
    Digest,
    #[error("cannot be read ({0})")]
    Unreadable(String),
}

impl Damage {
    fn of(error: io::Error) -> Damage {
        match error.kind() {
            io::ErrorKind::NotFound => Damage::Missing,
            _ => Damage::Unreadable(error.to_string()),
        }
    }
}
