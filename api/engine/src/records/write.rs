//! Files that are whole whatever happens while they are written.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What must not be able to tear a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Survives {
    /// The end of this process, however it comes.
    Process,
    /// The end of the host's power as well. Costs waits for the disk.
    Power,
}

/// Writes `bytes` as `folder/name`, replacing what was there in one step.
pub(crate) fn replace(
    folder: &Path,
    name: &str,
    bytes: &[u8],
    survives: Survives,
) -> io::Result<()> {
    let temporary = folder.join(format!(".{name}.new"));
    let mut file = File::options()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    if survives == Survives::Power {
        file.sync_all()?;
    }
    drop(file);
    fs::rename(&temporary, folder.join(name))?;
    if survives == Survives::Power {
        sync_folder(folder)?;
    }
    Ok(())
}

/// Forces a folder's names to the disk.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Reads a file that is at most `most` bytes long.
pub(crate) fn read_bounded(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("it is longer than {most} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_what_a_kill_left_is_overwritten() {
        let folder = tempfile::tempdir().expect("temporary folder");
        fs::write(folder.path().join(".record.json.new"), "torn and long").expect("written");
        for (text, survives) in [("one", Survives::Power), ("2", Survives::Process)] {
            replace(folder.path(), "record.json", text.as_bytes(), survives).expect("replaced");
            let path = folder.path().join("record.json");
            assert_eq!(read_bounded(&path, 3).expect("read"), text.as_bytes());
        }
        assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 1);
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read() {
        let folder = tempfile::tempdir().expect("temporary folder");
        replace(folder.path(), "x", b"1234", Survives::Process).expect("written");
        assert!(read_bounded(&folder.path().join("x"), 3).is_err());
    }
}
