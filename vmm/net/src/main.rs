//! The network of one workspace; see [`pyro_net`].

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    pyro_net::process::main(&arguments)
}
