//! One command in a VM of its own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    ApiError, ExecState, NetworkPolicy, mem_mib, pull, timeout_seconds, ttl_seconds, vcpu_count,
};

/// Asks for one command in a fresh VM that leaves nothing behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// The environment, such as `debian:12`.
    pub environment: String,
    /// Whether an environment that is not installed is pulled first, which takes a minute or so;
    /// otherwise that is refused as `environment_cold`.
    #[serde(default = "pull")]
    pub pull: bool,
    /// Program and arguments. No shell is involved.
    pub command: Vec<String>,
    /// Virtual CPUs.
    #[serde(default = "vcpu_count")]
    pub vcpu_count: u64,
    /// Memory in MiB.
    #[serde(default = "mem_mib")]
    pub mem_mib: u64,
    /// Seconds until the command is killed with all it started.
    #[serde(default = "timeout_seconds")]
    pub timeout_seconds: u64,
    /// Seconds until the whole VM is ended.
    #[serde(default = "ttl_seconds")]
    pub ttl_seconds: u64,
    /// What the guest may reach.
    #[serde(default)]
    pub network: NetworkPolicy,
}

impl RunRequest {
    /// A run of `command` in `environment` with all defaults.
    pub fn new<S: Into<String>>(
        environment: impl Into<String>,
        command: impl IntoIterator<Item = S>,
    ) -> Self {
        Self {
            environment: environment.into(),
            pull: pull(),
            command: command.into_iter().map(Into::into).collect(),
            vcpu_count: vcpu_count(),
            mem_mib: mem_mib(),
            timeout_seconds: timeout_seconds(),
            ttl_seconds: ttl_seconds(),
            network: NetworkPolicy::Off,
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunResult {
    /// The environment.
    pub environment: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// How the command ended.
    pub state: ExecState,
    /// What a shell would give.
    pub exit_code: u8,
    /// The signal that ended it.
    pub signal: Option<u8>,
    /// Whether its time was up.
    pub timed_out: bool,
    /// Standard output, invalid UTF-8 replaced; cut in the middle when `stdout_truncated`.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
    /// Bytes of standard output, also those that are not kept.
    pub stdout_bytes: u64,
    /// Bytes of standard error, likewise.
    pub stderr_bytes: u64,
    /// Whether some of standard output is missing above.
    pub stdout_truncated: bool,
    /// Whether some of standard error is missing above.
    pub stderr_truncated: bool,
    /// Virtual CPUs.
    pub vcpu_count: u64,
    /// Memory in MiB.
    pub mem_mib: u64,
    /// `uname -r` of the guest.
    pub kernel_release: String,
    /// Milliseconds from the monitor's start to a ready guest.
    pub boot_ms: f64,
    /// Milliseconds the command ran, on the guest's clock.
    pub command_ms: f64,
    /// Milliseconds from the monitor's start until the VM was gone.
    pub total_ms: f64,
    /// Why the command did not start, or that it was the VM's time to live that was up.
    pub error: Option<ApiError>,
}

/// A line of a streamed run (`Accept: application/x-ndjson`). The last is `ended` or `failed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RunEvent {
    /// The guest is ready, and the command is about to start.
    Started {
        /// `uname -r` of the guest.
        kernel_release: String,
        /// Milliseconds from the monitor's start to a ready guest.
        boot_ms: f64,
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
    /// It has ended, and its VM is gone.
    Ended {
        /// The whole result.
        result: Box<RunResult>,
    },
    /// The product failed.
    Failed {
        /// Why.
        error: ApiError,
    },
}
