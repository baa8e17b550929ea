//! `pyro workspace service …` and `shell …`.

use std::ffi::OsString;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use pyro_client::types::{
    DEFAULT_COLS, DEFAULT_MAX_CHARS, DEFAULT_READY_INTERVAL_MS, DEFAULT_READY_TIMEOUT_SECONDS,
    DEFAULT_ROWS, DEFAULT_TAIL_LINES, PublishPort, ShellSignal, WORKSPACE_ROOT,
};

use super::values::{Address, SecretVariable, address, publish, secret_variable};
use super::{Json, Of};

#[derive(Debug, Subcommand)]
pub(crate) enum Service {
    /// Start a service, and wait until it is ready
    #[command(after_help = "\
Examples:
  pyro workspace service start parser web --ready-http http://localhost:8000/ -- python3 -m http.server
  pyro workspace service start parser db --ready-tcp localhost:5432 --cwd db -- ./run-postgres
  pyro workspace service start parser job --ready-file /tmp/up --ready-timeout-seconds 120 -- ./job
  pyro workspace service start parser web --publish 18080:8000 -- python3 -m http.server
  pyro workspace service start parser bot --secret-env API_TOKEN=TOKEN -- ./bot

Without a probe it is ready as soon as it runs. One that is not ready in time is stopped, and the last
lines of its log are shown. Ports are published on 127.0.0.1 of this machine; that needs a workspace
with the policy egress+published-ports.")]
    Start(Box<StartService>),
    /// Show the services
    #[command(after_help = "\
Examples:
  pyro workspace service list parser
  pyro workspace service list parser --json")]
    List(Of),
    /// Show everything about one service
    #[command(after_help = "\
Examples:
  pyro workspace service status parser web")]
    Status(OfService),
    /// Show the end of a service's log
    #[command(after_help = "\
Examples:
  pyro workspace service logs parser web
  pyro workspace service logs parser web --tail-lines 20
  pyro workspace service logs parser web --all

The last megabyte is kept, also after the service's end, until the workspace is reset.")]
    Logs(ServiceLogs),
    /// Stop a service: SIGTERM, then SIGKILL after 10 seconds
    #[command(after_help = "\
Examples:
  pyro workspace service stop parser web")]
    Stop(OfService),
}

impl Service {
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::Start(args) => args.json.json,
            Self::List(of) => of.json.json,
            Self::Status(of) | Self::Stop(of) => of.json.json,
            Self::Logs(args) => args.json.json,
        }
    }
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("probe").args(["ready_file", "ready_tcp", "ready_http", "ready_command"]))]
pub(crate) struct StartService {
    /// The workspace: its id, or its name when no other has the same
    pub(crate) workspace: String,
    /// The service's name
    pub(crate) name: String,
    /// Where to run it; relative paths start at /workspace
    #[arg(long, value_name = "DIR", default_value = WORKSPACE_ROOT)]
    pub(crate) cwd: String,
    /// Ready when this file is there
    #[arg(long, value_name = "PATH")]
    pub(crate) ready_file: Option<String>,
    /// Ready when this port of the guest accepts connections
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    pub(crate) ready_tcp: Option<Address>,
    /// Ready when this URL of the guest is answered with a 2xx status
    #[arg(long, value_name = "URL")]
    pub(crate) ready_http: Option<String>,
    /// Ready when this command, which `sh -c` is given, exits with 0
    #[arg(long, value_name = "CMD")]
    pub(crate) ready_command: Option<String>,
    /// Stop it when it is not ready after this time
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, default_value_t = DEFAULT_READY_TIMEOUT_SECONDS)]
    pub(crate) ready_timeout_seconds: u64,
    /// Time between two probes
    #[arg(long, value_name = "MS", allow_negative_numbers = true, default_value_t = DEFAULT_READY_INTERVAL_MS)]
    pub(crate) ready_interval_ms: u64,
    /// Put a secret into a variable of the same or another name; may be given several times
    #[arg(long = "secret-env", value_name = "SECRET[=ENV_VAR]", value_parser = secret_variable)]
    pub(crate) secret_env: Vec<SecretVariable>,
    /// Publish a port of the guest on 127.0.0.1; may be given several times
    #[arg(long, value_name = "[HOST:]GUEST", value_parser = publish)]
    pub(crate) publish: Vec<PublishPort>,
    #[command(flatten)]
    pub(crate) json: Json,
    /// The command and its arguments, after `--`
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct OfService {
    /// The workspace: its id, or its name when no other has the same
    pub(crate) workspace: String,
    /// The service's name
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct ServiceLogs {
    /// The workspace: its id, or its name when no other has the same
    pub(crate) workspace: String,
    /// The service's name
    pub(crate) name: String,
    /// How many of the last lines to show
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = DEFAULT_TAIL_LINES)]
    pub(crate) tail_lines: u64,
    /// Show all that is kept
    #[arg(long, conflicts_with = "tail_lines")]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Shell {
    /// Open a shell
    #[command(after_help = "\
