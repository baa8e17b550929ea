//! What leaves a tree: onto the host, into an archive, into a disk image.
//!
//! - [`export_to_host`]: a file or directory becomes one of the host, all of it or none.
//! - [`export_tar`]: the same as an archive that depends on nothing but the tree.
//! - [`export_ext4`], [`write_ext4`]: a whole tree as a raw ext4 image.
//!
//! The tree is a guest's, so all it says is hostile: a name becomes one component beneath a
//! directory that was opened without following links, a symbolic link goes along only when it
//! stays inside what is exported, set-id bits stay behind, devices, pipes and sockets are named in the
//! [`ExportSummary`] and left out, and [`ExportLimits`] bound what the host has to take. (The disk
//! image is the exception: it is data to the host, so it keeps everything.)
//!
//! What is read from comes through [`ReadTree`], so that a live [`Tree`](crate::tree::Tree) and a
//! view that is only for reading are exported alike.

mod archive;
mod error;
mod ext4;
mod host;
mod read;
mod resolve;
mod walk;

pub use archive::export_tar;
pub use error::ExportError;
pub use ext4::{Ext4Options, Ext4Summary, export_ext4, write_ext4};
pub use host::{Existing, export_to_host};
pub use read::ReadTree;
pub(crate) use read::data_runs;
pub use resolve::{Resolved, resolve_inside};

/// How much an export may be; a tree beyond it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportLimits {
    /// Bytes of content, holes included.
    pub bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
}

impl Default for ExportLimits {
    /// 64 GiB and four million entries.
    fn default() -> Self {
        Self {
            bytes: 64 << 30,
            entries: 4 << 20,
        }
    }
}

/// What was exported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportSummary {
    /// Regular files; further names of one are not counted.
    pub files: u64,
    /// Directories, the exported one included.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Bytes of content, holes included.
    pub bytes: u64,
    /// What was left out, the first [`SKIPPED_MAX`] of it.
    pub skipped: Vec<ExportSkipped>,
    /// How much was left out in all.
    pub skipped_count: u64,
}

/// The most that [`ExportSummary::skipped`] names.
pub const SKIPPED_MAX: usize = 100;

/// Something that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportSkipped {
    /// Its path beneath what is exported.
    pub path: String,
    /// Why.
    pub reason: &'static str,
}

impl ExportSummary {
    fn skip(&mut self, path: &[u8], reason: &'static str) {
        self.skipped_count += 1;
        if self.skipped.len() < SKIPPED_MAX {
            let path = error::shown(path);
            self.skipped.push(ExportSkipped { path, reason });
        }
    }
}

#[cfg(test)]
mod tests;
