//! What the kernel sends.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! request_structs {
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

request_structs! {
    /// Starts every request.
    InHeader("fuse_in_header", 40) {
        len: u32,
        opcode: u32,
        unique: u64,
        nodeid: u64,
        uid: u32,
        gid: u32,
        pid: u32,
        total_extlen: u16,
        padding: u16,
    }
    /// INIT, as far as every version has it.
    InitIn("fuse_init_in", 16) {
        major: u32,
        minor: u32,
        max_readahead: u32,
        flags: u32,
    }
    /// FORGET.
    ForgetIn("fuse_forget_in", 8) { nlookup: u64, }
    /// One of BATCH_FORGET's.
    ForgetOne("fuse_forget_one", 16) { nodeid: u64, nlookup: u64, }
    /// BATCH_FORGET; as many [`ForgetOne`] follow as `count` says.
    BatchForgetIn("fuse_batch_forget_in", 8) { count: u32, dummy: u32, }
    /// GETATTR.
    GetattrIn("fuse_getattr_in", 16) { getattr_flags: u32, dummy: u32, fh: u64, }
    /// SETATTR.
    SetattrIn("fuse_setattr_in", 88) {
        valid: u32,
        padding: u32,
        fh: u64,
        size: u64,
        lock_owner: u64,
        atime: i64,
        mtime: i64,
        ctime: i64,
        atimensec: u32,
        mtimensec: u32,
        ctimensec: u32,
        mode: u32,
        unused4: u32,
        uid: u32,
        gid: u32,
        unused5: u32,
    }
    /// MKNOD; the name follows.
    MknodIn("fuse_mknod_in", 16) { mode: u32, rdev: u32, umask: u32, padding: u32, }
    /// MKDIR; the name follows.
    MkdirIn("fuse_mkdir_in", 8) { mode: u32, umask: u32, }
    /// RENAME; old and new name follow.
    RenameIn("fuse_rename_in", 8) { newdir: u64, }
    /// RENAME2; old and new name follow.
    Rename2In("fuse_rename2_in", 16) { newdir: u64, flags: u32, padding: u32, }
    /// LINK; the new name follows.
    LinkIn("fuse_link_in", 8) { oldnodeid: u64, }
    /// CREATE; the name follows.
    CreateIn("fuse_create_in", 16) { flags: u32, mode: u32, umask: u32, open_flags: u32, }
    /// READ, READDIR, READDIRPLUS.
    ReadIn("fuse_read_in", 40) {
        fh: u64,
        offset: u64,
        size: u32,
        read_flags: u32,
        lock_owner: u64,
        flags: u32,
        padding: u32,
    }
    /// WRITE; `size` bytes follow.
    WriteIn("fuse_write_in", 40) {
        fh: u64,
        offset: u64,
        size: u32,
        write_flags: u32,
        lock_owner: u64,
        flags: u32,
        padding: u32,
    }
    /// FSYNC, FSYNCDIR.
    FsyncIn("fuse_fsync_in", 16) { fh: u64, fsync_flags: u32, padding: u32, }
    /// SETXATTR without `FUSE_SETXATTR_EXT`; the name and `size` bytes of value follow.
    SetxattrIn("fuse_setxattr_in", 8) { size: u32, flags: u32, }
    /// GETXATTR (the name follows) and LISTXATTR.
    GetxattrIn("fuse_getxattr_in", 8) { size: u32, padding: u32, }
    /// FALLOCATE.
    FallocateIn("fuse_fallocate_in", 32) {
        fh: u64,
        offset: u64,
        length: u64,
        mode: u32,
        padding: u32,
    }
    /// COPY_FILE_RANGE.
    CopyFileRangeIn("fuse_copy_file_range_in", 56) {
        fh_in: u64,
        off_in: u64,
        nodeid_out: u64,
        fh_out: u64,
        off_out: u64,
        len: u64,
        flags: u64,
    }
}
