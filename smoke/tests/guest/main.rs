//! What needs a real guest: the real `pyro`, booting stock Debian, on a host whose KVM can.
//!
//! Runs where `PYRO_BIN` names the program `pyro` (its helpers beside it) and `PYRO_IMAGE_DIR` a
//! store with debian:12, debian:12-base and debian:13-base. Without them, every test is ignored
//! with the reason. On a machine without such a KVM run this binary in the emulated host:
//!
//! ```text
//! pyro-smoke run -- env PYRO_BIN=target/…/release/pyro target/…/release/deps/guest-…
//! ```
//!
//! Each boot costs seconds there, so one boot proves as much as fits together.

mod commands;
mod daemon;
mod endings;
mod hangs;
mod kills;
mod living;
mod pyro;
mod root;
mod scale;
mod sizes;
mod workspaces;

use libtest_mimic::{Arguments, Trial};

fn main() -> std::process::ExitCode {
    let mut arguments = Arguments::from_args();
    // Guests are real work: one for each processor, two at most, since they share a disk.
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    arguments.test_threads = arguments.test_threads.or(Some(processors.min(2)));
    let missing = pyro::missing();
    if let Some(missing) = &missing {
        eprintln!("guest: all tests are ignored: {missing}");
    }
    let tests = [
        commands::tests(),
        sizes::tests(),
        root::tests(),
        endings::tests(),
        workspaces::tests(),
        hangs::tests(),
        living::tests(),
        scale::tests(),
        kills::tests(),
    ];
    let tests = tests.into_iter().flatten().map(|(name, test)| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    });
    let conditional = endings::conditional_tests()
        .into_iter()
        .map(|(name, test)| Trial::ignorable_test(name, move || Ok(test())));
    let trials = tests
        .chain(conditional)
        .map(|trial| trial.with_ignored_flag(missing.is_some()))
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
