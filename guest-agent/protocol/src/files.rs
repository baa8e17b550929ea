//! Files of a running guest: what they are, which there are, what is in them.
//!
//! Every request names a directory that resolution may not leave, `beneath`. A path is relative to
//! it, or absolute and inside it. `..` and symbolic links, relative and absolute ones, are followed
//! as long as every step stays inside; one that leaves, even to come back, is refused with
//! [`ErrorCode::Outside`](crate::ErrorCode::Outside). What is answered is about the object that was opened, so nothing that a
//! program of the guest renames meanwhile leads elsewhere. `beneath` itself is opened as it stands.

use serde::{Deserialize, Serialize};

use crate::{ErrorCode, GuestPath, Sha256};

/// Longest path in bytes, as the guest's kernel has it.
pub const PATH_MAX: usize = 4095;
/// Most entries of one listing.
pub const ENTRIES_MAX: u64 = 100_000;

/// `/`, within which everything is.
pub(crate) fn root() -> GuestPath {
    GuestPath::from("/")
}

/// Asks what a path is; answered with [`FileEvent::Stat`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// What to look at.
    pub path: GuestPath,
    /// The directory that resolution may not leave. Absolute.
    #[serde(default = "root")]
    pub beneath: GuestPath,
    /// Whether a symbolic link at the end of the path is followed.
    #[serde(default)]
    pub follow: bool,
}

/// Asks for a directory's entries.
///
/// Answered with [`FileEvent::Listing`], any number of [`FileEvent::Entries`], and
/// [`FileEvent::Listed`]. A link at the end of `path` is followed, others are listed as what they
/// are. What is no directory is listed as one entry with an empty path.
///
/// It is no snapshot: what comes or goes while it runs may be in it or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// The directory.
    pub path: GuestPath,
    /// The directory that resolution may not leave. Absolute.
    #[serde(default = "root")]
    pub beneath: GuestPath,
    /// Also all that is beneath it, in other file systems, too.
    #[serde(default)]
    pub recursive: bool,
    /// Most entries to send; more than [`ENTRIES_MAX`] are never sent.
    pub max_entries: u64,
}

/// Asks for a regular file's content.
///
/// Answered with [`FileEvent::Reading`], `Stdout` frames with the content, and [`FileEvent::Read`].
/// A link at the end of `path` is followed. What is no regular file is refused and not opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// The file.
    pub path: GuestPath,
    /// The directory that resolution may not leave. Absolute.
    #[serde(default = "root")]
    pub beneath: GuestPath,
    /// Where to start, in bytes. Beyond the end there is nothing to read.
    #[serde(default)]
    pub offset: u64,
    /// Most bytes to send.
    pub max_bytes: u64,
}

/// What kind of thing a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// In a listing: relative to the listed directory. In a [`FileEvent::Stat`]: absolute.
    pub path: GuestPath,
    /// What it is.
    pub kind: FileKind,
    /// Bytes of a regular file, otherwise 0.
    pub size: u64,
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
    /// Where a symbolic link points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<GuestPath>,
}

/// Agent to host, on the streams of [`Stat`], [`List`], [`Read`] and [`Apply`](crate::Apply).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum FileEvent {
    /// The answer to [`Stat`]; the last message.
    Stat {
        /// What is there.
        entry: Entry,
    },
    /// First answer to [`List`].
    Listing {
        /// What is listed: absolute, without links.
        path: GuestPath,
    },
    /// A piece of a listing, in the order of the paths' bytes.
    Entries {
        /// Not empty.
        entries: Vec<Entry>,
    },
    /// The end of a listing; the last message.
    Listed {
        /// How many entries were sent.
        entries: u64,
        /// Whether there are more. Those that were sent come before all that were not.
        truncated: bool,
        /// Directories whose content could not be listed, such as a user's own mounts.
        unreadable: u64,
    },
    /// First answer to [`Read`].
    Reading {
        /// What is read: absolute, without links.
        path: GuestPath,
        /// The file's size when it was opened.
        size: u64,
        /// Permission bits.
        mode: u32,
    },
    /// The end of a read; the last message.
    Read {
        /// How many bytes were sent.
        bytes: u64,
        /// Whether the file goes on after them.
        truncated: bool,
        /// Of the whole file, when all of it was sent.
        sha256: Option<Sha256>,
    },
    /// The answer to [`Change::Commit`](crate::Change::Commit); the last message.
    Applied {
        /// Files and links that were not there before.
        created: u64,
        /// Files and links that were replaced, and modes that were set.
        modified: u64,
        /// Files, links and directories that were deleted.
        deleted: u64,
        /// Files and links that were renamed.
        renamed: u64,
        /// Directories that were made, parents as well.
        directories: u64,
        /// Bytes of all contents.
        bytes: u64,
    },
    /// The operation failed; the last message of its stream.
    Failed {
        /// What kind of failure.
        code: ErrorCode,
        /// One sentence. It names the path.
        message: String,
    },
}
