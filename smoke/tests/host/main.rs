//! The emulated host from a user's side: the real program, the real QEMU.
//!
//! These tests need minutes and the packages that `make deps` installs, so they run when
//! `PYRO_TEST_HOST` is set, as `make test` does, and count as ignored otherwise.

#![allow(clippy::unwrap_used)] // nothing but tests

mod faithful;
mod lifetime;
mod support;
mod virtual_time;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let wanted =
        std::env::var_os("PYRO_TEST_HOST").is_some_and(|value| !value.is_empty() && value != "0");
    let arguments = Arguments::from_args();
    if !wanted && !arguments.list {
        println!(
            "the emulated host's tests are ignored: PYRO_TEST_HOST is not set (`make test` sets it)"
        );
    }
    let tests = faithful::TESTS
        .iter()
        .chain(lifetime::TESTS)
        .chain(virtual_time::TESTS);
    let trials = tests
        .map(|(name, test)| {
            Trial::test(*name, move || {
                test();
                Ok(())
            })
            .with_ignored_flag(!wanted)
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}
