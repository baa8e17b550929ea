//! `pyro workspace …`: the flags of the contract, with its defaults.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use pyro_client::types::{
    BASELINE, DEFAULT_MAX_BYTES, DEFAULT_MEM_MIB, DEFAULT_TIMEOUT_SECONDS, DEFAULT_TTL_SECONDS,
    DEFAULT_VCPU_COUNT, WORKSPACE_ROOT,
};

use super::files::{Disk, File, Patch, Sync};
use super::living::{Service, Shell};
use super::values::{
    Label, Network, SecretFile, SecretValue, SecretVariable, label, secret, secret_file,
    secret_variable,
};
use super::{Json, Of};

#[derive(Debug, Subcommand)]
pub(crate) enum Workspace {
    /// Make a workspace and boot it
    #[command(after_help = "\
Examples:
  pyro workspace create debian:12
  pyro workspace create debian:12 --seed-path . --name 'fix the parser' --label issue=42
  pyro workspace create debian:12-build --vcpu-count 2 --mem-mib 4096 --ttl-seconds 3600
  pyro workspace create debian:12 --network-policy egress --secret-file DEPLOY_KEY=./key.pem
  pyro workspace create debian:12 --id-only          For scripts

The environment is pulled first when it is not installed. In a Git work tree, ignored files stay behind.
A secret is a file in /run/pyro-secrets of the guest; its value is [REDACTED] in all that programs
print. Prefer --secret-file: other users of this machine may see the words of a command line.")]
    Create(Create),
    /// Show all workspaces, most recent activity first
    #[command(after_help = "\
Examples:
  pyro workspace list
  pyro workspace list --json")]
    List(Json),
    /// Change a workspace's name and labels
    #[command(after_help = "\
Examples:
  pyro workspace update ws-3k9x0q2m5t7a --name parser --label state=review
  pyro workspace update parser --clear-name --clear-label state")]
    Update(Update),
    /// Show everything about one workspace
    #[command(after_help = "\
Examples:
  pyro workspace status parser
  pyro workspace status ws-3k9x0q2m5t7a --json")]
    Status(Of),
    /// Show the commands that ran in a workspace, with their output
    #[command(after_help = "\
Examples:
  pyro workspace logs parser
  pyro workspace logs parser --json")]
    Logs(Of),
    /// Delete a workspace with all it has
    #[command(after_help = "\
Examples:
  pyro workspace delete parser
  pyro workspace delete ws-3k9x0q2m5t7a --json")]
    Delete(Of),
    /// Write everything out and power off; the disk stays
    #[command(after_help = "\
Examples:
  pyro workspace stop parser
  pyro workspace stop parser --json")]
    Stop(Of),
    /// Boot a stopped workspace from its disk
    #[command(after_help = "\
Examples:
  pyro workspace start parser
  pyro workspace start parser --json")]
    Start(Of),
    /// Run a command in a workspace
    #[command(after_help = "\
Examples:
  pyro workspace exec parser -- ls -la
  pyro workspace exec parser --timeout-seconds 600 --cwd src -- make test
  pyro workspace exec parser -- sh -c 'echo hello; exit 7'          Exits 7
  pyro workspace exec parser --secret-env API_TOKEN=TOKEN -- ./deploy
  pyro workspace exec parser --detach -- ./long-job                 Prints its number in the journal

Runs in /workspace; what it changes stays. Ctrl-C cancels it in the guest.
Exit status: that of the command; 128 + n when signal n ended it; 124 when it timed out; 126 or 127
when it cannot be executed or found; 125 when pyro itself failed; 2 for a usage error.")]
    Exec(Exec),
    /// Put files of this machine into a workspace
    #[command(
        arg_required_else_help = true,
        after_help = "\
Examples:
  pyro workspace sync push parser ./src --dest src"
    )]
    Sync {
        #[command(subcommand)]
        command: Sync,
    },
    /// Copy a file or directory of a workspace to this machine
    #[command(after_help = "\
Examples:
  pyro workspace export parser report.html --output ./report.html
  pyro workspace export parser /workspace/dist --output ./dist --force")]
    Export(Export),
    /// Show what differs from the time of creation
    #[command(after_help = "\
Examples:
  pyro workspace diff parser
  pyro workspace diff parser > changes.patch
  pyro workspace diff parser --json

