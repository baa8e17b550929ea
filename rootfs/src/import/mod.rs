//! What comes into a tree: a directory of the host or a tar stream, with no guest running.
//!
//! A seed is put *into* a directory of the tree ([`make_directories`] finds or makes it): what is
//! there stays, a file of the same name is replaced, directories become one. Everything belongs
//! to root (0:0) afterwards. Permission bits and the sticky bit stay, set-user-id and set-group-id
//! bits and extended attributes do not; modification times, holes and hard links stay. The destination itself keeps its attributes.
//!
//! Refused with the member's name: in an archive, absolute paths, `..`, device nodes, pipes, sockets, paths that
//! pass through something that is no directory, hard links to what did not come before, and all that
//! packing refuses too (sparse members, sizes that contradict each other); in both, a symbolic link that leads
//! out of the destination, itself or by way of others. In a directory, special files are skipped and
//! named in the [`ImportSummary`], as is what cannot be read. **After an error part of the seed may be in the
//! tree: import into a fresh writable layer and throw it away then.**
//!
//! No more than [`ImportLimits`] is taken, whatever an archive unpacks to; the tree's own quota holds too.

mod archive;
mod directory;
mod error;
mod git;
mod index;
mod target;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use crate::tree::{FileType, Ino, Name, NewNode, Owner, Tree};

pub use archive::import_tar;
pub use directory::import_directory;
pub use error::ImportError;

/// How much a seed may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportLimits {
    /// Bytes of file contents, holes included.
    pub bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
}

impl Default for ImportLimits {
    /// 16 GiB and a million entries.
    fn default() -> Self {
        Self {
            bytes: 16 << 30,
            entries: 1 << 20,
        }
    }
}

/// What happens, in a Git work tree, to files that Git ignores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IgnoredFiles {
    /// They stay behind. `.git` itself, and files that the index has, come along.
    #[default]
    LeaveBehind,
    /// They come along.
    Take,
}

/// What was imported: the provenance of a seed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportSummary {
    /// Regular files.
    pub files: u64,
    /// Directories, the destination not included.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Further names of files.
    pub hard_links: u64,
    /// Bytes of file contents.
    pub bytes: u64,
    /// Files and directories that stayed behind because Git ignores them; what is in such a
    /// directory is not counted.
    pub ignored: u64,
    /// What was skipped, the first [`SKIPPED_MAX`] of it.
    pub skipped: Vec<Skipped>,
    /// How much was skipped in all.
    pub skipped_count: u64,
}

/// The most that [`ImportSummary::skipped`] names.
pub const SKIPPED_MAX: usize = 100;

/// Something that was left out and should be known about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its path in the seed.
    pub path: String,
    /// Why.
    pub reason: &'static str,
}

/// Imports what is at `path` of the host: a directory, or a file that is a tar archive, plain or
/// compressed with gzip. Blocks for as long as that takes.
///
/// # Errors
/// See [`ImportError`]. Part of the seed may be in the tree then.
pub fn import_path(
    tree: &mut Tree,
    dest: Ino,
    path: &Path,
    ignored: IgnoredFiles,
    limits: ImportLimits,
) -> Result<ImportSummary, ImportError> {
    let unreadable = |source| ImportError::Seed {
        path: path.display().to_string(),
        source,
    };
    // Without O_NONBLOCK a pipe would be waited for.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd: OwnedFd = open(path, flags, Mode::empty()).map_err(|e| unreadable(e.into()))?;
    let file = File::from(fd);
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        import_directory(tree, dest, path, ignored, limits)
    } else if metadata.is_file() {
        import_tar(tree, dest, file, limits)
    } else {
        Err(ImportError::Kind {
            path: path.display().to_string(),
        })
    }
}

/// Finds directory `path` from the root, components separated by `/`; makes what is not there,
/// for root and with mode 0755.
///
/// # Errors
/// `NOTDIR` where something else than a directory is on the way (a symbolic link too), `INVAL` for
/// `..`, and those of [`Tree::mkdir`].
pub fn make_directories(tree: &mut Tree, path: &[u8]) -> Result<Ino, Errno> {
    let mut dir = Ino::ROOT;
    for component in path.split(|&byte| byte == b'/') {
        if matches!(component, b"" | b".") {
            continue;
        }
        let name = Name::new(component)?;
        let attr = match tree.lookup(dir, name) {
            Err(Errno::NOENT) => tree.mkdir(NewNode {
                parent: dir,
                name,
                owner: ROOT,
                mode: 0o755,
            })?,
            attr => attr?,
        };
        if attr.file_type != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        dir = attr.ino;
    }
    Ok(dir)
}

/// Whom a seed belongs to.
const ROOT: Owner = Owner { uid: 0, gid: 0 };

#[cfg(test)]
mod tests;
