//! The monitor's process; see [`pyro_vmm::process`].

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    pyro_vmm::process::main(&arguments)
}
