//! Making a workspace.

use std::sync::Arc;

use pyro_client::types::{CreateWorkspace, Workspace};

use super::{Engine, not_built_yet};
use crate::error::Result;

impl Engine {
    /// Makes a workspace: pulls its environment when it is missing, seeds `/workspace`, boots the
    /// guest, and answers when it is ready. When anything of it fails, nothing is left.
    pub async fn create(self: &Arc<Self>, request: CreateWorkspace) -> Result<Workspace> {
        let _ = request;
        Err(not_built_yet("create"))
    }
}
