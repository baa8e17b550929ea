//! The process `pyro-net`, from its arguments to its exit code.

use std::process::ExitCode;

/// Runs the process.
pub fn main(arguments: &[String]) -> ExitCode {
    let _ = arguments;
    eprintln!("pyro-net: not usable yet");
    ExitCode::FAILURE
}
