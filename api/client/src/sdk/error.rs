//! What can go wrong between a program and its workspaces.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use crate::types::ApiError;

/// Why a call failed. [`code`](Self::code) and [`remedy`](Self::remedy) are always there;
/// [`to_api_error`](Self::to_api_error) gives all of it in the API's own form.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The daemon, or the engine in it, says no.
    #[error("{0}")]
    Api(ApiError),
    /// Nobody listens on the socket.
    #[error("cannot connect to the daemon at {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection ended before the answer did.
    #[error("the daemon ended the connection before its answer was complete")]
    Broken {
        /// Why, where it is known.
        source: Option<Box<dyn StdError + Send + Sync>>,
    },
    /// The answer is not one of this API.
    #[error("the daemon's answer cannot be understood")]
    Answer {
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The request cannot be sent.
    #[error("the request cannot be encoded")]
    Request {
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The socket belongs to somebody else.
    #[error("the daemon at {path} belongs to user {uid}")]
    Untrusted {
        /// The socket.
        path: PathBuf,
        /// Who listens on it.
        uid: u32,
    },
    /// The daemon is of another version than this program.
    #[error("the running daemon is version {daemon}, and this program is version {client}")]
    Version {
        /// The daemon's version.
        daemon: String,
        /// This program's version.
        client: String,
        /// The daemon's process id.
        pid: u32,
    },
    /// The daemon's program could not be started.
    #[error("cannot start the daemon with {}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The daemon was started and did not get as far as taking connections.
    #[error("the daemon did not start: {reason}")]
    NotReady {
        /// Why, as far as it is known.
        reason: String,
    },
    /// Output of a command could not be written.
    #[error("cannot write the command's output")]
    Output {
        /// Why.
        source: io::Error,
    },
}

impl ClientError {
    /// The stable code: what a program decides on.
    pub fn code(&self) -> &str {
        match self {
            Self::Api(error) => &error.code,
            Self::Connect { .. } => "daemon_unreachable",
            Self::Broken { .. } => "daemon_connection_lost",
            Self::Answer { .. } => "daemon_answer_invalid",
            Self::Request { .. } => "invalid_request",
            Self::Untrusted { .. } => "daemon_untrusted",
            Self::Version { .. } => "daemon_version_mismatch",
            Self::Spawn { .. } | Self::NotReady { .. } => "daemon_start_failed",
            Self::Output { .. } => "io",
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Api(error) => error.remedy.clone(),
            Self::Connect { .. } => "start the daemon with `pyro serve`; every other command of \
                 pyro starts it by itself"
                .into(),
            Self::Broken { .. } => {
                "repeat the command; if it fails again, the end of daemon.log in \
                 the state directory says why the daemon ended"
                    .into()
            }
            Self::Answer { .. } => "check that the program and the daemon are of the same version \
                 with `pyro --version`"
                .into(),
            Self::Request { .. } => "correct the request".into(),
            Self::Untrusted { .. } => {
                "set PYRO_STATE_DIR to a directory that only you can write to".into()
            }
            Self::Version { pid, .. } => format!(
                "end the daemon with `kill {pid}` and repeat the command, which starts the new one; \
                 running workspaces go on"
            ),
            Self::Spawn { .. } => "install all of pyro's programs together".into(),
            Self::NotReady { .. } => {
                "run `pyro serve` in a terminal to see why; daemon.log in the \
                 state directory says more"
                    .into()
            }
            Self::Output { .. } => "check where the output goes".into(),
        }
    }

    /// The sentence followed by its causes.
    pub fn sentence(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let line = error.to_string();
            if !text.contains(&line) {
                text.push_str(": ");
                text.push_str(&line);
            }
            cause = error.source();
        }
        text
    }

    /// All of it in the API's own form.
    pub fn to_api_error(&self) -> ApiError {
        match self {
            Self::Api(error) => error.clone(),
            _ => ApiError {
                code: self.code().into(),
                message: self.sentence(),
                remedy: self.remedy(),
                detail: None,
            },
        }
    }
}
