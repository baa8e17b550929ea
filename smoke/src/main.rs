//! The command `pyro-smoke`. See the library for what it does.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Result, bail, ensure};
use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};
use pyro_smoke::auto::{self, Kvm};
use pyro_smoke::bench as boots;
use pyro_smoke::host::{HostDir, Shares, bench, client, start, supervise, terminal};
use pyro_smoke::inside;
use pyro_smoke::story::play::Stage;
use pyro_smoke::story::report::Report;
use pyro_smoke::story::surface::Via;
use pyro_smoke::story::{STORIES, Story};
use pyro_smoke::wire::{Exec, Size};

/// Exit code of a failure of ours, as opposed to one of the command's.
const FAILED: u8 = 125;

#[derive(Parser)]
#[command(
    name = "pyro-smoke",
    version,
    about = "Runs what needs a real guest, on an emulated KVM host where the machine's own KVM cannot"
)]
enum Cli {
    /// The emulated KVM host
    #[command(subcommand)]
    Host(HostCommand),
    /// Runs a command here when KVM here can run a stock guest, else in the emulated host
    #[command(after_help = "Example: pyro-smoke run -- target/release/pyro doctor")]
    Run(RunArgs),
    /// Measures cold boots, memory, exits and sizes in deterministic time
    #[command(after_help = "Example: pyro-smoke bench --json")]
    Bench(MeasureArgs),
    /// Plays the stories of the recipe pages against real guests
    #[command(
        after_help = "Examples:\n  pyro-smoke run -- target/release/pyro-smoke story\n  pyro-smoke run -- target/release/pyro-smoke story repro-fix-loop --via cli"
    )]
    Story(StoryArgs),
    /// What `bench` runs inside
    #[command(hide = true)]
    Measure(MeasureArgs),
}

#[derive(Args)]
struct MeasureArgs {
    /// Prints a JSON document instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct StoryArgs {
    /// Which [default: all]
    #[arg(value_name = "STORY", value_parser = PossibleValuesParser::new(STORIES.map(|story| story.name)))]
    stories: Vec<String>,
    /// The environment that its workspaces are made from
    #[arg(long, default_value = "debian:12", value_name = "ENV")]
    environment: String,
    /// What it is played through
    #[arg(long, value_enum, default_value = "mcp")]
    via: Via,
    /// How many are played at a time [default: one a processor]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// The folder with the recipes
    #[arg(long, default_value = "recipes", value_name = "DIR")]
    recipes: PathBuf,
    /// Where the transcript and the logs of one that fails are kept
    #[arg(long, default_value = "/var/tmp/pyro-stories", value_name = "DIR")]
    keep: PathBuf,
}

#[derive(Subcommand)]
enum HostCommand {
    /// Starts it and keeps it for further commands; builds it first when needed
    #[command(after_help = "Example: pyro-smoke host start")]
    Start,
    /// Stops it; returns when all its processes have ended
    Stop,
    /// Says whether it runs (exit code 0) or not (3), and what it shares
    Status,
    /// Runs a command in it, starting it first when it is not running
    #[command(
        after_help = "Example: pyro-smoke host exec --env RUST_LOG=debug -- target/release/pyro run debian:12 -- git --version"
    )]
    Exec(ExecArgs),
    /// Opens a shell in it
    Shell,
    /// Runs a command in a fresh host in deterministic time, one nanosecond an instruction
    #[command(
        after_help = "Example: pyro-smoke host bench --file target/release/bench=/tmp/bench -- /tmp/bench"
    )]
    Bench(BenchArgs),
    /// What `start` runs in the background
    #[command(hide = true)]
    Supervise,
}

#[derive(Args)]
struct RunArgs {
    /// The command
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

#[derive(Args)]
struct ExecArgs {
    /// Sets an environment variable
    #[arg(long = "env", value_name = "K=V")]
    environment: Vec<OsString>,
    /// Working directory inside [default: the current one where it is shared, else /root]
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// The command
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

#[derive(Args)]
struct BenchArgs {
    /// Copies a file in before the command runs, to a folder that is in memory (/tmp, /run, /dev/shm)
    #[arg(long = "file", value_name = "SRC=DST")]
    files: Vec<OsString>,
    /// Sets an environment variable
    #[arg(long = "env", value_name = "K=V")]
    environment: Vec<OsString>,
    /// Memory of the host in MiB
    #[arg(long, default_value_t = 4096, value_name = "MIB")]
    mem_mib: u64,
    /// The command
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    if rustix::process::getpid().is_init() && arguments.next().is_some_and(|name| name == "/init") {
        inside::init::run();
    }
    if std::env::args_os()
        .nth(1)
        .is_some_and(|first| first == inside::serve::ARGUMENT)
    {
        let channel = std::env::args_os().nth(2).is_some();
        return finish(inside::serve::run(channel).map(|()| ExitCode::SUCCESS));
    }
    finish(run(Cli::parse()))
}

fn finish(result: Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("pyro-smoke: {error:#}");
        ExitCode::from(FAILED)
    })
}

fn say(line: &str) {
    eprintln!("pyro-smoke: {line}");
}

