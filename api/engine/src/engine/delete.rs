//! Taking a workspace away.

use std::sync::Arc;

use pyro_client::types::DeletedWorkspace;

use super::slot::Slot;
use super::{Engine, blocking, to_the_end};
use crate::error::{Code, Error, Result};
use crate::records::{Phase, Record};

impl Engine {
    /// Ends the guest at once, and takes away the disk with all snapshots, the journal and the
    /// record.
    pub async fn delete(self: &Arc<Self>, workspace: &str) -> Result<DeletedWorkspace> {
        let slot = self.find(workspace)?;
        let engine = Arc::clone(self);
        to_the_end(async move { engine.remove(&slot).await }).await
    }

    pub(super) async fn remove(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<DeletedWorkspace> {
        let _operation = self.begin_anyhow(slot);
        let _alone = slot.life.write().await;
        if !self.index().slots.contains_key(slot.id()) {
            return Err(Error::new(
                Code::WorkspaceNotFound,
                format!("the workspace {} is gone already", slot.id()),
                "see `pyro workspace list`",
            ));
        }
        self.set_phase(slot, Phase::Deleting).await?;
        self.settle(slot).await?;
        let (state, record) = (self.state.clone(), slot.record());
        blocking(move || erase(&state, &record)).await?;
        self.index_mut().slots.remove(slot.id());
        tracing::info!(workspace = %slot.id(), "deleted");
        Ok(DeletedWorkspace {
            workspace_id: slot.id().to_string(),
            deleted: true,
        })
    }
}

/// Removes all that is on the disk of a workspace without a guest. Blocks.
pub(super) fn erase(state: &crate::records::state::StateDir, record: &Record) -> Result<()> {
    for layer in record.disk.layers() {
        state.layers().remove(layer)?;
    }
    state.remove(&record.workspace_id)
}
