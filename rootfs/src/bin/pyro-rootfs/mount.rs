//! `pyro-rootfs mount`: serves a stack until it is unmounted.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use pyro_rootfs::fuse::abi::OutHeader;
use pyro_rootfs::fuse::dev::{Mount, unmount};
use pyro_rootfs::fuse::transport::{OUT_HEADER_SIZE, Outcome};
use pyro_rootfs::fuse::{Caching, Server, SliceReply, SliceRequest};
use pyro_rootfs::tree::{StackFiles, Tree};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use zerocopy::IntoBytes;

use super::commands::{self, Faults};

/// What requests and commands are about; locked for one of them at a time.
pub(crate) struct Served {
    pub(crate) server: Server,
    pub(crate) faults: Faults,
}

/// Locks what is served. A panic of another thread ends nothing but that thread's work.
pub(crate) fn lock(served: &Mutex<Served>) -> MutexGuard<'_, Served> {
    served.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Mounts `stack` on `mountpoint` and serves it until it is unmounted, or a signal says so.
pub(crate) fn run(
    stack: StackFiles,
    caching: Caching,
    obey: bool,
    mountpoint: &Path,
) -> Result<()> {
    let mountpoint = mountpoint
        .canonicalize()
        .with_context(|| format!("cannot mount on {}", mountpoint.display()))?;
    let tree = Tree::open(stack).context("cannot open the stack")?;
    let served = Arc::new(Mutex::new(Served {
        server: Server::new(tree).with_caching(caching),
        faults: Faults::default(),
    }));
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).context("cannot catch signals")?;
    let mount = Mount::new(&mountpoint)?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if let Err(error) = unmount(&mountpoint) {
                eprintln!(
                    "pyro-rootfs: cannot unmount {}: {error}",
                    mountpoint.display()
                );
            }
        }
    });
    if obey {
        let served = served.clone();
        std::thread::spawn(move || commands::obey(&served));
    }
    let counts = mount.serve(|request, reply| {
        let mut served = lock(&served);
        match served.faults.next(request) {
            Some(errno) => refuse(request, reply, errno),
            None => served
                .server
                .handle(&mut SliceRequest::new(request), &mut SliceReply::new(reply)),
        }
    })?;
    lock(&served)
        .server
        .sync()
        .context("cannot make the writable layer durable")?;
    ensure!(
        counts.refused == 0,
        "the kernel refused {} replies; this is a bug",
        counts.refused
    );
    Ok(())
}

/// Answers a request with an error.
fn refuse(request: &[u8], reply: &mut [u8], errno: Errno) -> Outcome {
    // `fuse_in_header.unique`.
    let Some(&unique) = request.get(8..).and_then(<[u8]>::first_chunk) else {
        return Outcome::NoReply;
    };
    let header = OutHeader {
        len: OUT_HEADER_SIZE as u32,
        error: -errno.raw_os_error(),
        unique: u64::from_ne_bytes(unique),
    };
    reply[..OUT_HEADER_SIZE].copy_from_slice(header.as_bytes());
    Outcome::Replied {
        len: OUT_HEADER_SIZE,
    }
}
