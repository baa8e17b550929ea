//! The daemon's log: JSON lines in a file that does not grow without bound.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Most bytes of the file; the one before it is kept beside it.
const MAX_BYTES: u64 = 8 << 20;

/// Sends what is traced in this process to `path`. `filter` is a list such as `info,pyro_engine=debug`;
/// what cannot be understood means `info`. Does nothing when something else takes it already.
pub(crate) fn init(path: &Path, filter: Option<&str>) -> io::Result<()> {
    let filter = filter
        .and_then(|filter| filter.parse::<Targets>().ok())
        .unwrap_or_else(|| {
            Targets::new()
                .with_default(LevelFilter::WARN)
                .with_target("pyro", LevelFilter::INFO)
        });
    let layer = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_writer(Rotating::open(path, MAX_BYTES)?);
    // A process has one; a test may run several daemons.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .try_init();
    Ok(())
}

/// A file that is put aside when it is full.
#[derive(Debug)]
pub(crate) struct Rotating {
    path: PathBuf,
    limit: u64,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
}

impl Rotating {
    pub(crate) fn open(path: &Path, limit: u64) -> io::Result<Self> {
        Ok(Self {
            path: path.to_path_buf(),
            limit,
            open: Mutex::new(append(path)?),
        })
    }

    fn aside(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".1");
        name.into()
    }
}

fn append(path: &Path) -> io::Result<Open> {
    let file = File::options()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    let bytes = file.metadata()?.len();
    Ok(Open { file, bytes })
}

impl Write for &Rotating {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let length = line.len() as u64;
        if open.bytes > 0 && open.bytes.saturating_add(length) > self.limit {
            std::fs::rename(&self.path, self.aside())?;
            *open = append(&self.path)?;
        }
        open.file.write_all(line)?;
        open.bytes += length;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Rotating {
    type Writer = &'a Rotating;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_files_of_a_bounded_size_hold_the_last_lines() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("daemon.log");
        let log = Rotating::open(&path, 100).expect("open");

        for number in 0..1000 {
            writeln!(&log, "line {number:04}").expect("written");
        }

        let now = std::fs::read_to_string(&path).expect("read");
        let before = std::fs::read_to_string(log.aside()).expect("read");
        assert!(now.len() <= 100 && before.len() <= 100);
        assert!(now.ends_with("line 0999\n"));
        assert_eq!(folder.path().read_dir().expect("listed").count(), 2);
        let lines: Vec<_> = before.lines().chain(now.lines()).collect();
        assert!(lines.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn a_line_that_is_too_long_alone_is_written_all_the_same() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("daemon.log");
        let log = Rotating::open(&path, 10).expect("open");

        (&log).write_all(&[b'x'; 50]).expect("written");

        assert_eq!(std::fs::read(&path).expect("read").len(), 50);
    }
}
