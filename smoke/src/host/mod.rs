//! The emulated host from outside.
//!
//! A *supervisor* process owns QEMU and the file servers, so that none of them outlives it. Any
//! number of clients run commands in the host over connections of their own. All state of a
//! running host is in one directory, and locks there say who is alive: nothing depends on a
//! process having been able to clean up.

pub mod bench;
pub mod client;
pub mod dirs;
pub mod initramfs;
pub mod machine;
pub mod shares;
pub mod signals;
pub mod start;
pub mod streams;
pub mod supervise;
pub mod system;
pub mod terminal;

pub use dirs::HostDir;
pub use shares::Shares;
