//! A service's log on the host: what it wrote, without secrets, in two files of bounded size.
//!
//! When `<name>.log` is full it becomes `<name>.log.1`, in the place of the one before.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use pyro_client::types::SERVICE_LOG_BYTES;

use crate::records::sheets;

/// A log that is written.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Log {
    /// Begins it anew. Blocks.
    pub(super) fn create(folder: &Path, name: &str) -> io::Result<Self> {
        sheets::make(folder)?;
        remove(folder, name)?;
        let path = path(folder, name);
        Ok(Self {
            file: open(&path)?,
            path,
            size: 0,
        })
    }

    /// Appends. Blocks.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.size + bytes.len() as u64 > SERVICE_LOG_BYTES && self.size > 0 {
            fs::rename(&self.path, older(&self.path))?;
            self.file = open(&self.path)?;
            self.size = 0;
        }
        self.size += bytes.len() as u64;
        self.file.write_all(bytes)
    }
}

/// What is kept of a log, and whether that is all. Blocks.
pub(super) fn read(folder: &Path, name: &str) -> io::Result<(Vec<u8>, bool)> {
    let path = path(folder, name);
    let old = tail(&older(&path))?;
    let new = tail(&path)?.unwrap_or_default();
    let whole = old.is_none();
    Ok((old.into_iter().flatten().chain(new).collect(), whole))
}

/// Takes a log away. Blocks.
pub(super) fn remove(folder: &Path, name: &str) -> io::Result<()> {
    let path = path(folder, name);
    for path in [older(&path), path] {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    Ok(())
}

/// The last lines of a log, their number, and whether there are more before them.
pub(super) fn last_lines(text: &str, most: u64) -> (&str, u64, bool) {
    let body = text.strip_suffix('\n').unwrap_or(text);
    if text.is_empty() || most == 0 {
        return ("", 0, !text.is_empty());
    }
    let mut start = body.len();
    let mut lines = 0;
    while lines < most {
        lines += 1;
        match body[..start].rfind('\n') {
            Some(newline) if lines == most => return (&text[newline + 1..], lines, true),
            Some(newline) => start = newline,
            None => break,
        }
    }
    (text, lines, false)
}

fn path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.log"))
}

fn older(path: &Path) -> PathBuf {
    path.with_added_extension("1")
}

fn open(path: &Path) -> io::Result<File> {
    File::options()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

fn tail(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    // One write may be longer than the bound.
    let most = 2 * SERVICE_LOG_BYTES;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_bounded_and_keeps_its_end() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut log = Log::create(folder.path(), "web").expect("made");
        let chunk = vec![b'x'; 64 << 10];
        for _ in 0..100 {
            log.write(&chunk).expect("written");
        }
        log.write(b"last\n").expect("written");

        let (bytes, whole) = read(folder.path(), "web").expect("read");

        assert!(!whole);
        assert!(bytes.ends_with(b"xlast\n"));
        assert!(bytes.len() as u64 >= SERVICE_LOG_BYTES);
        assert!(bytes.len() as u64 <= 2 * SERVICE_LOG_BYTES);
        let on_disk: u64 = fs::read_dir(folder.path())
            .expect("read")
            .map(|entry| entry.expect("an entry").metadata().expect("there").len())
            .sum();
        assert!(on_disk <= 2 * SERVICE_LOG_BYTES);
        drop(Log::create(folder.path(), "web").expect("made anew"));
        assert_eq!(
            read(folder.path(), "web").expect("read"),
            (Vec::new(), true)
        );
    }

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        assert_eq!(last_lines("a\nb\nc\n", 2), ("b\nc\n", 2, true));
        assert_eq!(last_lines("a\nb\nc", 2), ("b\nc", 2, true));
        assert_eq!(last_lines("a\nb\nc\n", 3), ("a\nb\nc\n", 3, false));
        assert_eq!(last_lines("a\nb\nc\n", 4), ("a\nb\nc\n", 3, false));
        assert_eq!(last_lines("\n\n", 1), ("\n", 1, true));
        assert_eq!(last_lines("", 5), ("", 0, false));
        assert_eq!(last_lines("a\n", 0), ("", 0, true));
    }
}
