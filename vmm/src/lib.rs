//! The monitor: one process is one VM.
//!
//! It boots an unmodified Debian kernel straight through KVM and offers the guest only what a
//! workspace needs. The process is given open descriptors and a [`config::Config`]; it opens no
//! path a user chose, links no HTTP, no TLS and no async runtime.

pub mod boot;
pub mod bus;
pub mod config;
pub mod console;
pub mod control;
pub mod exit_latch;
pub mod layout;
pub mod machine;
pub mod memory;
pub mod power;
pub mod probe;
pub mod process;
pub mod vcpu;
pub mod virtio;
