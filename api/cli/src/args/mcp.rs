//! `pyro mcp …`.

use std::net::SocketAddr;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use pyro_mcp::Profile;
use pyro_mcp::hosts::Host;

#[derive(Debug, Subcommand)]
pub(crate) enum Mcp {
    /// Serve workspaces as tools to a program that speaks MCP
    #[command(after_help = "\
Examples:
  pyro mcp serve                                   On standard input and output, as hosts start it
  pyro mcp serve --profile workspace-full
  pyro mcp serve --http 127.0.0.1:8931             Streamable HTTP at /mcp, with a token

Profiles: vm-run (vm_run alone), workspace-core (what most work needs), workspace-full (networks, secrets,
services, shells, snapshots and disks as well).
Over HTTP a token is made and printed, unless PYRO_MCP_TOKEN has one.")]
    Serve(ServeMcp),
    /// Print a host's configuration with pyro among its servers, or put it there
    #[command(after_help = "\
Examples:
  pyro mcp config claude-code                      Prints it
  pyro mcp config claude-code --install            Puts it into ./.mcp.json, which keeps all else
  pyro mcp config codex --profile workspace-full --install

Hosts with a file of the project (claude-code, cursor, vscode, opencode) get it in the present
directory, so that the server starts there and relative paths mean what they say.")]
    Config(Config),
    /// Print a skill file, for agents that would rather use the command line
    #[command(after_help = "\
Examples:
  pyro mcp skill > SKILL.md")]
    Skill,
}

fn profiles() -> impl TypedValueParser<Value = Profile> {
    PossibleValuesParser::new(Profile::ALL.map(Profile::as_str))
        .try_map(|name| name.parse::<Profile>())
}

fn hosts() -> impl TypedValueParser<Value = Host> {
    let named = |name: String| Host::find(&name).ok_or("no such host");
    PossibleValuesParser::new(Host::ALL.map(Host::as_str)).try_map(named)
}

#[derive(Debug, Args)]
pub(crate) struct ServeMcp {
    /// How much the model is shown
    #[arg(long, value_parser = profiles(), default_value_t)]
    pub(crate) profile: Profile,
    /// Serve streamable HTTP on this loopback address
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) http: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct Config {
    /// The program that is to start the server
    #[arg(value_parser = hosts())]
    pub(crate) host: Host,
    /// How much the model is shown
    #[arg(long, value_parser = profiles(), default_value_t)]
    pub(crate) profile: Profile,
    /// Change the host's file instead of printing
    #[arg(long)]
    pub(crate) install: bool,
}
