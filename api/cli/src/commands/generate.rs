//! `pyro completions` and `pyro man`: made from the definition of the command line.

use std::fs;
use std::io;

use clap::CommandFactory;

use crate::args::{Cli, Completions, Man};
use crate::output::{Failure, escape, note, print_bytes};

/// Prints a shell's script.
pub(crate) fn completions(args: &Completions) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pyro", &mut script);
    print_bytes(&script)?;
    Ok(0)
}

/// Writes one page a command.
pub(crate) fn man(args: &Man) -> Result<u8, Failure> {
    let folder = &args.output;
    let shown = escape::quoted(&folder.to_string_lossy());
    let unwritable = |error: io::Error| {
        Failure::new(
            "output_unwritable",
            format!("cannot write manual pages into {shown}: {error}"),
            "pass a directory that you may write to",
        )
    };
    fs::create_dir_all(folder).map_err(unwritable)?;
    clap_mangen::generate_to(Cli::command(), folder).map_err(unwritable)?;
    note(&format!(
        "pyro: manual pages are in {shown}: man {}",
        escape::quoted(&folder.join("pyro.1").to_string_lossy())
    ));
    Ok(0)
}
