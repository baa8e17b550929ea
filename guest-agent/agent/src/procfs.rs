//! What `/proc` tells of processes, proc(5).

use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::Pid;

/// One process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) session: i32,
    /// It has ended and waits for its parent to notice.
    pub(crate) is_zombie: bool,
}

/// Every process there is at about this time.
pub(crate) fn processes() -> impl Iterator<Item = Process> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| parse_stat(Pid::from_raw(pid)?, &read(&format!("/proc/{pid}/stat"))?))
}

/// The processes that run and descend from `ancestor`.
pub(crate) fn descendants(ancestor: Pid) -> Vec<Pid> {
    let all: Vec<Process> = processes().filter(|process| !process.is_zombie).collect();
    let mut found = vec![ancestor];
    with_descendants(&all, &mut found);
    found.split_off(1)
}

/// Adds to `found` everything in `all` that descends from a process in it.
pub(crate) fn with_descendants(all: &[Process], found: &mut Vec<Pid>) {
    loop {
        let before = found.len();
        for process in all {
            let parent_found = found.iter().any(|pid| pid.as_raw_pid() == process.parent);
            if parent_found && !found.contains(&process.pid) {
                found.push(process.pid);
            }
        }
        if found.len() == before {
            return;
        }
    }
}

/// Whether a process started with this `KEY=VALUE` in its environment.
pub(crate) fn has_variable(pid: Pid, entry: &[u8]) -> bool {
    read(&format!("/proc/{}/environ", pid.as_raw_pid()))
        .is_some_and(|environ| environ.split(|byte| *byte == 0).any(|found| found == entry))
}

/// `pid (name) state ppid pgrp session …`, where the name may hold anything.
fn parse_stat(pid: Pid, stat: &[u8]) -> Option<Process> {
    let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let mut fields = std::str::from_utf8(stat.get(after_name..)?)
        .ok()?
        .split_ascii_whitespace();
    let is_zombie = matches!(fields.next()?, "Z" | "X" | "x");
    let mut number = || fields.next()?.parse().ok();
    Some(Process {
        pid,
        parent: number()?,
        group: number()?,
        session: number()?,
        is_zombie,
    })
}

/// A file of `/proc`, up to 1 MiB of it.
fn read(path: &str) -> Option<Vec<u8>> {
    let fd = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut contents = Vec::new();
    while contents.len() < 1 << 20 {
        contents.reserve(4096);
        if rustix::io::read(&fd, spare_capacity(&mut contents)).ok()? == 0 {
            break;
        }
    }
    Some(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let pid = Pid::from_raw(12).unwrap();
        let process = parse_stat(pid, b"12 (a) Z 1 (x)) S 3 4 5 0").unwrap();
        let expected = Process {
            pid,
            parent: 3,
            group: 4,
            session: 5,
            is_zombie: false,
        };
        assert_eq!(process, expected);
    }

    #[test]
    fn this_process_is_among_all() {
        let own = rustix::process::getpid();
        assert!(processes().any(|process| process.pid == own));
    }
}
