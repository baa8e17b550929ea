//! The plain data that crosses the border between storage and its users.

use std::fs::File;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

/// The longest name a directory entry may have (`NAME_MAX` of Linux, `limits.h`).
pub const NAME_MAX: usize = 255;

/// The longest target a symbolic link may have: `PATH_MAX` of Linux less its final NUL.
pub const SYMLINK_MAX: usize = 4095;

/// The longest name of an extended attribute (`XATTR_NAME_MAX` of Linux, `limits.h`).
pub const XATTR_NAME_MAX: usize = 255;

/// The largest value of an extended attribute (`XATTR_SIZE_MAX` of Linux, `limits.h`).
pub const XATTR_SIZE_MAX: usize = 65536;

/// The longest list of names of extended attributes (`XATTR_LIST_MAX` of Linux, `limits.h`).
pub const XATTR_LIST_MAX: usize = 65536;

/// An inode's number: one for the whole stack, for ever.
///
/// FUSE calls it a node id; the two are the same number here, and 1 is the root in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(pub u64);

impl Ino {
    /// The root directory of every stack (`FUSE_ROOT_ID`).
    pub const ROOT: Ino = Ino(1);
}

impl std::fmt::Display for Ino {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What kind of thing an inode is. It never changes in an inode's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileType {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device; metadata only, never opened on the host.
    CharDevice,
    /// A block device; metadata only, never opened on the host.
    BlockDevice,
    /// A named pipe; the guest's kernel implements it.
    Fifo,
    /// A Unix socket's name; the guest's kernel implements it.
    Socket,
}

impl FileType {
    /// The type's bits of `st_mode` (`S_IFMT`, inode(7)).
    #[must_use]
    pub const fn mode_bits(self) -> u32 {
        match self {
            Self::Fifo => 0o010_000,
            Self::CharDevice => 0o020_000,
            Self::Directory => 0o040_000,
            Self::BlockDevice => 0o060_000,
            Self::Regular => 0o100_000,
            Self::Symlink => 0o120_000,
            Self::Socket => 0o140_000,
        }
    }

    /// The type that `st_mode` says, or `None` when its type bits are none of inode(7)'s.
    #[must_use]
    pub const fn from_mode(mode: u32) -> Option<Self> {
        Some(match mode & 0o170_000 {
            0o010_000 => Self::Fifo,
            0o020_000 => Self::CharDevice,
            0o040_000 => Self::Directory,
            0o060_000 => Self::BlockDevice,
            0o100_000 => Self::Regular,
            0o120_000 => Self::Symlink,
            0o140_000 => Self::Socket,
            _ => return None,
        })
    }

    /// The type as readdir(3) says it (`DT_*`): the type bits of `st_mode`, shifted.
    #[must_use]
    pub const fn dirent_type(self) -> u32 {
        self.mode_bits() >> 12
    }
}

/// A moment: seconds since 1970-01-01T00:00:00Z and nanoseconds after them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds, negative before 1970.
    pub secs: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nanos: u32,
}

impl Timestamp {
    /// The host's real-time clock, as of its last tick: what kernels stamp files with. A finer
    /// one would make a file that we stamp newer than one that the guest's kernel stamps later,
    /// and `make` would believe it.
    #[must_use]
    pub fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        Self {
            secs: now.tv_sec,
            nanos: u32::try_from(now.tv_nsec).unwrap_or(0),
        }
    }
}

/// All that stat(2) says about an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// The inode.
    pub ino: Ino,
    /// Its type.
    pub file_type: FileType,
    /// Permission bits with set-user-id, set-group-id and sticky (`07777`), without the type.
    pub mode: u16,
    /// Number of names; 0 for one that is unlinked and still in use.
    pub nlink: u32,
    /// Owner, as the guest sees it.
    pub uid: u32,
    /// Group, as the guest sees it.
    pub gid: u32,
    /// Device number of device nodes in Linux' `new_encode_dev` form, otherwise 0.
    pub rdev: u32,
    /// Size in bytes: content of files, length of a symbolic link's target.
    pub size: u64,
    /// Space taken, in units of 512 bytes.
    pub blocks: u64,
    /// Last access. Kept as it was set; reads do not move it.
    pub atime: Timestamp,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of anything.
    pub ctime: Timestamp,
}

/// A change of attributes; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permission bits (`07777`); others are ignored.
    pub mode: Option<u16>,
    /// Owner. Setting owner or group of anything but a directory without setting `mode` clears
    /// the set-id bits and file capabilities, as chown(2) does.
    pub uid: Option<u32>,
    /// Group; see `uid`.
    pub gid: Option<u32>,
    /// Size of a regular file; also moves mtime, when that is not given.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<Timestamp>,
    /// Last change of content.
    pub mtime: Option<Timestamp>,
    /// Last change of anything; the present when not given.
    pub ctime: Option<Timestamp>,
}

/// Whom a new inode belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group; replaced by the directory's when that has the set-group-id bit.
    pub gid: u32,
}

/// One component of a path: not empty, not `.` or `..`, no `/` or NUL, at most 255 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    /// Checks `bytes`.
    ///
    /// # Errors
    /// `NAMETOOLONG` beyond [`NAME_MAX`] bytes, `INVAL` for all else that is no name.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Errno> {
        if bytes.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        if matches!(bytes, b"" | b"." | b"..") || bytes.iter().any(|&b| b == b'/' || b == 0) {
            return Err(Errno::INVAL);
        }
        Ok(Self(bytes))
    }

    /// The name's bytes.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