Prints counts, then a unified diff that `git apply` takes.")]
    Diff(Of),
    /// List, read and write files
    #[command(
        arg_required_else_help = true,
        after_help = "\
Examples:
  pyro workspace file list parser
  pyro workspace file read parser README.md
  pyro workspace file write parser notes.txt --text 'hello'"
    )]
    File {
        #[command(subcommand)]
        command: File,
    },
    /// Apply patches
    #[command(
        arg_required_else_help = true,
        after_help = "\
Examples:
  pyro workspace patch apply parser --patch-file fix.patch"
    )]
    Patch {
        #[command(subcommand)]
        command: Patch,
    },
    /// Make, list and delete snapshots of the whole disk
    #[command(
        arg_required_else_help = true,
        after_help = "\
Examples:
  pyro workspace snapshot create parser before-upgrade
  pyro workspace snapshot list parser
  pyro workspace reset parser --snapshot before-upgrade"
    )]
    Snapshot {
        #[command(subcommand)]
        command: Snapshot,
    },
    /// Set a workspace back to a snapshot, or to how it was made
    #[command(after_help = "\
Examples:
  pyro workspace reset parser
  pyro workspace reset parser --snapshot before-upgrade

The virtual machine is made anew. Name, labels and snapshots stay; the command history is cleared.")]
    Reset(Reset),
    /// Start, watch and stop services
    #[command(
        arg_required_else_help = true,
        after_help = "\
Examples:
  pyro workspace service start parser web --ready-tcp localhost:8000 -- python3 -m http.server
  pyro workspace service logs parser web
  pyro workspace service stop parser web"
    )]
    Service {
        #[command(subcommand)]
        command: Service,
    },
    /// Open, read, write and attach to shells
    #[command(
        arg_required_else_help = true,
        after_help = "\
Examples:
  pyro workspace shell open parser
  pyro workspace shell write parser sh-4k2m9x1q --input 'make test'
  pyro workspace shell read parser sh-4k2m9x1q --plain --wait-for-idle-ms 300
  pyro workspace shell attach parser sh-4k2m9x1q"
    )]
    Shell {
        #[command(subcommand)]
        command: Shell,
    },
    /// Look into the disk of a stopped workspace
    #[command(
        arg_required_else_help = true,
        after_help = "\
Examples:
  pyro workspace disk list parser /etc
  pyro workspace disk read parser /etc/hostname
  pyro workspace disk export parser --output ./parser.ext4"
    )]
    Disk {
        #[command(subcommand)]
        command: Disk,
    },
}

impl Workspace {
    /// Whether JSON is asked for.
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::Create(args) => args.json.json,
            Self::List(json) => json.json,
            Self::Update(args) => args.json.json,
            Self::Status(of)
            | Self::Logs(of)
            | Self::Delete(of)
            | Self::Stop(of)
            | Self::Start(of)
            | Self::Diff(of) => of.json.json,
            Self::Exec(args) => args.json.json,
            Self::Sync { command } => command.json(),
            Self::Export(args) => args.json.json,
            Self::File { command } => command.json(),
            Self::Patch { command } => command.json(),
            Self::Snapshot { command } => command.json(),
            Self::Reset(args) => args.json.json,
            Self::Service { command } => command.json(),
            Self::Shell { command } => command.json(),
            Self::Disk { command } => command.json(),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The environment, such as debian:12 (see `pyro env list`)
    #[arg(value_name = "ENV")]
    pub(crate) environment: String,
    /// Virtual CPUs
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = DEFAULT_VCPU_COUNT)]
    pub(crate) vcpu_count: u64,
    /// Memory of the virtual machine in MiB
    #[arg(long, value_name = "MIB", allow_negative_numbers = true, default_value_t = DEFAULT_MEM_MIB)]
    pub(crate) mem_mib: u64,
    /// Remove the workspace this long after its last activity
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, default_value_t = DEFAULT_TTL_SECONDS)]
    pub(crate) ttl_seconds: u64,
    /// What the guest may reach
    #[arg(long, value_enum, value_name = "POLICY", default_value_t = Network::Off)]
    pub(crate) network_policy: Network,
    /// What /workspace starts with: a directory, .tar, .tar.gz or .tgz
    #[arg(long, value_name = "PATH")]
    pub(crate) seed_path: Option<PathBuf>,
    /// A name for people; when no other workspace has it, it works wherever the id does
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// A label; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) labels: Vec<Label>,
    /// A secret with its value; may be given several times
    #[arg(long = "secret", value_name = "NAME=VALUE", value_parser = secret, hide_possible_values = true)]
    pub(crate) secrets: Vec<SecretValue>,
    /// A secret whose value is in a file of this machine; may be given several times
    #[arg(long = "secret-file", value_name = "NAME=PATH", value_parser = secret_file)]
    pub(crate) secret_files: Vec<SecretFile>,
    /// Print the workspace's id, and nothing else
    #[arg(long, conflicts_with = "json")]
    pub(crate) id_only: bool,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true)
    .args(["name", "clear_name", "labels", "clear_labels"]))]
