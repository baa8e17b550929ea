//! The data file of a layer while it is written: contents one after the other, each from a
//! multiple of [`DATA_ALIGN`], identical ones once, pages of zeros as holes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

use super::PackError;
use crate::tree::packed::format::DATA_ALIGN;

/// `DATA_ALIGN` as a length in memory.
const PAGE: usize = DATA_ALIGN as usize;

/// How much is read at a time; a multiple of a page.
const CHUNK: usize = 64 * PAGE;

/// Where a content went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// Offset in the data file.
    pub(super) offset: u64,
    /// Length in bytes.
    pub(super) len: u64,
    /// Space taken in units of 512 bytes.
    pub(super) blocks: u64,
}

/// Writes the data file.
pub(super) struct DataWriter<'a> {
    file: &'a File,
    end: u64,
    digest: Sha256,
    seen: HashMap<[u8; 32], Extent>,
    buffer: Vec<u8>,
}

impl<'a> DataWriter<'a> {
    /// Begins an empty data file.
    pub(super) fn new(file: &'a File) -> Result<Self, PackError> {
        file.set_len(0).map_err(PackError::Write)?;
        Ok(Self {
            file,
            end: 0,
            digest: Sha256::new(),
            seen: HashMap::new(),
            buffer: vec![0; CHUNK],
        })
    }

    /// Stores the `len` bytes that come from `content`.
    pub(super) fn store(&mut self, content: &mut dyn Read, len: u64) -> Result<Extent, PackError> {
        if len == 0 {
            return Ok(Extent::default());
        }
        // A content that turns out to be there already is taken back, digest included.
        let digest_before = self.digest.clone();
        let start = self.end;
        let mut own = Sha256::new();
        let mut blocks = 0;
        let mut left = len;
        while left > 0 {
            let take = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
            let padded = take.next_multiple_of(PAGE);
            read_exactly(content, &mut self.buffer[..take])?;
            self.buffer[take..padded].fill(0);
            own.update(&self.buffer[..take]);
            self.digest.update(&self.buffer[..padded]);
            blocks += write_pages(self.file, &self.buffer[..padded], self.end)?;
            self.end += padded as u64;
            left -= take as u64;
        }
        let extent = Extent {
            offset: start,
            len,
            blocks,
        };
        match self.seen.entry(own.finalize().into()) {
            std::collections::hash_map::Entry::Vacant(vacant) => Ok(*vacant.insert(extent)),
            std::collections::hash_map::Entry::Occupied(there) => {
                self.end = start;
                self.digest = digest_before;
                // Whatever comes here next may leave holes, which have to read as zeros.
                self.file.set_len(start).map_err(PackError::Write)?;
                Ok(*there.get())
            }
        }
    }

    /// Gives the file its final length; returns that and its digest.
    pub(super) fn finish(self) -> Result<(u64, [u8; 32]), PackError> {
        self.file.set_len(self.end).map_err(PackError::Write)?;
        Ok((self.end, self.digest.finalize().into()))
    }
}

/// Fills `buffer`, or says that the source ended early.
fn read_exactly(source: &mut dyn Read, buffer: &mut [u8]) -> Result<(), PackError> {
    source.read_exact(buffer).map_err(PackError::Read)
}

/// Writes those of `pages` that are not all zeros; how much that is, in units of 512 bytes.
fn write_pages(file: &File, pages: &[u8], offset: u64) -> Result<u64, PackError> {
    let write = |from: usize, to: usize| -> io::Result<()> {
        file.write_all_at(&pages[from..to], offset + from as u64)
    };
    let mut written = 0;
    let mut run = None;
    for (at, page) in pages
        .chunks(PAGE)
        .enumerate()
        .map(|(i, page)| (i * PAGE, page))
    {
        if page.iter().any(|&byte| byte != 0) {
            run.get_or_insert(at);
            written += DATA_ALIGN / 512;
        } else if let Some(from) = run.take() {
            write(from, at).map_err(PackError::Write)?;
        }
    }
    if let Some(from) = run {
        write(from, pages.len()).map_err(PackError::Write)?;
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(data: &mut DataWriter<'_>, content: &[u8]) -> Extent {
        data.store(&mut &content[..], content.len() as u64).unwrap()
    }

    fn whole(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn identical_contents_are_stored_once_and_all_begin_at_a_page() {
        let file = tempfile::tempfile().unwrap();
        let mut data = DataWriter::new(&file).unwrap();
        let first = store(&mut data, b"first");
        let second = store(&mut data, &[7; 5000]);
        assert_eq!(store(&mut data, b"first"), first);
        let third = store(&mut data, b"third");
        assert_eq!(
            (first.offset, second.offset, third.offset),
            (0, 4096, 12288)
        );
        let (len, digest) = data.finish().unwrap();
        assert_eq!(len, 16384);
        let bytes = whole(&file);
        assert_eq!(digest, <[u8; 32]>::from(Sha256::digest(&bytes)));
        assert_eq!(&bytes[12288..12293], b"third");
    }

    #[test]
    fn zeros_after_a_taken_back_duplicate_read_as_zeros() {
        let file = tempfile::tempfile().unwrap();
        let mut data = DataWriter::new(&file).unwrap();
        store(&mut data, &[1; 3 * 4096]);
        store(&mut data, &[1; 3 * 4096]);
        let mut content = vec![0; 2 * 4096];
        content.push(9);
        let sparse = store(&mut data, &content);
        assert_eq!(sparse.blocks, 8, "two of its three pages are holes");
        let (_, digest) = data.finish().unwrap();
        let bytes = whole(&file);
        assert_eq!(&bytes[3 * 4096..][..content.len()], content);
        assert_eq!(digest, <[u8; 32]>::from(Sha256::digest(&bytes)));
    }

    #[test]
    fn a_source_that_ends_early_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        let mut data = DataWriter::new(&file).unwrap();
        let error = data.store(&mut &b"short"[..], 6).unwrap_err();
        assert!(matches!(error, PackError::Read(_)), "{error:?}");
    }
}
