//! Content: where it is read, how it comes up to be written, what it may take.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

use super::copy::{copy, copy_sparse};
use super::layers::{Layers, Stored};
use super::packed::format::MAX_SIZE;
use super::writable::{FileCache, FrozenLayer, NodeContent};
use super::{Content, Ino, Timestamp, Tree, Whence};

/// The unit in which the quota counts.
const PAGE: u64 = 4096;

/// The most that one call of [`Tree::copy_range`] copies; the guest asks again.
const COPY_MAX: u64 = 8 << 20;

impl Tree {
    /// Where to read the content of regular file `ino`; copies nothing.
    ///
    /// # Errors
    /// `ISDIR` or `INVAL` for anything else; `STALE`, `IO`, and the host's own.
    pub fn content(&mut self, ino: Ino) -> Result<Content<'_>, Errno> {
        self.file_attr(ino)?;
        match self.writable.delta().node(ino).map(|node| node.content) {
            Some(NodeContent::Hole) => return Ok(Content::Hole),
            Some(NodeContent::Own) => {
                let file = self.writable.content(ino)?;
                return Ok(Content::File { file });
            }
            Some(NodeContent::Beneath) | None => {}
        }
        let beneath = Layers {
            packed: &self.packed,
            frozen: &self.frozen,
            top: None,
        };
        match beneath.stored(ino)? {
            Stored::Hole | Stored::Top => Ok(Content::Hole),
            Stored::Frozen { place, len } => {
                let file = frozen_file(&mut self.frozen_files, &self.frozen, place, ino)?;
                Ok(Content::Packed {
                    file,
                    offset: 0,
                    // What a frozen layer's file lacks of the size is a hole.
                    len: len.min(host_len(file)?),
                })
            }
            Stored::Packed { file, offset, len } => Ok(Content::Packed { file, offset, len }),
        }
    }

    /// The content of regular file `ino`, to be written; copies it up when it is still below.
    /// Ask [`Tree::reserve`] before, tell [`Tree::wrote`] after.
    ///
    /// # Errors
    /// Those of [`Tree::content`]; `NOSPC`.
    pub fn content_mut(&mut self, ino: Ino) -> Result<&File, Errno> {
        self.own_content(ino)?;
        self.writable.content(ino)
    }

    /// Does `write`, and once more when the host's disk is full and removed files can make room.
    /// What failed must do no harm when it is done again.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn with_room<T>(
        &mut self,
        mut write: impl FnMut(&mut Self) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match write(self) {
            Err(Errno::NOSPC) if self.writable.make_room() == Ok(true) => write(self),
            result => result,
        }
    }

    /// Gives `ino` a content file of its own.
    fn own_content(&mut self, ino: Ino) -> Result<(), Errno> {
        self.file_attr(ino)?;
        if matches!(self.layers().stored(ino)?, Stored::Top) {
            return Ok(());
        }
        self.writable.before_change()?;
        self.own(ino)?;
        // Taking an empty file over says more exactly where its content is.
        let content = self.writable.delta().node(ino).ok_or(Errno::STALE)?.content;
        if content == NodeContent::Beneath {
            return self.copy_up(ino, MAX_SIZE);
        }
        self.writable.create_content(ino)?;
        self.update(ino, |node| {
            node.content = NodeContent::Own;
            node.attr.blocks = 0;
        })
    }

    /// Copies the first `keep` bytes of the content of `ino`, which is beneath, into a content
    /// file of its own.
    pub(super) fn copy_up(&mut self, ino: Ino, keep: u64) -> Result<(), Errno> {
        let attr = self.attr(ino)?;
        if let Some(len) = self.beneath().stored(ino)?.len() {
            let bytes = pages(len.min(keep).min(attr.size));
            self.check_bytes(bytes.min(attr.blocks.saturating_mul(512)))?;
        }
        let beneath = Layers {
            packed: &self.packed,
            frozen: &self.frozen,
            top: None,
        };
        let source = match beneath.stored(ino)? {
            Stored::Hole | Stored::Top => None,
            Stored::Packed { file, offset, len } => Some((file, offset, len)),
            Stored::Frozen { place, len } => {
                let file = frozen_file(&mut self.frozen_files, &self.frozen, place, ino)?;
                Some((file, 0, len))
            }
        }
        .map(|(file, offset, len)| (file, offset, len.min(keep).min(attr.size)));
        let file = self.writable.create_content(ino)?;
        let copied = match source {
            Some((from, offset, len)) => copy_sparse(from, offset, file, len),
            None => Ok(()),
        };
        let blocks = copied.and_then(|()| host_blocks(file));
        match blocks {
            Ok(blocks) => {
                self.writable.wrote_content(ino);
                self.update(ino, |node| {
                    node.content = NodeContent::Own;
                    node.attr.blocks = blocks;
                })
            }
            Err(error) => {
                self.writable.discard_content(ino);
                Err(error)
            }
        }
    }

    /// Says that a write to [`Tree::content_mut`] reached up to offset `end`, and when it was;
    /// without a time the file's times stay, as they do when the guest's kernel keeps them.
    ///
    /// # Errors
    /// `STALE`; `FBIG` when no file can be as long.
    pub fn wrote(&mut self, ino: Ino, end: u64, now: Option<Timestamp>) -> Result<(), Errno> {
        if end > MAX_SIZE {
            return Err(Errno::FBIG);
        }
        self.writable.wrote_content(ino);
        self.update(ino, |node| {
            node.attr.size = node.attr.size.max(end);
            node.attr.mtime = now.unwrap_or(node.attr.mtime);
            node.attr.ctime = now.unwrap_or(node.attr.ctime);
        })
    }

    /// Asks before a write whether quota and limits allow it, and counts it.
    ///
    /// # Errors
    /// `NOSPC`, `FBIG`; those of [`Tree::content_mut`].
    pub fn reserve(&mut self, ino: Ino, offset: u64, len: u64) -> Result<(), Errno> {
        let end = offset
            .checked_add(len)
            .filter(|&end| end <= MAX_SIZE)
            .ok_or(Errno::FBIG)?;
        self.writable.before_change()?;
        self.own_content(ino)?;
        if offset > self.attr(ino)?.size {
            // What lies between has to read as zeros.
            self.writable.trim_content(ino)?;
        }
        let mut need = self.need(ino, offset, end)?;
        if self.check_bytes(need).is_err() {
            // The count may be too high: parts written twice, parts punched out.
            self.refresh_blocks(ino)?;
            need = self.need(ino, offset, end)?;
            self.check_bytes(need)?;
        }
        if need == 0 {
            return Ok(());
        }
        self.update(ino, |node| node.attr.blocks += need / 512)
    }

    /// The most bytes that a write from `offset` to `end` can add to what `ino` takes.
    fn need(&self, ino: Ino, offset: u64, end: u64) -> Result<u64, Errno> {
        let attr = self.attr(ino)?;
        let touched = pages(end) - offset / PAGE * PAGE;
        let most = pages(attr.size.max(end));
        Ok(most
            .saturating_sub(attr.blocks.saturating_mul(512))
            .min(touched))
    }

    fn check_bytes(&self, need: u64) -> Result<(), Errno> {
        match self.counts().bytes.checked_add(need) {
            Some(sum) if sum <= self.quota.bytes || need == 0 => Ok(()),
            _ => Err(Errno::NOSPC),
        }
    }

    /// Asks the host what the content file of `ino` takes.
    pub(super) fn refresh_blocks(&mut self, ino: Ino) -> Result<(), Errno> {
        let blocks = host_blocks(self.writable.content(ino)?)?;
        self.update(ino, |node| node.attr.blocks = blocks)
    }

    /// fallocate(2): allocation, `KEEP_SIZE`, `PUNCH_HOLE` (with `KEEP_SIZE`), `ZERO_RANGE`.
    ///
    /// # Errors
    /// `OPNOTSUPP` for other modes, `INVAL` for an empty range, `FBIG`, `NOSPC`; those of
    /// [`Tree::content_mut`].
    pub fn fallocate(
        &mut self,
        ino: Ino,
        offset: u64,
        len: u64,
        mode: FallocateFlags,
    ) -> Result<(), Errno> {
        self.file_attr(ino)?;
        if len == 0 {
            return Err(Errno::INVAL);
        }
        let keep = FallocateFlags::KEEP_SIZE;
        let operation = mode.difference(keep);
        let punch = operation == FallocateFlags::PUNCH_HOLE && mode.contains(keep);
        let zero = operation == FallocateFlags::ZERO_RANGE;
        if !punch && !zero && !operation.is_empty() {
            return Err(Errno::OPNOTSUPP);
        }
        let end = offset
            .checked_add(len)
            .filter(|&end| end <= MAX_SIZE)
            .ok_or(Errno::FBIG)?;
        if punch {
            self.own_content(ino)?;
        } else {
            self.reserve(ino, offset, len)?;
        }
        let file = self.writable.content(ino)?;
        let result = match rustix::fs::fallocate(file, mode, offset, len) {
            // A host that cannot zero can punch, and allocate again.
            Err(Errno::OPNOTSUPP) if zero => {
                let punch = FallocateFlags::PUNCH_HOLE | keep;
                rustix::fs::fallocate(file, punch, offset, len)
                    .and_then(|()| rustix::fs::fallocate(file, mode & keep, offset, len))
            }
            result => result,
        };
        self.refresh_blocks(ino)?;
        result?;
        self.writable.wrote_content(ino);
        let now = self.now();
        self.update(ino, |node| {
            if !mode.contains(keep) {
                node.attr.size = node.attr.size.max(end);
            }
            node.attr.mtime = now;
            node.attr.ctime = now;
        })
    }

    /// lseek(2) with `SEEK_DATA` or `SEEK_HOLE`.
    ///
    /// # Errors
    /// `NXIO` at or beyond the end, or when there is no data; those of [`Tree::content`].
    pub fn seek(&mut self, ino: Ino, offset: u64, whence: Whence) -> Result<u64, Errno> {
        let size = self.file_attr(ino)?.size;
        if offset >= size {
            return Err(Errno::NXIO);
        }
        let stored = match self.content(ino)? {
            Content::Hole => 0,
            Content::Packed { len, .. } => len.min(size),
            Content::File { file } => {
                let from = match whence {
                    Whence::Data => SeekFrom::Data(offset),
                    Whence::Hole => SeekFrom::Hole(offset),
                };
                return match (rustix::fs::seek(file, from), whence) {
                    (Ok(at), Whence::Data) if at >= size => Err(Errno::NXIO),
                    (Ok(at), _) => Ok(at.min(size)),
                    // Between the end of the host's file and that of the guest's is a hole.
                    (Err(Errno::NXIO), Whence::Hole) => Ok(offset),
                    (Err(error), _) => Err(error),
                };
            }
        };
        match whence {
            Whence::Data if offset < stored => Ok(offset),
            Whence::Data => Err(Errno::NXIO),
            Whence::Hole => Ok(stored.max(offset)),
        }
    }

    /// copy_file_range(2): how much was copied, which may be less than `len`.
    ///
    /// # Errors
    /// `INVAL` for ranges of one file that overlap; those of [`Tree::reserve`].
    pub fn copy_range(
        &mut self,
        from: Ino,
        from_offset: u64,
        to: Ino,
        to_offset: u64,
        len: u64,
    ) -> Result<u64, Errno> {
        let source = self.file_attr(from)?;
        self.file_attr(to)?;
        let len = len
            .min(source.size.saturating_sub(from_offset))
            .min(COPY_MAX);
        if len == 0 {
            return Ok(0);
        }
        let from_end = from_offset.checked_add(len).ok_or(Errno::FBIG)?;
        let to_end = to_offset.checked_add(len).ok_or(Errno::FBIG)?;
        if from == to && from_offset < to_end && to_offset < from_end {
            return Err(Errno::INVAL);
        }
        self.reserve(to, to_offset, len)?;
        let source = match self.content(from)? {
            Content::Hole => None,
            Content::Packed { file, offset, len } => Some((file.try_clone(), offset, len)),
            Content::File { file } => Some((file.try_clone(), 0, MAX_SIZE)),
        };
        let target = self.writable.content(to)?;
        let mut done = 0;
        if let Some((file, base, stored)) = source {
            let file = file.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
            let there = stored.saturating_sub(from_offset).min(len);
            done = copy(
                &file,
                base + from_offset.min(stored),
                target,
                to_offset,
                there,
            )?;
        }
        if done < len {
            // What the source does not store is zeros, up to its size.
            zero(target, to_offset + done, len - done)?;
        }
        let now = self.now();
        self.wrote(to, to_end, Some(now))?;
        Ok(len)
    }
}

