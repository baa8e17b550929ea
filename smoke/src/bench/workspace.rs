//! A workspace that runs: what one command in it costs, from a client that is connected.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use pyro_client::types::{ExecRequest, ExecState};
use pyro_client::{Client, socket};
use serde::Serialize;

use super::{BIN, ENVIRONMENT, GUEST_MIB, STATE};

/// Commands that are counted, after some that warm caches up.
const RUNS: usize = 5;
const WARM_UP: usize = 3;

/// One `true`, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct RoundTrip {
    /// From the client's call to its return: client, daemon, journal, monitor and guest.
    pub(super) client_ms: f64,
    /// From its start in the guest to its end there: fork, exec, exit.
    pub(super) guest_ms: f64,
}

/// Makes a workspace, runs commands in it, and deletes it.
///
/// # Errors
/// When it does not run as it should.
pub(super) fn measure() -> Result<Vec<RoundTrip>> {
    let memory = GUEST_MIB.to_string();
    let id = pyro(&["create", ENVIRONMENT, "--mem-mib", &memory, "--id-only"])?;
    let id = id.trim();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let trips = runtime.block_on(async {
        let client = Client::connect(Path::new(STATE).join(socket::FILE_NAME)).await?;
        let mut trips = Vec::new();
        for _ in 0..WARM_UP + RUNS {
            trips.push(trip(&client, id).await?);
        }
        Ok::<_, anyhow::Error>(trips.split_off(WARM_UP))
    })?;
    pyro(&["delete", id])?;
    Ok(trips)
}

async fn trip(client: &Client, workspace: &str) -> Result<RoundTrip> {
    let started = Instant::now();
    let record = client.exec(workspace, &ExecRequest::new(["true"])).await?;
    let client_ms = started.elapsed().as_secs_f64() * 1000.0;
    ensure!(
        (record.state, record.exit_code) == (ExecState::Exited, Some(0)),
        "`true` failed: {record:?}"
    );
    Ok(RoundTrip {
        client_ms,
        guest_ms: record.duration_ms.context("it took no time")?,
    })
}

/// What `pyro workspace …` prints.
pub(super) fn pyro(args: &[&str]) -> Result<String> {
    let output = Command::new(Path::new(BIN).join("pyro"))
        .arg("workspace")
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "pyro workspace {args:?} failed");
    String::from_utf8(output.stdout).context("pyro printed no text")
}
