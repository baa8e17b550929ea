//! Single files in a workspace.
//!
//! A running workspace is asked through its agent, which lets no path leave `/workspace`; of a
//! stopped one the disk is read.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use pyro_agent_protocol as protocol;
use pyro_agent_protocol::{ErrorCode, FileEvent, FrameKind, GuestPath, Request};
use pyro_client::types::{
    Encoding, FileContent, FileEntry, FileKind, FileList, ListFiles, MAX_READ_BYTES, ReadFile,
    WORKSPACE_ROOT, WriteFile, WrittenFile,
};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::{Engine, to_the_end};
use crate::agent::{AgentError, Conversation, refused, transact};
use crate::error::{Code, Error, Result};
use crate::machine::guest::Guest;

/// Longest path.
const PATH_MAX: usize = 4095;
/// Most bytes of one file that is written.
const WRITE_MAX: usize = 64 << 20;
/// Bytes of names and targets in one listing.
const LISTING_BYTES: usize = 64 << 20;
/// How long the agent may take for one file operation.
const PATIENCE: Duration = Duration::from_secs(120);

impl Engine {
    /// Lists a directory beneath `/workspace`.
    ///
    /// # Errors
    /// [`Code::FileNotFound`], [`Code::PathEscapes`], [`Code::InvalidPath`].
    pub async fn file_list(
        self: &Arc<Self>,
        workspace: &str,
        request: ListFiles,
    ) -> Result<FileList> {
        check_path(&request.path)?;
        let slot = self.find(workspace)?;
        let _operation = self.begin(&slot)?;
        let steady = slot.steady().await?;
        let Ok(guest) = slot.guest() else {
            return self.list_disk(&slot, request, WORKSPACE_ROOT).await;
        };
        // Nobody waits to stop a guest until its agent has answered.
        drop(steady);
        let (path, entries, truncated) = self
            .in_time(&guest, list(&guest, &self.root, &request))
            .await?;
        Ok(FileList {
            workspace_id: slot.id().to_string(),
            path,
            entries,
            truncated,
        })
    }

    /// Reads a file beneath `/workspace`.
    ///
    /// # Errors
    /// [`Code::FileNotFound`], [`Code::FileKind`], [`Code::NotUtf8`], [`Code::PathEscapes`],
    /// [`Code::InvalidPath`], [`Code::InvalidRequest`].
    pub async fn file_read(
        self: &Arc<Self>,
        workspace: &str,
        request: ReadFile,
    ) -> Result<FileContent> {
        check_read(&request)?;
        let slot = self.find(workspace)?;
        let _operation = self.begin(&slot)?;
        let steady = slot.steady().await?;
        let Ok(guest) = slot.guest() else {
            return self.read_disk(&slot, request, WORKSPACE_ROOT).await;
        };
        drop(steady);
        let reading = read(&guest, &self.root, &request);
        let read = self.in_time(&guest, reading).await?;
        content(slot.id().to_string(), &request, read)
    }

    /// Writes a file of a running workspace, atomically.
    ///
    /// # Errors
    /// Those of [`Engine::file_read`], [`Code::WorkspaceNotRunning`], and
    /// [`Code::ContentChanged`] when what is there is not what was expected.
    pub async fn file_write(
        self: &Arc<Self>,
        workspace: &str,
        request: WriteFile,
    ) -> Result<WrittenFile> {
        check_path(&request.path)?;
        let bytes = decode(&request)?;
        let expect = expectation(request.expect_sha256.as_deref())?;
        let slot = self.find(workspace)?;
        let engine = Arc::clone(self);
        to_the_end(async move {
            let operation = engine.begin(&slot)?;
            let guest = slot.steady_guest().await?;
            let write = protocol::Change::Write(protocol::Write {
                path: GuestPath::from(request.path.as_str()),
                size: bytes.len() as u64,
                mode: protocol::Mode::Keep,
                expect,
                follow: true,
            });
            let digest = sha256(&bytes);
            let size_bytes = bytes.len() as u64;
            let (frames, sent) = mpsc::channel(4);
            tokio::spawn(async move {
                // A receiver that is gone has its answer.
                let _ = send_changes(frames, vec![(write, bytes)], false).await;
            });
            let applied = engine.in_time(&guest, engine.apply(&guest, sent)).await?;
            operation.changed();
            Ok(WrittenFile {
                workspace_id: slot.id().to_string(),
                path: engine.normal(&request.path),
                size_bytes,
                sha256: digest,
                created: applied.created > 0,
            })
        })
        .await
    }

