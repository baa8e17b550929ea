//! The monitor: one process is one VM.
//!
//! It boots an unmodified Debian kernel straight through KVM and offers the guest only what a
//! workspace needs. The process is given open descriptors and a [`config::Config`]; it opens no
//! path a user chose, links no HTTP, no TLS and no async runtime.
//!
//! # Where things are
//!
//! * [`process`]: the process `pyro-vmm`. Takes over descriptors, gives up privileges, answers
//!   the control socket ([`control`]), says why the VM ended.
//! * [`machine`]: one VM put together; start, pause, resume, stop.
//! * [`boot`], [`memory`], [`layout`]: guest RAM and what a kernel finds in it.
//! * [`vcpu`]: processors, their threads and their exits.
//! * [`bus`]: who answers an access that leaves the guest; [`power`], [`console`] and the device
//!   slots are behind it.
//! * [`virtio`]: transport, queues and devices.
//! * [`probe`]: can this KVM run a stock guest at all?
//!
//! # Rules
//!
//! * What comes from the guest is hostile from the first instruction: copied once, then checked.
//!   No panic, no spin and no unbounded memory that a guest can cause.
//! * Every thread can be parked, holding no lock and no half-done request, so that `fork(2)` can
//!   fork the VM: [`machine::Machine::pause`].
//! * `unsafe` lives in the few small modules that say so in their first lines.

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
mod report;
pub mod vcpu;
pub mod virtio;
