//! The daemon itself.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ApiError;

/// The daemon's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// The package's version.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// When it was started.
    pub started_at: Timestamp,
    /// Workspaces that have a record.
    pub workspaces: u64,
    /// Of these, those with a running guest.
    pub running: u64,
}

/// What a daemon that was started on demand says, once, in a line on its standard output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Announcement {
    /// It takes connections.
    Ready {
        /// Its process id.
        pid: u32,
    },
    /// Another daemon has the state directory and takes connections; this one ends.
    AlreadyRunning,
    /// It cannot start, and ends.
    Failed {
        /// Why.
        error: ApiError,
    },
}
