//! Why a patch is refused.

/// Why a patch is refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatchError {
    /// There is no file in it.
    #[error("the patch changes no file")]
    Empty,
    /// It is larger than a patch may be.
    #[error("the patch has more than {limit} {unit}")]
    TooLarge {
        /// The limit.
        limit: usize,
        /// Of what.
        unit: &'static str,
    },
    /// It is no unified diff.
    #[error("line {line} of the patch: {reason}")]
    Syntax {
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A path is not one that a patch may have.
    #[error("{path:?}: {reason}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A part of the patch does not go with what is there.
    #[error("{path:?}: {reason}")]
    File {
        /// The file.
        path: String,
        /// Why not.
        reason: &'static str,
    },
    /// A hunk does not match.
    #[error(
        "{path:?}: hunk {hunk} does not match at line {line}: expected {expected:?}, found {}",
        found.as_ref().map_or_else(|| "the end of the file".to_owned(), |found| format!("{found:?}"))
    )]
    Mismatch {
        /// The file.
        path: String,
        /// Which of its hunks, from 1.
        hunk: usize,
        /// Line of the file, from 1.
        line: usize,
        /// The line that the hunk has.
        expected: String,
        /// The line that the file has, if it has one.
        found: Option<String>,
    },
    /// The files could not be looked at.
    #[error("cannot look at {path:?}: {reason}")]
    Lookup {
        /// The file.
        path: String,
        /// Why not.
        reason: String,
    },
}

impl PatchError {
    /// A stable code in snake case.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Empty => "patch_empty",
            Self::TooLarge { .. } => "patch_too_large",
            Self::Syntax { .. } => "patch_malformed",
            Self::Path { .. } => "patch_path_refused",
            Self::File { .. } => "patch_conflict",
            Self::Mismatch { .. } => "patch_mismatch",
            Self::Lookup { .. } => "patch_lookup_failed",
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Empty | Self::Syntax { .. } => {
                "send a unified diff with \"--- a/FILE\", \"+++ b/FILE\" and \"@@ -LINE,COUNT +LINE,COUNT @@\" lines whose counts are exact"
            }
            Self::TooLarge { .. } => "split the patch, or write the files whole",
            Self::Path { .. } => {
                "name files relative to the workspace, without .. and symbolic links"
            }
            Self::File { .. } => "look at what is there now and make the patch for that",
            Self::Mismatch { .. } => {
                "read the file again and make the patch from what it holds now"
            }
            Self::Lookup { .. } => "check the state of the workspace and try again",
        }
    }
}

/// Bytes as a person is shown them; the start of a long line tells which it is.
pub(super) fn shown(bytes: &[u8]) -> String {
    const MAX: usize = 200;
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    String::from_utf8_lossy(&bytes[..bytes.len().min(MAX)]).into_owned()
}
