//! `pyro`: disposable Linux workspaces on the command line.
//!
//! This crate is the edge: it reads flags, calls the engine, and prints. It decides nothing about
//! guests. Results go to standard output, our own words to standard error; `--json` prints one
//! document. It links statically, so it reads no name services and needs nothing of the host.

mod args;
mod commands;
mod environment;
mod interrupt;
mod output;
mod progress;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use pyro_engine::paths::Paths;
use pyro_engine::{Code, Error};
use tokio::runtime::Runtime;

use args::{Cli, Command};
use output::{Failure, print_error, status};

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&words) {
        Ok(cli) => cli,
        Err(error) => return usage(error, &words).into(),
    };
    let json = wants_json(&cli.command);
    let for_failure = match &cli.command {
        Command::Run(_) | Command::Demo(_) => commands::run::failure_status,
        _ => |_: &Error| status::FAILED,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let code = match runtime {
        Ok(runtime) => {
            let result = dispatch(cli.command, &runtime);
            // A thread may still wait for standard input: leave without it.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(Failure::Output(error)),
    };
    match code {
        Ok(code) => code.into(),
        Err(failure) => report(failure, json, for_failure).into(),
    }
}

fn dispatch(command: Command, runtime: &Runtime) -> Result<u8, Failure> {
    let paths = Paths::from_environment();
    match command {
        Command::Doctor(args) => runtime.block_on(commands::doctor::doctor(&args, &paths)),
        Command::Env { command } => commands::env::env(command, &paths),
        Command::Run(args) => commands::run::run(args, &paths, runtime),
        Command::Demo(args) => commands::demo::demo(&args, &paths, runtime),
    }
}

fn wants_json(command: &Command) -> bool {
    match command {
        Command::Doctor(args) => args.json.json,
        Command::Env { command } => command.json(),
        Command::Run(args) => args.json.json,
        Command::Demo(_) => false,
    }
}

/// Tells a failure and gives its exit status.
fn report(failure: Failure, json: bool, status_of: fn(&Error) -> u8) -> u8 {
    let error = match failure {
        Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return status::PIPE,
        Failure::Output(error) => Error::new(
            Code::Io,
            "cannot read or write pyro's own standard streams",
            "check where they are redirected to, and that its disk is not full",
        )
        .caused_by(error),
        Failure::Engine(error) => *error,
    };
    // Where no document can be written, words are better than nothing.
    if print_error(&error, json).is_err() {
        let _ = print_error(&error, false);
    }
    status_of(&error)
}

/// What is wrong with most runs that clap refuses.
const NO_DASHES: &str = "put the guest's command after `--`: pyro run ENV -- CMD...";

/// Tells what is wrong with the command line, or shows help.
fn usage(mut error: clap::Error, words: &[OsString]) -> u8 {
    let help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    let ours = words.iter().take_while(|word| *word != "--");
    let json = ours.clone().any(|word| word == "--json");
    let mut remedy = "see the same command with --help";
    if words.get(1).is_some_and(|word| word == "run") && ours.count() == words.len() {
        remedy = NO_DASHES;
        // In the place of clap's own, which would put the dashes before a flag.
        let tip = ContextValue::StyledStrs(vec![NO_DASHES.into()]);
        error.insert(ContextKind::Suggested, tip);
    }
    if json && !help {
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default();
        let line = line.strip_prefix("error: ").unwrap_or(line);
        let document = serde_json::json!({
            "error": {"code": "usage", "message": line, "remedy": remedy}
        });
        let _ = output::print_json(&document);
    } else {
        let _ = error.print();
    }
    if help { 0 } else { status::USAGE }
}
