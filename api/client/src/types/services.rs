//! Services: named programs that run for long.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ApiError, workspace_root};

/// Seconds until a service must be ready when not asked for otherwise.
pub const DEFAULT_READY_TIMEOUT_SECONDS: u64 = 30;
/// Milliseconds between two probes when not asked for otherwise.
pub const DEFAULT_READY_INTERVAL_MS: u64 = 500;
/// Lines of a log when not asked for otherwise.
pub const DEFAULT_TAIL_LINES: u64 = 200;
/// Seconds between SIGTERM and SIGKILL when a service is stopped.
pub const STOP_GRACE_SECONDS: u64 = 10;
/// Bytes of a service's log that are kept, at least; at most twice as many.
pub const SERVICE_LOG_BYTES: u64 = 1 << 20;

const fn ready_timeout_seconds() -> u64 {
    DEFAULT_READY_TIMEOUT_SECONDS
}
const fn ready_interval_ms() -> u64 {
    DEFAULT_READY_INTERVAL_MS
}
const fn tail_lines() -> u64 {
    DEFAULT_TAIL_LINES
}

/// Asks for a service to be started. One of the same name that has ended is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StartService {
    /// Its name: `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`.
    pub name: String,
    /// Program and arguments. No shell is involved.
    pub command: Vec<String>,
    /// Working directory in the guest; relative ones start at `/workspace`.
    #[serde(default = "workspace_root")]
    pub cwd: String,
    /// Variables added to the guest's environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Secrets by name, each with the variable that it is put into.
    #[serde(default)]
    pub secret_env: BTreeMap<String, String>,
    /// What shows that it is ready; without this it is as soon as it runs.
    #[serde(default)]
    pub readiness: Option<Readiness>,
    /// Seconds until it must be ready, 1 to 3600; it is stopped and `failed` otherwise.
    #[serde(default = "ready_timeout_seconds")]
    pub ready_timeout_seconds: u64,
    /// Milliseconds between two probes, 10 to 60000.
    #[serde(default = "ready_interval_ms")]
    pub ready_interval_ms: u64,
    /// Ports to publish on the host's loopback; needs the policy `egress+published-ports`.
    #[serde(default)]
    pub publish: Vec<PublishPort>,
}

impl StartService {
    /// A service with all defaults.
    pub fn new<S: Into<String>>(
        name: impl Into<String>,
        command: impl IntoIterator<Item = S>,
    ) -> Self {
        Self {
            name: name.into(),
            command: command.into_iter().map(Into::into).collect(),
            cwd: workspace_root(),
            env: BTreeMap::new(),
            secret_env: BTreeMap::new(),
            readiness: None,
            ready_timeout_seconds: ready_timeout_seconds(),
            ready_interval_ms: ready_interval_ms(),
            publish: Vec::new(),
        }
    }
}

/// What shows that a service is ready. All of it is looked at in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Readiness {
    /// Something is at a path.
    File {
        /// The path; relative ones start at `/workspace`.
        path: String,
    },
    /// A TCP connection is accepted.
    Tcp {
        /// An address, or `localhost`.
        host: String,
        /// The port.
        port: u16,
    },
    /// `GET` is answered with a 2xx status.
    Http {
        /// `http://HOST[:PORT][/PATH]`, the host an address or `localhost`.
        url: String,
    },
    /// A command exits with 0.
    Command {
        /// What `/bin/sh -c` is given. It runs in the service's working directory.
        command: String,
    },
}

/// A port to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishPort {
    /// The port of 127.0.0.1 on the host, from 1024; a free one when absent.
    #[serde(default)]
    pub host_port: Option<u16>,
    /// The port in the guest.
    pub guest_port: u16,
}

/// A port that is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PublishedPort {
    /// The address on the host; always `127.0.0.1`.
    pub host: String,
    /// The port on the host.
    pub host_port: u16,
    /// The port in the guest.
    pub guest_port: u16,
}

/// How far a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// It runs, or is about to, and is not known to be ready.
    Starting,
    /// It runs and is ready.
    Running,
    /// It was asked to end.
    Stopping,
    /// It was stopped; `stop_reason` says why.
    Stopped,
    /// It could not be started, was not ready in time, or lost its guest; `error` says more.
    Failed,
    /// It ended by itself after it was ready.
    Exited,
}

impl ServiceState {
    /// Whether there may be a process.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Stopping)
    }
}

/// Why a service does not run any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// Somebody stopped it.
    Requested,
    /// It ended by itself after it was ready.
    Exited,
    /// It ended by itself before it was ready.
    ExitedBeforeReady,
    /// It was not ready in time.
    NotReady,
    /// It could not be started.
    NotStarted,
    /// The workspace was stopped.
    WorkspaceStopped,
    /// The guest ended by itself.
    GuestEnded,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Service {
    /// The workspace.
    pub workspace_id: String,
    /// Its name.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Working directory in the guest.
    pub cwd: String,
    /// How far it is.
    pub state: ServiceState,
    /// Whether it runs and is ready.
    pub ready: bool,
    /// What shows that it is ready.
    pub readiness: Option<Readiness>,
    /// Its ports on the host, while they are published.
    pub published: Vec<PublishedPort>,
    /// When it was asked for.
    pub started_at: Timestamp,
    /// When it was ready.
    pub ready_at: Option<Timestamp>,
    /// When it was known to have ended.
    pub ended_at: Option<Timestamp>,
    /// What a shell would give for its end; `null` while it runs and when nobody knows.
    pub exit_code: Option<u8>,
    /// The signal that ended it.
    pub signal: Option<u8>,
    /// Why it does not run any more.
    pub stop_reason: Option<StopReason>,
    /// Why it failed.
    pub error: Option<ApiError>,
}

/// A workspace's services, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceList {
    /// The workspace.
    pub workspace_id: String,
    /// How many there are.
    pub count: u64,
    /// The services.
    pub services: Vec<Service>,
}

/// Asks for a service's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReadServiceLogs {
    /// How many of the last lines to give.
    pub tail_lines: u64,
    /// All that is kept, in the place of the last lines.
    pub all: bool,
}

impl Default for ReadServiceLogs {
    fn default() -> Self {
        Self {
            tail_lines: tail_lines(),
            all: false,
        }
    }
}

/// A service's log: what it wrote to standard output and standard error, in that order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceLogs {
    /// The workspace.
    pub workspace_id: String,
    /// The service's name.
    pub name: String,
    /// How far the service is.
    pub state: ServiceState,
    /// The log, invalid UTF-8 replaced.
    pub log: String,
    /// Lines in `log`.
    pub lines: u64,
    /// Whether there was more before it: older lines that were not asked for, or are not kept.
    pub truncated: bool,
}
