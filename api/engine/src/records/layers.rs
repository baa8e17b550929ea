//! The folders of layers.
//!
//! A layer is a directory that `pyro_rootfs` fills; an empty one is an empty layer. Which layers
//! make up whose disk is said by records alone, so a layer that no record names is rubbish.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::write::sync_folder;
use crate::error::{Code, Error, Result};
use crate::run_dir::unwritable;

/// A layer's name: 16 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct LayerId(String);

impl LayerId {
    fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let valid = text.len() == 16 && text.bytes().all(digit);
        valid.then(|| Self(text.to_string()))
    }
}

impl TryFrom<String> for LayerId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("not the name of a layer")
    }
}

impl From<LayerId> for String {
    fn from(id: LayerId) -> Self {
        id.0
    }
}

/// All layers of a state directory. All methods block.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    folder: PathBuf,
}

impl Layers {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Makes an empty layer.
    pub(crate) fn create(&self) -> Result<LayerId> {
        let make = || {
            let id = LayerId(format!(
                "{:016x}",
                u64::from_ne_bytes(crate::run_dir::random()?)
            ));
            DirBuilder::new().mode(0o700).create(self.path(&id))?;
            sync_folder(&self.folder)?;
            Ok(id)
        };
        make().map_err(|e| unwritable(&self.folder, e))
    }

    /// Opens a layer's directory.
    ///
    /// # Errors
    /// [`Code::DiskDamaged`].
    pub(crate) fn open(&self, id: &LayerId) -> Result<OwnedFd> {
        let path = self.path(id);
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::open(&path, flags, Mode::empty()).map_err(|e| {
            Error::new(
                Code::DiskDamaged,
                format!(
                    "a layer of the workspace's disk cannot be opened at {}",
                    path.display()
                ),
                "restore the folder from a backup, or delete the workspace",
            )
            .caused_by(io::Error::from(e))
        })
    }

    /// Removes a layer that no record names any more. One that is gone is no error.
    pub(crate) fn remove(&self, id: &LayerId) -> Result<()> {
        let path = self.path(id);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|e| unwritable(&path, e)),
        }
    }

    /// Removes all layers but these; gives their number. What is no layer stays.
    pub(crate) fn keep_only(&self, keep: &BTreeSet<LayerId>) -> Result<usize> {
        let entries = fs::read_dir(&self.folder).map_err(|e| unwritable(&self.folder, e))?;
        let mut removed = 0;
        for entry in entries.flatten() {
            let id = entry.file_name().to_str().and_then(LayerId::parse);
            if let Some(id) = id.filter(|id| !keep.contains(id)) {
                self.remove(&id)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Bytes of the files' contents in a layer, as far as they can be counted.
    pub(crate) fn bytes(&self, id: &LayerId) -> u64 {
        let contents = fs::read_dir(self.path(id).join("content"));
        let files = contents.into_iter().flatten().flatten();
        files
            .filter_map(|file| file.metadata().ok())
            .map(|meta| meta.len())
            .sum()
    }

    /// Where the layers are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, id: &LayerId) -> PathBuf {
        self.folder.join(&id.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_layers_that_are_named_stay() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let layers = Layers::new(folder.path().into());
        let (kept, gone) = (
            layers.create().expect("made"),
            layers.create().expect("made"),
        );
        fs::write(folder.path().join(&gone.0).join("journal"), "x").expect("written");
        fs::create_dir(folder.path().join("notes")).expect("made");

        let removed = layers.keep_only(&BTreeSet::from([kept.clone()]));

        assert_eq!(removed.expect("collected"), 1);
        layers.open(&kept).expect("there");
        assert_eq!(
            layers.open(&gone).expect_err("gone").code(),
            Code::DiskDamaged
        );
        assert!(folder.path().join("notes").exists());
        layers.remove(&gone).expect("gone already");
    }

    #[test]
    fn a_path_is_no_layer() {
        for text in [
            "",
            "../../../../../x",
            "0123456789abcdeF",
            "0123456789abcdef0",
        ] {
            assert!(LayerId::parse(text).is_none(), "{text}");
        }
    }
}
