//! What the server answers.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::tree;

macro_rules! reply_structs {
    ($($(#[$doc:meta])* $name:ident($c:literal, $size:literal) { $($field:ident: $ty:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[doc = concat!("\n\n`struct ", $c, "`, ", $size, " bytes.")]
            #[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
            #[allow(missing_docs)] // The fields are the protocol's.
            #[repr(C)]
            pub struct $name { $(pub $field: $ty,)* }
            const _: () = assert!(size_of::<$name>() == $size);
        )*
    };
}

reply_structs! {
    /// Starts every reply. `error` is 0 or a negative errno.
    OutHeader("fuse_out_header", 16) { len: u32, error: i32, unique: u64, }
    /// INIT's.
    InitOut("fuse_init_out", 64) {
        major: u32,
        minor: u32,
        max_readahead: u32,
        flags: u32,
        max_background: u16,
        congestion_threshold: u16,
        max_write: u32,
        time_gran: u32,
        max_pages: u16,
        map_alignment: u16,
        flags2: u32,
        unused: [u32; 7],
    }
    /// Attributes.
    Attr("fuse_attr", 88) {
        ino: u64,
        size: u64,
        blocks: u64,
        atime: i64,
        mtime: i64,
        ctime: i64,
        atimensec: u32,
        mtimensec: u32,
        ctimensec: u32,
        mode: u32,
        nlink: u32,
        uid: u32,
        gid: u32,
        rdev: u32,
        blksize: u32,
        flags: u32,
    }
    /// A name that was looked up or made.
    EntryOut("fuse_entry_out", 128) {
        nodeid: u64,
        generation: u64,
        entry_valid: u64,
        attr_valid: u64,
        entry_valid_nsec: u32,
        attr_valid_nsec: u32,
        attr: Attr,
    }
    /// GETATTR's and SETATTR's.
    AttrOut("fuse_attr_out", 104) {
        attr_valid: u64,
        attr_valid_nsec: u32,
        dummy: u32,
        attr: Attr,
    }
    /// The second half of CREATE's.
    OpenOut("fuse_open_out", 16) { fh: u64, open_flags: u32, padding: u32, }
    /// WRITE's and COPY_FILE_RANGE's.
    WriteOut("fuse_write_out", 8) { size: u32, padding: u32, }
    /// STATFS's.
    StatfsOut("fuse_statfs_out", 80) {
        blocks: u64,
        bfree: u64,
        bavail: u64,
        files: u64,
        ffree: u64,
        bsize: u32,
        namelen: u32,
        frsize: u32,
        padding: u32,
        spare: [u32; 6],
    }
    /// GETXATTR's and LISTXATTR's when asked with size 0.
    GetxattrOut("fuse_getxattr_out", 8) { size: u32, padding: u32, }
    /// One entry of READDIR's, less its name, which follows and is padded to 8 bytes.
    Dirent("fuse_dirent", 24) { ino: u64, off: u64, namelen: u32, kind: u32, }
}

/// Block size that files report: what the kernel may best write at once is larger, but programs
/// allocate buffers of this size.
const BLKSIZE: u32 = 4096;

impl From<tree::Attr> for Attr {
    fn from(attr: tree::Attr) -> Self {
        Self {
            ino: attr.ino.0,
            size: attr.size,
            blocks: attr.blocks,
            atime: attr.atime.secs,
            mtime: attr.mtime.secs,
            ctime: attr.ctime.secs,
            atimensec: attr.atime.nanos,
            mtimensec: attr.mtime.nanos,
            ctimensec: attr.ctime.nanos,
            mode: attr.file_type.mode_bits() | u32::from(attr.mode),
            nlink: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            rdev: attr.rdev,
            blksize: BLKSIZE,
            flags: 0,
        }
    }
}
