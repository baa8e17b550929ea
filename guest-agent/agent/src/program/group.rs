//! What holds a program and everything it starts, so that it can be ended as one.
//!
//! In a guest that is a cgroup (cgroup v2, kernel Documentation/admin-guide/cgroup-v2.rst): no
//! `setsid`, double fork or stopped process escapes `cgroup.kill`. Where there is no cgroup v2 —
//! an agent under test on a host — members are found in `/proc` instead: the leader's process
//! group and session, their descendants, and whoever carries the group's marker in its
//! environment. That misses a process which forked twice *and* cleared its environment.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, mkdirat, open, openat, unlinkat};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::procfs;

/// How deep the cgroups are followed that a program made inside its own.
const DEEPEST: u32 = 16;

/// Makes groups.
#[derive(Debug)]
pub(crate) struct Groups {
    parent: Option<Rc<OwnedFd>>,
    next: u64,
}

impl Groups {
    /// Makes them in the cgroup v2 directory `parent` when that is usable.
    pub(crate) fn new(parent: Option<&str>) -> Self {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let parent = parent
            .and_then(|path| open(path, flags, Mode::empty()).ok())
            .filter(|fd| openat(fd, c"cgroup.procs", OFlags::RDONLY, Mode::empty()).is_ok());
        Self {
            parent: parent.map(Rc::new),
            next: 1,
        }
    }

    /// A new, empty group.
    pub(crate) fn create(&mut self) -> Result<Group, Errno> {
        let number = self.next;
        self.next += 1;
        let Some(parent) = &self.parent else {
            let marker = format!("{}.{number}", rustix::process::getpid());
            return Ok(Group {
                leader: None,
                kind: Kind::Traced { marker },
            });
        };
        let own = rustix::process::getpid().as_raw_nonzero();
        let name = CString::new(format!("pyro-{own}-{number}")).map_err(|_| Errno::INVAL)?;
        mkdirat(parent, &name, Mode::from_raw_mode(0o755))?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        match openat(parent, &name, flags, Mode::empty()) {
            Ok(directory) => {
                let kind = Kind::Cgroup {
                    parent: Rc::clone(parent),
                    name,
                    directory,
                };
                Ok(Group { leader: None, kind })
            }
            Err(errno) => {
                let _ = unlinkat(parent, &name, AtFlags::REMOVEDIR);
                Err(errno)
            }
        }
    }
}

/// A program and everything it has started.
#[derive(Debug)]
pub(crate) struct Group {
    leader: Option<Pid>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Cgroup {
        parent: Rc<OwnedFd>,
        name: CString,
        directory: OwnedFd,
    },
    Traced {
        marker: String,
    },
}

/// The environment variable that marks members where there are no cgroups.
const MARKER: &str = "PYRO_EXEC";

impl Group {
    /// The directory to start the program in.
    pub(super) fn directory(&self) -> Option<BorrowedFd<'_>> {
        match &self.kind {
            Kind::Cgroup { directory, .. } => Some(directory.as_fd()),
            Kind::Traced { .. } => None,
        }
    }

    /// An environment variable that the program is to start with.
    pub(super) fn marker(&self) -> Option<(&'static str, String)> {
        match &self.kind {
            Kind::Cgroup { .. } => None,
            Kind::Traced { marker } => Some((MARKER, marker.clone())),
        }
    }

    /// The same group, with the program in it.
    pub(super) fn led_by(mut self, pid: Pid) -> Self {
        self.leader = Some(pid);
        self
    }

    /// Tells the group that its leader has been reaped: its number may become another's.
    pub(crate) fn leader_gone(&mut self) {
        self.leader = None;
    }

    /// Sends a signal to the leader's process group.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(leader) = self.leader {
            let _ = kill_process_group(leader, signal);
        }
    }

    /// Kills every member. They end soon, not at once; without cgroups it takes several calls
    /// until [`Group::is_empty`].
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
        match &self.kind {
            Kind::Cgroup { directory, .. } => {
                let flags = OFlags::WRONLY | OFlags::CLOEXEC;
                if let Ok(kill) = openat(directory, c"cgroup.kill", flags, Mode::empty()) {
                    let _ = rustix::io::write(&kill, b"1");
                }
            }
            Kind::Traced { marker } => {
                for pid in traced(self.leader, marker) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
        }
    }

    /// Whether no member runs any more. Zombies do not count.
    pub(crate) fn is_empty(&self) -> bool {
        match &self.kind {
            Kind::Cgroup { directory, .. } => {
                let mut events = Vec::with_capacity(128);
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                let read = openat(directory, c"cgroup.events", flags, Mode::empty())
                    .and_then(|file| rustix::io::read(&file, spare_capacity(&mut events)));
                // A cgroup that the guest has removed had no members.
                read.is_err() || events.starts_with(b"populated 0")
            }
            Kind::Traced { marker } => traced(self.leader, marker).is_empty(),
        }
    }

    /// Removes what stands for the group. False while it has members; call again then.
    pub(crate) fn remove(&self) -> bool {
        match &self.kind {
            Kind::Cgroup {
                parent,
                name,
                directory,
            } => {
                match unlinkat(parent, name, AtFlags::REMOVEDIR) {
                    Err(Errno::BUSY) => {
                        remove_children(directory.as_fd(), DEEPEST);
                        unlinkat(parent, name, AtFlags::REMOVEDIR) != Err(Errno::BUSY)
                    }
                    // Removed, or not ours to remove any more.
                    _ => true,
                }
            }
            Kind::Traced { .. } => true,
        }
    }
}

/// Removes the empty cgroups that a program made inside its own.
fn remove_children(directory: BorrowedFd<'_>, deeper: u32) {
    let Ok(entries) = Dir::read_from(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if entry.file_type() != FileType::Directory || name == c"." || name == c".." {
            continue;
        }
        if unlinkat(directory, name, AtFlags::REMOVEDIR) == Err(Errno::BUSY) && deeper > 0 {
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            if let Ok(child) = openat(directory, name, flags, Mode::empty()) {
                remove_children(child.as_fd(), deeper - 1);
            }
            let _ = unlinkat(directory, name, AtFlags::REMOVEDIR);
        }
    }
}

/// The members that run, by what `/proc` tells.
fn traced(leader: Option<Pid>, marker: &str) -> Vec<Pid> {
    let own = rustix::process::getpid();
    let leader = leader.map_or(0, Pid::as_raw_pid);
    let entry = format!("{MARKER}={marker}");
    let all: Vec<procfs::Process> = procfs::processes()
        .filter(|process| process.pid != own && !process.is_zombie)
        .collect();
    let mut members: Vec<Pid> = all
        .iter()
        .filter(|process| {
            let led = leader != 0 && (process.group == leader || process.session == leader);
            led || procfs::has_variable(process.pid, entry.as_bytes())
        })
        .map(|process| process.pid)
        .collect();
    procfs::with_descendants(&all, &mut members);
    members
}
