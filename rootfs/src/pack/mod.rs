//! Building packed layers.

mod error;

use std::fs::File;
use std::io::Read;

pub use error::PackError;

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

/// Packs a tar stream into an immutable layer: `index_out` and `data_out` are empty files opened
/// for reading and writing. `progress` hears the count of tar bytes read so far, now and then.
///
/// # Errors
/// See [`PackError`]. What is in the two files then is of no use.
pub fn pack_tar(
    _reader: impl Read,
    _index_out: &File,
    _data_out: &File,
    _limits: PackLimits,
    _progress: &mut dyn FnMut(u64),
) -> Result<PackSummary, PackError> {
    Err(PackError::Empty)
}
