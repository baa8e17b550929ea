//! The engine: everything host-side above the monitor and below the command line.
//!
//! It decides whether a VM may be made ([`limits`], [`kvm`]), makes one and ends it
//! ([`machine`]), runs a command in it ([`exec`], [`oneshot`]), and says what is wrong with this
//! host ([`doctor`]). All it knows of places comes from [`paths`]. What fails, fails with an
//! [`Error`] that has a code and a remedy.
//!
//! It prints nothing and reads no flags; progress goes to callbacks. It never runs a guest's command
//! on the host. Whatever it makes on disk is in the state directory and goes with the VM that needed
//! it ([`run_dir`]).

mod agent;
pub mod capture;
pub mod doctor;
pub mod engine;
pub mod environments;
pub mod error;
pub mod exec;
pub mod kvm;
pub mod limits;
pub mod machine;
pub mod oneshot;
pub mod patch;
pub mod paths;
mod records;
mod redact;
pub mod run_dir;
mod terminal;
#[cfg(test)]
mod testing;

pub use engine::{Cidr, Engine, ExecStream, Options, Rendered, RunStream, ShellStream, check_run};
pub use error::{Code, Error, Kind, Result};