    /// Commits a transaction whose changes come as frames.
    pub(super) async fn apply(
        &self,
        guest: &Guest,
        frames: mpsc::Receiver<Vec<u8>>,
    ) -> std::result::Result<Applied, AgentError> {
        let beneath = GuestPath::from(self.root.as_str());
        let request = Request::Apply(protocol::Apply { beneath });
        match transact(guest, &request, frames).await? {
            FileEvent::Applied { created, bytes, .. } => Ok(Applied { created, bytes }),
            _ => Err(AgentError::OutOfTurn("the answer to another request")),
        }
    }

    /// Waits for an operation of the agent, and says why it failed.
    pub(super) async fn in_time<T>(
        &self,
        guest: &Guest,
        work: impl Future<Output = std::result::Result<T, AgentError>>,
    ) -> Result<T> {
        let error = match tokio::time::timeout(PATIENCE, work).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => error,
            Err(_) => AgentError::Lost(std::io::ErrorKind::TimedOut.into()),
        };
        Err(failed(guest, error).await)
    }

    /// A path as it is shown: absolute, without `.` and empty components.
    pub(super) fn normal(&self, path: &str) -> String {
        let absolute = self.absolute(path);
        let mut parts: Vec<&str> = Vec::new();
        for part in absolute.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        format!("/{}", parts.join("/"))
    }
}

/// What a transaction did.
#[derive(Debug, Clone, Copy)]
pub(super) struct Applied {
    /// Files and links that were not there before.
    pub(super) created: u64,
    /// Bytes of all contents.
    pub(super) bytes: u64,
}

/// A file, or a part of it, as it was read.
#[derive(Debug)]
pub(super) struct Read {
    /// Absolute.
    pub(super) path: String,
    pub(super) size: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) truncated: bool,
    /// Of the whole file, when all of it was read.
    pub(super) sha256: Option<String>,
}

/// Lists through the agent: the directory, its entries, and whether there are more.
pub(super) async fn list(
    guest: &Guest,
    beneath: &str,
    request: &ListFiles,
) -> std::result::Result<(String, Vec<FileEntry>, bool), AgentError> {
    let list = Request::List(protocol::List {
        path: GuestPath::from(request.path.as_str()),
        beneath: GuestPath::from(beneath),
        recursive: request.recursive,
        max_entries: protocol::ENTRIES_MAX,
    });
    let mut conversation = Conversation::begin(guest, &list).await?;
    let mut listed = None;
    let mut all = Vec::new();
    let mut bytes = 0;
    loop {
        let frame = conversation.frame().await?;
        match frame.message::<FileEvent>().map_err(AgentError::Protocol)? {
            FileEvent::Listing { path } if listed.is_none() => listed = Some(path.to_string()),
            FileEvent::Entries { entries } if listed.is_some() => {
                let base = listed.as_deref().unwrap_or_default();
                for entry in entries {
                    bytes += entry.path.as_bytes().len();
                    bytes += entry
                        .target
                        .as_ref()
                        .map_or(0, |target| target.as_bytes().len());
                    all.push(shown(base, entry));
                }
                if all.len() as u64 > protocol::ENTRIES_MAX || bytes > LISTING_BYTES {
                    return Err(AgentError::OutOfTurn("more entries than were asked for"));
                }
            }
            FileEvent::Listed { truncated, .. } if listed.is_some() => {
                return Ok((listed.unwrap_or_default(), all, truncated));
            }
            FileEvent::Failed { code, message } => return Err(refused(code, &message)),
            _ => return Err(AgentError::OutOfTurn("the answer to another request")),
        }
    }
}

