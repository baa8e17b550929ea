//! Changing a host's file.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::{fs, io};

use tempfile::NamedTempFile;

use super::{Entry, Host, Places};
use crate::Error;

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;

/// Puts us into a host's configuration file, which is made when it is not there. Replaces it in one
/// step; its mode stays. Gives the file, and whether it is another now.
///
/// # Errors
/// When it cannot be understood, read or written. It is as it was then.
pub fn install(host: Host, entry: &Entry, places: &Places) -> Result<(PathBuf, bool), Error> {
    let named = host.file(places);
    // A link stays one, also when nothing is there yet.
    let path = target(named.clone());
    let failed = |error: io::Error| {
        Error::new(
            "output_unwritable",
            format!("cannot change {}: {error}", path.display()),
            "check the directory and its rights, or print the configuration without --install",
        )
    };
    let before = match fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    let after = host.configure(entry, before.as_deref())?;
    if before.as_deref() == Some(after.as_str()) {
        return Ok((named, false));
    }
    replace(&path, &after).map_err(failed)?;
    Ok((named, true))
}

/// Where a path leads through its links.
fn target(mut path: PathBuf) -> PathBuf {
    for _ in 0..MOST_LINKS {
        let Ok(to) = fs::read_link(&path) else {
            break;
        };
        path = path.parent().unwrap_or(Path::new("/")).join(to);
    }
    path
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    // Such files may hold other servers' keys: 0600 unless somebody chose otherwise.
    if let Ok(found) = fs::metadata(path) {
        file.as_file().set_permissions(found.permissions())?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
