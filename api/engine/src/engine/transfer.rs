//! Trees in and out of a workspace, and how it differs from its baseline.

use std::sync::Arc;

use pyro_client::types::{Diff, Export, Exported, SyncPush, SyncPushed};

use super::{Engine, not_built_yet};
use crate::error::Result;

impl Engine {
    /// Puts a directory or an archive of the host into a running workspace: all of it or none.
    pub async fn sync_push(
        self: &Arc<Self>,
        workspace: &str,
        request: SyncPush,
    ) -> Result<SyncPushed> {
        let _ = (self.find(workspace)?, request);
        Err(not_built_yet("sync_push"))
    }

    /// Copies a file or a directory to the host.
    pub async fn export(self: &Arc<Self>, workspace: &str, request: Export) -> Result<Exported> {
        let _ = (self.find(workspace)?, request);
        Err(not_built_yet("export"))
    }

    /// How `/workspace` differs from the create-time baseline.
    pub async fn diff(self: &Arc<Self>, workspace: &str) -> Result<Diff> {
        let _ = self.find(workspace)?;
        Err(not_built_yet("diff"))
    }
}