pub(crate) struct Update {
    /// The workspace: its id, or its name when no other has the same
    pub(crate) workspace: String,
    /// The new name
    #[arg(long, conflicts_with = "clear_name")]
    pub(crate) name: Option<String>,
    /// Take the name away
    #[arg(long)]
    pub(crate) clear_name: bool,
    /// A label to set; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) labels: Vec<Label>,
    /// A label to take away; may be given several times
    #[arg(long = "clear-label", value_name = "KEY")]
    pub(crate) clear_labels: Vec<String>,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// The workspace: its id, or its name when no other has the same
    pub(crate) workspace: String,
    /// Kill the command, with all it started, after this time (exit status 124)
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, default_value_t = DEFAULT_TIMEOUT_SECONDS)]
    pub(crate) timeout_seconds: u64,
    /// Where to run it; relative paths start at /workspace
    #[arg(long, value_name = "DIR", default_value = WORKSPACE_ROOT)]
    pub(crate) cwd: String,
    /// Put a secret into a variable of the same or another name; may be given several times
    #[arg(long = "secret-env", value_name = "SECRET[=ENV_VAR]", value_parser = secret_variable)]
    pub(crate) secret_env: Vec<SecretVariable>,
    /// Print the command's number in the journal as soon as it runs, and do not wait for its end
    #[arg(long)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) json: Json,
    /// The command and its arguments, after `--`
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The workspace: its id, or its name when no other has the same
    pub(crate) workspace: String,
    /// The file or directory in the guest; relative paths start at /workspace
    pub(crate) path: String,
    /// What to make on this machine
    #[arg(long, value_name = "HOST_PATH")]
    pub(crate) output: PathBuf,
    /// Replace an existing output
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct Reset {
    /// The workspace: its id, or its name when no other has the same
    pub(crate) workspace: String,
    /// The snapshot to go back to
    #[arg(long, value_name = "NAME", default_value = BASELINE)]
    pub(crate) snapshot: String,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Snapshot {
    /// Make a snapshot; costs no copying
    #[command(after_help = "\
Examples:
  pyro workspace snapshot create parser before-upgrade")]
    Create(OfSnapshot),
    /// Show the snapshots
    #[command(after_help = "\
Examples:
  pyro workspace snapshot list parser
  pyro workspace snapshot list parser --json")]
    List(Of),
    /// Delete a snapshot
    #[command(after_help = "\
Examples:
  pyro workspace snapshot delete parser before-upgrade")]
    Delete(OfSnapshot),
}

impl Snapshot {
    fn json(&self) -> bool {
        match self {
            Self::Create(of) | Self::Delete(of) => of.json.json,
            Self::List(of) => of.json.json,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct OfSnapshot {
    /// The workspace: its id, or its name when no other has the same
    pub(crate) workspace: String,
    /// The snapshot's name
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) json: Json,
}

/// How a list of files is asked for, live and on disk.
#[derive(Debug, Args)]
pub(crate) struct ListFiles {
    /// The workspace: its id, or its name when no other has the same
    pub(crate) workspace: String,
    /// The directory; relative paths start at /workspace
    #[arg(default_value = WORKSPACE_ROOT)]
    pub(crate) path: String,
    /// Also everything beneath it
    #[arg(long)]
    pub(crate) recursive: bool,
    #[command(flatten)]
    pub(crate) json: Json,
}

/// The bound of a read.
#[derive(Debug, Args)]
pub(crate) struct MaxBytes {
    /// Read at most this much
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true, default_value_t = DEFAULT_MAX_BYTES)]
    pub(crate) max_bytes: u64,
}
