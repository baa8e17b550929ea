//! A guest that does nothing: what its monitor holds, and how often it was left until then.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::GUEST_MIB;

/// When a guest that was started is idle: well after its boot, well before its command ends.
const IDLE_AFTER: Duration = Duration::from_millis(1500);
/// KVM's counters over all VMs that live (Linux, virt/kvm/kvm_main.c), and what they count.
const COUNTERS: [(&str, &str); 3] = [
    ("exits", "exits"),
    ("mmio_exits", "mmio exits"),
    ("io_exits", "port exits"),
];

/// What is seen from outside.
#[derive(Debug, Serialize)]
pub(super) struct Idle {
    /// Memory that only the monitor has, less the guest's.
    pub(super) private_kib: u64,
    /// Pages of guest memory that are there, shared ones too.
    pub(super) guest_kib: u64,
    /// Exits since the start, by kind.
    pub(super) exits: Vec<(&'static str, u64)>,
}

/// Starts the guest, looks at it while it is idle, and waits for its end.
pub(super) fn measure(pyro: &mut Command) -> Result<Idle> {
    let mut child = pyro.stdout(Stdio::null()).spawn()?;
    thread::sleep(IDLE_AFTER);
    let seen = look();
    child.wait()?;
    seen
}

fn look() -> Result<Idle> {
    let monitor = monitor()?;
    let smaps = fs::read_to_string(format!("/proc/{monitor}/smaps"))?;
    let (private_kib, guest_kib) =
        divide(&smaps, GUEST_MIB << 20).context("the guest's memory is not found")?;
    let exits = COUNTERS
        .into_iter()
        .filter_map(|(file, what)| {
            let count = fs::read_to_string(format!("/sys/kernel/debug/kvm/{file}")).ok()?;
            Some((what, count.trim().parse().ok()?))
        })
        .collect();
    Ok(Idle {
        private_kib,
        guest_kib,
        exits,
    })
}

/// The one process called `pyro-vmm`.
fn monitor() -> Result<u32> {
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name == "pyro-vmm\n") {
            return Ok(pid);
        }
    }
    bail!("the guest ended before it was idle")
}

/// One mapping: addresses, private and resident KiB.
#[derive(Debug, Default)]
struct Mapping {
    start: u64,
    end: u64,
    private: u64,
    resident: u64,
}

/// The private memory outside guest RAM and the resident memory in it, in KiB. RAM is the run of
/// adjacent mappings (the kernel's file lies in the middle of it) that is as large as it, at least.
fn divide(smaps: &str, ram: u64) -> Option<(u64, u64)> {
    let mut runs: Vec<Mapping> = Vec::new();
    for mapping in mappings(smaps) {
        match runs.last_mut() {
            Some(last) if last.end == mapping.start => {
                last.end = mapping.end;
                last.private += mapping.private;
                last.resident += mapping.resident;
            }
            _ => runs.push(mapping),
        }
    }
    let at = runs.iter().position(|run| run.end - run.start >= ram)?;
    let guest = runs.swap_remove(at);
    Some((runs.iter().map(|run| run.private).sum(), guest.resident))
}

fn mappings(smaps: &str) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(first) = words.next() else { continue };
        if let Some(name) = first.strip_suffix(':') {
            let kib = words.next().and_then(|word| word.parse::<u64>().ok());
            if let (Some(mapping), Some(kib)) = (mappings.last_mut(), kib) {
                match name {
                    "Private_Dirty" | "Private_Clean" => mapping.private += kib,
                    "Rss" => mapping.resident += kib,
                    _ => {}
                }
            }
        } else if let Some((start, end)) = first.split_once('-')
            && let (Ok(start), Ok(end)) =
                (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16))
        {
            mappings.push(Mapping {
                start,
                end,
                ..Mapping::default()
            });
        }
    }
    mappings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_memory_is_told_from_the_monitors_own() {
        let smaps = "1000-3000 r-xp 00000000 00:01 7 /pyro-vmm\n\
            Rss: 8 kB\nPrivate_Clean: 8 kB\nPrivate_Dirty: 0 kB\nVmFlags: rd ex\n\
            100000-180000 rw-p 00000000 00:00 0\nRss: 64 kB\nPrivate_Dirty: 64 kB\n\
            180000-200000 rw-p 00001000 00:01 8 /vmlinux\nRss: 16 kB\nPrivate_Dirty: 4 kB\n";
        assert_eq!(divide(smaps, 1 << 20), Some((8, 80)));
        assert_eq!(divide(smaps, 1 << 21), None);
    }
}
