//! A daemon's life, in processes of its own: this test's program is the daemon when it is told so.

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use pyro_client::{Client, Launcher};
use pyro_server::{Options, daemon};
use tokio::io::AsyncReadExt;

const STATE: &str = "PYRO_TEST_DAEMON_STATE";
const IDLE_MS: &str = "PYRO_TEST_DAEMON_IDLE_MS";
const FOREGROUND: &str = "PYRO_TEST_DAEMON_FOREGROUND";

/// A name, and what it does.
type Test = (&'static str, fn() -> Result<(), Failed>);

fn main() -> ExitCode {
    if let Some(state) = std::env::var_os(STATE) {
        return be_a_daemon(Path::new(&state));
    }
    let tests: [Test; 8] = [
        ("a_daemon_is_ready_when_it_says_so", || block(ready())),
        ("ten_starters_at_once_find_one_daemon", || block(race())),
        ("an_idle_daemon_ends_and_is_started_again", || block(idle())),
        ("sigterm_ends_it_and_the_next_one_follows", || {
            block(terminate())
        }),
        ("starters_during_the_end_find_the_next_daemon", || {
            block(hand_over())
        }),
        ("what_a_killed_daemon_left_stops_nobody", || block(kill())),
        ("another_version_is_said_with_a_remedy", || block(version())),
        ("a_second_daemon_in_the_foreground_is_refused", || {
            block(second())
        }),
    ];
    let mut trials: Vec<_> = tests
        .into_iter()
        .map(|(name, test)| Trial::test(name, test))
        .collect();
    trials.push(Trial::test("a_daemon_that_cannot_start_says_why", || {
        block(unwritable())
    }));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn be_a_daemon(state: &Path) -> ExitCode {
    let idle = std::env::var(IDLE_MS)
        .ok()
        .and_then(|ms| ms.parse().ok())
        .map(Duration::from_millis);
    let options = Options {
        idle,
        on_demand: std::env::var_os(FOREGROUND).is_none(),
        ..Options::default()
    };
    match daemon(common::paths(state), options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", error.code());
            ExitCode::FAILURE
        }
    }
}

fn block(test: impl Future<Output = ()>) -> Result<(), Failed> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(test);
    Ok(())
}

/// A state directory whose daemon is ended with it.
struct State {
    folder: tempfile::TempDir,
}

impl State {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn launcher(&self) -> Launcher {
        let program = std::env::current_exe().expect("this program");
        Launcher::new(program, self.path().join("api.sock"))
            .arguments::<&str>([])
            .variable(STATE, self.path())
    }

    async fn daemon(&self) -> (Client, u32) {
        let client = self.launcher().ensure_daemon().await.expect("a daemon");
        let pid = client.health().await.expect("answered").pid;
        (client, pid)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let pid = std::fs::read_to_string(self.path().join("daemon.lock"))
            .ok()
            .and_then(|pid| pid.trim().parse().ok());
        // Only one that is still this program: a number may have been given to another since.
        let ours = |pid: &i32| {
            std::fs::read_link(format!("/proc/{pid}/exe")).ok() == std::env::current_exe().ok()
        };
        if let Some(pid) = pid.filter(ours) {
            signal(pid.unsigned_abs(), rustix::process::Signal::KILL);
        }
    }
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("not zero");
    let _ = rustix::process::kill_process(pid, signal);
}

/// Returns when the process is gone; not before, and without asking again and again.
async fn gone(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("not zero");
    let Ok(handle) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
        return;
    };
    tokio::task::spawn_blocking(move || {
        use rustix::event::{PollFd, PollFlags, poll};
        poll(&mut [PollFd::new(&handle, PollFlags::IN)], None).expect("waited");
    })
    .await
    .expect("waited");
}

