//! Virtio devices, as the virtio 1.2 specification has them.
//!
//! A device is written against four things and never sees a register:
//!
//! * [`device`]: the contract. A configured [`device::VirtioDevice`] is *consumed* by activation
//!   and comes back only when the driver resets it, so that nothing can be changed under its feet.
//! * [`queue`]: frozen virtqueues that yield checked descriptor [`queue::Chain`]s: every segment
//!   lies in guest memory, lengths add up, chains end, readable parts come first.
//! * [`interrupt`]: how a device tells the driver that something happened.
//! * [`iovec`]: reads and writes straight between host descriptors and guest memory.
//!
//! What the driver wrote into memory is hostile. Whoever finds it broken returns an error from
//! [`device::ActiveDevice::process`]; the device is then stopped, and the driver is told that it
//! needs a reset (virtio 1.2 §2.1.2).

pub mod device;
pub mod fs;
pub mod host;
pub mod interrupt;
pub mod iovec;
pub mod mmio;
pub mod net;
pub mod queue;
pub mod rng;
#[cfg(test)]
pub(crate) mod test_driver;
pub mod vsock;

/// Device types (virtio 1.2 §5).
pub mod device_type {
    /// Network device (§5.1).
    pub const NETWORK: u32 = 1;
    /// Console device (§5.3).
    pub const CONSOLE: u32 = 3;
    /// Entropy device (§5.4).
    pub const ENTROPY: u32 = 4;
    /// Socket device (§5.10).
    pub const SOCKET: u32 = 19;
    /// File system device (§5.11).
    pub const FILE_SYSTEM: u32 = 26;
}

/// Feature bits that the transport and the queues handle for every device (virtio 1.2 §6).
pub mod feature {
    /// `VIRTIO_F_INDIRECT_DESC`: a descriptor may point to a table of descriptors.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// `VIRTIO_F_EVENT_IDX`: notifications are suppressed by ring index.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// `VIRTIO_F_VERSION_1`: not a legacy device; required.
    pub const VERSION_1: u64 = 1 << 32;
}
