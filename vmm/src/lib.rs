//! The monitor: one process is one VM.
//!
//! It boots an unmodified Debian kernel straight through KVM and offers the guest only what a
//! workspace needs. The process is given open descriptors and a [`config::Config`]; it opens no
//! path a user chose, links no HTTP, no TLS and no async runtime.

pub mod config;
pub mod control;
pub mod layout;
pub mod memory;
pub mod probe;
pub mod vcpu;
pub mod virtio;
