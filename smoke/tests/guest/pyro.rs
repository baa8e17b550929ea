//! Running `pyro` and watching what it leaves behind.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Completion;
use serde_json::Value;
use tempfile::TempDir;

/// A test: its name and what it does. It fails by panicking.
pub(crate) type Test = (&'static str, fn());

/// A test that not every host can prove: where it cannot, it says why and counts as ignored.
pub(crate) type ConditionalTest = (&'static str, fn() -> Completion);

/// How long anything may take that is waited for: generous, since hosts may be emulated.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

/// Why no test can run here.
pub(crate) fn missing() -> Option<String> {
    let program = match std::env::var_os("PYRO_BIN") {
        None => return Some("PYRO_BIN does not name the program `pyro`".to_string()),
        Some(program) => PathBuf::from(program),
    };
    if !program.is_file() {
        return Some(format!("{} (PYRO_BIN) is no program", program.display()));
    }
    None
}

/// A state folder of one's own. What a run leaves in it is a failure of the test.
pub(crate) struct Host {
    folder: TempDir,
}

impl Host {
    pub(crate) fn new() -> Self {
        // Not /tmp, which may be in memory.
        Self {
            folder: tempfile::tempdir_in("/var/tmp").expect("a folder in /var/tmp"),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let program: OsString = std::env::var_os("PYRO_BIN").expect("checked at the start");
        let mut command = Command::new(program);
        command
            .args(args)
            .env("PYRO_STATE_DIR", self.path("state"))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("pyro starts")
    }

    /// Runs in `environment` with a generous timeout and flags before the dashes.
    pub(crate) fn run(&self, environment: &str, flags: &[&str], command: &[&str]) -> Output {
        self.output(&words(environment, flags, command))
    }

    /// The same with `--json`.
    pub(crate) fn run_json(&self, environment: &str, flags: &[&str], command: &[&str]) -> Value {
        let output = self.run(environment, &[flags, &["--json"]].concat(), command);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
    }

    /// Starts one in the background and waits until the guest's command has said `ready`.
    pub(crate) fn start(&self, environment: &str, command: &[&str]) -> Running {
        let mut child = self
            .command(&words(environment, &[], command))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("pyro starts");
        let mut said = [0; 6];
        let stdout = child.stdout.as_mut().expect("a pipe");
        std::io::Read::read_exact(stdout, &mut said).expect("the guest speaks");
        assert_eq!(&said, b"ready\n");
        let daemon = self.daemon().expect("it runs");
        let monitor = children(daemon);
        assert_eq!(monitor.len(), 1, "exactly the monitor: {monitor:?}");
        Running {
            child,
            daemon,
            monitor: monitor[0],
        }
    }

    /// The process id of this state folder's daemon, while it runs.
    pub(crate) fn daemon(&self) -> Option<u32> {
        let text = fs::read_to_string(self.path("state/daemon.lock")).ok()?;
        text.trim().parse().ok().filter(|pid| exists(*pid))
    }

    /// Asserts that no run leaves a directory here. Who was interrupted does not wait for that.
    pub(crate) fn assert_clean(&self) {
        wait_until("the run directory is gone", || self.leftovers().is_empty());
    }

    /// The run directories that are there.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("state/runs"))
            .into_iter()
            .flatten()
            .flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name != ".lock").collect()
    }
}

/// The daemon does not outlive its folder.
impl Drop for Host {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon() {
            kill("KILL", daemon);
            wait_until("the daemon is gone", || !exists(daemon));
        }
    }
}

fn words<'a>(environment: &'a str, flags: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
    let timeout = match flags.contains(&"--timeout-seconds") {
        true => &[][..],
        false => &["--timeout-seconds", "240"],
    };
    [&["run", environment], timeout, flags, &["--"], command].concat()
}

/// A run in the background.
pub(crate) struct Running {
    child: Child,
    daemon: u32,
    monitor: u32,
}

impl Running {
    /// Process ids of `pyro`, of its daemon, and of the monitor.
    pub(crate) fn pids(&self) -> (u32, u32, u32) {
        (self.child.id(), self.daemon, self.monitor)
    }

    /// Goes away as the reader of its standard output.
    pub(crate) fn close_stdout(&mut self) {
        self.child.stdout.take();
    }

    /// Waits for its end and asserts that the monitor has gone with it.
    pub(crate) fn wait(self) -> Output {
        let output = self.child.wait_with_output().expect("it ends");
        wait_until("the monitor is gone", || !exists(self.monitor));
        output
    }
}

/// Sends a signal by its name.
pub(crate) fn kill(signal: &str, pid: u32) {
    let status = Command::new("kill")
        .args(["-s", signal, &pid.to_string()])
        .status();
    assert!(status.expect("kill starts").success());
}

/// Whether a process is there that is no zombie.
pub(crate) fn exists(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn children(parent: u32) -> Vec<u32> {
    let is_child = |stat: &str| {
        let (_, rest) = stat.rsplit_once(") ")?;
        (rest.split(' ').nth(1)?.parse::<u32>().ok()? == parent).then_some(())
    };
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let path = Path::new("/proc").join(pid.to_string()).join("stat");
        fs::read_to_string(path).is_ok_and(|stat| is_child(&stat).is_some())
    })
    .collect()
}

/// Waits for something that happens soon, and fails when it does not.
pub(crate) fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
