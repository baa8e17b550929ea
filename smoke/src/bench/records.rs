//! A daemon with a thousand workspaces: what it costs to ask it for all, or for one.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use pyro_client::{Launcher, socket};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use super::workspace::pyro;
use super::{BIN, ENVIRONMENT, STATE};

/// Workspaces.
const RECORDS: usize = 1000;
/// Calls that are counted, after one that warms up.
const RUNS: usize = 5;

/// One call of each kind, in milliseconds, from a client that is connected.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Asked {
    /// All of them.
    pub(super) list_ms: f64,
    /// One of them.
    pub(super) status_ms: f64,
}

/// Makes one workspace and copies of its record, and asks the daemon that finds them.
///
/// # Errors
/// When it does not find them.
pub(super) fn measure() -> Result<Vec<Asked>> {
    let id = pyro(&["create", ENVIRONMENT, "--id-only"])?;
    let id = id.trim();
    pyro(&["stop", id])?;
    end_daemon()?;
    let workspaces = Path::new(STATE).join("workspaces");
    let record = fs::read_to_string(workspaces.join(id).join("record.json"))?;
    for number in 1..RECORDS {
        let copy = format!("ws-{number:012}");
        fs::create_dir(workspaces.join(&copy))?;
        let record = record.replace(id, &copy);
        fs::write(workspaces.join(&copy).join("record.json"), record)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let launcher = Launcher::new(
            Path::new(BIN).join("pyro"),
            Path::new(STATE).join(socket::FILE_NAME),
        );
        let client = launcher.variable("PYRO_STATE_DIR", STATE);
        let client = client.ensure_daemon().await?;
        let mut asked = Vec::new();
        for _ in 0..=RUNS {
            let began = Instant::now();
            let list = client.list().await?;
            let list_ms = began.elapsed().as_secs_f64() * 1000.0;
            ensure!(list.count == RECORDS as u64, "it found {}", list.count);
            let began = Instant::now();
            client.get(id).await?;
            let status_ms = began.elapsed().as_secs_f64() * 1000.0;
            asked.push(Asked { list_ms, status_ms });
        }
        Ok(asked.split_off(1))
    })
}

/// Kills the daemon: nothing waits for it, and the next one must find the records.
fn end_daemon() -> Result<()> {
    let pid = fs::read_to_string(Path::new(STATE).join("daemon.lock"))?;
    let pid: i32 = pid.trim().parse()?;
    kill_process(Pid::from_raw(pid).context("a process")?, Signal::KILL)?;
    while Path::new("/proc")
        .join(pid.to_string())
        .join("exe")
        .exists()
    {
        std::thread::yield_now();
    }
    Ok(())
}
