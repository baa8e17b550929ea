//! Tools of workspaces.

use std::collections::BTreeMap;

use pyro_client::types::{
    DeletedWorkspace, Reset, Service, Shell, UpdateWorkspace, Workspace, WorkspaceList,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    ADDS, Answer, Members, Profile, READS, REPLACES, RUNS, SETS, Tool, Words, changes, create,
    disk, exec, files, fit, logs, tool,
};
use crate::Error;
use crate::call::Call;

/// Of a workspace's record, when it was changed.
pub(super) const CHANGED: Members = Members {
    all: &["workspace_id", "state"],
    wide: &["name", "labels", "failure", "network_policy", "expires_at"],
};
/// Of a workspace's record.
pub(super) const WORKSPACE: Members = Members {
    all: &["workspace_id", "name", "state", "expires_at"],
    wide: &[
        "labels",
        "environment",
        "failure",
        "vcpu_count",
        "mem_mib",
        "network_policy",
        "network_failure",
        "ttl_seconds",
        "created_at",
        "last_activity_at",
        "workspace_path",
        "seed",
        "command_count",
        "snapshot_count",
        "reset_count",
        "last_reset_at",
        "secrets",
        "service_count",
        "shell_count",
    ],
};
/// Of a workspace's record with what lives in it.
pub(super) const STATUS: Members = Members {
    all: WORKSPACE.all,
    wide: &[
        "labels",
        "environment",
        "failure",
        "vcpu_count",
        "mem_mib",
        "network_policy",
        "network_failure",
        "ttl_seconds",
        "created_at",
        "last_activity_at",
        "workspace_path",
        "seed",
        "command_count",
        "snapshot_count",
        "reset_count",
        "last_reset_at",
        "secrets",
        "services",
        "shells",
    ],
};
const EXEC: Members = Members {
    all: &["sequence", "state", "exit_code", "stdout", "stderr", "next"],
    wide: &[
        "workspace_id",
        "command",
        "cwd",
        "signal",
        "stdout_bytes",
        "stderr_bytes",
        "stdout_truncated",
        "stderr_truncated",
        "started_at",
        "duration_ms",
        "error",
    ],
};

/// The tools, in their order.
#[rustfmt::skip]
pub(super) fn tools() -> Vec<Tool> {
    vec![
        tool(Words::core("workspace_create", "Create a workspace",
            "Boot a Linux VM whose /workspace stays between calls. Next: workspace_exec, workspace_file_*; at the end workspace_delete."),
            ADDS, WORKSPACE, create::create),
        tool(Words::core("workspace_list", "List workspaces",
            "Find workspaces again, most recently changed first."),
            READS, Members::all(&["count", "workspaces", "next"]), list),
        tool(Words::core("workspace_update", "Rename or label",
            "Set a workspace's name and labels."),
            SETS, CHANGED, update),
        tool(Words::core("workspace_status", "Look at a workspace",
            "One workspace's record: state, failure, expiry.")
            .wide("Also its services and shells, with their ids."),
            READS, STATUS, status),
        tool(Words::full("workspace_start", "Start a workspace",
            "Boot a stopped or failed workspace from its disk."),
            SETS, CHANGED, start),
        tool(Words::full("workspace_stop", "Stop a workspace",
            "Write everything to disk and power off; services and shells end. Next: workspace_disk_* or workspace_start."),
            REPLACES, CHANGED, stop),
        tool(Words::core("workspace_delete", "Delete a workspace",
            "Delete a workspace with all its files. Export first what is to stay."),
            REPLACES, Members::all(&["workspace_id", "deleted"]), delete),
        tool(Words::core("workspace_sync_push", "Copy from the host",
            "Lay a host directory or .tar(.gz) over a running workspace's files: all of it or none."),
            REPLACES, changes::PUSHED, changes::push),
        tool(Words::core("workspace_exec", "Run a command",
            "Run a command. A long one goes on after wait_seconds; workspace_logs waits for it."),
            RUNS, EXEC, exec::exec),
        tool(Words::core("workspace_logs", "Read commands' output",
            "Past and running commands with their output; waits for one's end."),
            READS, Members::all(&["count", "entries", "next"]), logs::logs),
        tool(Words::core("workspace_export", "Copy to the host",
            "Copy a file or directory to the host."),
            REPLACES, changes::EXPORTED, changes::export),
        tool(Words::core("workspace_diff", "Show changes",
            "What changed since creation, as a git-style patch."),
            READS, changes::DIFF, changes::diff),
        tool(Words::core("workspace_file_list", "List files",
            "List a directory."),
            READS, files::LISTED, files::list),
        tool(Words::core("workspace_file_read", "Read a file",
            "Read a file, or a part of it."),
            READS, files::CONTENT, files::read),
        tool(Words::core("workspace_file_write", "Write a file",
            "Write a whole file, parents included; for edits prefer workspace_patch_apply."),
            REPLACES, files::WRITTEN, files::write),
        tool(Words::core("workspace_patch_apply", "Apply a patch",
            "Apply a unified diff (a/ b/ prefixes) to several files: all of it or nothing."),
            RUNS.closed(), changes::PATCHED, changes::patch),
        tool(Words::core("workspace_reset", "Reset a workspace",
            "Set the whole disk back to how it was created, with fresh processes and logs.")
            .wide("Or back to a snapshot."),
            REPLACES, CHANGED, reset),
        tool(Words::full("workspace_disk_export", "Export a disk image",
            "Write a stopped workspace's disk to the host as a raw ext4 image."),
            REPLACES, disk::EXPORTED, disk::export),
        tool(Words::full("workspace_disk_list", "List a stopped disk",
            "List files of a stopped workspace's whole disk."),
            READS, files::LISTED, disk::list),
        tool(Words::full("workspace_disk_read", "Read from a stopped disk",
            "Read a file of a stopped workspace's whole disk."),
            READS, files::CONTENT, disk::read),
    ]
}

