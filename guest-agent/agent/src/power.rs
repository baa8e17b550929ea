//! Ending the guest so that no write is lost.
//!
//! Programs are asked to end and served on meanwhile: one whose output nobody takes any more would
//! die of SIGPIPE in the middle of saving its work.

use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags, mount_remount, unmount};
use rustix::process::{Signal, getpid, kill_process};
use rustix::system::{RebootCommand, reboot};

use crate::procfs;
use crate::serve::{Farewell, Server};
use crate::sys::signals;

/// How long programs may take to end by themselves.
const GRACE: Duration = Duration::from_secs(2);
/// How long killed programs may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(3);
/// How soon the kill is repeated.
const KILL_INTERVAL: Duration = Duration::from_millis(100);

/// Ends all processes, writes everything out, answers, and turns the power off. PID 1 only.
pub(crate) fn off(mut server: Server, farewell: Farewell) -> ! {
    end_all_processes(&mut server);
    write_out();
    farewell.done();
    let error = reboot(RebootCommand::PowerOff);
    crate::log::fatal(format_args!("cannot power off: {error:?}"));
    reset()
}

/// Resets the machine: what is left when PID 1 cannot go on.
pub(crate) fn reset() -> ! {
    let _ = reboot(RebootCommand::Restart);
    // The kernel panics when PID 1 ends, which the monitor sees as well.
    std::process::exit(1)
}

/// Asks everything that the agent has started to end, then kills what has not.
pub(crate) fn end_all_processes(server: &mut Server) {
    signal_all(Signal::TERM);
    // A stopped program takes no TERM.
    signal_all(Signal::CONT);
    // Orphans become ours, so when no child is left, nobody is.
    if server.outlast(GRACE) {
        return;
    }
    let limit = Instant::now() + KILL_LIMIT;
    loop {
        // Again and again where it is not one system call: somebody may have forked meanwhile.
        signal_all(Signal::KILL);
        if server.outlast(KILL_INTERVAL) {
            return;
        }
        if Instant::now() >= limit {
            return crate::log::warning(format_args!("some processes could not be killed"));
        }
    }
}

/// To everybody in the guest; on a host, to what descends from the agent.
fn signal_all(signal: Signal) {
    let own = getpid();
    if own.is_init() {
        return signals::signal_all(signal);
    }
    for pid in procfs::descendants(own) {
        let _ = kill_process(pid, signal);
    }
}

/// Writes everything to the host: unmounts what can be, and makes the root read-only, which a file
/// system takes as the time to write out what it holds.
fn write_out() {
    rustix::fs::sync();
    let mounts = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    for target in mount_points(&mounts).into_iter().rev() {
        if target != "/" && !target.starts_with("/proc") {
            let _ = unmount(target.as_str(), UnmountFlags::empty());
        }
    }
    // Busy when something still writes; sync has done what matters then.
    let _ = mount_remount("/", MountFlags::RDONLY, "");
    rustix::fs::sync();
}

/// Where file systems are mounted, in the order of their mounting, proc_pid_mountinfo(5).
fn mount_points(mountinfo: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(mountinfo)
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|path| {
            // The kernel escapes these four.
            let path = path.replace("\\040", " ").replace("\\011", "\t");
            path.replace("\\012", "\n").replace("\\134", "\\")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        let text = b"22 1 0:20 / / rw - virtiofs root rw\n\
            30 22 0:21 / /mnt/a\\040b rw,nosuid - tmpfs tmpfs rw\nbroken\n";
        assert_eq!(mount_points(text), ["/", "/mnt/a b"]);
    }
}
