//! What an export needs of a tree, and how it reads a file's content.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::ExportError;
use crate::tree::{Attr, Content, Cookie, DirEntry, FileType, Ino, Name, Tree};

/// A tree that can be read. The methods mean what those of [`Tree`] mean.
pub trait ReadTree {
    /// Attributes of an inode.
    ///
    /// # Errors
    /// Those of [`Tree::attr`].
    fn attr(&self, ino: Ino) -> Result<Attr, Errno>;
    /// What `name` in `parent` is.
    ///
    /// # Errors
    /// Those of [`Tree::lookup`].
    fn lookup(&self, parent: Ino, name: Name<'_>) -> Result<Attr, Errno>;
    /// The directory that holds `dir`.
    ///
    /// # Errors
    /// Those of [`Tree::parent_of`].
    fn parent_of(&self, dir: Ino) -> Result<Ino, Errno>;
    /// Lists a directory.
    ///
    /// # Errors
    /// Those of [`Tree::read_dir`].
    fn read_dir(
        &self,
        dir: Ino,
        after: Cookie,
        visit: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<(), Errno>;
    /// The target of a symbolic link.
    ///
    /// # Errors
    /// Those of [`Tree::readlink`].
    fn readlink(&self, ino: Ino) -> Result<Vec<u8>, Errno>;
    /// Names of extended attributes, each followed by NUL.
    ///
    /// # Errors
    /// Those of [`Tree::list_xattr`].
    fn list_xattr(&self, ino: Ino) -> Result<Vec<u8>, Errno>;
    /// Value of an extended attribute.
    ///
    /// # Errors
    /// Those of [`Tree::get_xattr`].
    fn get_xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, Errno>;
    /// Where a file's content is.
    ///
    /// # Errors
    /// Those of [`Tree::content`].
    fn content(&mut self, ino: Ino) -> Result<Content<'_>, Errno>;
}

impl ReadTree for Tree {
    fn attr(&self, ino: Ino) -> Result<Attr, Errno> {
        Tree::attr(self, ino)
    }
    fn lookup(&self, parent: Ino, name: Name<'_>) -> Result<Attr, Errno> {
        Tree::lookup(self, parent, name)
    }
    fn parent_of(&self, dir: Ino) -> Result<Ino, Errno> {
        Tree::parent_of(self, dir)
    }
    fn read_dir(
        &self,
        dir: Ino,
        after: Cookie,
        visit: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<(), Errno> {
        Tree::read_dir(self, dir, after, visit)
    }
    fn readlink(&self, ino: Ino) -> Result<Vec<u8>, Errno> {
        Tree::readlink(self, ino)
    }
    fn list_xattr(&self, ino: Ino) -> Result<Vec<u8>, Errno> {
        Tree::list_xattr(self, ino)
    }
    fn get_xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, Errno> {
        Tree::get_xattr(self, ino, name)
    }
    fn content(&mut self, ino: Ino) -> Result<Content<'_>, Errno> {
        Tree::content(self, ino)
    }
}

/// An entry of a directory, kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Child {
    pub(super) name: Vec<u8>,
    pub(super) ino: Ino,
}

/// The entries of `dir` but `.` and `..`, sorted by name; an error beyond `limit` of them.
pub(super) fn children(
    tree: &impl ReadTree,
    dir: Ino,
    limit: u64,
) -> Result<Option<Vec<Child>>, Errno> {
    let mut children = Vec::new();
    let mut over = false;
    tree.read_dir(dir, Cookie::DOT_DOT, &mut |entry| {
        // A damaged layer may say anything; what is no name is not passed on.
        if Name::new(entry.name).is_ok() {
            over = children.len() as u64 >= limit;
            children.push(Child {
                name: entry.name.to_vec(),
                ino: entry.ino,
            });
        }
        if over {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    children.sort_unstable();
    Ok((!over).then_some(children))
}

/// How much is read at a time; a multiple of [`PAGE`].
const CHUNK: usize = 256 << 10;

/// Holes are found in this unit.
pub(crate) const PAGE: usize = 4096;

/// What goes wrong while content is passed on.
pub(super) enum CopyError<E> {
    /// It cannot be read.
    Read(Errno),
    /// The receiver does not want it.
    Put(E),
}

impl<E: Into<io::Error>> CopyError<E> {
    /// The same of the file at `path`, to the output.
    pub(super) fn at(self, path: &[u8]) -> ExportError {
        match self {
            Self::Read(errno) => ExportError::read(path)(errno),
            Self::Put(error) => ExportError::write(path)(error),
        }
    }
}

/// Takes a piece of content and where it begins.
pub(super) type Put<'a, E> = dyn FnMut(u64, &[u8]) -> Result<(), E> + 'a;

/// Passes the content of `file`, which is `size` bytes long, to `put` in order, piece by piece,
/// without what is a hole or zeros for whole pages. Offsets are multiples of a page.
pub(super) fn read_data<E>(
    tree: &mut impl ReadTree,
    attr: &Attr,
    put: &mut Put<'_, E>,
) -> Result<(), CopyError<E>> {
    debug_assert_eq!(attr.file_type, FileType::Regular);
    let (file, base, stored) = match tree.content(attr.ino).map_err(CopyError::Read)? {
        Content::Hole => return Ok(()),
        Content::File { file } => (file, 0, attr.size),
        Content::Packed { file, offset, len } => (file, offset, len.min(attr.size)),
    };
    let most = usize::try_from(stored).map_or(CHUNK, |stored| stored.min(CHUNK));
    let mut buffer = vec![0; most];
    let mut at = 0;
    while at < stored {
        if let Some(data) = next_data(file, base, at, stored) {
            at = data;
        } else {
            break;
        }
        let take = usize::try_from(stored - at).map_or(CHUNK, |left| left.min(CHUNK));
        let offset = base
            .checked_add(at)
            .ok_or(CopyError::Read(Errno::OVERFLOW))?;
        let n = read_up_to(file, &mut buffer[..take], offset).map_err(CopyError::Read)?;
        if n == 0 {
            break;
        }
        for (from, to) in data_runs(&buffer[..n]) {
            put(at + from as u64, &buffer[from..to]).map_err(CopyError::Put)?;
        }
        at += n as u64;
    }
    Ok(())
}

/// Where, from `at` and at a page's begin, the host's file has data; `None` when it has none.
fn next_data(file: &File, base: u64, at: u64, stored: u64) -> Option<u64> {
    match seek(file, SeekFrom::Data(base.checked_add(at)?)) {
        Ok(data) => {
            let data = data.saturating_sub(base).max(at) / PAGE as u64 * PAGE as u64;
            (data < stored).then_some(data)
        }
        Err(Errno::NXIO) => None,
        // This file system does not say; the reader finds the zeros.
        Err(_) => Some(at),
    }
}

fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }
    Ok(done)
}

/// The parts of `bytes`, in whole pages but for the last, that are not all zeros.
pub(crate) fn data_runs(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (i, page) in bytes.chunks(PAGE).enumerate() {
        if page.iter().all(|&byte| byte == 0) {
            continue;
        }
        let from = i * PAGE;
        match runs.last_mut() {
            Some(last) if last.1 == from => last.1 = from + page.len(),
            _ => runs.push((from, from + page.len())),
        }
    }
    runs
}
