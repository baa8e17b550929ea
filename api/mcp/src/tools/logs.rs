//! `workspace_logs`.

use std::time::Duration;

use pyro_client::types::{ExecRecord, ExecState, WorkspaceLogs};
use schemars::JsonSchema;
use serde::Deserialize;

use super::command::max_output_bytes;
use super::{Answer, exec};
use crate::call::Call;
use crate::{Error, cut};

const fn limit() -> u64 {
    10
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Logs {
    /// Id or name
    workspace: String,
    /// One command's
    #[schemars(range(min = 1))]
    sequence: Option<u64>,
    /// For the end of that command
    #[serde(default)]
    #[schemars(range(min = 0, max = 45))]
    wait_seconds: u64,
    /// In its output
    offset: Option<u64>,
    #[serde(default = "max_output_bytes")]
    #[schemars(range(min = 256, max = 65536))]
    max_output_bytes: u64,
    #[serde(default = "limit")]
    #[schemars(range(min = 1, max = 50))]
    limit: u64,
}

pub(super) async fn logs(call: Call, input: Logs) -> Result<Answer<WorkspaceLogs>, Error> {
    match input.sequence {
        Some(sequence) => one(call, &input, sequence).await,
        None => last(call, &input).await,
    }
}

/// One command, with as much of its output as was asked for.
async fn one(call: Call, input: &Logs, sequence: u64) -> Result<Answer<WorkspaceLogs>, Error> {
    let record = call
        .client
        .exec_get(&input.workspace, sequence, Duration::ZERO)
        .await?;
    let wait = Duration::from_secs(input.wait_seconds);
    let record = exec::watch(&call, record, wait).await?;
    let workspace_id = record.workspace_id.clone();
    let answer = match input.offset {
        None => exec::shown(record, input.max_output_bytes),
        Some(offset) => from(record, offset, input.max_output_bytes),
    };
    Ok(answer.map(|record| WorkspaceLogs {
        workspace_id,
        count: 1,
        entries: vec![record],
    }))
}

/// A record whose output starts at an offset.
fn from(mut record: ExecRecord, offset: u64, most: u64) -> Answer<ExecRecord> {
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut next: Option<usize> = None;
    for (text, truncated) in [
        (&mut record.stdout, &mut record.stdout_truncated),
        (&mut record.stderr, &mut record.stderr_truncated),
    ] {
        let (at, rest) = cut::from(text, offset);
        let part = cut::front(rest, most);
        if part.len() < rest.len() {
            let end = at + part.len();
            next = Some(next.map_or(end, |other| other.min(end)));
            *truncated = true;
        }
        *text = part.to_string();
    }
    let sequence = record.sequence;
    let next = match (next, record.state) {
        (Some(offset), _) => Some(format!(
            "workspace_logs with sequence {sequence} and offset {offset} reads on"
        )),
        (None, ExecState::Running) => Some(format!(
            "it still runs: workspace_logs with sequence {sequence} and wait_seconds 45 waits for its end"
        )),
        (None, _) => None,
    };
    Answer::from(record).maybe_next(next)
}

/// The last commands, with little of their output each.
async fn last(call: Call, input: &Logs) -> Result<Answer<WorkspaceLogs>, Error> {
    let mut logs = call.client.logs(&input.workspace).await?;
    let limit = usize::try_from(input.limit).unwrap_or(usize::MAX);
    let older = logs.entries.len().saturating_sub(limit);
    logs.entries.drain(..older);
    let share = input.max_output_bytes / (logs.entries.len().max(1) as u64);
    let mut cut = older > 0;
    for entry in &mut logs.entries {
        for (text, truncated) in [
            (&mut entry.stdout, &mut entry.stdout_truncated),
            (&mut entry.stderr, &mut entry.stderr_truncated),
        ] {
            let middle = cut::middle(text, usize::try_from(share).unwrap_or(usize::MAX));
            *text = middle.text;
            *truncated |= middle.gap.is_some();
            cut |= middle.gap.is_some();
        }
    }
    let next = cut.then(|| "pass sequence to see one command with all its output".to_string());
    Ok(Answer::from(logs).maybe_next(next))
}
