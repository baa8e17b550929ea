//! Why something is not exported.

use std::io;

use rustix::io::Errno;

/// Why something is not exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The path names nothing.
    #[error("{path:?} does not exist in the workspace")]
    NotFound {
        /// The path.
        path: String,
    },
    /// What the path names cannot be exported.
    #[error("{path:?}: {reason}")]
    Unsupported {
        /// The path.
        path: String,
        /// Why not.
        reason: &'static str,
    },
    /// There is something at the output already.
    #[error("the output {name:?} exists")]
    Exists {
        /// Its name.
        name: String,
    },
    /// The export would be larger than it may be.
    #[error("the export holds more than {limit} {unit}")]
    TooLarge {
        /// The limit.
        limit: u64,
        /// Of what.
        unit: &'static str,
    },
    /// The tree cannot be read.
    #[error("cannot read {path:?} in the workspace")]
    Read {
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The output cannot be written.
    #[error("cannot write the output at {path:?}")]
    Write {
        /// Where, beneath the output.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ExportError {
    pub(super) fn read(path: &[u8]) -> impl FnOnce(Errno) -> Self {
        let path = shown(path);
        move |errno| Self::Read {
            path,
            source: errno.into(),
        }
    }

    pub(super) fn write<E: Into<io::Error>>(path: &[u8]) -> impl FnOnce(E) -> Self {
        let path = shown(path);
        move |error| Self::Write {
            path,
            source: error.into(),
        }
    }
}

/// A path as a person is shown it: the start of a hostile one tells which it is.
pub(super) fn shown(path: &[u8]) -> String {
    const MAX: usize = 400;
    let text = String::from_utf8_lossy(&path[..path.len().min(MAX)]).into_owned();
    if text.is_empty() { ".".into() } else { text }
}
