//! Why something cannot be done to a file.

use pyro_agent_protocol::{ErrorCode, GuestPath};
use rustix::io::Errno;

/// See the [module](self). The paths are those of the request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("{path:?}: {problem}", path = .path.to_string())]
    Invalid {
        path: GuestPath,
        problem: &'static str,
    },
    #[error("{what}")]
    OutOfTurn { what: &'static str },
    #[error("{path:?} leads out of {beneath:?}", path = .path.to_string(), beneath = .beneath.to_string())]
    Outside { path: GuestPath, beneath: GuestPath },
    #[error("{path:?} does not exist", path = .path.to_string())]
    NotFound { path: GuestPath },
    #[error("{path:?} exists already", path = .path.to_string())]
    AlreadyExists { path: GuestPath },
    #[error("{path:?} is {found}, not a regular file", path = .path.to_string())]
    NotAFile {
        path: GuestPath,
        found: &'static str,
    },
    #[error("{path:?} leads through or to something that is no directory", path = .path.to_string())]
    NotADirectory { path: GuestPath },
    #[error("the directory {path:?} is not empty", path = .path.to_string())]
    NotEmpty { path: GuestPath },
    #[error("{path:?} {problem}", path = .path.to_string())]
    Conflict {
        path: GuestPath,
        problem: &'static str,
    },
    #[error("{what}")]
    TooMuch { what: &'static str },
    #[error("{path:?}: the guest's disk is full", path = .path.to_string())]
    NoSpace { path: GuestPath },
    #[error("{path:?}: {what}", path = .path.to_string())]
    System {
        path: GuestPath,
        what: &'static str,
        #[source]
        source: Errno,
    },
}

impl FileError {
    /// A failed system call, as what it means where that is clear.
    pub(super) fn system(path: &[u8], what: &'static str, errno: Errno) -> Self {
        let path = GuestPath::from_bytes(path.to_vec());
        match errno {
            Errno::NOENT => Self::NotFound { path },
            Errno::EXIST => Self::AlreadyExists { path },
            Errno::NOTDIR => Self::NotADirectory { path },
            Errno::NOTEMPTY => Self::NotEmpty { path },
            Errno::NOSPC | Errno::DQUOT => Self::NoSpace { path },
            Errno::NAMETOOLONG => Self::Invalid {
                path,
                problem: "a name in it is longer than the guest allows",
            },
            source => Self::System { path, what, source },
        }
    }

    /// The protocol's name for this kind of failure.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Invalid { .. } | Self::OutOfTurn { .. } => ErrorCode::InvalidRequest,
            Self::Outside { .. } => ErrorCode::Outside,
            Self::NotFound { .. } => ErrorCode::NotFound,
            Self::AlreadyExists { .. } => ErrorCode::AlreadyExists,
            Self::NotAFile { .. } => ErrorCode::NotAFile,
            Self::NotADirectory { .. } => ErrorCode::NotADirectory,
            Self::NotEmpty { .. } => ErrorCode::NotEmpty,
            Self::Conflict { .. } => ErrorCode::Conflict,
            Self::TooMuch { .. } => ErrorCode::TooMuch,
            Self::NoSpace { .. } => ErrorCode::NoSpace,
            Self::System {
                source: Errno::MFILE | Errno::NFILE | Errno::NOMEM,
                ..
            } => ErrorCode::OutOfResources,
            Self::System { .. } => ErrorCode::Internal,
        }
    }
}
