//! The program `pyro-agent`; see the library for what it is.

#![no_main] // Rust's own start-up needs /dev/null, which a booting guest does not have yet.

/// The C entry point.
#[allow(unsafe_code)] // The symbol's name is what the C runtime calls; nothing else defines it.
#[unsafe(no_mangle)]
extern "C" fn main(_argc: i32, _argv: *const *const u8) -> i32 {
    pyro_agent::run(std::env::args().skip(1))
}
