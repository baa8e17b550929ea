//! A file or directory of a tree becomes one of the host.
//!
//! It is built beside its place under a name that nobody knows, in a directory that nobody else may
//! enter, and gets its own name in one step when it is complete and on the disk. A file is synced alone; for a
//! directory its whole file system is, which is one call however many files there are.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, Mode, OFlags, RenameFlags, Timespec, Timestamps, fchmod, fsync, futimens, linkat,
    mkdirat, openat, renameat_with, statat, symlinkat, syncfs, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::read::read_data;
use super::walk::{Item, MODE, Output, walk};
use super::{ExportError, ExportLimits, ExportSummary, ReadTree};
use crate::tree::{Attr, Ino, Timestamp};

/// What happens when the output exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// The export is refused and the output stays as it is.
    #[default]
    Refuse,
    /// The output is replaced in one step, when all of the export is there.
    Replace,
}

/// Exports the file or directory `ino` to `output` of the host: all of it or none. The
/// directory of `output` has to be there. Everything belongs to the caller; permission bits stay
/// but set-id bits, and every directory may be read, written and searched by its owner; times stay. What is
/// written is on the disk then, name included. Blocks for as long as that takes.
///
/// # Errors
/// See [`ExportError`]; then `output` is as it was, unless it was only its new name that could not be synced.
pub fn export_to_host(
    tree: &mut impl ReadTree,
    ino: Ino,
    output: &Path,
    existing: Existing,
    limits: ExportLimits,
) -> Result<ExportSummary, ExportError> {
    let (dir, name) = place(output, existing)?;
    let temporary = Temporary::new(&dir)?;
    let mut host = Host {
        place: dir.as_fd(),
        name: temporary.name.as_bytes(),
        dirs: Vec::new(),
    };
    let summary = walk(tree, ino, limits, &mut host)?;
    temporary.publish(name, existing)?;
    Ok(summary)
}

/// Makes `output` a file that `write` fills: all of it or none, and on the disk.
pub(super) fn create_file<T>(
    output: &Path,
    existing: Existing,
    write: impl FnOnce(&File) -> Result<T, ExportError>,
) -> Result<T, ExportError> {
    let (dir, name) = place(output, existing)?;
    let temporary = Temporary::new(&dir)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let file = openat(&dir, temporary.name.as_str(), flags, mode);
    let file = File::from(file.map_err(ExportError::write(name.as_bytes()))?);
    let result = write(&file)?;
    file.sync_all()
        .map_err(ExportError::write(name.as_bytes()))?;
    temporary.publish(name, existing)?;
    Ok(result)
}

/// Opens the directory that gets the output; with the output's name.
fn place(output: &Path, existing: Existing) -> Result<(OwnedFd, &OsStr), ExportError> {
    let Some(name) = output.file_name() else {
        return Err(ExportError::Unsupported {
            path: output.display().to_string(),
            reason: "the output needs a name of its own",
        });
    };
    let parent = match output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(parent, flags, Mode::empty())
        .map_err(ExportError::write(parent.as_os_str().as_bytes()))?;
    if existing == Existing::Refuse && exists(&dir, name)? {
        return Err(taken(name));
    }
    Ok((dir, name))
}

fn taken(name: &OsStr) -> ExportError {
    ExportError::Exists {
        name: name.to_string_lossy().into_owned(),
    }
}

fn exists(dir: impl AsFd, name: &OsStr) -> Result<bool, ExportError> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(ExportError::write(name.as_bytes())(error)),
    }
}

/// What is not complete yet; goes away unless it is published.
struct Temporary<'a> {
    dir: &'a OwnedFd,
    name: String,
}

impl<'a> Temporary<'a> {
    fn new(dir: &'a OwnedFd) -> Result<Self, ExportError> {
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(ExportError::write(b""))?;
        Ok(Self {
            dir,
            name: format!(".pyro-export-{:016x}", u64::from_ne_bytes(random)),
        })
    }

    /// Gives it its name. What had that name goes when the new one is on the disk.
    fn publish(self, name: &OsStr, existing: Existing) -> Result<(), ExportError> {
        self.rename(name, existing)?;
        fsync(self.dir).map_err(ExportError::write(name.as_bytes()))
    }

