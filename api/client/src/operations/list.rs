//! The operations.

use super::{
    BODY_LIMIT, InExec, InService, InShell, InSnapshot, InWorkspace, Info, LARGE_BODY_LIMIT,
    Method, Nothing, Operation, Streaming, Top, Visitor,
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
    /// Lists the environments that VMs can be made from.
    EnvironmentList = "environment_list": Get "/v1/environments" (Top, Nothing) -> types::EnvironmentList,
        sdk ["environments"];
    /// Takes workspaces away whose time to live is over, as the daemon also does by itself.
    WorkspaceReap = "workspace_reap": Post "/v1/reap" (Top, Nothing) -> types::ReapedWorkspaces,
        sdk ["reap"];
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
    /// Lists a workspace's services.
    ServiceList = "service_list": Get "/v1/workspaces/{w}/services" (InWorkspace, Nothing) -> types::ServiceList,
        sdk ["service_list"];
    /// Starts a service, and waits until it is ready.
    ServiceStart = "service_start": Post "/v1/workspaces/{w}/services" (InWorkspace, types::StartService) -> types::Service,
        sdk ["service_start"];
    /// Gives a service's record.
    ServiceStatus = "service_status": Get "/v1/workspaces/{w}/services/{name}" (InService, Nothing) -> types::Service,
        sdk ["service_status"];
    /// Gives the end of a service's log.
    ServiceLogs = "service_logs": Get "/v1/workspaces/{w}/services/{name}/logs" (InService, types::ReadServiceLogs) -> types::ServiceLogs,
        sdk ["service_logs"];
    /// Ends a service: with SIGTERM, and with SIGKILL when that does not help.
    ServiceStop = "service_stop": Post "/v1/workspaces/{w}/services/{name}/stop" (InService, Nothing) -> types::Service,
        sdk ["service_stop"];
    /// Lists a workspace's shells.
    ShellList = "shell_list": Get "/v1/workspaces/{w}/shells" (InWorkspace, Nothing) -> types::ShellList,
        sdk ["shell_list"];
    /// Opens a shell.
    ShellOpen = "shell_open": Post "/v1/workspaces/{w}/shells" (InWorkspace, types::OpenShell) -> types::Shell,
        sdk ["shell_open"];
    /// Gives what a shell wrote.
    ShellRead = "shell_read": Get "/v1/workspaces/{w}/shells/{shell}/output" (InShell, types::ReadShell) -> types::ShellOutput,
        sdk ["shell_read"];
    /// Follows a shell's output, or waits for its program's end.
    ShellFollow = "shell_follow": Get "/v1/workspaces/{w}/shells/{shell}/follow" (InShell, types::FollowShell) -> types::Shell,
        sdk ["shell_wait", "shell_follow"], streams types::ShellEvent;
    /// Types into a shell.
    ShellWrite = "shell_write": Post "/v1/workspaces/{w}/shells/{shell}/input" (InShell, types::WriteShell) -> types::ShellWritten,
        sdk ["shell_write"];
    /// Sends a signal to what runs in the foreground of a shell.
    ShellSignal = "shell_signal": Post "/v1/workspaces/{w}/shells/{shell}/signal" (InShell, types::SignalShell) -> types::Shell,
        sdk ["shell_signal"];
    /// Gives a shell's terminal another size.
    ShellResize = "shell_resize": Post "/v1/workspaces/{w}/shells/{shell}/resize" (InShell, types::ResizeShell) -> types::Shell,
        sdk ["shell_resize"];
    /// Ends a shell with all that runs in it.
    ShellClose = "shell_close": Delete "/v1/workspaces/{w}/shells/{shell}" (InShell, Nothing) -> types::ClosedShell,
        sdk ["shell_close"];
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
