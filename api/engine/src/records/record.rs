//! One workspace as it is kept.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pyro_client::types::{ApiError, NetworkPolicy, Secret, Seed};
use pyro_images::Manifest;
use serde::{Deserialize, Serialize};

use super::WorkspaceId;
use super::layers::LayerId;

/// The layout of a record on disk.
pub(crate) const FORMAT: u32 = 1;

/// A workspace, as it is kept. The fields that people see are those of
/// [`pyro_client::types::Workspace`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// [`FORMAT`].
    pub(crate) format: u32,
    pub(crate) workspace_id: WorkspaceId,
    pub(crate) name: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) environment: Pinned,
    pub(crate) vcpu_count: u8,
    pub(crate) mem_mib: u32,
    pub(crate) network_policy: NetworkPolicy,
    pub(crate) ttl_seconds: u64,
    pub(crate) created_at: Timestamp,
    /// When something last changed it, as of this record; see [`super::activity`] for later.
    pub(crate) last_activity_at: Timestamp,
    pub(crate) seed: Seed,
    /// Names of its secrets; the values are elsewhere ([`super::secrets`]).
    #[serde(default)]
    pub(crate) secrets: Vec<Secret>,
    pub(crate) reset_count: u64,
    pub(crate) last_reset_at: Option<Timestamp>,
    pub(crate) phase: Phase,
    pub(crate) disk: Disk,
}

/// The environment as it was when the workspace was made: a later pull of the same name changes
/// nothing for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pinned {
    pub(crate) name: String,
    pub(crate) manifest: Manifest,
}

/// What the workspace is doing, as far as a daemon that finds the record must know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub(crate) enum Phase {
    /// Its disk is being made; nobody has heard of it yet. Found: taken away.
    Creating,
    /// It has no guest.
    Stopped,
    /// A monitor is, or is about to be, started. Found: ended, and the workspace is stopped.
    Starting,
    /// Its guest runs, in this boot of the host. Found: adopted.
    Running,
    /// Its guest is being ended. Found: ended.
    Stopping,
    /// Its guest ended by itself.
    Failed { failure: ApiError },
    /// It is being taken away. Found: finished.
    Deleting,
}

/// The layers above the environment's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Disk {
    /// Frozen layers of the create-time state, lowest first.
    pub(crate) baseline: Vec<LayerId>,
    /// Frozen layers beneath the top as of now, lowest first; starts with `baseline` unless a
    /// reset went elsewhere.
    pub(crate) frozen: Vec<LayerId>,
    /// The layer that takes the guest's writes; absent only while the workspace is made.
    pub(crate) top: Option<LayerId>,
    /// The running guest may still write into the layer beneath `top`: it is to be told again.
    #[serde(default)]
    pub(crate) freezing: bool,
    /// Named snapshots, oldest first.
    pub(crate) snapshots: Vec<SnapshotRecord>,
}

/// A named snapshot: a stack of frozen layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotRecord {
    pub(crate) name: String,
    pub(crate) created_at: Timestamp,
    pub(crate) layers: Vec<LayerId>,
}

impl Disk {
    /// The layers of the disk as it is now, lowest first.
    pub(crate) fn stack(&self) -> impl Iterator<Item = &LayerId> {
        self.frozen.iter().chain(&self.top)
    }

    /// Every layer that must be kept.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &LayerId> {
        self.baseline
            .iter()
            .chain(&self.frozen)
            .chain(&self.top)
            .chain(self.snapshots.iter().flat_map(|snapshot| &snapshot.layers))
    }
}