    fn rename(&self, name: &OsStr, existing: Existing) -> Result<(), ExportError> {
        let rename = |flags| renameat_with(self.dir, self.name.as_str(), self.dir, name, flags);
        let failed = ExportError::write(name.as_bytes());
        match rename(RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) if existing == Existing::Refuse => Err(taken(name)),
            // What was there goes with the temporary name.
            Err(Errno::EXIST) => rename(RenameFlags::EXCHANGE).map_err(failed),
            // This file system knows no such flags.
            Err(Errno::INVAL) if existing == Existing::Replace || !exists(self.dir, name)? => {
                rename(RenameFlags::empty()).map_err(failed)
            }
            Err(Errno::INVAL) => Err(taken(name)),
            Err(error) => Err(failed(error)),
        }
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        // Nothing more can be done about what cannot be removed.
        let removed = unlinkat(self.dir, self.name.as_str(), AtFlags::empty());
        if let Err(Errno::ISDIR | Errno::PERM) = removed {
            let path = format!("/proc/self/fd/{}/{}", self.dir.as_raw_fd(), self.name);
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

/// Writes beneath directory descriptors.
struct Host<'a> {
    /// The directory that gets the output.
    place: BorrowedFd<'a>,
    /// Its name there.
    name: &'a [u8],
    /// Directories that were entered and not left, the output first.
    dirs: Vec<OwnedFd>,
}

impl Host<'_> {
    /// Where an entry goes: directory and name.
    fn at<'i>(&'i self, item: &'i Item<'_>) -> (BorrowedFd<'i>, &'i [u8]) {
        match self.dirs.last() {
            Some(dir) => (dir.as_fd(), item.name),
            None => (self.place, self.name),
        }
    }
}

impl Output for Host<'_> {
    fn enter(&mut self, item: &Item<'_>) -> Result<(), ExportError> {
        let (dir, name) = self.at(item);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = mkdirat(dir, name, Mode::RWXU)
            .and_then(|()| openat(dir, name, flags, Mode::empty()))
            .map_err(ExportError::write(item.path))?;
        self.dirs.push(made);
        Ok(())
    }

    fn leave(&mut self, item: &Item<'_>) -> Result<(), ExportError> {
        let dir = self.dirs.pop().expect("left is what was entered");
        finish(&dir, &item.attr, item.attr.mode | 0o700)
            .and_then(|()| match self.dirs.is_empty() {
                // It was opened before anything was written, so it hears of all that failed since.
                true => Ok(syncfs(&dir)?),
                false => Ok(()),
            })
            .map_err(ExportError::write(item.path))
    }

    fn file(
        &mut self,
        tree: &mut impl ReadTree,
        item: &Item<'_>,
        first: Option<&[u8]>,
    ) -> Result<(), ExportError> {
        let (dir, name) = self.at(item);
        if let (Some(first), Some(root)) = (first, self.dirs.first()) {
            match linkat(root, first, dir, name, AtFlags::empty()) {
                Ok(()) => return Ok(()),
                // A copy says the same.
                Err(Errno::NAMETOOLONG | Errno::MLINK | Errno::PERM | Errno::OPNOTSUPP) => {}
                Err(error) => return Err(ExportError::write(item.path)(error)),
            }
        }
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(dir, name, flags, Mode::RUSR | Mode::WUSR);
        let file = File::from(file.map_err(ExportError::write(item.path))?);
        let copied = read_data(tree, &item.attr, &mut |offset, bytes| {
            file.write_all_at(bytes, offset)
        });
        copied.map_err(|error| error.at(item.path))?;
        file.set_len(item.attr.size)
            .map_err(ExportError::write(item.path))?;
        finish(&file, &item.attr, item.attr.mode)
            .and_then(|()| match self.dirs.is_empty() {
                true => file.sync_all(),
                false => Ok(()),
            })
            .map_err(ExportError::write(item.path))
    }

    fn symlink(&mut self, item: &Item<'_>, target: &[u8]) -> Result<(), ExportError> {
        let (dir, name) = self.at(item);
        let times = times(&item.attr);
        symlinkat(target, dir, name)
            .and_then(|()| utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW))
            .map_err(ExportError::write(item.path))
    }
}

/// Sets what writing changes.
fn finish(fd: impl AsFd, attr: &Attr, mode: u16) -> Result<(), io::Error> {
    fchmod(&fd, Mode::from_raw_mode(u32::from(mode & MODE)))?;
    futimens(&fd, &times(attr))?;
    Ok(())
}

fn times(attr: &Attr) -> Timestamps {
    let time = |time: Timestamp| Timespec {
        tv_sec: time.secs,
        tv_nsec: i64::from(time.nanos.min(999_999_999)),
    };
    Timestamps {
        last_access: time(attr.atime),
        last_modification: time(attr.mtime),
    }
}