/// The content file of `ino` in the frozen layer at `place`.
fn frozen_file<'a>(
    files: &'a mut FileCache<(usize, Ino)>,
    layers: &[Arc<FrozenLayer>],
    place: usize,
    ino: Ino,
) -> Result<&'a File, Errno> {
    files.get_or_open((place, ino), || {
        let layer = layers.get(place).ok_or(Errno::IO)?;
        // It was there when the journal said so.
        layer.open_content(ino).map_err(|error| match error {
            Errno::NOENT => Errno::IO,
            error => error,
        })
    })
}

/// Makes a range of a host file read as zeros; may leave the file shorter than its end.
fn zero(file: &File, offset: u64, len: u64) -> Result<(), Errno> {
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(file, punch, offset, len) {
        Err(Errno::OPNOTSUPP) => {
            use std::os::unix::fs::FileExt;
            let zeros = [0; PAGE as usize];
            let mut done = 0;
            while done < len {
                let n = usize::try_from(len - done).map_or(zeros.len(), |n| n.min(zeros.len()));
                file.write_all_at(&zeros[..n], offset + done)
                    .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
                done += n as u64;
            }
            Ok(())
        }
        result => result,
    }
}

/// `len` rounded up to whole pages; sizes are far from where that overflows.
fn pages(len: u64) -> u64 {
    len.min(MAX_SIZE).next_multiple_of(PAGE)
}

pub(super) fn host_len(file: &File) -> Result<u64, Errno> {
    let metadata = file
        .metadata()
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(metadata.len())
}

fn host_blocks(file: &File) -> Result<u64, Errno> {
    let metadata = file
        .metadata()
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(metadata.blocks())
}
