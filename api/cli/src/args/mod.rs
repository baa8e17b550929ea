//! The command line: what may be typed, and the help that teaches it.
//!
//! Values that only this host can judge (how much memory there is) are checked by the engine; what
//! is wrong on any host is refused here. Every page shows an example.

mod files;
mod living;
mod mcp;
#[cfg(test)]
mod tests;
mod values;
mod workspace;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

pub(crate) use files::{Disk, File, Patch, Sync, WriteFile};
pub(crate) use living::{Service, Shell as WorkspaceShell, StartService};
pub(crate) use mcp::{Config, Mcp, ServeMcp};
pub(crate) use values::{Label, Network, SecretFile, SecretValue, SecretVariable};
pub(crate) use workspace::{Create, Exec, Export, ListFiles, Reset, Snapshot, Update, Workspace};

const EXAMPLES: &str = "\
Examples:
  pyro doctor                              Check this machine
  pyro run debian:12 -- git --version      Run one command in a fresh virtual machine
  pyro workspace create debian:12 --seed-path . --name parser
  pyro workspace exec parser -- ls -la     Run a command in a workspace that stays
  pyro demo                                See it work, with explanations

Exit status: 0 success, 1 failure, 2 usage error; `pyro run` and `pyro workspace exec` exit with
the guest's status.";

/// Disposable Linux workspaces: each one a microVM booted from a curated Debian environment.
#[derive(Debug, Parser)]
#[command(name = "pyro", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check whether this machine can run guests, and say what to do when it cannot
    #[command(after_help = "\
Examples:
  pyro doctor
  pyro doctor --environment debian:12      Also say whether it is cold, warm or stale
  pyro doctor --json

Exit status: 0 when nothing failed (warnings are allowed), 1 when a check failed.")]
    Doctor(Doctor),
    /// List, install and remove the curated Debian environments
    #[command(
        arg_required_else_help = true,
        after_help = "\
Examples:
  pyro env list
  pyro env pull debian:12
  pyro env inspect debian:12 --json
  pyro env prune"
    )]
    Env {
        #[command(subcommand)]
        command: Env,
    },
    /// Boot a fresh virtual machine, run one command in it, and leave nothing behind
    #[command(after_help = "\
Examples:
  pyro run debian:12 -- git --version
  pyro run debian:12 -- sh -c 'echo hello; exit 7'          Exits 7
  echo 'print(6 * 7)' | pyro run debian:12 -- python3 -     Standard input is passed on
  pyro run debian:12 --network egress -- apt-get update
  pyro run debian:12 --mem-mib 2048 --timeout-seconds 120 --json -- python3 -V

The environment is pulled first when it is not installed.
Exit status: that of the guest's command; 128 + n when signal n ended it; 124 when it timed out;
126 or 127 when it cannot be executed or found; 125 when pyro itself failed; 2 for a usage error.")]
    Run(Run),
    /// Prove the whole path once, from boot to clean-up, with explanations
    #[command(after_help = "\
Examples:
  pyro demo
  pyro demo debian:13")]
    Demo(Demo),
    /// Workspaces: Linux machines to explore, change, test in, reset, and throw away
    #[command(
        visible_alias = "ws",
        arg_required_else_help = true,
        after_help = "\
Examples:
  pyro workspace create debian:12 --seed-path . --name parser
  pyro workspace exec parser -- ls -la
  pyro workspace diff parser
  pyro ws list                             The short form
  pyro ws delete parser

A workspace is meant by its id, or by its name when no other has the same."
    )]
    Workspace {
        #[command(subcommand)]
        command: Workspace,
    },
    /// Run the API daemon in this terminal; other commands start it by themselves
    #[command(after_help = "\
Examples:
  pyro serve

The daemon listens on api.sock in the state directory. Ctrl-C ends it; workspaces go on running, and
the next daemon finds them. It logs into daemon.log there; PYRO_LOG=debug makes it say more.")]
    Serve(Serve),
    /// Give models workspaces as tools: the MCP server, and hosts' configuration for it
    #[command(
        arg_required_else_help = true,
        after_help = "\
Examples:
  pyro mcp config claude-code --install
  pyro mcp config codex
  pyro mcp serve --profile workspace-core"
    )]
    Mcp {
        #[command(subcommand)]
        command: Mcp,
    },
    /// Print a script that completes pyro's commands in a shell
    #[command(after_help = "\
