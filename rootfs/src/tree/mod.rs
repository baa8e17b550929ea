//! Storage: the tree of a guest's root over a stack of layers.

mod error;
pub(crate) mod packed;
mod types;

use std::fs::File;
use std::ops::ControlFlow;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

pub use error::OpenError;
pub use types::*;

/// A guest's root file system over its stack of layers.
///
/// One owner uses it at a time; every method does its work before it returns and holds nothing
/// after. Errors are exactly those that the guest shall see.
#[derive(Debug)]
pub struct Tree {}

#[allow(
    clippy::missing_errors_doc,
    unused_variables,
    clippy::needless_pass_by_value
)]
impl Tree {
    /// Opens a stack; recovers the writable layer from a crash.
    pub fn open(stack: StackFiles) -> Result<Tree, OpenError> {
        Err(OpenError::NoLayers)
    }
    /// The inode that `name` in directory `parent` is.
    pub fn lookup(&self, parent: Ino, name: Name<'_>) -> Result<Attr, Errno> {
        Err(Errno::NOSYS)
    }
    /// Attributes of `ino`.
    pub fn attr(&self, ino: Ino) -> Result<Attr, Errno> {
        Err(Errno::NOSYS)
    }
    /// Changes attributes of `ino`; copies content only when its size changes to other than zero.
    pub fn set_attr(&mut self, ino: Ino, change: &SetAttr) -> Result<Attr, Errno> {
        Err(Errno::NOSYS)
    }
    /// Clears set-user-id, set-group-id (of group-executable files) and file capabilities, as a
    /// write or truncation by one without privilege does (`FUSE_HANDLE_KILLPRIV_V2`).
    pub fn kill_privileges(&mut self, ino: Ino) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }
    /// The target of a symbolic link.
    pub fn readlink(&self, ino: Ino) -> Result<Vec<u8>, Errno> {
        Err(Errno::NOSYS)
    }
    /// Makes an empty regular file; `EXIST` when the name is taken.
    pub fn create_file(&mut self, node: NewNode<'_>) -> Result<Attr, Errno> {
        Err(Errno::NOSYS)
    }
    /// Makes a directory.
    pub fn mkdir(&mut self, node: NewNode<'_>) -> Result<Attr, Errno> {
        Err(Errno::NOSYS)
    }
    /// Makes a regular file, device node, FIFO or socket.
    pub fn mknod(
        &mut self,
        node: NewNode<'_>,
        file_type: FileType,
        rdev: u32,
    ) -> Result<Attr, Errno> {
        Err(Errno::NOSYS)
    }
    /// Makes a symbolic link; its mode is 0777 whatever `node` says.
    pub fn symlink(&mut self, node: NewNode<'_>, target: &[u8]) -> Result<Attr, Errno> {
        Err(Errno::NOSYS)
    }
    /// Gives `ino` one more name.
    pub fn link(&mut self, ino: Ino, parent: Ino, name: Name<'_>) -> Result<Attr, Errno> {
        Err(Errno::NOSYS)
    }
    /// Removes the name of anything but a directory.
    pub fn unlink(&mut self, parent: Ino, name: Name<'_>) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }
    /// Removes an empty directory.
    pub fn rmdir(&mut self, parent: Ino, name: Name<'_>) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }
    /// Renames, with renameat2(2)'s rules.
    pub fn rename(
        &mut self,
        old_parent: Ino,
        old_name: Name<'_>,
        new_parent: Ino,
        new_name: Name<'_>,
        mode: RenameMode,
    ) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }
    /// Lists directory `ino` from the entry after `after`, until `visit` breaks.
    pub fn read_dir(
        &self,
        ino: Ino,
        after: Cookie,
        visit: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }
    /// The directory that holds directory `dir`; the root's is the root.
    pub fn parent_of(&self, dir: Ino) -> Result<Ino, Errno> {
        Err(Errno::NOSYS)
    }
    /// Where to read the content of regular file `ino`; copies nothing.
    pub fn content(&mut self, ino: Ino) -> Result<Content<'_>, Errno> {
        Err(Errno::NOSYS)
    }
    /// The content of regular file `ino`, to be written; copies it up when it is still below.
    pub fn content_mut(&mut self, ino: Ino) -> Result<&File, Errno> {
        Err(Errno::NOSYS)
    }
    /// Says that a write to [`Tree::content_mut`] reached up to offset `end`, and when, which
    /// becomes mtime and ctime. `None` leaves both: a write from the kernel's page cache, whose
    /// times the kernel itself sets (`FUSE_WRITE_CACHE`).
    pub fn wrote(&mut self, ino: Ino, end: u64, when: Option<Timestamp>) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }
    /// Asks before a write whether quota and limits allow it: `NOSPC`, `FBIG`.
    pub fn reserve(&mut self, ino: Ino, offset: u64, len: u64) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }
    /// fallocate(2): allocation, `KEEP_SIZE`, `PUNCH_HOLE`, `ZERO_RANGE`; others `OPNOTSUPP`.
    pub fn fallocate(
        &mut self,
        ino: Ino,
        offset: u64,
        len: u64,
        mode: FallocateFlags,
    ) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }
    /// lseek(2) with `SEEK_DATA` or `SEEK_HOLE`; `NXIO` at or beyond the end.
    pub fn seek(&mut self, ino: Ino, offset: u64, whence: Whence) -> Result<u64, Errno> {
        Err(Errno::NOSYS)
    }
    /// copy_file_range(2): how much was copied, which may be less than `len`.
    pub fn copy_range(
        &mut self,
        from: Ino,
        from_offset: u64,
        to: Ino,
        to_offset: u64,
        len: u64,
    ) -> Result<u64, Errno> {
        Err(Errno::NOSYS)
    }
    /// Value of an extended attribute; `NODATA` when there is none of that name.
    pub fn get_xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, Errno> {
        Err(Errno::NOSYS)
    }
    /// Sets an extended attribute.
    pub fn set_xattr(
        &mut self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }
    /// Names of all extended attributes, each followed by NUL, as listxattr(2) gives them.
    pub fn list_xattr(&self, ino: Ino) -> Result<Vec<u8>, Errno> {
        Err(Errno::NOSYS)
    }
    /// Removes an extended attribute; `NODATA` when there is none of that name.
    pub fn remove_xattr(&mut self, ino: Ino, name: &[u8]) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }
    /// Counts one more reference of the server's client to `ino` (FUSE's lookup count).
    pub fn retain(&mut self, ino: Ino) {}
    /// Takes `n` references back; an unlinked inode without any is freed. Too large an `n`
    /// takes all.
    pub fn forget(&mut self, ino: Ino, n: u64) {}
    /// Takes all references to all inodes back: the client is gone (DESTROY, or INIT again).
    pub fn forget_all(&mut self) {}
    /// Makes content (and, unless `data_only`, nothing less than all metadata) of `ino` durable.
    pub fn fsync(&mut self, ino: Ino, data_only: bool) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }
    /// Makes everything durable.
    pub fn sync(&mut self) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }
    /// Sizes of the file system.
    pub fn stat_fs(&self) -> Result<StatFs, Errno> {
        Err(Errno::NOSYS)
    }
}
