//! The operations.

use super::{
    BODY_LIMIT, InExec, InSnapshot, InWorkspace, Info, LARGE_BODY_LIMIT, Method, Nothing,
    Operation, Streaming, Top, Visitor,
};
use crate::types;

macro_rules! operations {
    ($(
        #[doc = $summary:literal]
        $name:ident = $id:literal: $method:ident $path:literal
            ($parameters:ty, $input:ty) -> $output:ty,
            sdk $sdk:tt $(, streams $event:ty)? $(, body $limit:expr)?;
    )*) => {
        $(
            #[doc = $summary]
            #[derive(Debug, Clone, Copy)]
            pub struct $name;

            impl Operation for $name {
                const INFO: Info = Info {
                    id: $id,
                    summary: $summary.trim_ascii(),
                    method: Method::$method,
                    path: $path,
                    sdk: &$sdk,
                    body_limit: operations!(@limit $($limit)?),
                };
                type Path = $parameters;
                type Input = $input;
                type Output = $output;
            }

            $(impl Streaming for $name {
                type Event = $event;
            })?
        )*

        /// All of them.
        pub const ALL: &[Info] = &[$($name::INFO),*];

        /// Shows each of them to the visitor.
        pub fn visit(visitor: &mut impl Visitor) {
            $(visitor.visit::<$name>();)*
        }
    };
    (@limit) => { BODY_LIMIT };
    (@limit $limit:expr) => { $limit };
}