Examples:
  pyro completions bash > ~/.local/share/bash-completion/completions/pyro
  pyro completions zsh > ~/.zfunc/_pyro
  pyro completions fish > ~/.config/fish/completions/pyro.fish")]
    Completions(Completions),
    /// Write the manual pages into a directory
    #[command(after_help = "\
Examples:
  pyro man --output ~/.local/share/man/man1")]
    Man(Man),
}

impl Command {
    /// Whether JSON is asked for.
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::Doctor(args) => args.json.json,
            Self::Env { command } => command.json(),
            Self::Run(args) => args.json.json,
            Self::Workspace { command } => command.json(),
            Self::Demo(_)
            | Self::Serve(_)
            | Self::Mcp { .. }
            | Self::Completions(_)
            | Self::Man(_) => false,
        }
    }

    /// Whether the exit status is a guest command's.
    pub(crate) fn exits_with_the_guests_status(&self) -> bool {
        matches!(
            self,
            Self::Run(_)
                | Self::Demo(_)
                | Self::Workspace {
                    command: Workspace::Exec(_)
                }
        )
    }
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Also say of this environment whether it is cold, warm or stale
    #[arg(long, value_name = "ENV")]
    pub(crate) environment: Option<String>,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Env {
    /// Show every environment and whether it is installed
    #[command(after_help = "\
Examples:
  pyro env list
  pyro env list --json

States: cold (not installed), warm (ready), stale (installed from an older recipe), damaged.")]
    List(Json),
    /// Install an environment, or repair or renew an installed one
    #[command(after_help = "\
Examples:
  pyro env pull debian:12
  pyro env pull debian:13-build --json

Built with mmdebstrap from this machine's configured Debian mirror. A pull that is interrupted
leaves what was installed before as it was.")]
    Pull(Name),
    /// Show what an environment is made of
    #[command(after_help = "\
Examples:
  pyro env inspect debian:12
  pyro env inspect debian:12 --json")]
    Inspect(Name),
    /// Remove what no environment of this version needs
    #[command(after_help = "\
Examples:
  pyro env prune
  pyro env prune --json

Running guests are not disturbed.")]
    Prune(Json),
}

impl Env {
    fn json(&self) -> bool {
        match self {
            Self::List(json) | Self::Prune(json) => json.json,
            Self::Pull(name) | Self::Inspect(name) => name.json.json,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Json {
    /// Print one JSON document on standard output, and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Name {
    /// The environment, such as debian:12 (see `pyro env list`)
    #[arg(value_name = "ENV")]
    pub(crate) environment: String,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The environment, such as debian:12 (see `pyro env list`)
    #[arg(value_name = "ENV")]
    pub(crate) environment: String,
    /// Virtual CPUs
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        default_value_t = 1
    )]
    pub(crate) vcpu_count: u64,
    /// Memory of the virtual machine in MiB
    #[arg(
        long,
        value_name = "MIB",
        allow_negative_numbers = true,
        default_value_t = 1024
    )]
    pub(crate) mem_mib: u64,
    /// Kill the command, with all it started, after this time (exit status 124)
    #[arg(
        long,
        value_name = "SECONDS",
        allow_negative_numbers = true,
        default_value_t = 30
    )]
    pub(crate) timeout_seconds: u64,
    /// End the whole virtual machine after this time
    #[arg(
        long,
        value_name = "SECONDS",
        allow_negative_numbers = true,
        default_value_t = 600
    )]
    pub(crate) ttl_seconds: u64,
    /// What the guest may reach
    #[arg(long, value_enum, value_name = "POLICY", default_value_t = Network::Off)]
    pub(crate) network: Network,
    #[command(flatten)]
    pub(crate) json: Json,
    /// The command and its arguments, after `--`
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// The environment to show it with
    #[arg(value_name = "ENV", default_value = "debian:12")]
    pub(crate) environment: String,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Started by another command: announce readiness, end when idle
    #[arg(long, hide = true)]
    pub(crate) on_demand: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The directory; made when it does not exist
    #[arg(long, value_name = "DIR")]
    pub(crate) output: PathBuf,
}

/// A workspace, and nothing else to say.
#[derive(Debug, Args)]
pub(crate) struct Of {
    /// The workspace: its id, or its name when no other has the same
    pub(crate) workspace: String,
    #[command(flatten)]
    pub(crate) json: Json,
}
