//! The host besides KVM: platform, programs, folders, space, memory, namespaces, network.

use std::fs;
use std::path::Path;

use rustix::fs::Access;

use super::Check;
use crate::limits::Host;
use crate::paths::{Helper, Paths};
use crate::run_dir::{LEAST_FREE_BYTES, free_bytes};

/// Below this, pulls and larger runs will not fit.
const COMFORTABLE_DISK: u64 = 2 << 30;
/// Below this, a guest of the default size may not fit.
const COMFORTABLE_MEMORY_MIB: u64 = 1024;

pub(super) fn platform() -> Check {
    let info = rustix::system::uname();
    let (system, machine) = (
        info.sysname().to_string_lossy(),
        info.machine().to_string_lossy(),
    );
    let release = info.release().to_string_lossy();
    if system == "Linux" && machine == "x86_64" {
        return Check::pass("platform", format!("Linux {release} on x86_64"));
    }
    Check::fail(
        "platform",
        format!("{system} on {machine} is not supported"),
        "use Linux on an x86-64 machine",
    )
}

pub(super) fn helper(id: &'static str, helper: &Helper) -> Check {
    match helper.find() {
        Err(error) => Check::failed(id, &error),
        Ok(path) if rustix::fs::access(path, Access::EXEC_OK).is_err() => Check::fail(
            id,
            format!("{} cannot be executed", path.display()),
            format!("run `chmod +x {}`", path.display()),
        ),
        Ok(path) => Check::pass(id, format!("{} is {}", helper.name, path.display())),
    }
}

pub(super) fn state_folder(paths: &Paths) -> Check {
    if writable(&paths.state) {
        return Check::pass("state", format!("{} can be written", paths.state.display()));
    }
    Check::fail(
        "state",
        format!("{} cannot be written", paths.state.display()),
        "make it writable for this user, or set PYRO_STATE_DIR to another folder",
    )
}

/// Whether environments can be pulled here: programs, privileges, a mirror.
pub(super) fn pull() -> Check {
    const ID: &str = "pull";
    let user = if rustix::process::geteuid().is_root() {
        "root"
    } else {
        "this user"
    };
    match pyro_images::pull::check().map_err(crate::Error::from) {
        Ok(()) => Check::pass(
            ID,
            format!("{user} can pull environments from the Debian mirror"),
        ),
        // Guests run without: what is installed stays usable.
        Err(error) => Check::warn(
            ID,
            format!("environments cannot be pulled: {}", error.sentence()),
            error.remedy(),
        ),
    }
}

pub(super) fn disk(paths: &Paths) -> Check {
    let free = |path: &Path| free_bytes(nearest_folder(path)).ok();
    let (Some(state), Some(images)) = (free(&paths.state), free(&paths.images)) else {
        return Check::warn("disk", "the free space cannot be found out", "check `df`");
    };
    let summary = format!(
        "{} MiB are free for guests, {} MiB for environments",
        state >> 20,
        images >> 20
    );
    let remedy = "free some space, run `pyro env prune`, or set PYRO_STATE_DIR and \
         PYRO_IMAGE_DIR to folders on a larger disk";
    if state < LEAST_FREE_BYTES {
        Check::fail("disk", summary, remedy)
    } else if state.min(images) < COMFORTABLE_DISK {
        Check::warn("disk", summary, remedy)
    } else {
        Check::pass("disk", summary)
    }
}

pub(super) fn memory() -> Check {
    let all = Host::measure();
    let available = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| available_mib(&text));
    let Some(available) = available else {
        return Check::warn(
            "memory",
            "the free memory cannot be found out",
            "check `free -m`",
        );
    };
    let summary = format!("{available} of {} MiB of memory are free", all.memory_mib);
    if available < COMFORTABLE_MEMORY_MIB {
        return Check::warn(
            "memory",
            summary,
            "end other programs, or pass a smaller --mem-mib",
        );
    }
    Check::pass("memory", format!("{summary}, {} processors", all.cpus))
}

pub(super) fn network(paths: &Paths) -> Check {
    match paths.net.find() {
        Ok(_) => Check::pass(
            "network",
            "guests have no network device unless they are asked to have egress; no root is needed",
        ),
        // Everything else works without.
        Err(error) => Check::warn("network", error.sentence(), error.remedy()),
    }
}

/// `MemAvailable` of `/proc/meminfo` in MiB.
fn available_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024)
}

/// Whether a folder can be written, or made when it is missing.
pub(super) fn writable(path: &Path) -> bool {
    let path = nearest_folder(path);
    path.is_dir() && rustix::fs::access(path, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

/// The path itself, or the nearest thing above it that exists.
fn nearest_folder(path: &Path) -> &Path {
    path.ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn available_memory_is_read_from_its_line() {
        let text = "MemTotal:  4096 kB\nMemAvailable:   2048 kB\n";
        assert_eq!(available_mib(text), Some(2));
        assert_eq!(available_mib("MemFree: 1 kB"), None);
        assert_eq!(available_mib("MemAvailable: many kB"), None);
    }

    #[test]
    fn a_folder_that_can_be_made_is_writable_and_one_under_a_file_is_not() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = folder.path().join("file");
        fs::write(&file, "").expect("written");

        assert!(writable(&folder.path().join("a/b/c")));
        assert!(!writable(&file.join("a")));
    }

    #[test]
    fn every_check_that_does_not_pass_has_a_remedy() {
        for check in [platform(), pull(), memory()] {
            assert!(
                check.status == Status::Pass || check.remedy.is_some(),
                "{check:?}"
            );
        }
    }
}
