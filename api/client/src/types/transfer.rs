//! Changes as a whole: sync push, export, diff and patch.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FileKind, Skipped, workspace_root};

/// Asks for a directory or an archive to be put into a workspace: all of it or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SyncPush {
    /// Absolute path on the host of a directory or a `.tar`, `.tar.gz` or `.tgz` archive.
    pub source: String,
    /// The directory in the guest that it is laid over; relative ones start at `/workspace`.
    #[serde(default = "workspace_root")]
    pub dest: String,
}

/// What was put into a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SyncPushed {
    /// The workspace.
    pub workspace_id: String,
    /// The source on the host.
    pub source: String,
    /// The directory in the guest.
    pub dest: String,
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of the files' contents.
    pub bytes: u64,
    /// What stayed behind, and why. At most 100 are named.
    pub skipped: Vec<Skipped>,
    /// How many stayed behind altogether.
    pub skipped_count: u64,
}

/// Asks for a path of a workspace to be copied to the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// The file or directory; relative ones start at `/workspace`.
    pub path: String,
    /// Absolute path on the host of what is to be made.
    pub output: String,
    /// Replaces an existing output.
    #[serde(default)]
    pub force: bool,
}

/// What was copied to the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Exported {
    /// The workspace.
    pub workspace_id: String,
    /// Absolute path in the guest.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
    /// What was made on the host.
    pub output: String,
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of the files' contents.
    pub bytes: u64,
    /// What stayed behind, and why. At most 100 are named.
    pub skipped: Vec<Skipped>,
    /// How many stayed behind altogether.
    pub skipped_count: u64,
}

/// How a path differs from the baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It was not there.
    Added,
    /// Its content, mode or target is another.
    Modified,
    /// It is gone.
    Deleted,
    /// It is another kind of thing.
    TypeChanged,
    /// Only its owner or group is another. A patch cannot say that.
    Metadata,
}

/// One path that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// Path relative to `/workspace`.
    pub path: String,
    /// How it differs.
    pub change: ChangeKind,
    /// What it is, or was when it is gone.
    pub kind: FileKind,
    /// Whether its content is not text, as far as it was looked at.
    pub binary: bool,
    /// Whether it is larger than 8 MiB, so that it was not looked at; the patch only names it.
    pub too_large: bool,
}

/// What differs from the baseline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Diff {
    /// The workspace.
    pub workspace_id: String,
    /// Whether anything differs.
    pub changed: bool,
    /// Paths that were not there.
    pub added: u64,
    /// Paths whose content, mode, target or type is another.
    pub modified: u64,
    /// Paths that are gone.
    pub deleted: u64,
    /// Paths of which only the owner or the group is another.
    pub metadata: u64,
    /// Of all these, those whose content is not text or too large to be compared.
    pub non_text: u64,
    /// The paths, sorted.
    pub entries: Vec<Change>,
    /// A unified diff that `git apply` takes on the baseline; empty when nothing differs.
    pub patch: String,
    /// Whether `patch` was cut (between files), at 16 MiB or after a minute of comparing.
    pub patch_truncated: bool,
}

/// Asks for a unified diff to be applied: all of it or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyPatch {
    /// A unified diff with `a/` and `b/` prefixes and `/dev/null`, relative to `/workspace`.
    pub patch: String,
    /// Only says what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a patch did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PatchApplied {
    /// The workspace.
    pub workspace_id: String,
    /// Whether nothing was written because that was asked for.
    pub dry_run: bool,
    /// Files that were added.
    pub added: u64,
    /// Files that were changed.
    pub modified: u64,
    /// Files that were deleted.
    pub deleted: u64,
    /// The files, sorted.
    pub entries: Vec<PatchedFile>,
}

/// What a patch did to one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PatchedFile {
    /// Path relative to `/workspace`.
    pub path: String,
    /// What happened to it.
    pub change: ChangeKind,
    /// Where it was before, for a rename.
    pub renamed_from: Option<String>,
}
