//! Why a source does not become a layer.

use std::io;

/// Why a source does not become a layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The source has no members at all.
    #[error("the archive is empty")]
    Empty,
    /// A member cannot be taken.
    #[error("archive member {member:?}: {reason}")]
    Member {
        /// Its path as the archive says it.
        member: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The source is larger than it may be.
    #[error("the archive holds more than {limit} {unit}")]
    TooLarge {
        /// The limit.
        limit: u64,
        /// Of what.
        unit: &'static str,
    },
    /// The source cannot be read, or ends early.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// The layer cannot be written.
    #[error("cannot write the layer")]
    Write(#[source] io::Error),
}