Examples:
  pyro workspace shell open parser
  pyro workspace shell open parser --cwd src --cols 80 --rows 24
  shell=$(pyro workspace shell open parser --id-only)")]
    Open(OpenShell),
    /// Show the shells
    #[command(after_help = "\
Examples:
  pyro workspace shell list parser")]
    List(Of),
    /// Show what a shell wrote
    #[command(after_help = "\
Examples:
  pyro workspace shell read parser sh-4k2m9x1q --plain --wait-for-idle-ms 300
  pyro workspace shell read parser sh-4k2m9x1q --cursor 1024 --json

With --plain: the lines that changed since the cursor, as a person would see them.")]
    Read(ReadShell),
    /// Type a line into a shell
    #[command(after_help = "\
Examples:
  pyro workspace shell write parser sh-4k2m9x1q --input 'make test'
  pyro workspace shell write parser sh-4k2m9x1q --input y --no-newline")]
    Write(WriteShell),
    /// Send a signal to what runs in a shell
    #[command(after_help = "\
Examples:
  pyro workspace shell signal parser sh-4k2m9x1q
  pyro workspace shell signal parser sh-4k2m9x1q --signal KILL")]
    Signal(SignalShell),
    /// End a shell with all that runs in it
    #[command(after_help = "\
Examples:
  pyro workspace shell close parser sh-4k2m9x1q")]
    Close(OfShell),
    /// Use a shell from this terminal
    #[command(after_help = "\
Examples:
  pyro workspace shell attach parser sh-4k2m9x1q

Ctrl-] detaches; the shell goes on. All other keys go to the shell. Its terminal gets the size of this
one. Several may be attached at a time.")]
    Attach(AttachShell),
}

impl Shell {
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::Open(args) => args.json.json,
            Self::List(of) => of.json.json,
            Self::Read(args) => args.json.json,
            Self::Write(args) => args.json.json,
            Self::Signal(args) => args.json.json,
            Self::Close(of) => of.json.json,
            Self::Attach(_) => false,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct OpenShell {
    /// The workspace: its id, or its name when no other has the same
    pub(crate) workspace: String,
    /// Where it begins; relative paths start at /workspace
    #[arg(long, value_name = "DIR", default_value = WORKSPACE_ROOT)]
    pub(crate) cwd: String,
    /// Columns of its terminal
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = DEFAULT_COLS)]
    pub(crate) cols: u16,
    /// Rows of its terminal
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = DEFAULT_ROWS)]
    pub(crate) rows: u16,
    /// Put a secret into a variable of the same or another name; may be given several times
    #[arg(long = "secret-env", value_name = "SECRET[=ENV_VAR]", value_parser = secret_variable)]
    pub(crate) secret_env: Vec<SecretVariable>,
    /// Print the shell's id, and nothing else
    #[arg(long, conflicts_with = "json")]
    pub(crate) id_only: bool,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct OfShell {
    /// The workspace: its id, or its name when no other has the same
    pub(crate) workspace: String,
    /// The shell's id
    pub(crate) shell: String,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct AttachShell {
    /// The workspace: its id, or its name when no other has the same
    pub(crate) workspace: String,
    /// The shell's id
    pub(crate) shell: String,
}

#[derive(Debug, Args)]
pub(crate) struct ReadShell {
    /// The workspace: its id, or its name when no other has the same
    pub(crate) workspace: String,
    /// The shell's id
    pub(crate) shell: String,
    /// Where to start: bytes since the beginning, as an earlier read told
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        default_value_t = 0
    )]
    pub(crate) cursor: u64,
    /// Show at most this much
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = DEFAULT_MAX_CHARS)]
    pub(crate) max_chars: u64,
    /// Show the lines that changed, without control sequences
    #[arg(long)]
    pub(crate) plain: bool,
    /// Wait until nothing was written for so long; 300 is a good value
    #[arg(
        long,
        value_name = "MS",
        allow_negative_numbers = true,
        default_value_t = 0
    )]
    pub(crate) wait_for_idle_ms: u64,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct WriteShell {
    /// The workspace: its id, or its name when no other has the same
    pub(crate) workspace: String,
    /// The shell's id
    pub(crate) shell: String,
    /// What to type
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) input: String,
    /// Do not press Enter behind it
    #[arg(long)]
    pub(crate) no_newline: bool,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct SignalShell {
    /// The workspace: its id, or its name when no other has the same
    pub(crate) workspace: String,
    /// The shell's id
    pub(crate) shell: String,
    /// The signal
    #[arg(long, value_enum, ignore_case = true, default_value_t = Signal::Int)]
    pub(crate) signal: Signal,
    #[command(flatten)]
    pub(crate) json: Json,
}

/// Signals that a shell can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub(crate) enum Signal {
    /// The terminal is gone
    Hup,
    /// Ctrl-C
    Int,
    /// End
    Term,
    /// End at once
    Kill,
}

impl From<Signal> for ShellSignal {
    fn from(signal: Signal) -> Self {
        match signal {
            Signal::Hup => Self::Hup,
            Signal::Int => Self::Int,
            Signal::Term => Self::Term,
            Signal::Kill => Self::Kill,
        }
    }
}
