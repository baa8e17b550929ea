//! Why a seed is not imported.

use std::io;

use rustix::io::Errno;

use crate::pack::PackError;

/// Why a seed is not imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A member may not be imported.
    #[error("{member:?}: {reason}")]
    Member {
        /// Its path in the seed.
        member: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The seed is larger than it may be.
    #[error("the seed holds more than {limit} {unit} (at {member:?})")]
    TooLarge {
        /// Where in the seed the limit was reached.
        member: String,
        /// The limit.
        limit: u64,
        /// Of what.
        unit: &'static str,
    },
    /// The quota of the workspace, or the disk of the host, is full.
    #[error("no space is left in the workspace or on the disk beneath it (at {member:?})")]
    NoSpace {
        /// Where in the seed that was.
        member: String,
    },
    /// The seed itself cannot be read.
    #[error("cannot read the seed {path:?}")]
    Seed {
        /// Its path on the host.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The seed is neither a directory nor a file.
    #[error("the seed {path:?} is neither a directory nor a file")]
    Kind {
        /// Its path on the host.
        path: String,
    },
    /// The archive is damaged, or no tar archive at all.
    #[error("cannot read the archive")]
    Archive(#[source] io::Error),
    /// The tree cannot take a member.
    #[error("cannot store {member:?}")]
    Store {
        /// Its path in the seed.
        member: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ImportError {
    /// A stable code in snake case.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Member { .. } => "seed_member_refused",
            Self::TooLarge { .. } => "seed_too_large",
            Self::NoSpace { .. } => "no_space",
            Self::Seed { .. } | Self::Kind { .. } => "seed_unreadable",
            Self::Archive(_) => "seed_archive_damaged",
            Self::Store { .. } => "seed_not_stored",
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Member { .. } => {
                "take it out of the seed, or make it a file, a directory or a link that stays inside"
            }
            Self::TooLarge { .. } => "seed a smaller part, or leave files behind with .gitignore",
            Self::NoSpace { .. } => "make room on the host's disk, or raise the workspace's quota",
            Self::Seed { .. } | Self::Kind { .. } => {
                "name a directory, or a .tar, .tar.gz or .tgz file, that may be read"
            }
            Self::Archive(_) => "check the archive with tar -t, and make it again",
            Self::Store { .. } => "check the workspace's layers, and the host's disk",
        }
    }

    pub(super) fn member(path: &[u8], reason: &'static str) -> Self {
        Self::Member {
            member: shown(path),
            reason,
        }
    }

    /// What an error of the tree means at `path`.
    pub(super) fn store(path: &[u8]) -> impl Fn(Errno) -> Self {
        move |errno| match errno {
            Errno::NOSPC | Errno::DQUOT => Self::NoSpace {
                member: shown(path),
            },
            Errno::MLINK => Self::member(path, "the file has too many names"),
            errno => Self::Store {
                member: shown(path),
                source: errno.into(),
            },
        }
    }
}

impl From<PackError> for ImportError {
    fn from(error: PackError) -> Self {
        match error {
            PackError::Member { member, reason } => Self::Member { member, reason },
            PackError::TooLarge { limit, unit } => Self::TooLarge {
                member: String::new(),
                limit,
                unit,
            },
            PackError::Read(source) | PackError::Write(source) => Self::Archive(source),
            PackError::Empty => Self::Archive(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// A path as a person is shown it: the start of a hostile one tells which it is.
pub(super) fn shown(path: &[u8]) -> String {
    const MAX: usize = 400;
    String::from_utf8_lossy(&path[..path.len().min(MAX)]).into_owned()
}
