//! What the process gives up at its start: what neither sockets nor its log need.

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};

use crate::config::Limits;

/// Descriptors beyond those that connections and flows have.
const DESCRIPTORS: u64 = 128;

/// Most bytes of the log. Without any the first word of an error would end the process, unsaid, with
/// SIGXFSZ.
const LOG: u64 = 64 << 10;

/// Gives up new privileges, capabilities, core dumps and being looked into, files longer than a
/// log, and more descriptors than its limits ask for. Call it before there is a second thread.
///
/// # Errors
/// When the host refuses something that every host allows.
pub(crate) fn enter(limits: &Limits) -> rustix::io::Result<()> {
    set_no_new_privs(true)?;
    // Who started us as root means no more than that: a socket needs none of it.
    set_capabilities(
        None,
        CapabilitySets {
            effective: CapabilitySet::empty(),
            permitted: CapabilitySet::empty(),
            inheritable: CapabilitySet::empty(),
        },
    )?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let connections = limits.tcp_connections + limits.udp_flows + limits.published_ports;
    let descriptors = connections.saturating_add(limits.published_connections.saturating_mul(2));
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, LOG)?;
    limit(Resource::Nofile, DESCRIPTORS + 128 + descriptors as u64)
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
