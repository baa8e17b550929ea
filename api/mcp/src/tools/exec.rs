//! `workspace_exec`.
//!
//! A command is started detached and waited for. When the wait is over it goes on and its record is
//! the handle: `workspace_logs` waits for it by its number. When the call is cancelled, the
//! command is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pyro_client::types::{ExecRecord, ExecRequest, ExecState};
use schemars::JsonSchema;
use serde::Deserialize;

use super::Answer;
use super::command::{Command, max_output_bytes, root, timeout_seconds, wait_seconds};
use crate::call::Call;
use crate::undo::Undo;
use crate::{Error, cut};

/// How often a waiting call looks at what a command wrote.
const LOOK: Duration = Duration::from_secs(3);

#[derive(Deserialize, JsonSchema)]
pub(super) struct Exec {
    /// Id or name
    workspace: String,
    /// A bash line, or program and arguments
    command: Command,
    #[serde(default = "root")]
    cwd: String,
    /// Killed after this
    #[serde(default = "timeout_seconds")]
    #[schemars(range(min = 1, max = 86400))]
    timeout_seconds: u64,
    /// What runs longer goes on; see `next`
    #[serde(default = "wait_seconds")]
    #[schemars(range(min = 0, max = 45))]
    wait_seconds: u64,
    /// Per stream; cut in the middle
    #[serde(default = "max_output_bytes")]
    #[schemars(range(min = 256, max = 65536))]
    max_output_bytes: u64,
    /// Variables added to the environment
    #[serde(default)]
    #[schemars(extend("x-pyro-wide" = true))]
    env: BTreeMap<String, String>,
    /// Secrets by name, each with the variable it is put into
    #[serde(default)]
    #[schemars(extend("x-pyro-wide" = true))]
    secret_env: BTreeMap<String, String>,
}

pub(super) async fn exec(call: Call, input: Exec) -> Result<Answer<ExecRecord>, Error> {
    let request = ExecRequest {
        command: input.command.words(),
        cwd: input.cwd,
        env: input.env,
        secret_env: input.secret_env,
        timeout_seconds: input.timeout_seconds,
        detach: true,
    };
    let client = call.client.clone();
    let start = async move { client.exec(&input.workspace, &request).await };
    let client = call.client.clone();
    let cancel = |made: Option<ExecRecord>| async move {
        if let Some(record) = made {
            // It may have ended by itself meanwhile.
            let _ = client
                .exec_cancel(&record.workspace_id, record.sequence)
                .await;
        }
    };
    let mut command = Undo::begin(&call.tasks, start, cancel);
    let record = command.made().await?;
    let wait = Duration::from_secs(input.wait_seconds);
    let record = watch(&call, record, wait).await;
    // Also when it could not be watched: it goes on, and its record will tell.
    command.keep();
    Ok(shown(record?, input.max_output_bytes))
}

/// Waits for a command's end, and tells its last line as progress.
pub(super) async fn watch(
    call: &Call,
    mut record: ExecRecord,
    wait: Duration,
) -> Result<ExecRecord, Error> {
    let began = Instant::now();
    loop {
        let left = wait.saturating_sub(began.elapsed());
        if record.state != ExecState::Running || left.is_zero() {
            return Ok(record);
        }
        let line = |text: &str| text.trim_end().rsplit('\n').next().map(str::to_string);
        let last = line(&record.stdout).filter(|line| !line.is_empty());
        if let Some(last) = last.or_else(|| line(&record.stderr)) {
            call.status.set(cut::front(&last, 200));
        }
        // Whole seconds, and never none: that would be a busy loop.
        let look = LOOK.min(left).max(Duration::from_secs(1));
        record = call
            .client
            .exec_get(&record.workspace_id, record.sequence, look)
            .await?;
    }
}

/// A record within bounds, and how to get the rest.
pub(super) fn shown(mut record: ExecRecord, most: u64) -> Answer<ExecRecord> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut gap = None;
    for (text, truncated) in [
        (&mut record.stdout, &mut record.stdout_truncated),
        (&mut record.stderr, &mut record.stderr_truncated),
    ] {
        let cut = cut::middle(text, most);
        *text = cut.text;
        if let Some(at) = cut.gap {
            *truncated = true;
            gap = Some(gap.map_or(at, |other: usize| other.min(at)));
        }
    }
    let sequence = record.sequence;
    let next = match (record.state, gap) {
        (ExecState::Running, _) => Some(format!(
            "it still runs: workspace_logs with sequence {sequence} and wait_seconds 45 waits for its end"
        )),
        (_, Some(at)) => Some(format!(
            "workspace_logs with sequence {sequence} and offset {at} reads what was left out"
        )),
        _ => None,
    };
    Answer::from(record).maybe_next(next)
}
