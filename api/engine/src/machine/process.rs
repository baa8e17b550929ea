//! A process that may not be our child, held by a pidfd: it cannot be taken for another.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Which process: its id, and when it began in clock ticks since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pid: Pid,
    start: u64,
}

impl Identity {
    /// From a line of `/proc/<pid>/stat`.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let pid = line.split_whitespace().next()?.parse().ok()?;
        // The name, in parentheses, may hold anything. After it the first field is the third.
        let (_, rest) = line.rsplit_once(')')?;
        let start = rest.split_whitespace().nth(22 - 3)?.parse().ok()?;
        Some(Self {
            pid: Pid::from_raw(pid)?,
            start,
        })
    }

    fn of(pid: Pid) -> Option<Self> {
        let line = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
        Self::parse(&line)
    }
}

/// A process that was there when this was made.
#[derive(Debug)]
pub(crate) struct Process {
    identity: Identity,
    pidfd: OwnedFd,
}

impl Process {
    /// The process with this identity; `None` when it is gone.
    pub(crate) fn find(identity: Identity) -> io::Result<Option<Self>> {
        let pidfd = match pidfd_open(identity.pid, PidfdFlags::NONBLOCK) {
            Err(Errno::SRCH) => return Ok(None),
            pidfd => pidfd?,
        };
        // Held now, so that the number cannot become another's between these two steps.
        if Identity::of(identity.pid) != Some(identity) {
            return Ok(None);
        }
        if has_ended(&pidfd) {
            reap(&pidfd);
            return Ok(None);
        }
        Ok(Some(Self { identity, pidfd }))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.identity.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits until it has ended, and reaps it if it is our child.
    pub(crate) async fn ended(&self) {
        // An error means that it cannot be watched; then it is taken for gone rather than
        // waited for for ever.
        if let Ok(watched) = self.pidfd.try_clone().and_then(watch) {
            let _ = watched.readable().await;
        }
        reap(&self.pidfd);
    }

    /// Kills it and blocks until it has ended.
    #[cfg(test)]
    pub(crate) fn kill_and_wait(&self) {
        self.kill();
        let _ = poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], None);
        reap(&self.pidfd);
    }

    /// Kills it. No error when it has ended.
    pub(crate) fn kill(&self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

/// Whether nothing is left of it but its exit status.
fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    matches!(poll(&mut fds, Some(&now)), Ok(1..))
}

/// Takes the exit status, so that nothing is left; an error means that it is not our child.
fn reap(pidfd: &OwnedFd) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let _ = waitid(WaitId::PidFd(pidfd.as_fd()), options);
}

#[allow(
    unsafe_code,
    reason = "tokio cannot know that an OwnedFd keeps its number"
)]
fn watch(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` always gives the same descriptor and closes it only when dropped.
    let watched = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
    Ok(watched?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn identity(pid: u32) -> Identity {
        let pid = Pid::from_raw(i32::try_from(pid).expect("small")).expect("not 0");
        Identity::of(pid).expect("it runs")
    }

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_confuse() {
        let mut line = "17 (a) R (b) S".to_string();
        for field in 4..30 {
            line.push_str(&format!(" {field}"));
        }
        let identity = Identity::parse(&line).expect("parses");
        assert_eq!(
            (identity.pid.as_raw_nonzero().get(), identity.start),
            (17, 22)
        );
        for bad in ["", "x", "17 (a", "17 (a) S 1 2"] {
            assert_eq!(Identity::parse(bad), None);
        }
    }

    #[tokio::test]
    async fn the_end_is_seen_and_the_process_reaped() {
        #[allow(clippy::zombie_processes, reason = "reaping it is what is tested")]
        let child = Command::new("/bin/sleep")
            .arg("1000")
            .spawn()
            .expect("spawned");
        let process = Process::find(identity(child.id()))
            .expect("works")
            .expect("there");
        assert_eq!(process.pid(), child.id());

        process.kill();
        process.ended().await;

        assert!(!std::path::Path::new(&format!("/proc/{}", child.id())).exists());
    }

    #[tokio::test]
    async fn another_process_with_the_same_number_is_not_it() {
        let own = identity(std::process::id());
        let other = Identity {
            start: own.start + 1,
            ..own
        };
        assert!(Process::find(other).expect("works").is_none());
        assert!(Process::find(own).expect("works").is_some());
    }
}
