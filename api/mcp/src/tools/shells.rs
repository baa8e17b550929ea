//! Tools of shells.

use std::collections::BTreeMap;

use pyro_client::types::{
    ClosedShell, DEFAULT_COLS, DEFAULT_ROWS, OpenShell, ReadShell, Shell, ShellOutput, ShellSignal,
    ShellWritten, WriteShell,
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::command::{root, yes};
use super::{ADDS, Answer, Members, READS, REPLACES, RUNS, Tool, Words, tool};
use crate::Error;
use crate::call::Call;
use crate::undo::Undo;

const SHELL: Members = Members::all(&[
    "workspace_id",
    "shell_id",
    "cwd",
    "cols",
    "rows",
    "opened_at",
    "closed",
    "exit_code",
]);

/// The tools, in their order.
#[rustfmt::skip]
pub(super) fn tools() -> Vec<Tool> {
    vec![
        tool(Words::full("shell_open", "Open a shell",
            "Open a terminal with bash that stays, for interactive programs; for plain commands use workspace_exec. \
             Next: shell_write, shell_read. workspace_status lists open shells."),
            ADDS, SHELL, open),
        tool(Words::full("shell_read", "Read a shell",
            "What a shell shows since cursor, as a person would see it. Pass the cursor of the last read to go on."),
            READS, Members::all(&["workspace_id", "shell_id", "output", "plain", "cursor", "dropped_bytes", "truncated", "closed", "exit_code", "next"]), read),
        tool(Words::full("shell_write", "Type into a shell",
            "Type a line into a shell. Next: shell_read."),
            RUNS, Members::all(&["workspace_id", "shell_id", "bytes_written"]), write),
        tool(Words::full("shell_signal", "Signal a shell",
            "Send a signal to what runs in a shell's foreground; INT is Ctrl-C."),
            RUNS.closed(), SHELL, signal),
        tool(Words::full("shell_close", "Close a shell",
            "End a shell with all that runs in it."),
            REPLACES, Members::all(&["workspace_id", "shell_id", "closed"]), close),
    ]
}

const fn cols() -> u16 {
    DEFAULT_COLS
}
const fn rows() -> u16 {
    DEFAULT_ROWS
}
const fn max_chars() -> u64 {
    16384
}
const fn wait_for_idle_ms() -> u64 {
    300
}

#[derive(Deserialize, JsonSchema)]
struct Open {
    /// Id or name
    workspace: String,
    #[serde(default = "root")]
    cwd: String,
    #[serde(default = "cols")]
    #[schemars(range(min = 1, max = 1000))]
    cols: u16,
    #[serde(default = "rows")]
    #[schemars(range(min = 1, max = 1000))]
    rows: u16,
    /// Variables added to the environment
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Secrets by name, each with the variable it is put into
    #[serde(default)]
    secret_env: BTreeMap<String, String>,
}

async fn open(call: Call, input: Open) -> Result<Answer<Shell>, Error> {
    let request = OpenShell {
        cwd: input.cwd,
        cols: input.cols,
        rows: input.rows,
        env: input.env,
        secret_env: input.secret_env,
    };
    let client = call.client.clone();
    let open = async move { client.shell_open(&input.workspace, &request).await };
    let client = call.client.clone();
    let close = |made: Option<Shell>| async move {
        if let Some(shell) = made {
            let _ = client
                .shell_close(&shell.workspace_id, &shell.shell_id)
                .await;
        }
    };
    Ok(Undo::begin(&call.tasks, open, close).kept().await?.into())
}

#[derive(Deserialize, JsonSchema)]
struct Read {
    /// Id or name
    workspace: String,
    shell_id: String,
    /// From an earlier read
    #[serde(default)]
    cursor: u64,
    #[serde(default = "max_chars")]
    #[schemars(range(min = 1, max = 65536))]
    max_chars: u64,
    /// Without control sequences
    #[serde(default = "yes")]
    plain: bool,
    /// First waits until output is quiet for so long
    #[serde(default = "wait_for_idle_ms")]
    #[schemars(range(min = 0, max = 10000))]
    wait_for_idle_ms: u64,
}

async fn read(call: Call, input: Read) -> Result<Answer<ShellOutput>, Error> {
    let request = ReadShell {
        cursor: input.cursor,
        max_chars: input.max_chars,
        plain: input.plain,
        wait_for_idle_ms: input.wait_for_idle_ms,
    };
    let output = call
        .client
        .shell_read(&input.workspace, &input.shell_id, &request)
        .await?;
    let next = match (output.truncated, output.plain) {
        (true, false) => Some(format!("shell_read with cursor {} reads on", output.cursor)),
        (true, true) => Some(format!(
            "earlier lines are left out: shell_read with cursor {} and plain false reads them from there on, \
             control sequences and all; with cursor {} it reads what comes",
            input.cursor, output.cursor
        )),
        (false, _) => None,
    };
    Ok(Answer::from(output).maybe_next(next))
}

#[derive(Deserialize, JsonSchema)]
struct Write {
    /// Id or name
    workspace: String,
    shell_id: String,
    input: String,
    /// Presses Enter behind it
    #[serde(default = "yes")]
    newline: bool,
}

async fn write(call: Call, input: Write) -> Result<Answer<ShellWritten>, Error> {
    let request = WriteShell {
        newline: input.newline,
        ..WriteShell::line(input.input)
    };
    Ok(call
        .client
        .shell_write(&input.workspace, &input.shell_id, &request)
        .await?
        .into())
}

#[derive(Deserialize, JsonSchema)]
struct Signal {
    /// Id or name
    workspace: String,
    shell_id: String,
    #[serde(default)]
    signal: ShellSignal,
}

async fn signal(call: Call, input: Signal) -> Result<Answer<Shell>, Error> {
    let signalled = call
        .client
        .shell_signal(&input.workspace, &input.shell_id, input.signal);
    Ok(signalled.await?.into())
}

#[derive(Deserialize, JsonSchema)]
struct Close {
    /// Id or name
    workspace: String,
    shell_id: String,
}

async fn close(call: Call, input: Close) -> Result<Answer<ClosedShell>, Error> {
    Ok(call
        .client
        .shell_close(&input.workspace, &input.shell_id)
        .await?
        .into())
}
