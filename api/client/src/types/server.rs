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

/// An environment that VMs can be made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Environment {
    /// Its name, such as `debian:12`.
    pub name: String,
    /// What is in it, in a line.
    pub summary: String,
    /// Whether it can be booted at once.
    pub state: EnvironmentState,
    /// What is wrong with it when it is damaged.
    pub problem: Option<String>,
    /// Bytes that it has on the disk; 0 when it is not installed.
    pub size_bytes: u64,
}

/// How far an environment is from being booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EnvironmentState {
    /// Not installed; its first use installs it, which takes a minute or so.
    Cold,
    /// Installed, current and verified.
    Warm,
    /// Installed from an older recipe.
    Stale,
    /// Something of it does not verify; `problem` says what.
    Damaged,
}

/// All environments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EnvironmentList {
    /// The environments, in the catalogue's order.
    pub environments: Vec<Environment>,
}

/// Workspaces that were taken away because their time to live was over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReapedWorkspaces {
    /// How many.
    pub count: u64,
    /// Their ids.
    pub workspace_ids: Vec<String>,
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
