//! Decides where a command that needs KVM runs: here, or in the emulated host.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde::Deserialize;

/// What trying the machine's KVM gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kvm {
    /// It can run a stock guest.
    Usable,
    /// It cannot; why.
    Unusable(String),
}

/// What `pyro-vmm probe` prints.
#[derive(Deserialize)]
struct Verdict {
    usable: bool,
    #[serde(default)]
    reason: Option<serde_json::Value>,
}

/// Tries the KVM device of `PYRO_KVM`, else `/dev/kvm`, with the monitor beside this program.
///
/// # Errors
/// When the monitor is there and cannot be run.
pub fn probe() -> Result<Kvm> {
    let device =
        std::env::var_os("PYRO_KVM").map_or_else(|| PathBuf::from("/dev/kvm"), PathBuf::from);
    let kvm = match File::options().read(true).write(true).open(&device) {
        Ok(kvm) => kvm,
        Err(error) => return Ok(Kvm::Unusable(format!("{}: {error}", device.display()))),
    };
    let monitor = match std::env::var_os("PYRO_VMM") {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe()?.with_file_name("pyro-vmm"),
    };
    if !monitor.is_file() {
        return Ok(Kvm::Unusable(format!(
            "{} is not built, so nothing could be tried",
            monitor.display()
        )));
    }
    rustix::io::fcntl_setfd(kvm.as_fd(), rustix::io::FdFlags::empty())?;
    let output = Command::new(&monitor)
        .args(["probe", "--kvm-fd", &kvm.as_raw_fd().to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("{} cannot be run", monitor.display()))?;
    Ok(verdict(&output.stdout))
}

fn verdict(line: &[u8]) -> Kvm {
    match serde_json::from_slice::<Verdict>(line) {
        Ok(Verdict { usable: true, .. }) => Kvm::Usable,
        Ok(Verdict { reason, .. }) => Kvm::Unusable(match reason {
            Some(serde_json::Value::String(reason)) => reason,
            Some(reason) => reason.to_string(),
            None => "the monitor's trial failed".into(),
        }),
        Err(_) => Kvm::Unusable("the monitor's trial gave no verdict".into()),
    }
}

/// The one line that a person gets when the emulated host is used.
#[must_use]
pub fn notice(why: &str) -> String {
    let why = why.lines().next().unwrap_or_default();
    format!(
        "pyro-smoke: this machine's KVM cannot run a stock guest ({why}); using the emulated KVM host, which is slow"
    )
}

/// The folder of the image store: `PYRO_IMAGE_DIR`, else in the user's data folder.
#[must_use]
pub fn image_dir() -> PathBuf {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("PYRO_IMAGE_DIR")
        .or_else(|| set("XDG_DATA_HOME").map(|data| data.join("pyro/images")))
        .or_else(|| set("HOME").map(|home| home.join(".local/share/pyro/images")))
        .unwrap_or_else(|| PathBuf::from("/var/lib/pyro/images"))
}

/// The environment that a command gets in the emulated host, beside its own defaults: what is
/// about this project and not about this machine.
#[must_use]
pub fn environment(image_dir: &Path) -> Vec<(OsString, OsString)> {
    let mut environment: Vec<_> = std::env::vars_os()
        .filter(|(name, _)| passes(name))
        .collect();
    environment.push(("PYRO_IMAGE_DIR".into(), image_dir.into()));
    environment
}

fn passes(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    let others = [
        "NO_COLOR",
        "RUST_BACKTRACE",
        "RUST_LOG",
        "RUST_TEST_THREADS",
        "USE_CASE_ENVIRONMENT",
    ];
    let ours = name.starts_with("PYRO_") && !name.starts_with("PYRO_HOST_");
    let about_here = matches!(name, "PYRO_STATE_DIR" | "PYRO_KVM" | "PYRO_IMAGE_DIR");
    others.contains(&name) || (ours && !about_here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_makes_kvm_usable() {
        assert_eq!(
            verdict(br#"{"usable":true,"reason":null,"kvm_api":12}"#),
            Kvm::Usable
        );
        assert_eq!(
            verdict(br#"{"usable":false,"reason":"no"}"#),
            Kvm::Unusable("no".into())
        );
        assert!(matches!(verdict(b""), Kvm::Unusable(_)));
        assert!(matches!(verdict(b"{}"), Kvm::Unusable(_)));
    }

    #[test]
    fn the_environment_is_the_projects_and_not_the_machines() {
        assert!(passes(OsStr::new("PYRO_VMM")));
        assert!(passes(OsStr::new("RUST_LOG")));
        for name in [
            "PYRO_STATE_DIR",
            "PYRO_HOST_DIR",
            "HOME",
            "PATH",
            "PYRO_KVM",
        ] {
            assert!(!passes(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn the_notice_is_one_line() {
        assert_eq!(notice("first\nsecond").lines().count(), 1);
    }
}
