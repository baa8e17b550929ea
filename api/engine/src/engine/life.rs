//! Starting and stopping guests.

use std::sync::Arc;

use pyro_client::types::Workspace;

use super::{Engine, not_built_yet};
use crate::error::Result;

impl Engine {
    /// Boots the workspace's disk; answers when the guest is ready, at once when it is already.
    pub async fn start(self: &Arc<Self>, workspace: &str) -> Result<Workspace> {
        let _ = self.find(workspace)?;
        Err(not_built_yet("start"))
    }

    /// Lets the guest write everything out and power off; answers when it is gone, at once when
    /// it is already. Commands that run are ended and recorded as lost.
    pub async fn stop(self: &Arc<Self>, workspace: &str) -> Result<Workspace> {
        let _ = self.find(workspace)?;
        Err(not_built_yet("stop"))
    }
}
