//! A host for the real binary, and what its runs say.

#![allow(dead_code, unreachable_pub, missing_docs)] // each test uses some of it

pub mod fake;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use pyro_client::Client;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::Value;
use tempfile::TempDir;

/// A host of one's own: state, store and helper programs in a temporary folder, no KVM.
pub struct Host {
    folder: TempDir,
}

impl Host {
    pub fn new() -> Self {
        let host = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        // Stand-ins that are never started: what is tested here ends before.
        for name in ["pyro-vmm", "pyro-agent"] {
            let path = host.path(name);
            fs::write(&path, "no program").unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        host
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn command(&self, args: &[&str]) -> Command {
        // Whoever runs the tests in the background may ignore signals, and `pyro` respects that.
        let mut command = Command::new("env");
        command
            .args([
                "--default-signal=HUP,INT,QUIT,TERM",
                env!("CARGO_BIN_EXE_pyro"),
            ])
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.path("home"))
            .env("PYRO_STATE_DIR", self.path("state"))
            .env("PYRO_IMAGE_DIR", self.path("images"))
            .env("PYRO_VMM", self.path("pyro-vmm"))
            .env("PYRO_AGENT", self.path("pyro-agent"))
            .env("PYRO_KVM", "/nonexistent/kvm")
            .stdin(Stdio::null());
        command
    }

    /// Where the daemon listens.
    pub fn socket(&self) -> PathBuf {
        self.path("state/api.sock")
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Nothing was made: no state, no store.
    pub fn is_untouched(&self) -> bool {
        !self.path("state").exists() && !self.path("images").exists() && !self.path("home").exists()
    }
}

pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

impl Host {
    /// The process id of the running daemon, if there is one.
    pub fn daemon(&self) -> Option<u32> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let client = Client::new(self.socket());
        Some(runtime.block_on(client.health()).ok()?.pid)
    }
}

/// A daemon that a command started does not outlive its test.
impl Drop for Host {
    fn drop(&mut self) {
        // A daemon that a test plays itself ends with the test.
        let daemon = self.daemon().filter(|pid| *pid != std::process::id());
        let Some(pid) = daemon.and_then(|pid| Pid::from_raw(pid.cast_signed())) else {
            return;
        };
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
            return;
        };
        let _ = kill_process(pid, Signal::TERM);
        let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None);
    }
}
