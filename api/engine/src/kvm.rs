//! Finding out whether this host's KVM can run a stock guest, by trying.
//!
//! Nothing falls back to running on the host (fail closed): without a usable KVM every run ends
//! with one of the errors made here. The trial itself is the monitor's (`pyro-vmm probe`), since
//! whoever runs guests knows best what they need. A good verdict is remembered until the host
//! boots again or the monitor or the device changes; a bad one is tried anew each time.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::error::{Code, Error, Result};
use crate::machine::spawn::inherit_only;
use crate::paths::Paths;

/// How long the trial may take; it needs well under a second, on a busy host more.
const PROBE_DEADLINE: Duration = Duration::from_secs(20);
/// Most bytes of the trial's output that are looked at.
const PROBE_OUTPUT: usize = 64 * 1024;
/// Where to turn when KVM itself is not up to it.
const HOST_REMEDY: &str = "use a machine with hardware KVM (bare metal or nested virtualisation); \
     in pyro's source tree, `make run` uses an emulated host instead";

/// What the monitor's trial says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Verdict {
    /// Whether a stock guest kernel can run.
    pub usable: bool,
    /// Why not, or a remark.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Opens the KVM device for reading and writing, without trying it.
pub fn open(path: &Path) -> Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|e| open_error(path, e))?;
    let is_device = file
        .metadata()
        .is_ok_and(|meta| meta.file_type().is_char_device());
    if !is_device {
        return Err(Error::new(
            Code::KvmUnavailable,
            format!("{} is not a device", path.display()),
            "unset PYRO_KVM, or set it to the KVM device",
        ));
    }
    Ok(file)
}

fn open_error(path: &Path, error: io::Error) -> Error {
    let shown = path.display();
    let (code, message, remedy) = match error.kind() {
        io::ErrorKind::NotFound => (
            Code::KvmMissing,
            format!("this host has no {shown}"),
            "turn virtualisation on in the firmware and load kvm_intel or kvm_amd \
             (`modprobe kvm_intel`); in a container, pass the device in (`--device /dev/kvm`); \
             on a virtual machine, ask for nested virtualisation"
                .to_string(),
        ),
        io::ErrorKind::PermissionDenied => (
            Code::KvmPermission,
            format!("this user may not open {shown} for reading and writing"),
            permission_remedy(path),
        ),
        _ => (
            Code::KvmUnavailable,
            format!("{shown} cannot be opened"),
            HOST_REMEDY.to_string(),
        ),
    };
    Error::new(code, message, remedy).caused_by(error)
}

/// How a user gets at the device: by its group, which some systems still have to be told.
fn permission_remedy(path: &Path) -> String {
    const GROUP_READ_WRITE: u32 = 0o060;
    let join = "add the user to the group kvm (`sudo usermod -aG kvm $USER`) and log in again";
    let for_group = fs::metadata(path)
        .map(|meta| meta.mode() & GROUP_READ_WRITE == GROUP_READ_WRITE && meta.gid() != 0);
    match for_group {
        Ok(false) => {
            let shown = path.display();
            format!("run `sudo chgrp kvm {shown} && sudo chmod 660 {shown}`; then {join}")
        }
        _ => join.to_string(),
    }
}

/// Opens KVM and makes sure that it can run a stock guest.
pub async fn open_usable(paths: &Paths) -> Result<File> {
    let kvm = open(&paths.kvm)?;
    let monitor = paths.monitor.find()?;
    let key = Remembered::key(&kvm, monitor);
    let note = paths.state.join("kvm-verdict.json");
    if key.is_some() && key == Remembered::load(&note) {
        return Ok(kvm);
    }
    let verdict = probe(&kvm, monitor).await?;
    refuse_unusable(&paths.kvm, &verdict)?;
    if let Some(key) = key {
        key.store(&note);
    }
    Ok(kvm)
}

/// The error for a verdict that says no.
pub(crate) fn refuse_unusable(path: &Path, verdict: &Verdict) -> Result<()> {
    if verdict.usable {
        return Ok(());
    }
    let reason = verdict
        .reason
        .as_deref()
        .unwrap_or("the trial guest failed");
    Err(Error::new(
        Code::KvmCannotRunGuest,
        format!(
            "{} cannot run a stock guest kernel: {reason}",
            path.display()
        ),
        HOST_REMEDY,
    ))
}

