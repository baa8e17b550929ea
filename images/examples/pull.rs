//! Pulls one environment into a directory: `pull DIR ENVIRONMENT`.

use std::process::ExitCode;

use pyro_images::pull::{Phase, Progress};
use pyro_images::{Catalogue, Error, Store};

struct Lines(Option<Phase>);

impl Progress for Lines {
    fn phase(&mut self, phase: Phase) {
        if self.0.replace(phase) != Some(phase) {
            eprintln!("{}", phase.label());
        }
    }

    fn advance(&mut self, _: u64, _: Option<u64>) {}
}

fn run(directory: &str, name: &str) -> Result<(), Error> {
    let recipe = Catalogue::builtin().recipe(name)?;
    let outcome = pyro_images::pull(&Store::new(directory), recipe, &mut Lines(None))?;
    let manifest = outcome.manifest;
    println!(
        "{name}: {:?}, kernel {}, {} MiB",
        outcome.done,
        manifest.kernel.release,
        manifest.size() >> 20
    );
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, name] = arguments.as_slice() else {
        eprintln!("usage: pull DIR ENVIRONMENT");
        return ExitCode::from(2);
    };
    match run(directory, name) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error[{}]: {error}", error.code());
            let mut cause = std::error::Error::source(&error);
            while let Some(inner) = cause {
                eprintln!("  because: {inner}");
                cause = inner.source();
            }
            eprintln!("  fix: {}", error.remedy());
            ExitCode::FAILURE
        }
    }
}
