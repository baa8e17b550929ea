//! Why something is not exported.

use std::io;

use rustix::io::Errno;

/// Why something is not exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
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
    /// A stable code in snake case.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unsupported { .. } => "export_unsupported",
            Self::Exists { .. } => "output_exists",
            Self::TooLarge { .. } => "export_too_large",
            Self::Read { .. } => "export_read_failed",
            Self::Write { .. } => "export_write_failed",
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Unsupported { .. } => "export a file or directory, to a path that ends in a name",
            Self::Exists { .. } => "choose another output, or replace it with --force",
            Self::TooLarge { .. } => "export a smaller part, or ask for a larger image",
            Self::Read { .. } => "check the workspace's layers",
            Self::Write { .. } => {
                "check that the output's directory is there, may be written, and has room"
            }
        }
    }

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