/// Tries the KVM behind this descriptor with the monitor's trial guest.
pub async fn probe(kvm: &File, monitor: &Path) -> Result<Verdict> {
    let failed = |message: String| {
        Error::new(
            Code::MonitorStart,
            message,
            format!(
                "check that {} is this version's pyro-vmm and can be executed",
                monitor.display()
            ),
        )
    };
    let mut command = Command::new(monitor);
    command
        .args(["probe", "--kvm-fd", &kvm.as_raw_fd().to_string()])
        .current_dir("/")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    inherit_only(&mut command, &[kvm.as_raw_fd()]);
    let run = async { command.output().await };
    let output = tokio::time::timeout(PROBE_DEADLINE, run)
        .await
        .map_err(|_| failed("the trial of KVM did not end".to_string()))?
        .map_err(|e| failed("the trial of KVM could not be started".to_string()).caused_by(e))?;
    let text = String::from_utf8_lossy(&output.stdout[..output.stdout.len().min(PROBE_OUTPUT)]);
    text.lines()
        .find_map(|line| serde_json::from_str(line).ok())
        .ok_or_else(|| {
            failed(format!(
                "the trial of KVM gave no verdict ({})",
                output.status
            ))
            .with_detail(String::from_utf8_lossy(&output.stderr).into_owned())
        })
}

/// What a good verdict was about: it holds as long as none of this changes.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    boot_id: String,
    device: u64,
    monitor: (u64, u64, i64, i64),
}

impl Remembered {
    fn key(kvm: &File, monitor: &Path) -> Option<Self> {
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let device = kvm.metadata().ok()?.rdev();
        let meta = fs::metadata(monitor).ok()?;
        let monitor = (meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec());
        Some(Self {
            boot_id: boot_id.trim().to_string(),
            device,
            monitor,
        })
    }

    fn load(note: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(note).ok()?).ok()
    }

    /// Best effort: without a note the next run tries again.
    fn store(&self, note: &Path) {
        let Some(folder) = note.parent() else { return };
        let Ok(text) = serde_json::to_vec(self) else {
            return;
        };
        if crate::run_dir::private_folder(folder).is_err() {
            return;
        }
        let temporary = note.with_extension(format!("tmp-{}", std::process::id()));
        if fs::write(&temporary, text)
            .and_then(|()| fs::rename(&temporary, note))
            .is_err()
        {
            let _ = fs::remove_file(&temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_missing_device_and_a_forbidden_one_are_told_apart() {
        let missing = open(Path::new("/nonexistent/kvm")).expect_err("not there");
        assert_eq!(missing.code(), Code::KvmMissing);

        let folder = tempfile::tempdir().expect("temporary folder");
        let device = folder.path().join("kvm");
        fs::write(&device, "").expect("written");
        fs::set_permissions(&device, fs::Permissions::from_mode(0o600)).expect("changed");
        let denied = rustix::io::Errno::ACCESS.raw_os_error();
        let forbidden = open_error(&device, io::Error::from_raw_os_error(denied));
        assert_eq!(forbidden.code(), Code::KvmPermission);
        assert!(forbidden.remedy().contains("group kvm"));
        // Being in the group would not help yet.
        assert!(forbidden.remedy().contains("sudo chgrp kvm"));
    }

    #[test]
    fn a_plain_file_is_no_kvm() {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        assert_eq!(
            open(file.path()).expect_err("no device").code(),
            Code::KvmUnavailable
        );
    }

    #[test]
    fn an_unusable_kvm_is_refused_with_its_reason() {
        let verdict = Verdict {
            usable: false,
            reason: Some("no cmpxchg16b".into()),
        };
        let error = refuse_unusable(Path::new("/dev/kvm"), &verdict).expect_err("refused");

        assert_eq!(error.code(), Code::KvmCannotRunGuest);
        assert!(error.message().contains("no cmpxchg16b"));
    }

    #[test]
    fn a_verdict_ignores_what_it_does_not_know() {
        let verdict: Verdict =
            serde_json::from_str(r#"{"usable":true,"reason":null,"kvm_api":12}"#).expect("parses");
        assert!(verdict.usable);
    }

    #[test]
    fn a_note_holds_only_while_nothing_changed() {
        let state = tempfile::tempdir().expect("temporary folder");
        let monitor = state.path().join("monitor");
        fs::write(&monitor, "one").expect("write");
        let device = File::open("/dev/null").expect("open");
        let note = state.path().join("s/kvm-verdict.json");
        let key = Remembered::key(&device, &monitor).expect("a key");

        key.store(&note);
        assert_eq!(Remembered::load(&note), Some(key));

        fs::write(&monitor, "other").expect("write");
        assert_ne!(Remembered::load(&note), Remembered::key(&device, &monitor));
    }
}