operations! {
    /// The daemon's state.
    Health = "health": Get "/v1/health" (Top, Nothing) -> types::Health, sdk ["health"];
    /// Runs one command in a fresh VM that leaves nothing behind.
    Run = "run": Post "/v1/runs" (Top, types::RunRequest) -> types::RunResult,
        sdk ["run", "run_stream", "run_stream_with_input"], streams types::RunEvent;
    /// Lists all workspaces, most recent activity first.
    WorkspaceList = "workspace_list": Get "/v1/workspaces" (Top, Nothing) -> types::WorkspaceList,
        sdk ["list"];
    /// Makes a workspace and boots it.
    WorkspaceCreate = "workspace_create": Post "/v1/workspaces" (Top, types::CreateWorkspace) -> types::Workspace,
        sdk ["create"];
    /// Gives a workspace's record.
    WorkspaceStatus = "workspace_status": Get "/v1/workspaces/{w}" (InWorkspace, Nothing) -> types::Workspace,
        sdk ["get"];
    /// Changes a workspace's name and labels.
    WorkspaceUpdate = "workspace_update": Patch "/v1/workspaces/{w}" (InWorkspace, types::UpdateWorkspace) -> types::Workspace,
        sdk ["update"];
    /// Deletes a workspace with all it has.
    WorkspaceDelete = "workspace_delete": Delete "/v1/workspaces/{w}" (InWorkspace, Nothing) -> types::DeletedWorkspace,
        sdk ["delete"];
    /// Boots a stopped or failed workspace from its disk.
    WorkspaceStart = "workspace_start": Post "/v1/workspaces/{w}/start" (InWorkspace, Nothing) -> types::Workspace,
        sdk ["start"];
    /// Writes everything out and powers the guest off.
    WorkspaceStop = "workspace_stop": Post "/v1/workspaces/{w}/stop" (InWorkspace, Nothing) -> types::Workspace,
        sdk ["stop"];
    /// Sets a workspace back to a snapshot.
    WorkspaceReset = "workspace_reset": Post "/v1/workspaces/{w}/reset" (InWorkspace, types::Reset) -> types::Workspace,
        sdk ["reset"];
    /// Gives a workspace's journal of commands.
    WorkspaceLogs = "workspace_logs": Get "/v1/workspaces/{w}/logs" (InWorkspace, Nothing) -> types::WorkspaceLogs,
        sdk ["logs"];
    /// Runs a command. It is cancelled when the client goes away, unless it is detached.
    WorkspaceExec = "workspace_exec": Post "/v1/workspaces/{w}/exec" (InWorkspace, types::ExecRequest) -> types::ExecRecord,
        sdk ["exec", "exec_stream"], streams types::ExecEvent;
    /// Gives a command's record, waiting for its end as long as asked for.
    ExecGet = "exec_get": Get "/v1/workspaces/{w}/exec/{seq}" (InExec, types::WaitExec) -> types::ExecRecord,
        sdk ["exec_get"];
    /// Ends a running command.
    ExecCancel = "exec_cancel": Post "/v1/workspaces/{w}/exec/{seq}/cancel" (InExec, Nothing) -> types::ExecRecord,
        sdk ["exec_cancel"];
    /// Puts a directory or an archive of the host into a workspace: all of it or none.
    SyncPush = "workspace_sync_push": Post "/v1/workspaces/{w}/sync/push" (InWorkspace, types::SyncPush) -> types::SyncPushed,
        sdk ["sync_push"];
    /// Copies a path of a workspace to the host.
    Export = "workspace_export": Post "/v1/workspaces/{w}/export" (InWorkspace, types::Export) -> types::Exported,
        sdk ["export"];
    /// Gives what differs from the baseline.
    Diff = "workspace_diff": Get "/v1/workspaces/{w}/diff" (InWorkspace, Nothing) -> types::Diff,
        sdk ["diff"];
    /// Applies a unified diff: all of it or nothing.
    PatchApply = "workspace_patch_apply": Post "/v1/workspaces/{w}/patch" (InWorkspace, types::ApplyPatch) -> types::PatchApplied,
        sdk ["patch_apply"], body LARGE_BODY_LIMIT;
    /// Lists files.
    FileList = "workspace_file_list": Get "/v1/workspaces/{w}/files" (InWorkspace, types::ListFiles) -> types::FileList,
        sdk ["file_list"];
    /// Reads a file, or a part of it.
    FileRead = "workspace_file_read": Get "/v1/workspaces/{w}/files/content" (InWorkspace, types::ReadFile) -> types::FileContent,
        sdk ["file_read"];
    /// Writes a file, atomically.
    FileWrite = "workspace_file_write": Put "/v1/workspaces/{w}/files/content" (InWorkspace, types::WriteFile) -> types::WrittenFile,
        sdk ["file_write"], body LARGE_BODY_LIMIT;
    /// Lists a workspace's snapshots.
    SnapshotList = "snapshot_list": Get "/v1/workspaces/{w}/snapshots" (InWorkspace, Nothing) -> types::SnapshotList,
        sdk ["snapshot_list"];
    /// Makes a snapshot of the whole disk.
    SnapshotCreate = "snapshot_create": Post "/v1/workspaces/{w}/snapshots" (InWorkspace, types::CreateSnapshot) -> types::Snapshot,
        sdk ["snapshot_create"];
    /// Deletes a snapshot.
    SnapshotDelete = "snapshot_delete": Delete "/v1/workspaces/{w}/snapshots/{name}" (InSnapshot, Nothing) -> types::DeletedSnapshot,
        sdk ["snapshot_delete"];
    /// Writes a stopped workspace's disk as a raw ext4 image.
    DiskExport = "workspace_disk_export": Post "/v1/workspaces/{w}/disk/export" (InWorkspace, types::ExportDisk) -> types::ExportedDisk,
        sdk ["disk_export"];
    /// Lists files of a stopped workspace's disk.
    DiskList = "workspace_disk_list": Get "/v1/workspaces/{w}/disk/files" (InWorkspace, types::ListFiles) -> types::FileList,
        sdk ["disk_list"];
    /// Reads a file of a stopped workspace's disk.
    DiskRead = "workspace_disk_read": Get "/v1/workspaces/{w}/disk/files/content" (InWorkspace, types::ReadFile) -> types::FileContent,
        sdk ["disk_read"];
}
