//! The daemon itself.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
