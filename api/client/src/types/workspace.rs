//! Workspaces: the record, and what makes and changes it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ApiError, DeclareSecret, Secret, mem_mib, pull, ttl_seconds, vcpu_count};

/// What a guest may reach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NetworkPolicy {
    /// No network device at all.
    #[default]
    #[serde(rename = "off")]
    Off,
    /// Outgoing connections; the host's own, private, link-local and metadata addresses refused.
    #[serde(rename = "egress")]
    Egress,
    /// Outgoing connections, and ports published on the host's loopback.
    #[serde(rename = "egress+published-ports")]
    EgressPublishedPorts,
}

/// What a workspace is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkspaceState {
    /// It is being made: its disk is seeded or its guest boots for the first time.
    Creating,
    /// Its guest boots.
    Starting,
    /// Its guest runs and takes commands.
    Running,
    /// Its guest writes everything out and powers off.
    Stopping,
    /// It has no guest; its disk is intact.
    Stopped,
    /// Its guest ended by itself; `failure` says why. `start` boots it from its disk.
    Failed,
}

/// Asks for a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateWorkspace {
    /// The environment, such as `debian:12`.
    pub environment: String,
    /// Whether an environment that is not installed is pulled first, which takes a minute or so;
    /// otherwise that is refused as `environment_cold`.
    #[serde(default = "pull")]
    pub pull: bool,
    /// Virtual CPUs.
    #[serde(default = "vcpu_count")]
    pub vcpu_count: u64,
    /// Memory in MiB.
    #[serde(default = "mem_mib")]
    pub mem_mib: u64,
    /// Seconds after the last activity until the workspace is reaped.
    #[serde(default = "ttl_seconds")]
    pub ttl_seconds: u64,
    /// What the guest may reach.
    #[serde(default)]
    pub network_policy: NetworkPolicy,
    /// Absolute path on the host of a directory or a `.tar`, `.tar.gz` or `.tgz` archive that
    /// `/workspace` starts with; empty when absent.
    #[serde(default)]
    pub seed_path: Option<String>,
    /// Free text for people. At most 200 characters, no control characters.
    #[serde(default)]
    pub name: Option<String>,
    /// Keys are `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`; values at most 1024 bytes; at most 64 of them.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Secrets for programs of the guest, at most 64.
    #[serde(default)]
    pub secrets: Vec<DeclareSecret>,
}

impl CreateWorkspace {
    /// A workspace of `environment` with all defaults.
    pub fn new(environment: impl Into<String>) -> Self {
        Self {
            environment: environment.into(),
            pull: pull(),
            vcpu_count: vcpu_count(),
            mem_mib: mem_mib(),
            ttl_seconds: ttl_seconds(),
            network_policy: NetworkPolicy::Off,
            seed_path: None,
            name: None,
            labels: BTreeMap::new(),
            secrets: Vec::new(),
        }
    }
}

/// Changes the metadata of a workspace; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpdateWorkspace {
    /// The new name.
    pub name: Option<String>,
    /// Takes the name away; not together with `name`.
    pub clear_name: bool,
    /// Labels to set.
    pub labels: BTreeMap<String, String>,
    /// Labels to take away; those that are not there do no harm.
    pub clear_labels: Vec<String>,
}

/// A workspace, as it is kept and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Workspace {
    /// The machine's key: `ws-` and 12 lower-case letters and digits.
    pub workspace_id: String,
    /// The people's name.
    pub name: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The environment it was made from.
    pub environment: String,
    /// What it is doing.
    pub state: WorkspaceState,
    /// Why it is `failed`; otherwise `null`.
    pub failure: Option<ApiError>,
    /// Virtual CPUs.
    pub vcpu_count: u64,
    /// Memory in MiB.
    pub mem_mib: u64,
    /// What the guest may reach.
    pub network_policy: NetworkPolicy,
    /// Why its guest runs without a network although the policy allows one; otherwise `null`.
    pub network_failure: Option<ApiError>,
    /// Seconds after the last activity until it is reaped.
    pub ttl_seconds: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When something last changed it; reads never count.
    pub last_activity_at: Timestamp,
    /// When it is reaped if nothing happens until then.
    pub expires_at: Timestamp,
    /// Where its files are, in the guest.
    pub workspace_path: String,
    /// What `/workspace` started with.
    pub seed: Seed,
    /// How many commands its journal has seen since creation or the last reset.
    pub command_count: u64,
    /// How many named snapshots it has, without the baseline.
    pub snapshot_count: u64,
    /// How often it was reset.
    pub reset_count: u64,
    /// When it was last reset.
    pub last_reset_at: Option<Timestamp>,
    /// Its secrets, without their values.
    pub secrets: Vec<Secret>,
    /// How many of its services run.
    pub service_count: u64,
    /// How many shells it has.
    pub shell_count: u64,
}

/// What `/workspace` started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Seed {
    /// What kind of thing it was.
    pub kind: SeedKind,
    /// Its path on the host.
    pub path: Option<String>,
    /// Files, directories and links that were taken.
    pub entries: u64,
    /// Bytes of the files' contents.
    pub bytes: u64,
    /// What stayed behind, and why. At most 100 are named.
    pub skipped: Vec<Skipped>,
    /// How many stayed behind altogether.
    pub skipped_count: u64,
}

/// The kinds of seeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SeedKind {
    /// Nothing.
    Empty,
    /// A directory of the host.
    Directory,
    /// A tar archive, compressed or not.
    Tar,
}

/// Something that was left out of a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Skipped {
    /// Its path, relative to what was transferred.
    pub path: String,
    /// Why, in a few words.
    pub reason: String,
}

/// All workspaces, most recent activity first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkspaceList {
    /// How many there are.
    pub count: u64,
    /// The workspaces.
    pub workspaces: Vec<Workspace>,
    /// Records that cannot be read; they are never deleted silently.
    pub unreadable: Vec<UnreadableRecord>,
}

/// A record that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnreadableRecord {
    /// The id that its folder says.
    pub workspace_id: String,
    /// The folder on the host.
    pub path: String,
    /// What is wrong with it.
    pub error: ApiError,
}

/// A workspace that was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeletedWorkspace {
    /// Its id.
    pub workspace_id: String,
    /// Always true.
    pub deleted: bool,
}
