//! Changes to files as one transaction.
//!
//! The host sends [`Apply`], then [`Change`]s as messages of their own, and [`Change::Commit`]
//! last. After a [`Change::Write`] come its bytes in `Stdin` frames, exactly as many as it
//! announced; the next message may follow then. The agent answers once, with
//! [`FileEvent::Applied`](crate::FileEvent::Applied) or, as soon as it knows,
//! [`FileEvent::Failed`](crate::FileEvent::Failed): a host should look for an answer while it sends.
//!
//! **All or nothing.** Contents are staged outside the tree, on the same file system, in a directory
//! that only root may enter. On commit everything is checked first, then done by renames. When a
//! step fails, those before it are undone in reverse. When the stream ends before the answer to a
//! commit that the agent has read, the outcome is unknown to the host, and still all or nothing;
//! when it ends before that, nothing is changed. Programs of the guest never see a half-written
//! file or, where one is replaced, none; they may see the first files changed before the last.
//! Transactions are committed one after the other.
//!
//! **Order.** Each change sees what those before it did. Missing parents are made, 0755.
//!
//! **Durability.** None of its own: a power cut, unlike a failure, may leave a part. Ask for a
//! [`Request::Sync`](crate::Request::Sync) after it.
//!
//! **Links.** The last component of a path is not followed, unless a write says so; the others are,
//! within the rules of [`List`](crate::List). A link that the transaction itself makes cannot be a
//! parent in it.

use serde::{Deserialize, Serialize};

use crate::files::root;
use crate::{GuestPath, Sha256};

/// Most changes of one transaction.
pub const CHANGES_MAX: usize = 250_000;
/// Most bytes of all paths and targets of one transaction.
pub const CHANGES_TEXT_MAX: usize = 32 << 20;

/// Begins a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apply {
    /// The directory that no change may leave; relative paths start at it. Absolute, and there.
    #[serde(default = "root")]
    pub beneath: GuestPath,
}

/// Host to agent, on the stream of an [`Apply`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// Makes or replaces a regular file. A directory in its place is refused.
    Write(Write),
    /// Makes a directory. One that is there already stays, and is no error.
    Mkdir {
        /// Where.
        path: GuestPath,
        /// [`Mode::Keep`]: 0755 for a new one.
        #[serde(default)]
        mode: Mode,
    },
    /// Makes or replaces a symbolic link. A directory in its place is refused.
    Symlink {
        /// Where.
        path: GuestPath,
        /// Where it points; any text, which is not looked at.
        target: GuestPath,
        /// What must be there.
        #[serde(default)]
        expect: Expect,
    },
    /// Deletes a file, a link or an empty directory, which must be there.
    Delete {
        /// What.
        path: GuestPath,
        /// What must be there.
        #[serde(default)]
        expect: Expect,
    },
    /// Renames a file or a link. There must be nothing at `to`.
    Rename {
        /// What.
        from: GuestPath,
        /// Its new path.
        to: GuestPath,
        /// What must be at `from`.
        #[serde(default)]
        expect: Expect,
    },
    /// Sets the permission bits of a file or a directory, not of a link.
    SetMode {
        /// What.
        path: GuestPath,
        /// 0 to 0o7777.
        mode: u32,
    },
    /// Does it all, or says why not. The last message of the host.
    Commit {
        /// Checks everything, answers what would be done, and changes nothing.
        #[serde(default)]
        dry_run: bool,
    },
}

/// See [`Change::Write`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// Where.
    pub path: GuestPath,
    /// How many bytes follow in `Stdin` frames.
    pub size: u64,
    /// [`Mode::Keep`]: that of the file that is replaced, 0644 for a new one. The owner of a
    /// replaced file is kept in any case.
    #[serde(default)]
    pub mode: Mode,
    /// What must be there.
    #[serde(default)]
    pub expect: Expect,
    /// Writes the file that a link at `path` leads to, within `beneath`, instead of replacing it.
    #[serde(default)]
    pub follow: bool,
}

/// Permission bits of what a change makes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// As they are.
    #[default]
    Keep,
    /// These, 0 to 0o7777.
    Set(u32),
}

/// What must be at a path for a change to be made. Otherwise the transaction is refused with
/// [`ErrorCode::Conflict`](crate::ErrorCode::Conflict).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expect {
    /// Whatever the change can be made to.
    #[default]
    Anything,
    /// Nothing.
    Absent,
    /// A regular file with content of this SHA-256.
    Sha256(Sha256),
}
