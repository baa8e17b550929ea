//! Control groups: what a command started, however it hides.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

const CGROUPS: &str = "/sys/fs/cgroup";

/// A control group that holds all processes of one command.
pub(super) struct Cgroup(PathBuf);

/// Groups that were not empty when their command ended: it left a daemon behind.
static LEFT: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

impl Cgroup {
    pub(super) fn new() -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        LEFT.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|path| fs::remove_dir(path).is_err());
        let path =
            Path::new(CGROUPS).join(format!("exec-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    pub(super) fn procs(&self) -> io::Result<OwnedFd> {
        Ok(File::options()
            .write(true)
            .open(self.0.join("cgroup.procs"))?
            .into())
    }

    pub(super) fn kill(&self) {
        // Fails only when the group is gone already.
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if fs::remove_dir(&self.0).is_err() {
            LEFT.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(std::mem::take(&mut self.0));
        }
    }
}
