//! The disk of a stopped workspace.

use pyro_client::types::{ExportDisk, ExportedDisk, FileContent, FileList};
use schemars::JsonSchema;
use serde::Deserialize;

use super::files::{self, List, Read};
use super::{Answer, Members};
use crate::Error;
use crate::call::Call;

pub(super) const EXPORTED: Members =
    Members::all(&["workspace_id", "output", "format", "size_bytes"]);

#[derive(Deserialize, JsonSchema)]
pub(super) struct ExportTo {
    /// Id or name
    workspace: String,
    /// On the host
    output: String,
    /// Replaces output
    #[serde(default)]
    force: bool,
}

pub(super) async fn export(call: Call, input: ExportTo) -> Result<Answer<ExportedDisk>, Error> {
    let request = ExportDisk {
        output: call.host_path("output", &input.output)?,
        force: input.force,
    };
    Ok(call
        .client
        .disk_export(&input.workspace, &request)
        .await?
        .into())
}

pub(super) async fn list(call: Call, input: List) -> Result<Answer<FileList>, Error> {
    let request = input.request();
    let list = call.client.disk_list(&input.workspace, &request).await?;
    Ok(input.part("workspace_disk_list", list))
}

pub(super) async fn read(call: Call, input: Read) -> Result<Answer<FileContent>, Error> {
    let request = input.request();
    let found = call.client.disk_read(&input.workspace, &request).await?;
    Ok(files::content("workspace_disk_read", found))
}
