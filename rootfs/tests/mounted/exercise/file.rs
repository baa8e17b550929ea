//! One file: its handles, its mapping, and what it should be.
#![allow(unsafe_code)] // Mapped files that change are what is tested.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{Advice, FallocateFlags, OFlags, copy_file_range, fadvise, fallocate};

use super::operation::Action;
use super::{Difference, SIZE_MAX, by_handle, compare};

/// A file under exercise.
pub(super) struct Exercised {
    root: PathBuf,
    path: String,
    handles: Handles,
    model: Vec<u8>,
    named: bool,
}

/// All that the kernel has open of it.
struct Handles {
    file: File,
    /// One that passes the page cache by.
    direct: File,
    /// As long as a file gets; what is beyond its end is not touched.
    mapped: MmapRaw,
}

impl Handles {
    /// Opens `path`, which is made when it is not there.
    fn open(path: &Path) -> Self {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(path).unwrap();
        let direct = options.custom_flags(OFlags::DIRECT.bits().cast_signed());
        let direct = direct.open(path).unwrap();
        let mapped = MmapOptions::new().len(SIZE_MAX).map_raw(&file).unwrap();
        Self {
            file,
            direct,
            mapped,
        }
    }
}

impl Exercised {
    /// Opens `path` in the mount at `root`.
    pub(super) fn open(root: &Path, path: String) -> Self {
        Self {
            root: root.to_owned(),
            handles: Handles::open(&root.join(&path)),
            path,
            model: Vec::new(),
            named: true,
        }
    }

    /// Cuts a new one to the length of `content`, which it begins with.
    pub(super) fn cut_to(&mut self, content: Vec<u8>) {
        self.handles.file.set_len(content.len() as u64).unwrap();
        self.model = content;
    }

