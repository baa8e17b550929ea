//! A file mapped into memory, read-only.
#![allow(unsafe_code)] // the one place that maps files

use std::fs::File;
use std::io;

use memmap2::Mmap;

/// The bytes of a file that nobody changes any more.
///
/// A layer's index belongs to the image store, which publishes files read-only and removes them
/// by name only: neither a guest nor anything else that runs for it can write or shorten one. If
/// the host's administrator does, the monitor may die of `SIGBUS`; what it reads is checked, so
/// changed bytes are no worse than a damaged file.
#[derive(Debug)]
pub(super) struct Map(Mmap);

impl Map {
    /// Maps all of `file`.
    pub(super) fn new(file: &File) -> io::Result<Self> {
        // SAFETY: published layers do not change (see above), so the slice that the map hands out
        // stays what it is. No value is made of its bytes but by parsers that take any bytes.
        let map = unsafe { Mmap::map(file) }?;
        Ok(Self(map))
    }

    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}