async fn ready() {
    let state = State::new();
    let (client, pid) = state.daemon().await;

    assert_ne!(pid, std::process::id());
    // A session of its own, a closed directory, a log of JSON lines.
    let us = rustix::process::Pid::from_raw(pid.cast_signed());
    assert_eq!(
        rustix::process::getsid(us).expect("its session"),
        us.expect("a pid")
    );
    let mode = std::fs::metadata(state.path()).expect("made").permissions();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777,
        0o700
    );
    client.get("none").await.expect_err("it does not exist");
    // The next request is answered after the line of the one before is written.
    client.health().await.expect("answered");
    let log = std::fs::read_to_string(state.path().join("daemon.log")).expect("a log");
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let refused = lines
        .iter()
        .find(|line| line["code"] == "workspace_not_found")
        .expect("the refusal is in the log");
    assert!(
        refused["span"]["id"]
            .as_str()
            .is_some_and(|id| id.starts_with("op-"))
    );
}

async fn race() {
    let state = State::new();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let launcher = state.launcher();
        tasks.spawn(async move {
            let client = launcher.ensure_daemon().await.expect("a daemon");
            client.health().await.expect("answered").pid
        });
    }

    let pids: BTreeSet<_> = tasks.join_all().await.into_iter().collect();

    assert_eq!(pids.len(), 1, "{pids:?}");
}

async fn idle() {
    let state = State::new();
    let launcher = state.launcher().variable(IDLE_MS, "200");
    let first = launcher.ensure_daemon().await.expect("a daemon");
    let pid = first.health().await.expect("answered").pid;
    gone(pid).await;
    assert!(!state.path().join("api.sock").exists());

    let again = launcher.ensure_daemon().await.expect("another daemon");

    assert_ne!(again.health().await.expect("answered").pid, pid);
}

async fn terminate() {
    let state = State::new();
    let (client, pid) = state.daemon().await;
    let mut open = pyro_client::socket::connect(client.path())
        .await
        .expect("connected");
    signal(pid, rustix::process::Signal::TERM);

    // A connection without a request keeps nobody from ending.
    let mut rest = Vec::new();
    let _ = open.read_to_end(&mut rest).await;
    gone(pid).await;
    assert!(!state.path().join("api.sock").exists());
    assert_ne!(state.daemon().await.1, pid);
}

async fn hand_over() {
    let state = State::new();
    let (_, mut pid) = state.daemon().await;
    for _ in 0..5 {
        signal(pid, rustix::process::Signal::TERM);
        let launcher = state.launcher();
        // It may be found for the last time, or the next one is started.
        let client = launcher.ensure_daemon().await.expect("a daemon");
        let _ = client.health().await;
        gone(pid).await;
        pid = state.daemon().await.1;
    }
}

async fn kill() {
    let state = State::new();
    let (_, pid) = state.daemon().await;
    signal(pid, rustix::process::Signal::KILL);
    gone(pid).await;
    assert!(state.path().join("api.sock").exists());

    assert_ne!(state.daemon().await.1, pid);
}

async fn version() {
    let state = State::new();
    let (_, pid) = state.daemon().await;

    let error = state
        .launcher()
        .version("0.0.1")
        .ensure_daemon()
        .await
        .expect_err("another version");

    assert_eq!(error.code(), "daemon_version_mismatch");
    assert!(error.remedy().contains(&format!("kill {pid}")));
    assert!(error.sentence().contains("0.0.1"));
}

async fn second() {
    let state = State::new();
    state.daemon().await;

    let output = Command::new(std::env::current_exe().expect("this program"))
        .env(STATE, state.path())
        .env(FOREGROUND, "1")
        .stdin(Stdio::null())
        .output()
        .expect("started");

    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("state_locked"));
}

async fn unwritable() {
    let state = State::new();
    std::fs::write(state.path(), "a file").expect("written");
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .env(STATE, state.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("read");
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).expect("closed");

    assert!(!child.wait().expect("ended").success());
    assert!(
        line.contains(r#""state":"failed""#) && line.contains("state_unwritable"),
        "{line}"
    );
    assert!(rest.is_empty());
    let error = state
        .launcher()
        .ensure_daemon()
        .await
        .expect_err("no daemon");
    assert_eq!(error.code(), "state_unwritable");
}
