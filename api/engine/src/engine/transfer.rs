//! Trees in and out of a workspace.

use std::path::Path;
use std::sync::Arc;

use pyro_client::types::{Export, Exported, Skipped, SyncPush, SyncPushed, WORKSPACE_ROOT};
use pyro_rootfs::export::{ExportError, ExportLimits, export_to_host};
use tokio::sync::mpsc;

use super::create::{entries, refused_source, skipped};
use super::disk::existing;
use super::files::check_path;
use super::push::Push;
use super::{Engine, blocking, stack, to_the_end};
use crate::error::{Code, Error, Result};

impl Engine {
    /// Puts a directory or an archive of the host into a running workspace: all of it or none.
    ///
    /// # Errors
    /// [`Code::InvalidPath`], [`Code::SourceRefused`], [`Code::WorkspaceNotRunning`],
    /// [`Code::PathEscapes`], [`Code::NoSpace`]; nothing is changed then.
    pub async fn sync_push(
        self: &Arc<Self>,
        workspace: &str,
        request: SyncPush,
    ) -> Result<SyncPushed> {
        check_path(&request.dest)?;
        if !Path::new(&request.source).is_absolute() {
            return Err(Error::new(
                Code::InvalidPath,
                format!("the source {:?} is not absolute", request.source),
                "pass the absolute path of a directory or an archive on the host",
            ));
        }
        let slot = self.find(workspace)?;
        let engine = Arc::clone(self);
        to_the_end(async move {
            let operation = engine.begin(&slot)?;
            let guest = slot.steady_guest().await?;
            let scratch = engine.paths.state.clone();
            let source = request.source.clone();
            let push = blocking(move || {
                let source = Path::new(&source);
                Push::prepare(&scratch, source).map_err(|error| refused_source(error, source))
            })
            .await?;
            let summary = push.summary().clone();
            let (frames, sent) = mpsc::channel(4);
            let dest = request.dest.clone();
            let sending = tokio::task::spawn_blocking(move || push.send(&dest, &frames));
            let applied = engine.apply(&guest, sent).await;
            let sent = sending.await;
            if let Ok(Err(error)) = sent {
                return Err(refused_source(error, Path::new(&request.source)));
            }
            let applied = engine.in_time(&guest, std::future::ready(applied)).await?;
            operation.changed();
            Ok(SyncPushed {
                workspace_id: slot.id().to_string(),
                source: request.source,
                dest: engine.normal(&request.dest),
                entries: entries(&summary),
                bytes: applied.bytes,
                skipped_count: summary.skipped_count + summary.ignored,
                skipped: skipped(summary),
            })
        })
        .await
    }

    /// Copies a file or a directory beneath `/workspace` to the host: all of it or none.
    ///
    /// # Errors
    /// [`Code::FileNotFound`], [`Code::PathEscapes`], [`Code::OutputExists`],
    /// [`Code::OutputUnwritable`].
    pub async fn export(self: &Arc<Self>, workspace: &str, request: Export) -> Result<Exported> {
        check_path(&request.path)?;
        check_output(&request.output)?;
        let slot = self.find(workspace)?;
        let engine = Arc::clone(self);
        to_the_end(async move {
            let _operation = engine.begin(&slot)?;
            engine.write_out(&slot).await?;
            let _steady = slot.steady().await?;
            let mut disk = engine.disk(&slot).await?;
            let path = engine.normal(&request.path);
            let id = slot.id().to_string();
            blocking(move || {
                let attr = stack::resolve(&disk, &request.path, WORKSPACE_ROOT)?;
                let summary = export_to_host(
                    &mut disk,
                    attr.ino,
                    Path::new(&request.output),
                    existing(request.force),
                    ExportLimits::default(),
                )
                .map_err(|error| refused_export(error, &request.output))?;
                let skipped = summary.skipped.into_iter().map(|skipped| Skipped {
                    path: skipped.path,
                    reason: skipped.reason.to_string(),
                });
                Ok(Exported {
                    workspace_id: id,
                    path,
                    kind: stack::kind(attr.file_type),
                    output: request.output,
                    entries: summary.files + summary.directories + summary.symlinks,
                    bytes: summary.bytes,
                    skipped: skipped.collect(),
                    skipped_count: summary.skipped_count,
                })
            })
            .await
        })
        .await
    }
}

/// Refuses outputs that could be anywhere.
pub(super) fn check_output(output: &str) -> Result<()> {
    if Path::new(output).is_absolute() {
        return Ok(());
    }
    Err(Error::new(
        Code::InvalidPath,
        format!("the output {output:?} is not absolute"),
        "pass the absolute path of what is to be made on the host",
    ))
}

/// The error for an export that was not made.
pub(super) fn refused_export(error: ExportError, output: &str) -> Error {
    let (code, remedy) = match &error {
        ExportError::Exists { .. } => (
            Code::OutputExists,
            "choose another output, or replace it with --force",
        ),
        ExportError::Unsupported { .. } => (Code::FileKind, "export a file or a directory"),
        ExportError::TooLarge { .. } => (Code::SourceRefused, "export a part of it"),
        ExportError::Write { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
            (Code::NoSpace, "free space where the output goes")
        }
        ExportError::Write { .. } => (
            Code::OutputUnwritable,
            "choose an output in a directory that is there and may be written to",
        ),
        _ => (
            Code::DiskDamaged,
            "try again; when it happens again, report it",
        ),
    };
    let message = format!("{output:?} is not made");
    Error::new(code, message, remedy).caused_by(error)
}
