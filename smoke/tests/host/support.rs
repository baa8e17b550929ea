//! What the tests share.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A test and its name.
pub(crate) type Test = (&'static str, fn());

/// The program under test.
pub(crate) fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_pyro-smoke"))
}

/// A command in the shared host, not yet started.
pub(crate) fn exec<I: IntoIterator<Item: AsRef<OsStr>>>(words: I) -> Command {
    let mut command = program();
    command
        .args(["host", "exec", "--"])
        .args(words)
        .stdin(Stdio::null());
    command
}

/// A shell script in the shared host, with its output.
pub(crate) fn shell(script: &str) -> Output {
    exec(["sh", "-c", script]).output().unwrap()
}

/// What a command printed, without the end of the line.
pub(crate) fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone())
        .unwrap()
        .trim_end()
        .to_owned()
}

/// Waits for something that must happen; how long is generous, since the machine may be busy.
pub(crate) fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let since = Instant::now();
    while !happened() {
        assert!(
            since.elapsed() < Duration::from_secs(120),
            "not in two minutes: {what}"
        );
        thread::sleep(Duration::from_millis(50));
    }
}

/// Bytes without a pattern that a text channel would leave alone.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A host of a test's own, small, and stopped at the end.
pub(crate) struct OwnHost {
    name: String,
    /// The variables that make it this host.
    variables: Vec<(&'static str, String)>,
}

impl OwnHost {
    pub(crate) fn new(purpose: &str, variables: &[(&'static str, &str)]) -> Self {
        let name = format!("test-{purpose}-{}", std::process::id());
        let mut all = vec![
            ("PYRO_HOST_NAME", name.clone()),
            ("PYRO_HOST_MEMORY_MIB", "1024".into()),
        ];
        all.extend(
            variables
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned())),
        );
        Self {
            name,
            variables: all,
        }
    }

    pub(crate) fn program<I: IntoIterator<Item: AsRef<OsStr>>>(&self, words: I) -> Command {
        let mut command = program();
        command.arg("host").args(words).stdin(Stdio::null());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(crate) fn run<I: IntoIterator<Item: AsRef<OsStr>>>(&self, words: I) -> Output {
        self.program(words).output().unwrap()
    }

    pub(crate) fn start(&self) {
        let output = self.run(["start"]);
        assert!(output.status.success(), "{output:?}");
    }

    /// Its processes, found by the environment that they inherit: number and command line.
    pub(crate) fn processes(&self) -> Vec<(i32, String)> {
        let mark = format!("PYRO_HOST_NAME={}\0", self.name);
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            if String::from_utf8_lossy(&environment).contains(&mark) {
                let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
            }
        }
        found
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> PathBuf {
        let variables: Vec<_> = ["PYRO_HOST_DIR", "XDG_CACHE_HOME", "HOME"]
            .iter()
            .map(std::env::var_os)
            .collect();
        let root = match &variables[..] {
            [Some(root), ..] => PathBuf::from(root),
            [_, Some(cache), _] => Path::new(cache).join("pyro/host"),
            [.., home] => Path::new(home.as_ref().unwrap()).join(".cache/pyro/host"),
            [] => unreachable!(),
        };
        root.join("run").join(&self.name)
    }
}

impl Drop for OwnHost {
    fn drop(&mut self) {
        let _ = self.run(["stop"]);
        let _ = fs::remove_dir_all(self.folder());
    }
}

/// Sends a signal.
pub(crate) fn kill(pid: i32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
}
