//! When something last changed a workspace.
//!
//! The time is the modification time of the file `activity`, so that noting it, which every
//! command does, costs one system call and can never tear anything.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

use jiff::Timestamp;

const NAME: &str = "activity";

/// Makes the file.
pub(crate) fn create(folder: &Path, at: Timestamp) -> io::Result<()> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(folder.join(NAME))?;
    file.set_modified(SystemTime::from(at))
}

/// Notes the time of an activity.
pub(crate) fn note(folder: &Path, at: Timestamp) -> io::Result<()> {
    create(folder, at)
}

/// The time that was noted last; `None` when there is none.
pub(crate) fn noted(folder: &Path) -> Option<Timestamp> {
    let modified = folder.join(NAME).metadata().ok()?.modified().ok()?;
    Timestamp::try_from(modified).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_noted_time_comes_back() {
        let folder = tempfile::tempdir().expect("temporary folder");
        assert_eq!(noted(folder.path()), None);
        for text in ["2026-01-02T03:04:05.678901Z", "2020-01-01T00:00:00Z"] {
            let at: Timestamp = text.parse().expect("a time");
            note(folder.path(), at).expect("noted");
            assert_eq!(noted(folder.path()), Some(at));
        }
    }
}