fn shown(base: &str, entry: protocol::Entry) -> FileEntry {
    let path = match entry.path.as_bytes() {
        [] => base.to_string(),
        _ => format!("{}/{}", base.trim_end_matches('/'), entry.path),
    };
    FileEntry {
        path,
        kind: match entry.kind {
            protocol::FileKind::File => FileKind::File,
            protocol::FileKind::Directory => FileKind::Directory,
            protocol::FileKind::Symlink => FileKind::Symlink,
            protocol::FileKind::Other => FileKind::Other,
        },
        size_bytes: entry.size,
        mode: format!("{:04o}", entry.mode & 0o7777),
        link_target: entry.target.map(|target| target.to_string()),
    }
}

/// Reads through the agent.
async fn read(
    guest: &Guest,
    beneath: &str,
    request: &ReadFile,
) -> std::result::Result<Read, AgentError> {
    let path = GuestPath::from(request.path.as_str());
    read_path(guest, beneath, path, request.offset, request.max_bytes).await
}

/// Reads up to `most` bytes of a file through the agent.
pub(super) async fn read_path(
    guest: &Guest,
    beneath: &str,
    path: GuestPath,
    offset: u64,
    most: u64,
) -> std::result::Result<Read, AgentError> {
    let read = Request::Read(protocol::Read {
        path,
        beneath: GuestPath::from(beneath),
        offset,
        max_bytes: most,
    });
    let mut conversation = Conversation::begin(guest, &read).await?;
    let mut opened = None;
    let mut bytes = Vec::new();
    loop {
        let frame = conversation.frame().await?;
        match frame.kind {
            FrameKind::Stdout if opened.is_some() => {
                bytes.extend_from_slice(&frame.payload);
                if bytes.len() as u64 > most {
                    return Err(AgentError::OutOfTurn("more bytes than were asked for"));
                }
                continue;
            }
            FrameKind::Message => {}
            _ => return Err(AgentError::OutOfTurn("a frame that has no place here")),
        }
        match frame.message::<FileEvent>().map_err(AgentError::Protocol)? {
            FileEvent::Reading { path, size, .. } if opened.is_none() => {
                opened = Some((path.to_string(), size));
            }
            FileEvent::Read {
                truncated, sha256, ..
            } => {
                let (path, size) =
                    opened.ok_or(AgentError::OutOfTurn("an end before the start"))?;
                return Ok(Read {
                    path,
                    size,
                    bytes,
                    truncated,
                    sha256: sha256.map(|digest| digest.to_string()),
                });
            }
            FileEvent::Failed { code, message } => return Err(refused(code, &message)),
            _ => return Err(AgentError::OutOfTurn("the answer to another request")),
        }
    }
}

/// What was read, as it was asked for.
pub(super) fn content(workspace_id: String, request: &ReadFile, read: Read) -> Result<FileContent> {
    let Read {
        path,
        size,
        mut bytes,
        mut truncated,
        mut sha256,
    } = read;
    let content = match request.encoding {
        Encoding::Base64 => BASE64.encode(&bytes),
        Encoding::Utf8 => {
            if let Err(error) = std::str::from_utf8(&bytes)
                && error.error_len().is_none()
                && truncated
                && error.valid_up_to() > 0
            {
                // The cut went through a character.
                bytes.truncate(error.valid_up_to());
                truncated = true;
                sha256 = None;
            }
            String::from_utf8(bytes.clone()).map_err(|_| {
                Error::new(
                    Code::NotUtf8,
                    format!("{path:?} is not UTF-8 text"),
                    "ask for it in base64 (`encoding`)",
                )
            })?
        }
    };
    Ok(FileContent {
        workspace_id,
        path,
        size_bytes: size,
        offset: request.offset,
        bytes_read: bytes.len() as u64,
        truncated,
        encoding: request.encoding,
        content,
        sha256,
    })
}

/// Sends changes with their contents and the commit, as frames.
pub(super) async fn send_changes(
    frames: mpsc::Sender<Vec<u8>>,
    changes: Vec<(protocol::Change, Vec<u8>)>,
    dry_run: bool,
) -> std::result::Result<(), AgentError> {
    let gone = |_| AgentError::OutOfTurn("an answer before the end");
    for (change, bytes) in changes {
        let message = protocol::encode_message(&change).map_err(AgentError::TooLong)?;
        frames.send(message).await.map_err(gone)?;
        for chunk in bytes.chunks(protocol::MAX_FRAME) {
            let frame = protocol::encode(FrameKind::Stdin, chunk).map_err(AgentError::TooLong)?;
            frames.send(frame).await.map_err(gone)?;
        }
    }
    let commit = protocol::Change::Commit { dry_run };
    let message = protocol::encode_message(&commit).map_err(AgentError::TooLong)?;
    frames.send(message).await.map_err(gone)
}

