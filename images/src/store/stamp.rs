//! Remembering that an artefact was verified.
//!
//! Hashing hundreds of megabytes before each boot is too slow, so a verified file leaves a
//! *stamp*: the inode number, size and both change times that it had. A write through any
//! path moves the change time, which nobody can set; anything that differs means hashing again.
//! The device is not part: a store that is shared into another machine has another one there.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The identity of a file's content at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The present stamp of an open file.
    pub(crate) fn of(file: &File) -> io::Result<Stamp> {
        let meta = file.metadata()?;
        Ok(Stamp {
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }

    /// Whether `path` holds this very stamp. A stamp that cannot be read is none.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        fs::read_to_string(path).is_ok_and(|text| text == self.text())
    }

    /// Leaves the stamp at `path`, replacing another. It need not survive a power failure.
    pub(crate) fn leave(&self, path: &Path) -> io::Result<()> {
        let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(self.text().as_bytes())?;
        file.persist(path)?;
        Ok(())
    }

    fn text(&self) -> String {
        format!(
            "1 {} {} {}.{:09} {}.{:09}\n",
            self.inode, self.size, self.modified.0, self.modified.1, self.changed.0, self.changed.1
        )
    }
}
