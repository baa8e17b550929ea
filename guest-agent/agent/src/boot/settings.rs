//! What programs find set: limits, loopback, a few kernel settings.

use rustix::process::{Resource, Rlimit, setrlimit};

use super::mounts::write_setting;
use crate::sys::ioctl;

/// Descriptors a program may raise its own limit to.
const DESCRIPTORS_HARD: u64 = 1 << 20;
/// Descriptors a program gets. Not as many as it may have: old programs close every descriptor
/// there could be, one by one.
const DESCRIPTORS_SOFT: u64 = 1 << 16;

/// Settings that differ from the kernel's, and why.
const SETTINGS: [(&str, &str); 3] = [
    // File watchers of development servers.
    ("/proc/sys/fs/inotify/max_user_watches", "524288"),
    ("/proc/sys/fs/inotify/max_user_instances", "1024"),
    // ping(8) without privileges.
    ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"),
];

/// Applies all of it. What fails is reported and left.
pub(super) fn apply() {
    let limit = Rlimit {
        current: Some(DESCRIPTORS_SOFT),
        maximum: Some(DESCRIPTORS_HARD),
    };
    if let Err(errno) = setrlimit(Resource::Nofile, limit) {
        crate::log::warning(format_args!(
            "cannot raise the limit of descriptors: {errno}"
        ));
    }
    // The guest's memory may run out; the agent must stay to tell.
    if let Err(errno) = write_setting("/proc/self/oom_score_adj", "-1000") {
        crate::log::warning(format_args!(
            "cannot be exempt from the OOM killer: {errno}"
        ));
    }
    if let Err(errno) = ioctl::interface_up("lo") {
        crate::log::warning(format_args!("cannot bring loopback up: {errno}"));
    }
    for (path, value) in SETTINGS {
        if let Err(errno) = write_setting(path, value) {
            crate::log::warning(format_args!("cannot set {path}: {errno}"));
        }
    }
}