/// The error of a file operation.
async fn failed(guest: &Guest, error: AgentError) -> Error {
    let AgentError::Refused { code, message } = error else {
        return match error {
            AgentError::TooLong(_) => Error::new(
                Code::InvalidPath,
                "the request is too long to be sent",
                "pass shorter paths",
            ),
            error => guest.lost(error).await,
        };
    };
    let (code, remedy) = match code {
        ErrorCode::NotFound => (
            Code::FileNotFound,
            "list the directory to see what there is",
        ),
        ErrorCode::NotAFile
        | ErrorCode::NotADirectory
        | ErrorCode::NotEmpty
        | ErrorCode::AlreadyExists => (Code::FileKind, "list the directory to see what there is"),
        ErrorCode::Outside => (Code::PathEscapes, "pass a path inside of /workspace"),
        ErrorCode::Conflict => (
            Code::ContentChanged,
            "read it again and make the change from what it holds now",
        ),
        ErrorCode::NoSpace => (
            Code::NoSpace,
            "delete what the workspace does not need, or free space on the host",
        ),
        ErrorCode::InvalidRequest => (Code::InvalidPath, "check the path"),
        ErrorCode::TooMuch => (Code::InvalidRequest, "do it in smaller parts"),
        ErrorCode::OutOfResources | ErrorCode::Busy => (
            Code::ExecFailed,
            "try again when less is going on in the guest",
        ),
        _ => (
            Code::ExecFailed,
            "try again; when it happens again, report it",
        ),
    };
    Error::new(code, message, remedy)
}

/// Refuses what cannot be a path of a guest.
pub(super) fn check_path(path: &str) -> Result<()> {
    if !path.is_empty() && path.len() <= PATH_MAX && !path.contains('\0') {
        return Ok(());
    }
    Err(Error::new(
        Code::InvalidPath,
        "the path is empty, too long, or holds a NUL byte",
        "pass a path in the guest; relative ones start at /workspace",
    ))
}

pub(super) fn check_read(request: &ReadFile) -> Result<()> {
    check_path(&request.path)?;
    if (1..=MAX_READ_BYTES).contains(&request.max_bytes) {
        return Ok(());
    }
    Err(Error::new(
        Code::InvalidRequest,
        format!("{} bytes cannot be read at once", request.max_bytes),
        format!("pass 1 to {MAX_READ_BYTES}, and an offset for what comes after"),
    ))
}

fn decode(request: &WriteFile) -> Result<Vec<u8>> {
    let bytes = match request.encoding {
        Encoding::Utf8 => request.content.clone().into_bytes(),
        Encoding::Base64 => BASE64.decode(&request.content).map_err(|e| {
            Error::new(
                Code::InvalidRequest,
                "the content is not base64",
                "encode it with the standard alphabet and padding, or send it as text",
            )
            .caused_by(e)
        })?,
    };
    if bytes.len() > WRITE_MAX {
        return Err(Error::new(
            Code::InvalidRequest,
            format!(
                "a file of {} bytes is too large to be written so",
                bytes.len()
            ),
            "use sync push",
        ));
    }
    Ok(bytes)
}

fn expectation(digest: Option<&str>) -> Result<protocol::Expect> {
    let Some(digest) = digest else {
        return Ok(protocol::Expect::Anything);
    };
    match protocol::Sha256::try_from(digest.to_string()) {
        Ok(digest) => Ok(protocol::Expect::Sha256(digest)),
        Err(_) => Err(Error::new(
            Code::InvalidRequest,
            "the expected SHA-256 is none",
            "pass 64 hexadecimal digits, as a file read gives them",
        )),
    }
}

/// SHA-256 in hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    protocol::Sha256(Sha256::digest(bytes).into()).to_string()
}
