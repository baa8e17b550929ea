//! Shells: terminals in a workspace that outlive who uses them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ApiError, Encoding, workspace_root};

/// Columns of a shell's terminal when not asked for otherwise.
pub const DEFAULT_COLS: u16 = 120;
/// Rows of a shell's terminal when not asked for otherwise.
pub const DEFAULT_ROWS: u16 = 30;
/// Most characters that a read returns when not asked for otherwise.
pub const DEFAULT_MAX_CHARS: u64 = 65536;
/// Most characters that any read returns.
pub const MAX_READ_CHARS: u64 = 4 << 20;
/// Bytes of a shell's output that are kept: the last ones.
pub const SHELL_OUTPUT_BYTES: u64 = 1 << 20;
/// Longest that a read waits for quiet, altogether, in milliseconds.
pub const MAX_IDLE_WAIT_MS: u64 = 30_000;

const fn cols() -> u16 {
    DEFAULT_COLS
}
const fn rows() -> u16 {
    DEFAULT_ROWS
}
const fn max_chars() -> u64 {
    DEFAULT_MAX_CHARS
}
const fn newline() -> bool {
    true
}

/// Asks for a shell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenShell {
    /// Working directory in the guest; relative ones start at `/workspace`.
    #[serde(default = "workspace_root")]
    pub cwd: String,
    /// Columns of the terminal, 1 to 1000.
    #[serde(default = "cols")]
    pub cols: u16,
    /// Rows of the terminal, 1 to 1000.
    #[serde(default = "rows")]
    pub rows: u16,
    /// Variables added to the guest's environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Secrets by name, each with the variable that it is put into.
    #[serde(default)]
    pub secret_env: BTreeMap<String, String>,
}

impl Default for OpenShell {
    fn default() -> Self {
        Self {
            cwd: workspace_root(),
            cols: cols(),
            rows: rows(),
            env: BTreeMap::new(),
            secret_env: BTreeMap::new(),
        }
    }
}

/// A shell: bash, or sh where there is none, on a terminal of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shell {
    /// The workspace.
    pub workspace_id: String,
    /// Its id: `sh-` and 8 lower-case letters and digits.
    pub shell_id: String,
    /// The working directory that it began in.
    pub cwd: String,
    /// Columns of the terminal.
    pub cols: u16,
    /// Rows of the terminal.
    pub rows: u16,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// Whether its program has ended. What it wrote stays until it is closed.
    pub closed: bool,
    /// What a shell would give for its program's end.
    pub exit_code: Option<u8>,
}

/// A workspace's shells, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShellList {
    /// The workspace.
    pub workspace_id: String,
    /// How many there are.
    pub count: u64,
    /// The shells.
    pub shells: Vec<Shell>,
}

/// Asks for what a shell wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReadShell {
    /// Where to start: bytes since the beginning of the shell's output, as an earlier read gave it.
    pub cursor: u64,
    /// Most characters to return, up to 4 Mi.
    pub max_chars: u64,
    /// Gives the lines that changed since the cursor as a person would see them, without control
    /// sequences; the last ones when they are too many.
    pub plain: bool,
    /// Milliseconds, at most 10000: waits until nothing was written for so long, up to 30 seconds
    /// altogether. 300 is a good value.
    pub wait_for_idle_ms: u64,
}

impl Default for ReadShell {
    fn default() -> Self {
        Self {
            cursor: 0,
            max_chars: max_chars(),
            plain: false,
            wait_for_idle_ms: 0,
        }
    }
}

/// What a shell wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShellOutput {
    /// The workspace.
    pub workspace_id: String,
    /// The shell.
    pub shell_id: String,
    /// The output, invalid UTF-8 replaced.
    pub output: String,
    /// Whether `output` is rendered.
    pub plain: bool,
    /// Where the next read goes on. Always of the raw output.
    pub cursor: u64,
    /// Bytes between the cursor that was asked for and the first one that is kept.
    pub dropped_bytes: u64,
    /// Whether there is more than `max_chars`: after `cursor`, or with `plain` earlier lines.
    pub truncated: bool,
    /// Whether its program has ended.
    pub closed: bool,
    /// What a shell would give for its program's end.
    pub exit_code: Option<u8>,
}

/// Types into a shell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WriteShell {
    /// What to type.
    pub input: String,
    /// How `input` is to be read.
    #[serde(default)]
    pub encoding: Encoding,
    /// Whether to press Enter behind it.
    #[serde(default = "newline")]
    pub newline: bool,
}

impl WriteShell {
    /// A line.
    pub fn line(input: impl Into<String>) -> Self {
        Self {
            input: input.into(),
            encoding: Encoding::Utf8,
            newline: true,
        }
    }
}

/// What was typed into a shell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShellWritten {
    /// The workspace.
    pub workspace_id: String,
    /// The shell.
    pub shell_id: String,
    /// How many bytes.
    pub bytes_written: u64,
}

/// Signals that a shell can be sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum ShellSignal {
    /// The terminal is gone.
    Hup,
    /// Ctrl-C.
    #[default]
    Int,
    /// End.
    Term,
    /// End at once.
    Kill,
}

/// Sends a signal to what runs in the foreground of a shell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SignalShell {
    /// The signal.
    pub signal: ShellSignal,
}

/// Gives a shell's terminal another size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResizeShell {
    /// Columns, 1 to 1000.
    pub cols: u16,
    /// Rows, 1 to 1000.
    pub rows: u16,
}

/// A shell that was closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClosedShell {
    /// The workspace.
    pub workspace_id: String,
    /// The shell.
    pub shell_id: String,
    /// Always true.
    pub closed: bool,
}

/// Follows a shell's output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FollowShell {
    /// Where to start: bytes since the beginning of the shell's output.
    pub cursor: u64,
}

/// A line of a shell's output as it comes (`Accept: application/x-ndjson`). The first is `attached`,
/// the last `closed` or `failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ShellEvent {
    /// The shell is there.
    Attached {
        /// The shell as it is now.
        shell: Shell,
    },
    /// It wrote something.
    Output {
        /// The bytes, in base64.
        data: String,
    },
    /// Some of its output is missing here.
    Gap {
        /// How many bytes.
        bytes: u64,
    },
    /// Its program has ended.
    Closed {
        /// The shell.
        shell: Shell,
    },
    /// The product failed, or the guest ended.
    Failed {
        /// Why.
        error: ApiError,
    },
}
