//! `pyro`: disposable Linux workspaces on the command line.
//!
//! This crate is the edge: it reads flags, calls the daemon (runs, workspaces) or the engine
//! (environments, doctor), and prints. It decides nothing about guests. Results go to standard output,
//! our own words to standard error; `--json` prints one document. It links statically, so it reads no
//! name services and needs nothing of the host.

mod args;
mod commands;
mod daemon;
mod environment;
mod input;
mod interrupt;
mod output;
mod progress;
mod streams;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use pyro_engine::paths::Paths;
use pyro_engine::{Code, Error};
use tokio::runtime::Runtime;

use args::{Cli, Command};
use output::{Failure, is_usage, print_error, status};

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&words) {
        Ok(cli) => cli,
        Err(error) => return usage(error, &words).into(),
    };
    let json = cli.command.json();
    let failed = if cli.command.exits_with_the_guests_status() {
        status::PRODUCT_FAILED
    } else {
        status::FAILED
    };
    match run(cli.command) {
        Ok(code) => code.into(),
        Err(failure) => report(failure, json, failed).into(),
    }
}

fn run(command: Command) -> Result<u8, Failure> {
    let paths = Paths::from_environment();
    match command {
        Command::Doctor(args) => {
            with_runtime(|runtime| runtime.block_on(commands::doctor::doctor(&args, &paths)))
        }
        Command::Env { command } => commands::env::env(command, &paths),
        Command::Run(args) => {
            with_runtime(|runtime| runtime.block_on(commands::run::run(args, &paths)))
        }
        Command::Demo(args) => {
            with_runtime(|runtime| runtime.block_on(commands::demo::demo(&args, &paths)))
        }
        Command::Workspace { command } => with_runtime(|runtime| {
            runtime.block_on(commands::workspace::workspace(command, &paths))
        }),
        // The daemon has a runtime of its own.
        Command::Serve(args) => commands::serve::serve(&args, paths),
        Command::Mcp { command } => with_runtime(|runtime| commands::mcp::mcp(command, runtime)),
        Command::Completions(args) => commands::generate::completions(&args),
        Command::Man(args) => commands::generate::man(&args),
    }
}

fn with_runtime(work: impl FnOnce(&Runtime) -> Result<u8, Failure>) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = work(&runtime);
    // A thread may still wait for standard input: leave without it.
    runtime.shutdown_background();
    result
}

/// Tells a failure and gives its exit status; `failed` is that of a failure of ours.
fn report(failure: Failure, json: bool, failed: u8) -> u8 {
    let (error, status) = match failure {
        Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return status::PIPE,
        Failure::Output(error) => {
            let told = Error::new(
                Code::Io,
                "cannot read or write pyro's own standard streams",
                "check where they are redirected to, and that its disk is not full",
            );
            (told.caused_by(error).to_api(), failed)
        }
        Failure::Interrupted(signal) => {
            let told = Error::new(
                Code::Interrupted,
                "a signal ended the command; the daemon finishes what it was asked for",
                "see what has become of it with `pyro workspace list`",
            );
            (told.to_api(), signal.exit_status())
        }
        Failure::PullInterrupted(signal) => {
            let told = Error::new(
                Code::Interrupted,
                "a signal ended the pull; nothing is half installed",
                "run it again",
            );
            (told.to_api(), signal.exit_status())
        }
        Failure::Told(error) if is_usage(&error) => (*error, status::USAGE),
        Failure::Told(error) => (*error, failed),
    };
    // Where no document can be written, words are better than nothing.
    if print_error(&error, json).is_err() {
        let _ = print_error(&error, false);
    }
    status
}

/// What is wrong with most commands for a guest that clap refuses.
fn no_dashes(words: &[OsString]) -> Option<&'static str> {
    let word = |index: usize| words.get(index).and_then(|word| word.to_str());
    match (word(1), word(2)) {
        (Some("run"), _) => Some("put the guest's command after `--`: pyro run ENV -- CMD..."),
        (Some("workspace" | "ws"), Some("exec")) => {
            Some("put the guest's command after `--`: pyro workspace exec WORKSPACE -- CMD...")
        }
        _ => None,
    }
}

/// Tells what is wrong with the command line, or shows help.
fn usage(mut error: clap::Error, words: &[OsString]) -> u8 {
    let help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    let ours = words.iter().take_while(|word| *word != "--");
    let json = ours.clone().any(|word| word == "--json");
    let mut remedy = "see the same command with --help";
    if let Some(dashes) = no_dashes(words)
        && ours.count() == words.len()
    {
        remedy = dashes;
        // In the place of clap's own, which would put the dashes before a flag.
        let tip = ContextValue::StyledStrs(vec![dashes.into()]);
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
