//! Small records, one JSON file each, in a folder of a workspace's folder.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::write::{Survives, read_bounded, replace};

/// A record is shorter than this.
const MAX: u64 = 4 << 20;

/// Makes the folder when it is missing. That of a workspace that was deleted does not come back.
pub(crate) fn make(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Writes one, over the one that is there. Blocks.
pub(crate) fn write(folder: &Path, name: &str, value: &impl Serialize) -> io::Result<()> {
    make(folder)?;
    let bytes = serde_json::to_vec_pretty(value)?;
    replace(folder, &format!("{name}.json"), &bytes, Survives::Process)
}

/// Takes one away. Blocks. One that is gone is no error.
pub(crate) fn remove(folder: &Path, name: &str) -> io::Result<()> {
    gone(fs::remove_file(folder.join(format!("{name}.json"))))
}

/// Takes the folder away with all in it. Blocks.
pub(crate) fn remove_all(folder: &Path) -> io::Result<()> {
    gone(fs::remove_dir_all(folder))
}

/// All that can be read. Those that cannot stay where they are. Blocks.
pub(crate) fn read<T: DeserializeOwned>(folder: &Path) -> Vec<T> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.ends_with(".json")) else {
            continue;
        };
        let read = read_bounded(&entry.path(), MAX)
            .and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::other));
        match read {
            Ok(value) => all.push(value),
            Err(error) => {
                tracing::error!(path = %folder.join(name).display(), %error, "cannot read a record");
            }
        }
    }
    all
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_odd_ones_stay() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let folder = folder.path().join("sheets");
        assert!(read::<u32>(&folder).is_empty());
        write(&folder, "a", &1).expect("written");
        write(&folder, "a", &2).expect("written");
        write(&folder, "b", &"odd").expect("written");

        assert_eq!(read::<u32>(&folder), [2]);

        remove(&folder, "a").expect("removed");
        remove(&folder, "a").expect("gone already");
        assert!(read::<u32>(&folder).is_empty());
        assert!(folder.join("b.json").exists());
        remove_all(&folder).expect("removed");
        let gone = write(&folder.join("deeper"), "a", &1).expect_err("its folder is gone");
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
        remove_all(&folder).expect("gone already");
    }
}
