//! Building packed layers.
//!
//! [`PackedWriter`] takes a tree member by member and writes the two files of a layer;
//! [`pack_tar`] feeds it from a tar stream. What is built is what
//! [`Tree::open`](crate::tree::Tree::open) reads; the format itself is described beside the
//! reader, in `tree/packed/format.rs`.
//!
//! A source is not trusted: its members name nothing outside the layer, because a layer has no
//! outside (names become bytes in an index, never host paths), and its sizes are bounded.

mod data;
mod error;
mod index;
pub(crate) mod tar;
mod writer;

pub use error::PackError;
pub use tar::pack_tar;
pub use writer::{Metadata, PackedWriter};

/// How much a layer may hold; a source beyond it is refused before it fills the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackLimits {
    /// Bytes of file contents, as the source says them.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

impl Default for PackLimits {
    /// 64 GiB and four million inodes.
    fn default() -> Self {
        Self {
            bytes: 64 << 30,
            inodes: 4 << 20,
        }
    }
}

/// What a finished layer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackSummary {
    /// SHA-256 of the index file.
    pub index_sha256: [u8; 32],
    /// SHA-256 of the data file.
    pub data_sha256: [u8; 32],
    /// Length of the index file.
    pub index_bytes: u64,
    /// Length of the data file.
    pub data_bytes: u64,
    /// Number of inodes.
    pub inodes: u64,
    /// Bytes of file contents in the source, identical ones counted each time.
    pub bytes: u64,
}
