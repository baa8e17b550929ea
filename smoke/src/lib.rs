//! The emulated KVM host, and the runner of what needs a real guest.
//!
//! Guests need a KVM that can run a stock kernel. Where the machine's own cannot, this crate boots
//! a small Debian system on QEMU's software CPU, whose nested SVM gives that system a real
//! `/dev/kvm`, and runs commands in it as if they ran here: same paths, streams, signals and exit
//! codes. It is slow, and on a machine with hardware KVM none of it is touched.
//!
//! - [`host`]: outside. Builds the system once, starts and stops it, runs commands in it.
//! - [`inside`]: inside. Process 1 and the server of commands.
//! - [`wire`] and [`flow`]: what both say to each other.
//! - [`auto`]: decides where a command runs.
//! - [`bench`]: measures boots in deterministic time.
//! - [`story`]: plays the recipe pages, through MCP, the command line and the SDK.

pub mod auto;
pub mod bench;
pub mod flow;
pub mod host;
pub mod inside;
pub mod spawn;
pub mod story;
pub mod wire;
