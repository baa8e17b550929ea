//! Diffs and patches, as Git writes and reads them. Pure: nothing here touches a file.
//!
//! - [`write_change`] renders one changed file; all of them together are what `git apply` takes on the baseline.
//! - [`Patch::parse`] reads a patch, [`Patch::plan`] checks it against the files that it is for and says
//!   what they become. Either all of a patch fits or there is an error; the caller carries the plan out atomically.
//!
//! Parsing and applying are our own because the crates of the field (diffy, patch, gitpatch) take one
//! file without Git's extended headers, or believe its counts. Line diffs are the `similar` crate's.
//!
//! A patch is a model's or a stranger's: its size and counts are bounded, its paths are relative and
//! go up nowhere, two parts of it never speak of the same file, and what its paths pass through has to be directories.
//! Hunks are found where they say they are, or else at the nearest place where *all* of their lines are (as
//! `git apply` does); a line is never skipped to make one fit.

mod apply;
mod binary;
mod diff;
mod error;
mod hunks;
mod parse;
mod quote;

pub use apply::{FileChange, Found};
pub use diff::{BinaryFiles, Change, DiffCounts, Side, write_change};
pub use error::PatchError;
pub use parse::Patch;

/// The largest patch that is read, in bytes.
pub const PATCH_MAX: usize = 32 << 20;

/// How many files one patch may change.
pub const FILES_MAX: usize = 10_000;

/// The longest path, as on Linux (`PATH_MAX`, `limits.h`).
const PATH_MAX: usize = 4096;

/// The longest component of one (`NAME_MAX`).
const NAME_MAX: usize = 255;

/// The kinds of file that Git knows, with its modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileMode {
    /// A regular file: 100644.
    Regular,
    /// One that may be executed: 100755.
    Executable,
    /// A symbolic link, whose content is its target: 120000.
    Symlink,
}

impl FileMode {
    /// As Git writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Regular => "100644",
            Self::Executable => "100755",
            Self::Symlink => "120000",
        }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        Some(match text {
            b"120000" => Self::Symlink,
            [b'1', b'0', b'0', _, rest @ ..] if rest.len() == 2 => {
                let owner = text[3].checked_sub(b'0').filter(|digit| *digit < 8)?;
                match owner & 1 {
                    1 => Self::Executable,
                    _ => Self::Regular,
                }
            }
            _ => return None,
        })
    }
}

/// Text as lines, each with what ends it; the last one may have nothing that does.
fn lines(text: &[u8]) -> Vec<&[u8]> {
    text.split_inclusive(|&byte| byte == b'\n').collect()
}

#[cfg(test)]
mod tests;
