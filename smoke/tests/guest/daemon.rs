//! A daemon of one's own: the real `pyro` on a state folder of a test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pyro_client::{Client, Launcher, socket};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::pyro::{Host, code, exists, text, wait_until};

const TIMEOUT: [&str; 2] = ["--timeout-seconds", "240"];

/// A state folder whose daemon ends with it.
pub(crate) struct Daemon {
    host: Host,
}

impl Daemon {
    pub(crate) fn new() -> Self {
        Self { host: Host::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.host.path(name)
    }

    pub(crate) fn output(&self, args: &[&str]) -> Output {
        self.host.output(&[&["workspace"], args].concat())
    }

    /// A command's process, to be started.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.host.command(&[&["workspace"], args].concat())
    }

    /// What starts the daemon when none runs, for programs.
    pub(crate) fn launcher(&self) -> Launcher {
        let program = std::env::var_os("PYRO_BIN").expect("checked at the start");
        let state = self.path("state");
        Launcher::new(program, state.join(socket::FILE_NAME)).variable("PYRO_STATE_DIR", state)
    }

    /// What a program does that uses the SDK.
    pub(crate) fn block_on<T>(&self, act: impl AsyncFnOnce(Client) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let client = self.launcher().ensure_daemon().await.expect("a daemon");
            act(client).await
        })
    }

    /// What a command that must succeed prints.
    pub(crate) fn said(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert_eq!(code(&output), 0, "{args:?}\n{}", text(&output.stderr));
        text(&output.stdout)
    }

    /// The document of a command that must succeed.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let text = self.said(&with_json(args));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?}: {e}: {text}"))
    }

    /// The code of the error that a command must end with.
    pub(crate) fn error(&self, args: &[&str]) -> String {
        let error = self.refusal(args);
        error["code"].as_str().expect("a code").to_string()
    }

    /// The error that a command must end with.
    pub(crate) fn refusal(&self, args: &[&str]) -> Value {
        let output = self.output(&with_json(args));
        // Where other statuses are the guest's, the product's is 125.
        let status = if args[0] == "exec" { 125 } else { 1 };
        assert_eq!(code(&output), status, "{args:?}\n{output:?}");
        let mut document: Value = serde_json::from_slice(&output.stdout).expect("a document");
        let error = document["error"].take();
        let remedy = error["remedy"].as_str().expect("a remedy");
        assert!(!remedy.is_empty(), "{error}");
        error
    }

    /// What a shell script prints in a workspace; it must succeed.
    pub(crate) fn sh(&self, workspace: &str, script: &str) -> String {
        let args = [
            "exec", workspace, TIMEOUT[0], TIMEOUT[1], "--", "sh", "-ec", script,
        ];
        self.said(&args)
    }

    /// Process ids of this state folder's daemon, monitors or networks, by what they have open.
    pub(crate) fn pids(&self, program: &str) -> Vec<u32> {
        let state = self.path("state");
        let entries = fs::read_dir("/proc").expect("/proc").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| runs(*pid, program) && belongs(*pid, &state))
            .collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        for program in ["pyro", "pyro-vmm", "pyro-net"] {
            for pid in self.pids(program) {
                // It may be on its way already.
                let _ = Pid::from_raw(i32::try_from(pid).expect("a pid"))
                    .map(|pid| kill_process(pid, Signal::KILL));
                wait_until("it is gone", || !exists(pid));
            }
        }
    }
}

/// Whether the process was started as this program, by its last path component.
fn runs(pid: u32, program: &str) -> bool {
    fs::read_link(format!("/proc/{pid}/exe"))
        .is_ok_and(|exe| exe.file_name().is_some_and(|name| name == program))
}

/// Whether the process has something of a folder open.
fn belongs(pid: u32, folder: &Path) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
    let mut targets = descriptors
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.any(|target| target.starts_with(folder))
}

/// The arguments with `--json` before the guest's part.
fn with_json<'a>(args: &[&'a str]) -> Vec<&'a str> {
    let at = args.iter().position(|arg| *arg == "--");
    let (ours, guests) = args.split_at(at.unwrap_or(args.len()));
    [ours, &["--json"], guests].concat()
}
