//! Commands in a workspace.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ApiError, timeout_seconds, workspace_root};

/// Asks for a command to be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// Program and arguments. No shell is involved.
    pub command: Vec<String>,
    /// Working directory in the guest; relative ones start at `/workspace`.
    #[serde(default = "workspace_root")]
    pub cwd: String,
    /// Variables added to the guest's environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Secrets by name, each with the variable that it is put into, without newlines at its end.
    #[serde(default)]
    pub secret_env: BTreeMap<String, String>,
    /// Seconds until the whole process group is killed.
    #[serde(default = "timeout_seconds")]
    pub timeout_seconds: u64,
    /// Answers as soon as the command runs; its result is fetched by its sequence number.
    #[serde(default)]
    pub detach: bool,
}

impl ExecRequest {
    /// A command in `/workspace` with all defaults.
    pub fn new<S: Into<String>>(command: impl IntoIterator<Item = S>) -> Self {
        Self {
            command: command.into_iter().map(Into::into).collect(),
            cwd: workspace_root(),
            env: BTreeMap::new(),
            secret_env: BTreeMap::new(),
            timeout_seconds: timeout_seconds(),
            detach: false,
        }
    }
}

/// Asks for a command's record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WaitExec {
    /// Seconds to wait for the command's end, at most 3600; the record is given when they are over
    /// even if it still runs.
    pub wait_seconds: u64,
}

/// How far a command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExecState {
    /// It runs.
    Running,
    /// It called exit; `exit_code` has the code.
    Exited,
    /// A signal ended it; `exit_code` is 128 and the signal's number.
    Signalled,
    /// Its time was up; `exit_code` is 124.
    TimedOut,
    /// Somebody cancelled it, or the client that waited for it went away.
    Cancelled,
    /// There is no such program (`exit_code` 127), or it cannot be executed (126); `error` says which.
    NotStarted,
    /// The guest, its monitor or the daemon ended before the command did; `error` says which.
    Lost,
}

/// A command of a workspace's journal, with its result when it has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExecRecord {
    /// Its number in the workspace's journal, from 1.
    pub sequence: u64,
    /// The workspace.
    pub workspace_id: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Working directory in the guest.
    pub cwd: String,
    /// How far it is.
    pub state: ExecState,
    /// What a shell would give; `null` while it runs and when it was cancelled or lost.
    pub exit_code: Option<u8>,
    /// The signal that ended it.
    pub signal: Option<u8>,
    /// Standard output, invalid UTF-8 replaced; cut in the middle when `stdout_truncated`.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
    /// Bytes of standard output, what stands for secrets included.
    pub stdout_bytes: u64,
    /// Bytes of standard error, likewise.
    pub stderr_bytes: u64,
    /// Whether some of standard output is missing above.
    pub stdout_truncated: bool,
    /// Whether some of standard error is missing above.
    pub stderr_truncated: bool,
    /// When it was asked for.
    pub started_at: Timestamp,
    /// Milliseconds it ran, on the guest's clock.
    pub duration_ms: Option<f64>,
    /// Why it did not run or did not end by itself.
    pub error: Option<ApiError>,
}

/// A line of a streamed exec (`Accept: application/x-ndjson`). The first is `started`, the last
/// `ended` or `failed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ExecEvent {
    /// It has a number, and runs.
    Started {
        /// Its number in the journal.
        sequence: u64,
    },
    /// It wrote to standard output.
    Stdout {
        /// The bytes, in base64.
        data: String,
    },
    /// It wrote to standard error.
    Stderr {
        /// The bytes, in base64.
        data: String,
    },
    /// It has ended.
    Ended {
        /// The whole record.
        record: Box<ExecRecord>,
    },
    /// The product failed.
    Failed {
        /// Why.
        error: ApiError,
    },
}

/// A workspace's journal: every command since creation or the last reset, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkspaceLogs {
    /// The workspace.
    pub workspace_id: String,
    /// How many commands there were; older ones may have been dropped from `entries`.
    pub count: u64,
    /// The commands that are kept.
    pub entries: Vec<ExecRecord>,
}