    /// The same open file and model, for a copy from one file to itself or another.
    pub(super) fn duplicate(&self) -> Source {
        Source {
            file: self.handles.file.try_clone().unwrap(),
            model: self.model.clone(),
        }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn model(&self) -> &[u8] {
        &self.model
    }

    pub(super) fn is_named(&self) -> bool {
        self.named
    }

    pub(super) fn sync(&self) {
        self.handles.file.sync_all().unwrap();
    }

    /// Whether the file is as long as it should be.
    pub(super) fn check_size(&self) -> Result<(), Difference> {
        let (found, expected) = (
            self.handles.file.metadata().unwrap().len(),
            self.model.len(),
        );
        if found == expected as u64 {
            return Ok(());
        }
        Err(format!(
            "{} has {found:#x} bytes and not {expected:#x}",
            self.path
        ))
    }

    /// Whether all of it is what it should be.
    pub(super) fn check(&self) -> Result<(), Difference> {
        self.check_size()?;
        self.read(&self.handles.file, "read(2)", 0, self.model.len() + 1)?;
        self.read_mapped(0, self.model.len())
    }

    /// Does `action`, the `n`th operation: what is written tells which one it was.
    pub(super) fn act(&mut self, action: &Action, n: usize) -> Result<(), Difference> {
        let keep = |keep_size| match keep_size {
            true => FallocateFlags::KEEP_SIZE,
            false => FallocateFlags::empty(),
        };
        match *action {
            Action::Read { offset, len } => self.read(&self.handles.file, "read(2)", offset, len),
            Action::DirectRead { offset, len } => {
                self.read(&self.handles.direct, "O_DIRECT", offset, len)
            }
            Action::MappedRead { offset, len } => self.read_mapped(offset, len),
            Action::Write { offset, len } => {
                self.write(|handles| &handles.file, offset, bytes(n, len))
            }
            Action::DirectWrite { offset, len } => {
                self.write(|handles| &handles.direct, offset, bytes(n, len))
            }
            Action::MappedWrite { offset, len } => {
                let bytes = bytes(n, self.within(offset, len));
                // SAFETY: the range is within the mapping and within the file; nobody else writes.
                unsafe {
                    let to = self.handles.mapped.as_mut_ptr().add(offset);
                    std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
                }
                self.wrote(offset, &bytes);
                Ok(())
            }
            Action::MappedSync => {
                self.handles.mapped.flush().unwrap();
                Ok(())
            }
            Action::Truncate { len } => {
                self.handles.file.set_len(len as u64).unwrap();
                self.model.resize(len, 0);
                Ok(())
            }
            Action::Punch { offset, len } => {
                self.fallocate(FallocateFlags::PUNCH_HOLE | keep(true), offset, len);
                self.zeroed(offset, len);
                Ok(())
            }
            Action::Zero {
                offset,
                len,
                keep_size,
            } => {
                self.fallocate(FallocateFlags::ZERO_RANGE | keep(keep_size), offset, len);
                self.grown(offset, len, keep_size);
                self.zeroed(offset, len);
                Ok(())
            }
            Action::Allocate {
                offset,
                len,
                keep_size,
            } => {
                self.fallocate(keep(keep_size), offset, len);
                self.grown(offset, len, keep_size);
                Ok(())
            }
            Action::Fsync => {
                self.sync();
                Ok(())
            }
            Action::DropPages => {
                self.sync();
                fadvise(&self.handles.file, 0, None, Advice::DontNeed).unwrap();
                Ok(())
            }
            Action::Reopen => {
                // One without a name is opened by another way, while its handle is still there.
                let path = match self.named {
                    true => self.root.join(&self.path),
                    false => by_handle(&self.handles.file),
                };
                self.handles = Handles::open(&path);
                self.check()
            }
            Action::Unlink => {
                if self.named {
                    std::fs::remove_file(self.root.join(&self.path)).unwrap();
                    self.named = false;
                }
                Ok(())
            }
            Action::Replace => {
                let beside = self.root.join(format!("{}.new", self.path));
                self.check()?;
                self.handles = Handles::open(&beside);
                std::fs::rename(&beside, self.root.join(&self.path)).unwrap();
                self.model.clear();
                self.named = true;
                Ok(())
            }
        }
    }

    /// Copies a range of `source`, which is `bytes`.
    pub(super) fn copy_from(
        &mut self,
        source: &Source,
        from_offset: usize,
        to_offset: usize,
        bytes: &[u8],
    ) -> Result<(), Difference> {
        let (mut from, mut to) = (from_offset as u64, to_offset as u64);
        let mut left = bytes.len();
        while left > 0 {
            let file = &self.handles.file;
            match copy_file_range(&source.file, Some(&mut from), file, Some(&mut to), left) {
                Ok(0) => return Err(format!("{left} bytes were not copied")),
                Ok(n) => left -= n,
                Err(errno) => return Err(format!("copying fails with {errno}")),
            }
        }
        self.wrote(to_offset, bytes);
        Ok(())
    }

    fn write(
        &mut self,
        by: fn(&Handles) -> &File,
        offset: usize,
        bytes: Vec<u8>,
    ) -> Result<(), Difference> {
        by(&self.handles)
            .write_all_at(&bytes, offset as u64)
            .unwrap();
        self.wrote(offset, &bytes);
        Ok(())
    }

    fn fallocate(&self, flags: FallocateFlags, offset: usize, len: usize) {
        fallocate(&self.handles.file, flags, offset as u64, len as u64).unwrap();
    }

    /// The part of a range that is in the file.
    fn within(&self, offset: usize, len: usize) -> usize {
        len.min(self.model.len().saturating_sub(offset))
    }

    fn wrote(&mut self, offset: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        self.model.resize(self.model.len().max(end), 0);
        self.model[offset..end].copy_from_slice(bytes);
    }

    fn grown(&mut self, offset: usize, len: usize, keep_size: bool) {
        if !keep_size {
            self.model.resize(self.model.len().max(offset + len), 0);
        }
    }

    fn zeroed(&mut self, offset: usize, len: usize) {
        let len = self.within(offset, len);
        if len > 0 {
            self.model[offset..offset + len].fill(0);
        }
    }

    fn read(&self, file: &File, how: &str, offset: usize, len: usize) -> Result<(), Difference> {
        let mut found = vec![0xee; len];
        let mut done = 0;
        while done < len {
            match file
                .read_at(&mut found[done..], (offset + done) as u64)
                .unwrap()
            {
                0 => break,
                n => done += n,
            }
        }
        let expected = &self.model[offset.min(self.model.len())..][..self.within(offset, len)];
        let what = format!("{} from {offset:#x} by {how}", self.path);
        compare(&what, &found[..done], expected)
    }

    fn read_mapped(&self, offset: usize, len: usize) -> Result<(), Difference> {
        let mut found = vec![0; self.within(offset, len)];
        // SAFETY: the range is within the mapping and within the file; nobody writes meanwhile.
        unsafe {
            let from = self.handles.mapped.as_ptr().add(offset);
            std::ptr::copy_nonoverlapping(from, found.as_mut_ptr(), found.len());
        }
        let expected = &self.model[offset.min(self.model.len())..][..found.len()];
        compare(
            &format!("{} from {offset:#x}, mapped", self.path),
            &found,
            expected,
        )
    }
}

/// What is copied from.
pub(super) struct Source {
    file: File,
    model: Vec<u8>,
}

impl Source {
    /// What a range holds, as far as the file goes.
    pub(super) fn model_range(&self, offset: usize, len: usize) -> &[u8] {
        let from = offset.min(self.model.len());
        &self.model[from..(offset + len).min(self.model.len()).max(from)]
    }
}

/// `len` bytes that no other operation writes, and none of them zero.
fn bytes(n: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (n * 7 + i / 13) as u8 | 1).collect()
}
