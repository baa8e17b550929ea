//! Putting what a pull built into the store, durable before it shows.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Store;
use super::digest::Digest;
use super::lock::{self, Mode};
use super::manifest::{Artefact, Manifest};
use super::stamp::Stamp;
use crate::Error;

/// A finished file in a work directory, on the store's file system.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) path: PathBuf,
    pub(crate) artefact: Artefact,
}

impl Placed {
    /// Describes the finished file at `path` by hashing it.
    pub(crate) fn hash(path: PathBuf) -> Result<Placed, Error> {
        let describe = || {
            let file = File::open(&path)?;
            let size = file.metadata()?.len();
            Ok(Artefact {
                sha256: Digest::of_file(&file)?,
                size,
            })
        };
        let artefact =
            describe().map_err(|error: std::io::Error| Error::store("read", &path, error))?;
        Ok(Placed { path, artefact })
    }
}

impl Store {
    /// Moves `files` into the store and then shows `manifest`, which may also name artefacts that
    /// are there already. Fails, and shows nothing, when one that it names does not verify.
    pub(crate) fn publish(
        &self,
        files: &[Placed],
        manifest: &Manifest,
        work: &Path,
    ) -> Result<(), Error> {
        let _no_prune = lock::lock(&self.store_lock(), Mode::Shared)?;
        for file in files {
            self.place(file)?;
        }
        sync_directory(&self.artefacts())?;
        if let Some((part, damage)) = self.damage(manifest).first() {
            return Err(Error::EnvironmentDamaged {
                name: manifest.recipe.name.to_string(),
                what: format!("{} {damage}", part.label()),
            });
        }
        self.show(manifest, work)
    }

    /// Makes one file durable and read-only under its digest, over whatever was there.
    fn place(&self, file: &Placed) -> Result<(), Error> {
        let target = self.artefact_path(file.artefact.sha256);
        let opened =
            File::open(&file.path).map_err(|error| Error::store("read", &file.path, error))?;
        opened
            .set_permissions(Permissions::from_mode(0o444))
            .and_then(|()| opened.sync_all())
            .and_then(|()| fs::rename(&file.path, &target))
            .map_err(|error| Error::store("write", &target, error))?;
        // Its digest was computed from what was written, a moment ago.
        if let Ok(stamp) = Stamp::of(&opened) {
            let _ = stamp.leave(&self.stamp_path(file.artefact.sha256));
        }
        Ok(())
    }

    fn show(&self, manifest: &Manifest, work: &Path) -> Result<(), Error> {
        let target = self.manifest_path(&manifest.recipe.name);
        let directory = target.parent().unwrap_or(&target).to_owned();
        let draft = work.join("manifest.json");
        let mut text = serde_json::to_value(manifest)
            .and_then(|value| serde_json::to_string_pretty(&value))
            .expect("a manifest is plain data with string keys");
        text.push('\n');
        File::create(&draft)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| fs::create_dir_all(&directory))
            .and_then(|()| fs::rename(&draft, &target))
            .map_err(|error| Error::store("write", &target, error))?;
        sync_directory(&directory)?;
        sync_directory(&self.environments())
    }
}

fn sync_directory(path: &Path) -> Result<(), Error> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| Error::store("sync", path, error))
}
