//! Files in a workspace.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{max_bytes, workspace_root};

/// What kind of thing a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, a named pipe or a socket.
    Other,
}

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileEntry {
    /// Absolute path in the guest.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
    /// Bytes of a regular file, otherwise 0.
    pub size_bytes: u64,
    /// Permission bits, in octal, such as `0644`.
    pub mode: String,
    /// Where a symbolic link points.
    pub link_target: Option<String>,
}

/// Asks for a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListFiles {
    /// The directory; relative ones start at `/workspace`.
    #[serde(default = "workspace_root")]
    pub path: String,
    /// Also everything beneath it. Links are not followed.
    #[serde(default)]
    pub recursive: bool,
}

/// A listing, sorted by path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileList {
    /// The workspace.
    pub workspace_id: String,
    /// The directory, or the file itself.
    pub path: String,
    /// Its entries; at most 100,000.
    pub entries: Vec<FileEntry>,
    /// Whether there are more.
    pub truncated: bool,
}

/// How a file's content is passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// As text; refused for what is not UTF-8.
    #[default]
    Utf8,
    /// As base64.
    Base64,
}

/// Asks for a file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadFile {
    /// The file; relative ones start at `/workspace`.
    pub path: String,
    /// Most bytes to return, 1 to 16 MiB.
    #[serde(default = "max_bytes")]
    pub max_bytes: u64,
    /// Where to start, in bytes.
    #[serde(default)]
    pub offset: u64,
    /// How to pass it.
    #[serde(default)]
    pub encoding: Encoding,
}

impl ReadFile {
    /// The start of a file, as text.
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            max_bytes: max_bytes(),
            offset: 0,
            encoding: Encoding::Utf8,
        }
    }
}

/// A file's content, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileContent {
    /// The workspace.
    pub workspace_id: String,
    /// Absolute path in the guest.
    pub path: String,
    /// Size of the whole file.
    pub size_bytes: u64,
    /// Where `content` starts.
    pub offset: u64,
    /// Bytes that `content` stands for.
    pub bytes_read: u64,
    /// Whether the file goes on after `content`.
    pub truncated: bool,
    /// How `content` is to be read.
    pub encoding: Encoding,
    /// The content.
    pub content: String,
    /// SHA-256 of the whole file in hexadecimal, when all of it was read; for `expect_sha256`.
    pub sha256: Option<String>,
}

/// Asks for a file to be written: atomically, parents made, mode of a replaced file kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WriteFile {
    /// The file; relative ones start at `/workspace`.
    pub path: String,
    /// The new content.
    pub content: String,
    /// How `content` is to be read.
    #[serde(default)]
    pub encoding: Encoding,
    /// Refuses when the present content has another SHA-256.
    #[serde(default)]
    pub expect_sha256: Option<String>,
}

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WrittenFile {
    /// The workspace.
    pub workspace_id: String,
    /// Absolute path in the guest.
    pub path: String,
    /// Its size.
    pub size_bytes: u64,
    /// SHA-256 of its content, in hexadecimal.
    pub sha256: String,
    /// Whether there was no such file before.
    pub created: bool,
}
