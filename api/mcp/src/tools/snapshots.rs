//! Tools of snapshots.

use pyro_client::types::{CreateSnapshot, DeletedSnapshot, Snapshot, SnapshotList};
use schemars::JsonSchema;
use serde::Deserialize;

use super::workspace::Which;
use super::{ADDS, Answer, Members, READS, REPLACES, Tool, Words, tool};
use crate::Error;
use crate::call::Call;

/// The tools, in their order.
#[rustfmt::skip]
pub(super) fn tools() -> Vec<Tool> {
    vec![
        tool(Words::full("snapshot_create", "Create a snapshot",
            "Keep the whole disk as it is now, under a name. Next: workspace_reset goes back to it."),
            ADDS, Members::all(&["name", "created_at", "baseline"]), create),
        tool(Words::full("snapshot_list", "List snapshots",
            "A workspace's snapshots, `baseline` (as created) first."),
            READS, Members::all(&["workspace_id", "count", "snapshots"]), list),
        tool(Words::full("snapshot_delete", "Delete a snapshot",
            "Delete a named snapshot. The workspace stays as it is."),
            REPLACES, Members::all(&["workspace_id", "name", "deleted"]), delete),
    ]
}

#[derive(Deserialize, JsonSchema)]
struct Named {
    /// Id or name
    workspace: String,
    /// The snapshot's: letters, digits, `.`, `_`, `-`
    name: String,
}

async fn create(call: Call, input: Named) -> Result<Answer<Snapshot>, Error> {
    let request = CreateSnapshot { name: input.name };
    Ok(call
        .client
        .snapshot_create(&input.workspace, &request)
        .await?
        .into())
}

async fn list(call: Call, input: Which) -> Result<Answer<SnapshotList>, Error> {
    Ok(call.client.snapshot_list(&input.workspace).await?.into())
}

async fn delete(call: Call, input: Named) -> Result<Answer<DeletedSnapshot>, Error> {
    Ok(call
        .client
        .snapshot_delete(&input.workspace, &input.name)
        .await?
        .into())
}