/// A workspace.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Which {
    /// Id or name
    pub(super) workspace: String,
}

pub(super) async fn start(call: Call, input: Which) -> Result<Answer<Workspace>, Error> {
    Ok(call.client.start(&input.workspace).await?.into())
}

pub(super) async fn stop(call: Call, input: Which) -> Result<Answer<Workspace>, Error> {
    Ok(call.client.stop(&input.workspace).await?.into())
}

pub(super) async fn delete(call: Call, input: Which) -> Result<Answer<DeletedWorkspace>, Error> {
    Ok(call.client.delete(&input.workspace).await?.into())
}

/// A workspace's record, with what lives in it where the profile has such things.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Status {
    #[serde(flatten)]
    record: Workspace,
    #[serde(skip_serializing_if = "Option::is_none")]
    services: Option<Vec<Service>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shells: Option<Vec<Shell>>,
}

pub(super) async fn status(call: Call, input: Which) -> Result<Answer<Status>, Error> {
    let record = call.client.get(&input.workspace).await?;
    let (mut services, mut shells) = (None, None);
    if call.profile == Profile::WorkspaceFull {
        let id = &record.workspace_id;
        services = Some(call.client.service_list(id).await?.services);
        shells = Some(call.client.shell_list(id).await?.shells);
    }
    let status = Status {
        record,
        services,
        shells,
    };
    Ok(status.into())
}

const fn limit() -> u64 {
    20
}

#[derive(Deserialize, JsonSchema)]
struct List {
    #[serde(default = "limit")]
    #[schemars(range(min = 1, max = 50))]
    limit: u64,
    #[serde(default)]
    offset: u64,
}

async fn list(call: Call, input: List) -> Result<Answer<WorkspaceList>, Error> {
    let mut list = call.client.list().await?;
    let all = list.workspaces.len();
    let (offset, limit) = (
        usize::try_from(input.offset).unwrap_or(usize::MAX),
        usize::try_from(input.limit).unwrap_or(usize::MAX),
    );
    list.workspaces = list
        .workspaces
        .into_iter()
        .skip(offset)
        .take(limit)
        .collect();
    for workspace in &mut list.workspaces {
        // Of the record alone: where files stayed behind.
        workspace.seed.skipped.clear();
    }
    fit(&mut list.workspaces);
    list.unreadable.truncate(limit);
    let end = offset.saturating_add(list.workspaces.len());
    let next = (end < all).then(|| format!("workspace_list with offset {end} lists on"));
    Ok(Answer::from(list).maybe_next(next))
}

#[derive(Deserialize, JsonSchema)]
struct Update {
    /// Id or name
    workspace: String,
    name: Option<String>,
    #[serde(default)]
    clear_name: bool,
    /// To be set
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    clear_labels: Vec<String>,
}

async fn update(call: Call, input: Update) -> Result<Answer<Workspace>, Error> {
    let request = UpdateWorkspace {
        name: input.name,
        clear_name: input.clear_name,
        labels: input.labels,
        clear_labels: input.clear_labels,
    };
    Ok(call.client.update(&input.workspace, &request).await?.into())
}

fn baseline() -> String {
    pyro_client::types::BASELINE.into()
}

#[derive(Deserialize, JsonSchema)]
struct ResetTo {
    /// Id or name
    workspace: String,
    #[serde(default = "baseline")]
    #[schemars(extend("x-pyro-wide" = true))]
    snapshot: String,
}

async fn reset(call: Call, input: ResetTo) -> Result<Answer<Workspace>, Error> {
    let request = Reset {
        snapshot: input.snapshot,
    };
    Ok(call.client.reset(&input.workspace, &request).await?.into())
}
