//! One method for each operation.

use std::time::Duration;

use tokio::io::AsyncRead;

use super::{Client, ClientError, ExecStream, Result, RunStream};
use crate::operations::{self as op, InExec, InSnapshot, InWorkspace, Nothing, Top};
use crate::types::{
    ApplyPatch, CreateSnapshot, CreateWorkspace, DeletedSnapshot, DeletedWorkspace, Diff,
    EnvironmentList, ExecRecord, ExecRequest, Export, ExportDisk, Exported, ExportedDisk,
    FileContent, FileList, Health, ListFiles, PatchApplied, ReadFile, ReapedWorkspaces, Reset,
    RunRequest, RunResult, Snapshot, SnapshotList, SyncPush, SyncPushed, UpdateWorkspace, WaitExec,
    Workspace, WorkspaceList, WorkspaceLogs, WriteFile, WrittenFile,
};

fn within(workspace: &str) -> InWorkspace {
    InWorkspace {
        w: workspace.to_string(),
    }
}

/// Each fails with [`ClientError::Api`] when the daemon refuses; the API's codes are the engine's.
impl Client {
    /// The daemon's state.
    pub async fn health(&self) -> Result<Health> {
        self.pool.call::<op::Health>(Top {}, &Nothing {}).await
    }

    /// The OpenAPI document.
    pub async fn openapi(&self) -> Result<serde_json::Value> {
        let body = self.pool.document("/v1/openapi.json").await?;
        serde_json::from_slice(&body).map_err(|source| ClientError::Answer {
            source: source.into(),
        })
    }

    /// The daemon's metrics, in Prometheus' text format.
    pub async fn metrics(&self) -> Result<String> {
        let body = self.pool.document("/metrics").await?;
        String::from_utf8(body.into()).map_err(|source| ClientError::Answer {
            source: source.into(),
        })
    }

    /// Runs one command in a fresh VM that leaves nothing behind, and waits for its end.
    pub async fn run(&self, request: &RunRequest) -> Result<RunResult> {
        self.pool.call::<op::Run>(Top {}, request).await
    }

    /// Runs one command in a fresh VM; its output comes as it is written.
    pub async fn run_stream(&self, request: &RunRequest) -> Result<RunStream> {
        self.pool.stream::<op::Run>(Top {}, request).await
    }

    /// The same; the command's standard input comes from `stdin`, as fast as the guest takes it.
    /// Nothing is read of it for a run that is refused, nor after the command's end.
    pub async fn run_stream_with_input(
        &self,
        request: &RunRequest,
        stdin: impl AsyncRead + Send + 'static,
    ) -> Result<RunStream> {
        self.pool
            .stream_with_input::<op::Run>(Top {}, request, stdin)
            .await
    }

    /// The environments that VMs can be made from.
    pub async fn environments(&self) -> Result<EnvironmentList> {
        self.pool
            .call::<op::EnvironmentList>(Top {}, &Nothing {})
            .await
    }

    /// Takes workspaces away whose time to live is over, as the daemon also does by itself.
    pub async fn reap(&self) -> Result<ReapedWorkspaces> {
        self.pool
            .call::<op::WorkspaceReap>(Top {}, &Nothing {})
            .await
    }

