//! INIT and DESTROY: what kernel and server agree on.
//!
//! Nobody but the one kernel behind this session changes the tree, so the kernel may cache names,
//! their absence, attributes, contents, listings and link targets for ever. It also keeps dirty
//! pages ([`InitFlags::WRITEBACK_CACHE`]), and then owns size, mtime and ctime of regular files:
//! it sends them in SETATTR, and ignores what replies say about them.
//!
//! There are no open files. `ENOSYS` to OPEN and OPENDIR makes the kernel go without (it then acts
//! as if the reply had been `FOPEN_KEEP_CACHE`, and `FOPEN_CACHE_DIR` for directories); every
//! request is about a node. `O_TRUNC` must not be left to OPEN for this, hence no
//! `ATOMIC_O_TRUNC`: the kernel sends SETATTR with size 0 instead.

use rustix::io::Errno;

use super::super::abi::{InitFlags, InitIn, InitOut, MAJOR, MINOR, MINOR_MIN, OpenFlags, OpenOut};
use super::super::args::Args;
use super::super::transport::Reply;
use super::{Caching, Server, expect_room, put};

/// Largest READ and WRITE: 256 pages, the most that kernels allow by default
/// (`FUSE_MAX_MAX_PAGES`).
pub const MAX_WRITE: u32 = MAX_PAGES as u32 * PAGE_SIZE;

const MAX_PAGES: u16 = 256;
const PAGE_SIZE: u32 = 4096;

/// Requests that the kernel may have under way in the background (readahead, writeback, direct
/// I/O). The kernel's default of 12 would stall writeback behind a single slow write.
const MAX_BACKGROUND: u16 = 64;

/// From how many on it takes the file system for congested: three quarters, as the kernel does.
const CONGESTION_THRESHOLD: u16 = MAX_BACKGROUND / 4 * 3;

/// Longest readahead granted; the kernel proposes its own (128 KiB by default).
const MAX_READAHEAD: u32 = MAX_WRITE;

/// What is wanted of the kernel, as far as it offers it.
const WANTED: InitFlags = InitFlags::ASYNC_READ
    .union(InitFlags::BIG_WRITES)
    .union(InitFlags::DO_READDIRPLUS)
    .union(InitFlags::READDIRPLUS_AUTO)
    .union(InitFlags::ASYNC_DIO)
    .union(InitFlags::WRITEBACK_CACHE)
    .union(InitFlags::NO_OPEN_SUPPORT)
    .union(InitFlags::PARALLEL_DIROPS)
    .union(InitFlags::MAX_PAGES)
    .union(InitFlags::CACHE_SYMLINKS)
    .union(InitFlags::NO_OPENDIR_SUPPORT)
    .union(InitFlags::EXPLICIT_INVAL_DATA)
    .union(InitFlags::HANDLE_KILLPRIV_V2);

/// What was agreed on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Session {
    flags: InitFlags,
}

impl Server {
    /// INIT.
    pub(super) fn init(
        &mut self,
        args: &mut Args<'_>,
        reply: &mut impl Reply,
    ) -> Result<(), Errno> {
        let init: InitIn = args.fixed()?;
        expect_room::<InitOut>(reply)?;
        self.end_session();
        if init.major > MAJOR {
            // The kernel is asked to begin again with our major version.
            return put(
                reply,
                &InitOut {
                    major: MAJOR,
                    minor: MINOR,
                    ..InitOut::default()
                },
            );
        }
        if init.major < MAJOR || init.minor < MINOR_MIN {
            return Err(Errno::PROTO);
        }
        let wanted = match self.caching {
            Caching::WriteBack => WANTED,
            Caching::WriteThrough => WANTED - InitFlags::WRITEBACK_CACHE,
        };
        let flags = InitFlags::from_bits_truncate(init.flags) & wanted;
        self.session = Some(Session { flags });
        put(
            reply,
            &InitOut {
                major: MAJOR,
                minor: MINOR,
                max_readahead: init.max_readahead.min(MAX_READAHEAD),
                flags: flags.bits(),
                max_background: MAX_BACKGROUND,
                congestion_threshold: CONGESTION_THRESHOLD,
                max_write: MAX_WRITE,
                time_gran: 1,
                max_pages: MAX_PAGES,
                ..InitOut::default()
            },
        )
    }

    /// DESTROY: the file system is unmounted, and everything it wrote is to last.
    pub(super) fn destroy(&mut self) -> Result<(), Errno> {
        self.end_session();
        self.tree.sync()
    }

    /// The kernel holds nothing any more.
    pub(super) fn end_session(&mut self) {
        self.session = None;
        self.tree.forget_all();
    }

    /// OPEN.
    pub(super) fn open(&self, reply: &mut impl Reply) -> Result<(), Errno> {
        self.open_unless(InitFlags::NO_OPEN_SUPPORT, reply)
    }

    /// OPENDIR.
    pub(super) fn opendir(&self, reply: &mut impl Reply) -> Result<(), Errno> {
        self.open_unless(InitFlags::NO_OPENDIR_SUPPORT, reply)
    }

    /// Says that there is nothing to open, to a kernel that understands it.
    fn open_unless(&self, support: InitFlags, reply: &mut impl Reply) -> Result<(), Errno> {
        if self
            .session
            .is_some_and(|session| session.flags.contains(support))
        {
            return Err(Errno::NOSYS);
        }
        put(reply, &opened())
    }
}

/// The reply about a file that needs no handle.
pub(super) fn opened() -> OpenOut {
    OpenOut {
        fh: 0,
        open_flags: OpenFlags::KEEP_CACHE.bits(),
        padding: 0,
    }
}