fn run(cli: Cli) -> Result<ExitCode> {
    if let Cli::Measure(MeasureArgs { json }) = cli {
        return boots::measure::run(json).map(|()| ExitCode::SUCCESS);
    }
    if let Cli::Story(args) = cli {
        return story(args);
    }
    let host = HostDir::from_environment()?;
    match cli {
        Cli::Measure(_) | Cli::Story(_) => unreachable!("they need no host"),
        Cli::Bench(MeasureArgs { json }) => {
            Ok(boots::run(&host, &auto::image_dir(), json, &mut say)?.imitate())
        }
        Cli::Run(RunArgs { command }) => match auto::probe()? {
            Kvm::Usable => {
                let (program, arguments) =
                    command.split_first().expect("clap wants one word at least");
                let error = Command::new(program).args(arguments).exec();
                eprintln!("pyro-smoke: {}: {error}", program.display());
                Ok(ExitCode::from(
                    if error.kind() == std::io::ErrorKind::NotFound {
                        127
                    } else {
                        126
                    },
                ))
            }
            Kvm::Unusable(why) => {
                eprintln!("{}", auto::notice(&why));
                in_host(&host, command, Vec::new(), None, None)
            }
        },
        Cli::Host(HostCommand::Start) => {
            let shares = Shares::of_project(&auto::image_dir())?;
            let lease = start::lease(&host, &start::settings(shares)?, &mut say)?;
            client::ping(&lease.state)?;
            say("the emulated host runs");
            Ok(ExitCode::SUCCESS)
        }
        Cli::Host(HostCommand::Stop) => {
            say(if start::stop(&host)? {
                "the emulated host is stopped"
            } else {
                "no emulated host was running"
            });
            Ok(ExitCode::SUCCESS)
        }
        Cli::Host(HostCommand::Status) => status(&host),
        Cli::Host(HostCommand::Exec(ExecArgs {
            environment,
            cwd,
            command,
        })) => in_host(&host, command, pairs(&environment)?, cwd, None),
        Cli::Host(HostCommand::Shell) => {
            let Some(size) = terminal::size() else {
                bail!("a shell needs a terminal; use `pyro-smoke host exec` without one")
            };
            let terminal = std::env::var_os("TERM").unwrap_or_else(|| "linux".into());
            in_host(
                &host,
                vec!["bash".into(), "-l".into()],
                vec![("TERM".into(), terminal)],
                None,
                Some(size),
            )
        }
        Cli::Host(HostCommand::Bench(BenchArgs {
            files,
            environment,
            mem_mib,
            command,
        })) => {
            let files: Vec<(PathBuf, PathBuf)> = pairs(&files)?
                .into_iter()
                .map(|(from, to)| (from.into(), to.into()))
                .collect();
            ensure!(
                (256..=1 << 20).contains(&mem_mib),
                "--mem-mib must be from 256 to 1048576"
            );
            let exec = Exec {
                argv: command,
                env: pairs(&environment)?,
                ..Exec::default()
            };
            Ok(bench::run(&host, &files, mem_mib, exec, &mut say)?.imitate())
        }
        Cli::Host(HostCommand::Supervise) => supervise::run(&host).map(|()| ExitCode::SUCCESS),
    }
}

/// Plays stories; the exit code is 1 when one fails.
fn story(args: StoryArgs) -> Result<ExitCode> {
    let program = match std::env::var_os("PYRO_BIN") {
        Some(program) => program.into(),
        None => std::env::current_exe()?.with_file_name("pyro"),
    };
    let wanted = |story: &Story| {
        args.stories.is_empty() || args.stories.iter().any(|name| name == story.name)
    };
    let stories: Vec<Story> = STORIES.into_iter().filter(wanted).collect();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = args.jobs.unwrap_or(processors).clamp(1, stories.len());
    let stage = Stage {
        recipes: std::path::absolute(&args.recipes)?,
        program,
        environment: args.environment,
        via: args.via,
        keep: args.keep,
    };
    let report = Report { several: jobs > 1 };
    Ok(ExitCode::from(u8::from(
        stage.play_all(&stories, jobs, report) > 0,
    )))
}

/// Runs a command in the host as if it ran here.
fn in_host(
    host: &HostDir,
    argv: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    cwd: Option<PathBuf>,
    terminal: Option<Size>,
) -> Result<ExitCode> {
    let image_dir = auto::image_dir();
    let shares = Shares::of_project(&image_dir)?;
    let lease = start::lease(host, &start::settings(shares)?, &mut say)?;
    let here = || {
        std::env::current_dir()
            .ok()
            .filter(|here: &PathBuf| lease.state.shares.covers(Path::new(here)))
    };
    let mut env = auto::environment(&image_dir);
    env.extend(environment);
    let exec = Exec {
        argv,
        env,
        cwd: cwd.or_else(here),
        terminal,
        deferred: false,
    };
    let ending = client::run(host, &lease, exec)?;
    drop(lease);
    Ok(ending.imitate())
}

fn pairs(words: &[OsString]) -> Result<Vec<(OsString, OsString)>> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let split = |word: &OsString| {
        let bytes = word.as_bytes();
        let at = bytes
            .iter()
            .position(|byte| *byte == b'=')
            .filter(|at| *at > 0);
        match at {
            Some(at) => Ok((
                OsString::from_vec(bytes[..at].to_vec()),
                OsString::from_vec(bytes[at + 1..].to_vec()),
            )),
            None => bail!("{}: expected NAME=VALUE", word.display()),
        }
    };
    words.iter().map(split).collect()
}

fn status(host: &HostDir) -> Result<ExitCode> {
    let Some(state) = host.state().filter(|_| host.is_alive().unwrap_or(false)) else {
        println!("not running");
        return Ok(ExitCode::from(3));
    };
    client::ping(&state)?;
    println!(
        "running for {} s, supervisor {}",
        state.since.elapsed().unwrap_or_default().as_secs(),
        state.pid
    );
    for share in state.shares.paths() {
        println!("shares {}", share.display());
    }
    Ok(ExitCode::SUCCESS)
}
