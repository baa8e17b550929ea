//! The disk of a stopped workspace, read without a guest.

use std::path::Path;
use std::sync::Arc;

use pyro_client::types::{
    ExportDisk, ExportedDisk, FileContent, FileKind, FileList, ListFiles, ReadFile,
};
use pyro_rootfs::export::{Existing, Ext4Options, export_ext4};

use super::exec::absolute;
use super::files::{Read, check_read, content};
use super::slot::Slot;
use super::transfer::{check_output, refused_export};
use super::{Engine, blocking, stack, to_the_end};
use crate::error::{Code, Error, Result};

/// Most entries of one listing.
const ENTRIES_MAX: usize = 100_000;

impl Engine {
    /// Writes the whole disk as a raw ext4 image.
    ///
    /// # Errors
    /// [`Code::WorkspaceNotStopped`], [`Code::OutputExists`], [`Code::OutputUnwritable`].
    pub async fn disk_export(
        self: &Arc<Self>,
        workspace: &str,
        request: ExportDisk,
    ) -> Result<ExportedDisk> {
        check_output(&request.output)?;
        let slot = self.find(workspace)?;
        let engine = Arc::clone(self);
        to_the_end(async move {
            let _operation = engine.begin(&slot)?;
            let _steady = slot.steady().await?;
            refuse_running(&slot)?;
            let mut disk = engine.disk(&slot).await?;
            let id = slot.id().to_string();
            blocking(move || {
                let output = Path::new(&request.output);
                let existing = existing(request.force);
                let summary = export_ext4(&mut disk, output, existing, Ext4Options::default())
                    .map_err(|error| refused_export(error, &request.output))?;
                Ok(ExportedDisk {
                    workspace_id: id,
                    output: request.output,
                    format: "ext4".to_string(),
                    size_bytes: summary.size,
                })
            })
            .await
        })
        .await
    }

    /// Lists a directory of the disk. Relative paths start at `/workspace`.
    ///
    /// # Errors
    /// [`Code::WorkspaceNotStopped`], [`Code::FileNotFound`].
    pub async fn disk_list(
        self: &Arc<Self>,
        workspace: &str,
        request: ListFiles,
    ) -> Result<FileList> {
        let slot = self.find(workspace)?;
        let _operation = self.begin(&slot)?;
        let _steady = slot.steady().await?;
        refuse_running(&slot)?;
        self.list_disk(&slot, request, "/").await
    }

    /// Reads a file of the disk. Relative paths start at `/workspace`.
    ///
    /// # Errors
    /// [`Code::WorkspaceNotStopped`], [`Code::FileNotFound`], [`Code::FileKind`],
    /// [`Code::NotUtf8`].
    pub async fn disk_read(
        self: &Arc<Self>,
        workspace: &str,
        request: ReadFile,
    ) -> Result<FileContent> {
        check_read(&request)?;
        let slot = self.find(workspace)?;
        let _operation = self.begin(&slot)?;
        let _steady = slot.steady().await?;
        refuse_running(&slot)?;
        self.read_disk(&slot, request, "/").await
    }

    /// Lists from the disk, without leaving `within`.
    pub(super) async fn list_disk(
        &self,
        slot: &Arc<Slot>,
        request: ListFiles,
        within: &'static str,
    ) -> Result<FileList> {
        let disk = self.disk(slot).await?;
        let path = absolute(&request.path);
        let id = slot.id().to_string();
        blocking(move || {
            let attr = stack::resolve(&disk, &path, within)?;
            let (entries, truncated) =
                stack::list(&disk, &attr, &path, request.recursive, ENTRIES_MAX)?;
            Ok(FileList {
                workspace_id: id,
                path,
                entries,
                truncated,
            })
        })
        .await
    }

    /// Reads from the disk, without leaving `within`.
    pub(super) async fn read_disk(
        &self,
        slot: &Arc<Slot>,
        request: ReadFile,
        within: &'static str,
    ) -> Result<FileContent> {
        let mut disk = self.disk(slot).await?;
        let path = absolute(&request.path);
        let id = slot.id().to_string();
        blocking(move || {
            let attr = stack::resolve(&disk, &path, within)?;
            if stack::kind(attr.file_type) != FileKind::File {
                return Err(Error::new(
                    Code::FileKind,
                    format!("{path:?} is no regular file"),
                    "list it to see what it is",
                ));
            }
            let bytes = stack::read(&mut disk, &attr, request.offset, request.max_bytes)?;
            let end = request.offset.saturating_add(bytes.len() as u64);
            let read = Read {
                path,
                size: attr.size,
                truncated: end < attr.size,
                sha256: (request.offset == 0 && end >= attr.size)
                    .then(|| super::files::sha256(&bytes)),
                bytes,
            };
            content(id, &request, read)
        })
        .await
    }
}

pub(super) fn existing(force: bool) -> Existing {
    if force {
        Existing::Replace
    } else {
        Existing::Refuse
    }
}

fn refuse_running(slot: &Slot) -> Result<()> {
    if slot.guest().is_err() {
        return Ok(());
    }
    Err(Error::new(
        Code::WorkspaceNotStopped,
        format!(
            "the workspace {} runs, and its disk is read when it is stopped",
            slot.id()
        ),
        format!(
            "stop it with `pyro workspace stop {}`, or use the file commands, which read a \
             running one",
            slot.id()
        ),
    ))
}
