//! `enum fuse_opcode`.

/// What a request asks for; those that this server answers or must recognise.
///
/// All others get `ENOSYS`, which tells the kernel not to ask again (GETLK, SETLK, SETLKW: locks
/// are the guest's own; ACCESS: the kernel checks permissions; BMAP, IOCTL, POLL, TMPFILE).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The names are the protocol's.
#[repr(u32)]
pub enum Opcode {
    Lookup = 1,
    Forget = 2,
    Getattr = 3,
    Setattr = 4,
    Readlink = 5,
    Symlink = 6,
    Mknod = 8,
    Mkdir = 9,
    Unlink = 10,
    Rmdir = 11,
    Rename = 12,
    Link = 13,
    Open = 14,
    Read = 15,
    Write = 16,
    Statfs = 17,
    Release = 18,
    Fsync = 20,
    Setxattr = 21,
    Getxattr = 22,
    Listxattr = 23,
    Removexattr = 24,
    Flush = 25,
    Init = 26,
    Opendir = 27,
    Readdir = 28,
    Releasedir = 29,
    Fsyncdir = 30,
    Create = 35,
    Interrupt = 36,
    Destroy = 38,
    BatchForget = 42,
    Fallocate = 43,
    Readdirplus = 44,
    Rename2 = 45,
    Lseek = 46,
    CopyFileRange = 47,
    Syncfs = 50,
}

impl Opcode {
    /// All of them, in the protocol's order.
    pub const ALL: [Self; 38] = [
        Self::Lookup,
        Self::Forget,
        Self::Getattr,
        Self::Setattr,
        Self::Readlink,
        Self::Symlink,
        Self::Mknod,
        Self::Mkdir,
        Self::Unlink,
        Self::Rmdir,
        Self::Rename,
        Self::Link,
        Self::Open,
        Self::Read,
        Self::Write,
        Self::Statfs,
        Self::Release,
        Self::Fsync,
        Self::Setxattr,
        Self::Getxattr,
        Self::Listxattr,
        Self::Removexattr,
        Self::Flush,
        Self::Init,
        Self::Opendir,
        Self::Readdir,
        Self::Releasedir,
        Self::Fsyncdir,
        Self::Create,
        Self::Interrupt,
        Self::Destroy,
        Self::BatchForget,
        Self::Fallocate,
        Self::Readdirplus,
        Self::Rename2,
        Self::Lseek,
        Self::CopyFileRange,
        Self::Syncfs,
    ];

    /// The opcode of this number, or `None` when the server does not know it.
    #[must_use]
    pub fn from_raw(raw: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|opcode| *opcode as u32 == raw)
    }

    /// Whether the kernel waits for a reply. The three without one are never answered, not even
    /// with an error.
    #[must_use]
    pub const fn has_reply(self) -> bool {
        !matches!(self, Self::Forget | Self::BatchForget | Self::Interrupt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_opcode_is_found_by_its_number() {
        for opcode in Opcode::ALL {
            assert_eq!(Opcode::from_raw(opcode as u32), Some(opcode));
        }
    }

    #[test]
    fn numbers_that_are_not_served_are_unknown() {
        for raw in [
            0,
            7,
            19,
            31,
            32,
            33,
            34,
            37,
            39,
            40,
            41,
            48,
            49,
            51,
            52,
            4096,
            u32::MAX,
        ] {
            assert_eq!(Opcode::from_raw(raw), None, "{raw}");
        }
    }
}
