//! The disk of a stopped workspace, read without a guest.

use std::sync::Arc;

use pyro_client::types::{ExportDisk, ExportedDisk, FileContent, FileList, ListFiles, ReadFile};

use super::{Engine, not_built_yet};
use crate::error::Result;

impl Engine {
    /// Writes the whole disk as a raw ext4 image.
    pub async fn disk_export(
        self: &Arc<Self>,
        workspace: &str,
        request: ExportDisk,
    ) -> Result<ExportedDisk> {
        let _ = (self.find(workspace)?, request);
        Err(not_built_yet("disk_export"))
    }

    /// Lists a directory of the disk.
    pub async fn disk_list(
        self: &Arc<Self>,
        workspace: &str,
        request: ListFiles,
    ) -> Result<FileList> {
        let _ = (self.find(workspace)?, request);
        Err(not_built_yet("disk_list"))
    }

    /// Reads a file of the disk.
    pub async fn disk_read(
        self: &Arc<Self>,
        workspace: &str,
        request: ReadFile,
    ) -> Result<FileContent> {
        let _ = (self.find(workspace)?, request);
        Err(not_built_yet("disk_read"))
    }
}
