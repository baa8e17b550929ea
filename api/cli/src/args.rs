//! The command line: what may be typed, and the help that teaches it.
//!
//! Values that only this host can judge (how much memory there is) are checked by the engine; what
//! is wrong on any host is refused here. Every page shows an example.

use std::ffi::OsString;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  pyro doctor                              Check this machine
  pyro run debian:12 -- git --version      Run one command in a fresh virtual machine
  pyro demo                                See it work, with explanations

Exit status: 0 success, 1 failure, 2 usage error; `pyro run` exits with the guest's status.";

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
    /// Whether JSON is asked for.
    pub(crate) fn json(&self) -> bool {
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

/// What the guest may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Network {
    /// No network device at all
    Off,
    /// Outgoing connections (not available yet)
    Egress,
    /// Outgoing connections and published ports (not available yet)
    #[value(name = "egress+published-ports")]
    EgressPublishedPorts,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// The environment to show it with
    #[arg(value_name = "ENV", default_value = "debian:12")]
    pub(crate) environment: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn walk(command: &clap::Command, path: &str, check: &mut impl FnMut(&clap::Command, &str)) {
        let path = format!("{path} {}", command.get_name());
        check(command, &path);
        for sub in command.get_subcommands() {
            walk(sub, &path, check);
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_page_has_an_example_of_itself() {
        walk(&Cli::command(), "", &mut |command, path| {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(help.contains("Examples:"), "{path}");
            assert!(help.contains(path.trim()), "{path}");
        });
    }

    #[test]
    fn every_example_parses() {
        walk(&Cli::command(), "", &mut |command, path| {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            let lines = help.lines().filter_map(|line| line.strip_prefix("  "));
            for line in lines {
                // The command ends where its explanation starts, and the guest's part is free text.
                let line = line.split("   ").next().unwrap_or_default();
                let line = line.split_once("| ").map_or(line, |(_, command)| command);
                let words: Vec<&str> = line.split_whitespace().collect();
                if words.len() > 1 {
                    Cli::try_parse_from(&words).unwrap_or_else(|e| panic!("{path}: {line}: {e}"));
                }
            }
        });
    }

    #[test]
    fn the_defaults_are_the_contracts() {
        let cli = Cli::try_parse_from(["pyro", "run", "debian:12", "--", "a", "--json"]).unwrap();
        let Command::Run(run) = cli.command else {
            panic!("run")
        };
        let numbers = (
            run.vcpu_count,
            run.mem_mib,
            run.timeout_seconds,
            run.ttl_seconds,
        );
        assert_eq!(numbers, (1, 1024, 30, 600));
        assert_eq!(run.network, Network::Off);
        assert!(!run.json.json);
        assert_eq!(run.command, ["a", "--json"]);
    }

    #[test]
    fn a_command_needs_the_two_dashes() {
        assert!(Cli::try_parse_from(["pyro", "run", "debian:12", "git"]).is_err());
        assert!(Cli::try_parse_from(["pyro", "run", "debian:12", "--"]).is_err());
    }
}
