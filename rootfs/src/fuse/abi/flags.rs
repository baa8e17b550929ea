//! The protocol's bit sets.

use bitflags::bitflags;

bitflags! {
    /// What the two sides agree on in INIT (`FUSE_ASYNC_READ` and those after it). Only the low
    /// 32 bits; nothing of `flags2` is used.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct InitFlags: u32 {
        /// Several READs of one file may be under way.
        const ASYNC_READ = 1 << 0;
        /// The server does POSIX locks. Never: they stay in the guest.
        const POSIX_LOCKS = 1 << 1;
        /// OPEN truncates. Never: there is no OPEN (see `FUSE_NO_OPEN_SUPPORT`).
        const ATOMIC_O_TRUNC = 1 << 3;
        /// WRITE may be larger than a page.
        const BIG_WRITES = 1 << 5;
        /// The server applies the umask. Never: the kernel does, and has when we see the mode.
        const DONT_MASK = 1 << 6;
        /// The server does BSD locks. Never.
        const FLOCK_LOCKS = 1 << 10;
        /// Pages are dropped when mtime changed. Never: nobody else changes files.
        const AUTO_INVAL_DATA = 1 << 12;
        /// READDIRPLUS is understood.
        const DO_READDIRPLUS = 1 << 13;
        /// The kernel decides between READDIR and READDIRPLUS.
        const READDIRPLUS_AUTO = 1 << 14;
        /// Direct I/O may be asynchronous.
        const ASYNC_DIO = 1 << 15;
        /// The kernel keeps dirty pages, and owns size, mtime and ctime of regular files.
        const WRITEBACK_CACHE = 1 << 16;
        /// `ENOSYS` to OPEN means that files need neither OPEN nor RELEASE.
        const NO_OPEN_SUPPORT = 1 << 17;
        /// LOOKUPs and READDIRs of one directory may run beside each other.
        const PARALLEL_DIROPS = 1 << 18;
        /// The older form of `HANDLE_KILLPRIV_V2`. Never.
        const HANDLE_KILLPRIV = 1 << 19;
        /// The kernel enforces POSIX ACLs that the server stores. Never.
        const POSIX_ACL = 1 << 20;
        /// `max_pages` of INIT's reply is valid.
        const MAX_PAGES = 1 << 22;
        /// Targets of symbolic links are cached.
        const CACHE_SYMLINKS = 1 << 23;
        /// `ENOSYS` to OPENDIR means that directories need neither OPENDIR nor RELEASEDIR.
        const NO_OPENDIR_SUPPORT = 1 << 24;
        /// Cached pages are dropped only when the server says so.
        const EXPLICIT_INVAL_DATA = 1 << 25;
        /// The server wants mappings aligned (DAX). Not yet.
        const MAP_ALIGNMENT = 1 << 26;
        /// Directories may be mounts of their own. Never.
        const SUBMOUNTS = 1 << 27;
        /// The server clears set-id bits and capabilities on write, truncate and chown.
        const HANDLE_KILLPRIV_V2 = 1 << 28;
        /// SETXATTR has its longer form. Never; only ACLs need it.
        const SETXATTR_EXT = 1 << 29;
        /// `flags2` is valid.
        const INIT_EXT = 1 << 30;
    }

    /// Which fields of SETATTR are valid (`FATTR_*`).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct SetattrValid: u32 {
        /// `mode`.
        const MODE = 1 << 0;
        /// `uid`.
        const UID = 1 << 1;
        /// `gid`.
        const GID = 1 << 2;
        /// `size`.
        const SIZE = 1 << 3;
        /// `atime`.
        const ATIME = 1 << 4;
        /// `mtime`.
        const MTIME = 1 << 5;
        /// `fh`, which means nothing here.
        const FH = 1 << 6;
        /// atime is the server's present.
        const ATIME_NOW = 1 << 7;
        /// mtime is the server's present.
        const MTIME_NOW = 1 << 8;
        /// `lock_owner`, which means nothing here.
        const LOCKOWNER = 1 << 9;
        /// `ctime`.
        const CTIME = 1 << 10;
        /// The caller may not keep set-id bits.
        const KILL_SUIDGID = 1 << 11;
    }

    /// `write_flags` of WRITE (`FUSE_WRITE_*`).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct WriteFlags: u32 {
        /// From the kernel's page cache; times were set when the page was dirtied.
        const CACHE = 1 << 0;
        /// `lock_owner` is valid.
        const LOCKOWNER = 1 << 1;
        /// The caller may not keep set-id bits.
        const KILL_SUIDGID = 1 << 2;
    }

    /// What CREATE's reply says about the open file (`FOPEN_*`).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct OpenFlags: u32 {
        /// Cached pages stay.
        const KEEP_CACHE = 1 << 1;
    }
}

/// `FUSE_FSYNC_FDATASYNC`: only the data.
pub const FSYNC_FDATASYNC: u32 = 1 << 0;

/// `RENAME_NOREPLACE` of renameat2(2).
pub const RENAME_NOREPLACE: u32 = 1 << 0;
/// `RENAME_EXCHANGE` of renameat2(2).
pub const RENAME_EXCHANGE: u32 = 1 << 1;

/// `XATTR_CREATE` of setxattr(2).
pub const XATTR_CREATE: u32 = 1 << 0;
/// `XATTR_REPLACE` of setxattr(2).
pub const XATTR_REPLACE: u32 = 1 << 1;

/// `O_EXCL` of open(2) on x86 and arm64.
pub const O_EXCL: u32 = 0o200;