/// Where and as whose a new inode is made.
#[derive(Clone, Copy, Debug)]
pub struct NewNode<'a> {
    /// The directory that gets the name.
    pub parent: Ino,
    /// The name.
    pub name: Name<'a>,
    /// User and group of the caller.
    pub owner: Owner,
    /// Permission bits (`07777`), the umask already taken off.
    pub mode: u16,
}

/// What a rename does when the new name exists (renameat2(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// Replaces it, atomically.
    Replace,
    /// Fails with `EXIST` (`RENAME_NOREPLACE`).
    NoReplace,
    /// Swaps the two names; both must exist (`RENAME_EXCHANGE`).
    Exchange,
}

/// Whether an extended attribute may or must exist before it is set (setxattr(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrMode {
    /// Either way.
    Any,
    /// Must not exist (`XATTR_CREATE`).
    Create,
    /// Must exist (`XATTR_REPLACE`).
    Replace,
}

/// A place in a directory's listing. Entries come in the order of their cookies; an entry keeps
/// its cookie as long as it lives, so a listing goes on rightly while others change the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cookie(pub u64);

impl Cookie {
    /// Before the first entry.
    pub const START: Cookie = Cookie(0);
    /// That of `.`.
    pub const DOT: Cookie = Cookie(1);
    /// That of `..`.
    pub const DOT_DOT: Cookie = Cookie(2);
    /// The first that a named entry may have.
    pub(crate) const FIRST_NAMED: u64 = 3;
}

/// One entry of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// What it names.
    pub ino: Ino,
    /// Its name; `.` and `..` are listed too.
    pub name: &'a [u8],
    /// Type of what it names.
    pub file_type: FileType,
    /// Its place: give it to [`Tree::read_dir`](super::Tree::read_dir) to go on after this entry.
    pub cookie: Cookie,
}

/// Where a regular file's bytes are to be read. The reader clamps to [`Attr::size`]; what lies
/// below that and is not there reads as zeros.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// In `len` bytes of an immutable layer's file from `offset`, a multiple of 4096.
    Packed {
        /// The file: a packed layer's data, or a content file of a frozen layer.
        file: &'a File,
        /// Where the content begins in it.
        offset: u64,
        /// How long the content is.
        len: u64,
    },
    /// In a file of its own, from offset 0.
    File {
        /// The content.
        file: &'a File,
    },
    /// Nowhere: all zeros.
    Hole,
}

/// What to seek for (lseek(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    /// The next byte at or after the offset that is stored (`SEEK_DATA`).
    Data,
    /// The next hole at or after the offset; the end of a file is one (`SEEK_HOLE`).
    Hole,
}

/// What statvfs(3) says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatFs {
    /// Unit of the three block counts, in bytes.
    pub block_size: u32,
    /// All blocks.
    pub blocks: u64,
    /// Free blocks.
    pub blocks_free: u64,
    /// Blocks that the guest may still use.
    pub blocks_available: u64,
    /// All inodes.
    pub files: u64,
    /// Inodes that can still be made.
    pub files_free: u64,
    /// Longest name, in bytes.
    pub name_max: u32,
}

/// How much the layers above the packed ones may hold, together. Beyond it the guest gets `NOSPC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Bytes of content, counted as the host allocates them: holes are free.
    pub bytes: u64,
    /// Inodes made or changed.
    pub inodes: u64,
}

impl Quota {
    /// A bound that protects the host's memory and else leaves it to the host's file system.
    pub const UNLIMITED: Quota = Quota {
        bytes: u64::MAX >> 1,
        inodes: 1 << 24,
    };
}

/// What a write that was synced survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A crash of the host: `fsync` waits for the host's disk.
    Host,
    /// A crash of this process: `fsync` hands everything to the host's kernel and does not wait.
    /// Right for a root that is thrown away when its VM ends.
    Process,
}

/// The two files of an immutable layer.
#[derive(Debug)]
pub struct PackedFiles {
    /// Metadata, memory-mapped; opened for reading.
    pub index: File,
    /// Contents; opened for reading.
    pub data: File,
}

/// Everything that a [`Tree`](super::Tree) is opened from: descriptors, no paths.
#[derive(Debug)]
pub struct StackFiles {
    /// Immutable layers, the lowest first; at least one.
    pub layers: Vec<PackedFiles>,
    /// Directories of frozen layers above those, the lowest first; may be none. They are what
    /// [`Tree::freeze`](super::Tree::freeze) left, and are not changed.
    pub frozen: Vec<OwnedFd>,
    /// The writable layer's directory; an empty one becomes an empty layer.
    pub writable: OwnedFd,
    /// What frozen layers and the writable layer together may hold.
    pub quota: Quota,
    /// What `fsync` means.
    pub durability: Durability,
}

impl StackFiles {
    /// A stack with no quota of its own that survives a crash of the host.
    #[must_use]
    pub const fn new(layers: Vec<PackedFiles>, writable: OwnedFd) -> Self {
        Self {
            layers,
            frozen: Vec::new(),
            writable,
            quota: Quota::UNLIMITED,
            durability: Durability::Host,
        }
    }
}
