//! Snapshots and reset.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::baseline;

/// Asks for a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSnapshot {
    /// Its name: `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`, not `baseline`, not in use.
    pub name: String,
}

/// A snapshot of the whole disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Whether it is the baseline, which stays as long as the workspace.
    pub baseline: bool,
}

/// A workspace's snapshots: the baseline first, then oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotList {
    /// The workspace.
    pub workspace_id: String,
    /// How many there are, with the baseline.
    pub count: u64,
    /// The snapshots.
    pub snapshots: Vec<Snapshot>,
}

/// A snapshot that was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeletedSnapshot {
    /// The workspace.
    pub workspace_id: String,
    /// The snapshot's name.
    pub name: String,
    /// Always true.
    pub deleted: bool,
}

/// Asks for a workspace to be set back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reset {
    /// The snapshot to go back to.
    #[serde(default = "baseline")]
    pub snapshot: String,
}
