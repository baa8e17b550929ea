//! `pyro workspace exec`: a command's output as it comes, and its status as ours.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use pyro_client::types::{ExecEvent, ExecRecord, ExecRequest, ExecState};
use pyro_client::{Client, ClientError};
use pyro_engine::{Code, Error};

use crate::args::Exec;
use crate::daemon;
use crate::input;
use crate::interrupt::{Interrupt, Interrupts};
use crate::output::{Failure, escape, hint, note, print, print_error, print_json, status};
use crate::streams::{pass_on, unbuffered};

/// How long a cancelled command's record is waited for.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn exec(args: Exec) -> Result<u8, Failure> {
    let (workspace, json) = (args.workspace, args.json.json);
    let request = ExecRequest {
        command: input::command(args.command)?,
        cwd: args.cwd,
        env: BTreeMap::new(),
        secret_env: super::secret_env(args.secret_env)?,
        timeout_seconds: args.timeout_seconds,
        detach: args.detach,
    };
    let client = daemon::client().await?;
    if request.detach {
        let record = client.exec(&workspace, &request).await?;
        if json {
            print_json(&record)?;
        } else {
            print(&format!("{}\n", record.sequence))?;
            hint(&format!("pyro workspace logs {}", record.workspace_id));
        }
        return Ok(0);
    }
    let mut interrupts = Interrupts::install()?;
    let sequence = Cell::new(None);
    let record = tokio::select! {
        record = follow(&client, &workspace, &request, &sequence, json) => record?,
        // Dropping the stream is what cancels the command.
        signal = interrupts.wait() => {
            let cancelled = cancelled(&client, &workspace, sequence.get(), interrupts).await;
            return interrupted(signal, cancelled, json);
        }
    };
    if json {
        print_json(&record)?;
    } else {
        tell(&record, request.timeout_seconds)?;
    }
    Ok(exit_status(&record))
}

/// Runs the command and passes its output on, unless that is wanted in the record only.
async fn follow(
    client: &Client,
    workspace: &str,
    request: &ExecRequest,
    sequence: &Cell<Option<u64>>,
    json: bool,
) -> Result<ExecRecord, Failure> {
    let mut stdout = unbuffered(io::stdout())?;
    let mut stderr = unbuffered(io::stderr())?;
    let mut stream = client.exec_stream(workspace, request).await?;
    while let Some(event) = stream.next().await? {
        match event {
            ExecEvent::Started { sequence: number } => sequence.set(Some(number)),
            ExecEvent::Stdout { data } if !json => pass_on(&mut stdout, &data).await?,
            ExecEvent::Stderr { data } if !json => pass_on(&mut stderr, &data).await?,
            ExecEvent::Stdout { .. } | ExecEvent::Stderr { .. } => {}
            ExecEvent::Ended { record } => return Ok(*record),
            ExecEvent::Failed { error } => return Err(error.into()),
        }
    }
    Err(ClientError::Broken { source: None }.into())
}

/// Makes sure that the command is cancelled, and gives its record. A second signal ends the waiting.
async fn cancelled(
    client: &Client,
    workspace: &str,
    sequence: Option<u64>,
    mut interrupts: Interrupts,
) -> Option<ExecRecord> {
    let cancel = client.exec_cancel(workspace, sequence?);
    tokio::select! {
        record = tokio::time::timeout(CANCEL_TIMEOUT, cancel) => record.ok()?.ok(),
        _ = interrupts.wait() => None,
    }
}

fn interrupted(
    signal: Interrupt,
    cancelled: Option<ExecRecord>,
    json: bool,
) -> Result<u8, Failure> {
    match cancelled {
        Some(record) if json => print_json(&record)?,
        Some(_) => note("pyro: the command was cancelled in the guest"),
        None => {
            let message = "a signal ended the command before its result was there";
            let error = Error::new(Code::Interrupted, message, "run it again");
            print_error(&error.to_api(), json)?;
        }
    }
    Ok(signal.exit_status())
}

/// Says what the status alone does not.
fn tell(record: &ExecRecord, timeout_seconds: u64) -> Result<(), Failure> {
    match (record.state, &record.error) {
        (ExecState::TimedOut, _) => note(&format!(
            "pyro: the command was killed after {timeout_seconds} s (--timeout-seconds)"
        )),
        (ExecState::NotStarted, Some(error)) => {
            note(&format!("pyro: {}", escape::line(&error.message)));
        }
        (ExecState::Cancelled | ExecState::Lost, Some(error)) => print_error(error, false)?,
        (ExecState::Cancelled, None) => note("pyro: somebody cancelled the command"),
        _ => {}
    }
    Ok(())
}

/// The guest's status, or that of a failure when there is none.
fn exit_status(record: &ExecRecord) -> u8 {
    record.exit_code.unwrap_or(status::PRODUCT_FAILED)
}
