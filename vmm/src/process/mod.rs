//! The process `pyro-vmm`: one VM from its configuration to its end.
//!
//! ```text
//! pyro-vmm --config-fd N      runs the VM that the document on descriptor N describes
//! pyro-vmm probe --kvm-fd N   prints one JSON line: can this KVM run a stock guest?
//! ```
//!
//! The process gives up what it does not need before it looks at anything a guest wrote: stray
//! descriptors, the network, new privileges. It says why a VM ended in the last message on the
//! control socket; what goes wrong before there is one is said on standard error.

mod connection;
mod inherit;
mod monitor;
mod resources;
mod sandbox;
mod validate;

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Instant;

use crate::config::Config;
use crate::control::ExitReason;
use crate::probe;

pub use self::inherit::InheritError;
pub use self::validate::{HostLimits, ValidationError, validate};

const USAGE: &str = "usage: pyro-vmm --config-fd N | pyro-vmm probe --kvm-fd N
This is the monitor of one VM; `pyro` starts it.";

/// Largest configuration document.
const CONFIG_MAX: u64 = 1 << 20;
/// The exit code for a wrong command line.
const EXIT_USAGE: u8 = 2;

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Run { config_fd: i32 },
    Probe { kvm_fd: i32 },
    Help,
}

fn parse(arguments: &[String]) -> Option<Command> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--config-fd", number] => Some(Command::Run {
            config_fd: number.parse().ok()?,
        }),
        ["probe", "--kvm-fd", number] => Some(Command::Probe {
            kvm_fd: number.parse().ok()?,
        }),
        ["--help" | "-h"] => Some(Command::Help),
        _ => None,
    }
}

/// The process, from its arguments (without its name) to its exit code: 0 when the VM ended by
/// itself or by request, 1 when it failed, 2 for a wrong command line.
pub fn main(arguments: &[String]) -> ExitCode {
    let started = Instant::now();
    match parse(arguments) {
        None => {
            eprintln!("{USAGE}");
            ExitCode::from(EXIT_USAGE)
        }
        Some(Command::Help) => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Some(Command::Probe { kvm_fd }) => run_probe(kvm_fd),
        Some(Command::Run { config_fd }) => match run(config_fd, started) {
            Ok(reason) => exit_code(&reason),
            Err(error) => {
                eprintln!("pyro-vmm: {}", describe(&error));
                ExitCode::FAILURE
            }
        },
    }
}

fn exit_code(reason: &ExitReason) -> ExitCode {
    match reason {
        ExitReason::PowerOff | ExitReason::Reset | ExitReason::Stopped => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn run_probe(kvm_fd: i32) -> ExitCode {
    let kvm = inherit::adopt(kvm_fd).map(inherit::kvm);
    match kvm {
        Ok(kvm) => {
            let verdict = probe::probe(&kvm, probe::DEFAULT_TIMEOUT);
            println!(
                "{}",
                serde_json::to_string(&verdict).expect("a verdict is plain data")
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("pyro-vmm: {}", describe(&error));
            ExitCode::FAILURE
        }
    }
}

/// What prevents a VM before there is a control socket to say so.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("cannot read the configuration")]
    Read(#[source] io::Error),
    #[error("the configuration is not understood")]
    Parse(#[source] serde_json::Error),
    #[error("a descriptor of the configuration is not usable")]
    Inherit(#[from] InheritError),
    #[error("the control socket failed")]
    Control(#[source] io::Error),
}

fn run(config_fd: i32, started: Instant) -> Result<ExitReason, StartError> {
    let config = read_config(inherit::adopt(config_fd)?)?;
    let (resources, control) = inherit::take(&config)?;
    monitor::run(&config, resources, control, started).map_err(StartError::Control)
}

fn read_config(fd: OwnedFd) -> Result<Config, StartError> {
    let mut document = Vec::new();
    std::fs::File::from(fd)
        .take(CONFIG_MAX)
        .read_to_end(&mut document)
        .map_err(StartError::Read)?;
    serde_json::from_slice(&document).map_err(StartError::Parse)
}

/// An error with its causes, in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> Option<Command> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&words)
    }

    #[test]
    fn the_command_line_is_understood_or_refused() {
        assert_eq!(
            command("--config-fd 7"),
            Some(Command::Run { config_fd: 7 })
        );
        assert_eq!(
            command("probe --kvm-fd 3"),
            Some(Command::Probe { kvm_fd: 3 })
        );
        assert_eq!(command("--help"), Some(Command::Help));
        for wrong in [
            "",
            "--config-fd",
            "--config-fd x",
            "probe",
            "--config-fd 3 4",
        ] {
            assert_eq!(command(wrong), None, "{wrong}");
        }
    }
}
