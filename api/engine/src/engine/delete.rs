//! Taking a workspace away.

use std::sync::Arc;

use pyro_client::types::DeletedWorkspace;

use super::{Engine, not_built_yet};
use crate::error::Result;

impl Engine {
    /// Ends the guest at once, and takes away the disk with all snapshots, the journal and the
    /// record.
    pub async fn delete(self: &Arc<Self>, workspace: &str) -> Result<DeletedWorkspace> {
        let _ = self.find(workspace)?;
        Err(not_built_yet("delete"))
    }
}
