//! Single files in a workspace, and patches.

use std::sync::Arc;

use pyro_client::types::{
    ApplyPatch, FileContent, FileList, ListFiles, PatchApplied, ReadFile, WriteFile, WrittenFile,
};

use super::{Engine, not_built_yet};
use crate::error::Result;

impl Engine {
    /// Lists a directory of a running workspace.
    pub async fn file_list(&self, workspace: &str, request: ListFiles) -> Result<FileList> {
        let _ = (self.find(workspace)?, request);
        Err(not_built_yet("file_list"))
    }

    /// Reads a file of a running workspace.
    pub async fn file_read(&self, workspace: &str, request: ReadFile) -> Result<FileContent> {
        let _ = (self.find(workspace)?, request);
        Err(not_built_yet("file_read"))
    }

    /// Writes a file of a running workspace, atomically.
    pub async fn file_write(
        self: &Arc<Self>,
        workspace: &str,
        request: WriteFile,
    ) -> Result<WrittenFile> {
        let _ = (self.find(workspace)?, request);
        Err(not_built_yet("file_write"))
    }

    /// Applies a patch to a running workspace: all of it or nothing.
    pub async fn patch_apply(
        self: &Arc<Self>,
        workspace: &str,
        request: ApplyPatch,
    ) -> Result<PatchApplied> {
        let _ = (self.find(workspace)?, request);
        Err(not_built_yet("patch_apply"))
    }
}
