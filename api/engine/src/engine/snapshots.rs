//! Snapshots of the whole disk, and going back to them.

use std::sync::Arc;

use pyro_client::types::{
    CreateSnapshot, DeletedSnapshot, Reset, Snapshot, SnapshotList, Workspace,
};

use super::{Engine, not_built_yet};
use crate::error::Result;

impl Engine {
    /// Makes a snapshot of the whole disk, of a running or a stopped workspace.
    pub async fn snapshot_create(
        self: &Arc<Self>,
        workspace: &str,
        request: CreateSnapshot,
    ) -> Result<Snapshot> {
        let _ = (self.find(workspace)?, request);
        Err(not_built_yet("snapshot_create"))
    }

    /// The snapshots: the baseline first, then oldest first.
    pub async fn snapshot_list(&self, workspace: &str) -> Result<SnapshotList> {
        let _ = self.find(workspace)?;
        Err(not_built_yet("snapshot_list"))
    }

    /// Deletes a named snapshot.
    pub async fn snapshot_delete(
        self: &Arc<Self>,
        workspace: &str,
        name: &str,
    ) -> Result<DeletedSnapshot> {
        let _ = (self.find(workspace)?, name);
        Err(not_built_yet("snapshot_delete"))
    }

    /// Ends the guest at once, sets the disk back to a snapshot, forgets the journal, and boots.
    pub async fn reset(self: &Arc<Self>, workspace: &str, request: Reset) -> Result<Workspace> {
        let _ = (self.find(workspace)?, request);
        Err(not_built_yet("reset"))
    }
}
