//! The disk of a stopped workspace. Listing and reading share their types with live files.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Asks for the whole disk as a raw ext4 image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExportDisk {
    /// Absolute path on the host of the image to be made.
    pub output: String,
    /// Replaces an existing output.
    #[serde(default)]
    pub force: bool,
}

/// An image that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExportedDisk {
    /// The workspace.
    pub workspace_id: String,
    /// The image on the host.
    pub output: String,
    /// Its format; always `ext4`.
    pub format: String,
    /// Its size; it is sparse.
    pub size_bytes: u64,
}