    /// Makes a workspace and boots it.
    ///
    /// ```no_run
    /// # async fn example(client: pyro_client::Client) -> Result<(), pyro_client::ClientError> {
    /// use pyro_client::types::CreateWorkspace;
    ///
    /// let workspace = client
    ///     .create(&CreateWorkspace {
    ///         seed_path: Some("/home/me/project".into()),
    ///         name: Some("fix the parser".into()),
    ///         ..CreateWorkspace::new("debian:12")
    ///     })
    ///     .await?;
    /// println!("{}", workspace.workspace_id);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn create(&self, request: &CreateWorkspace) -> Result<Workspace> {
        self.pool.call::<op::WorkspaceCreate>(Top {}, request).await
    }

    /// All workspaces, most recent activity first.
    pub async fn list(&self) -> Result<WorkspaceList> {
        self.pool
            .call::<op::WorkspaceList>(Top {}, &Nothing {})
            .await
    }

    /// A workspace's record.
    pub async fn get(&self, workspace: &str) -> Result<Workspace> {
        self.pool
            .call::<op::WorkspaceStatus>(within(workspace), &Nothing {})
            .await
    }

    /// Changes a workspace's name and labels.
    pub async fn update(&self, workspace: &str, request: &UpdateWorkspace) -> Result<Workspace> {
        self.pool
            .call::<op::WorkspaceUpdate>(within(workspace), request)
            .await
    }

    /// Deletes a workspace with all it has.
    pub async fn delete(&self, workspace: &str) -> Result<DeletedWorkspace> {
        self.pool
            .call::<op::WorkspaceDelete>(within(workspace), &Nothing {})
            .await
    }

    /// Boots a stopped or failed workspace from its disk.
    pub async fn start(&self, workspace: &str) -> Result<Workspace> {
        self.pool
            .call::<op::WorkspaceStart>(within(workspace), &Nothing {})
            .await
    }

    /// Writes everything out and powers the guest off.
    pub async fn stop(&self, workspace: &str) -> Result<Workspace> {
        self.pool
            .call::<op::WorkspaceStop>(within(workspace), &Nothing {})
            .await
    }

    /// Sets a workspace back to a snapshot.
    pub async fn reset(&self, workspace: &str, request: &Reset) -> Result<Workspace> {
        self.pool
            .call::<op::WorkspaceReset>(within(workspace), request)
            .await
    }

    /// A workspace's journal of commands.
    pub async fn logs(&self, workspace: &str) -> Result<WorkspaceLogs> {
        self.pool
            .call::<op::WorkspaceLogs>(within(workspace), &Nothing {})
            .await
    }

    /// Runs a command and waits for its end; a detached one only for its start.
    pub async fn exec(&self, workspace: &str, request: &ExecRequest) -> Result<ExecRecord> {
        self.pool
            .call::<op::WorkspaceExec>(within(workspace), request)
            .await
    }

    /// Runs a command; its output comes as it is written.
    ///
    /// ```no_run
    /// # async fn example(client: pyro_client::Client) -> Result<(), pyro_client::ClientError> {
    /// use pyro_client::types::{ExecEvent, ExecRequest};
    ///
    /// let mut stream = client
    ///     .exec_stream("box", &ExecRequest::new(["ping", "-c3", "localhost"]))
    ///     .await?;
    /// while let Some(event) = stream.next().await? {
    ///     if let ExecEvent::Ended { record } = event {
    ///         println!("{:?}", record.exit_code);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn exec_stream(&self, workspace: &str, request: &ExecRequest) -> Result<ExecStream> {
        self.pool
            .stream::<op::WorkspaceExec>(within(workspace), request)
            .await
    }

    /// A command's record, after waiting up to `wait` (whole seconds, at most an hour) for its end.
    pub async fn exec_get(
        &self,
        workspace: &str,
        sequence: u64,
        wait: Duration,
    ) -> Result<ExecRecord> {
        let path = InExec {
            w: workspace.to_string(),
            seq: sequence,
        };
        let wait = WaitExec {
            wait_seconds: wait.as_secs(),
        };
        self.pool.call::<op::ExecGet>(path, &wait).await
    }

    /// Ends a running command.
    pub async fn exec_cancel(&self, workspace: &str, sequence: u64) -> Result<ExecRecord> {
        let path = InExec {
            w: workspace.to_string(),
            seq: sequence,
        };
        self.pool.call::<op::ExecCancel>(path, &Nothing {}).await
    }

    /// Puts a directory or an archive of the host into a workspace: all of it or none.
    pub async fn sync_push(&self, workspace: &str, request: &SyncPush) -> Result<SyncPushed> {
        self.pool
            .call::<op::SyncPush>(within(workspace), request)
            .await
    }

    /// Copies a path of a workspace to the host.
    pub async fn export(&self, workspace: &str, request: &Export) -> Result<Exported> {
        self.pool
            .call::<op::Export>(within(workspace), request)
            .await
    }

    /// What differs from the baseline.
    pub async fn diff(&self, workspace: &str) -> Result<Diff> {
        self.pool
            .call::<op::Diff>(within(workspace), &Nothing {})
            .await
    }

    /// Applies a unified diff: all of it or nothing.
    pub async fn patch_apply(&self, workspace: &str, request: &ApplyPatch) -> Result<PatchApplied> {
        self.pool
            .call::<op::PatchApply>(within(workspace), request)
            .await
    }

    /// Lists files.
    pub async fn file_list(&self, workspace: &str, request: &ListFiles) -> Result<FileList> {
        self.pool
            .call::<op::FileList>(within(workspace), request)
            .await
    }

    /// Reads a file, or a part of it.
    ///
    /// ```no_run
    /// # async fn example(client: pyro_client::Client) -> Result<(), pyro_client::ClientError> {
    /// use pyro_client::types::{Encoding, ReadFile, WriteFile};
    ///
    /// let file = client.file_read("box", &ReadFile::new("src/main.rs")).await?;
    /// client
    ///     .file_write(
    ///         "box",
    ///         &WriteFile {
    ///             path: file.path,
    ///             content: file.content.replace("teh", "the"),
    ///             encoding: Encoding::Utf8,
    ///             // Refused when somebody else wrote it meanwhile.
    ///             expect_sha256: file.sha256,
    ///         },
    ///     )
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn file_read(&self, workspace: &str, request: &ReadFile) -> Result<FileContent> {
        self.pool
            .call::<op::FileRead>(within(workspace), request)
            .await
    }

    /// Writes a file, atomically.
    pub async fn file_write(&self, workspace: &str, request: &WriteFile) -> Result<WrittenFile> {
        self.pool
            .call::<op::FileWrite>(within(workspace), request)
            .await
    }

    /// A workspace's snapshots.
    pub async fn snapshot_list(&self, workspace: &str) -> Result<SnapshotList> {
        self.pool
            .call::<op::SnapshotList>(within(workspace), &Nothing {})
            .await
    }

    /// Makes a snapshot of the whole disk.
    pub async fn snapshot_create(
        &self,
        workspace: &str,
        request: &CreateSnapshot,
    ) -> Result<Snapshot> {
        self.pool
            .call::<op::SnapshotCreate>(within(workspace), request)
            .await
    }

    /// Deletes a snapshot.
    pub async fn snapshot_delete(&self, workspace: &str, name: &str) -> Result<DeletedSnapshot> {
        let path = InSnapshot {
            w: workspace.to_string(),
            name: name.to_string(),
        };
        self.pool
            .call::<op::SnapshotDelete>(path, &Nothing {})
            .await
    }

    /// Writes a stopped workspace's disk as a raw ext4 image.
    pub async fn disk_export(&self, workspace: &str, request: &ExportDisk) -> Result<ExportedDisk> {
        self.pool
            .call::<op::DiskExport>(within(workspace), request)
            .await
    }

    /// Lists files of a stopped workspace's disk.
    pub async fn disk_list(&self, workspace: &str, request: &ListFiles) -> Result<FileList> {
        self.pool
            .call::<op::DiskList>(within(workspace), request)
            .await
    }

    /// Reads a file of a stopped workspace's disk.
    pub async fn disk_read(&self, workspace: &str, request: &ReadFile) -> Result<FileContent> {
        self.pool
            .call::<op::DiskRead>(within(workspace), request)
            .await
    }
}
