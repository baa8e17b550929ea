//! What the process gives up at its start. The full jail is not here yet; this much needs nothing
//! from the host.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{UnshareFlags, set_no_new_privs, unshare_unsafe};

/// Descriptors the process may have: devices, connections, open files of the guest.
const DESCRIPTORS_MAX: u64 = 4096;

/// Gives up new privileges, core dumps (they would hold the guest's memory), most descriptors,
/// and the network where the host allows it. Call it before there is a second thread.
///
/// # Errors
/// When the host refuses something that every host allows.
pub(super) fn enter() -> rustix::io::Result<()> {
    set_no_new_privs(true)?;
    limit(Resource::Core, 0)?;
    limit(Resource::Nofile, DESCRIPTORS_MAX)?;
    leave_network();
    Ok(())
}

fn limit(resource: Resource, most: u64) -> rustix::io::Result<()> {
    let now = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let new = most.min(now);
    setrlimit(
        resource,
        Rlimit {
            current: Some(new),
            maximum: Some(new),
        },
    )
}

/// Moves to a network namespace of our own, which has no interface.
///
/// Privileged processes just do it. Others need a user namespace for it, in which they are nobody
/// special; descriptors keep working. A host that allows neither leaves the process with a
/// network that it never uses.
fn leave_network() {
    let alone = leave(UnshareFlags::NEWNET);
    if alone.is_err() {
        let _ = leave(UnshareFlags::NEWUSER | UnshareFlags::NEWNET);
    }
}

#[allow(unsafe_code)] // rustix calls unshare unsafe for the sake of shared descriptor tables
fn leave(flags: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: neither namespace touches memory or descriptors.
    unsafe { unshare_unsafe(flags) }
}
