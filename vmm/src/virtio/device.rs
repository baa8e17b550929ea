//! The contract between a virtio device, its transport and the thread that runs it.
//!
//! A device lives in one of two types.
//!
//! * **Configured**, a [`VirtioDevice`]: it can tell its features, queue sizes and configuration
//!   space, and does nothing. The transport owns it.
//! * **Active**, an [`ActiveDevice`]: the driver said `DRIVER_OK`. It owns its queues, whose
//!   configuration is frozen, and handles events on the thread that hosts it.
//!
//! [`VirtioDevice::activate`] consumes the first and makes the second;
//! [`ActiveDevice::reset`] is the way back. There is no third state, and no lock: a device is
//! reached by whoever owns it.
//!
//! # Threads and parking
//!
//! The host thread runs an event loop: it calls [`ActiveDevice::register`] once when it takes the
//! device over, then [`ActiveDevice::process`] for each event. Between two calls the device is at
//! a *request boundary*: it holds no lock, no borrowed guest memory and no half-done request, and
//! everything about it is in its own fields. To park a device its host hands it back to the owner
//! of all devices at such a boundary and forgets its registrations; to go on, some thread (after
//! `fork(2)`, one of another process) takes it over and calls `register` again. So `register`
//! must register *everything* the device waits for, from its fields alone, and `process` must
//! return soon: work that a guest or a peer can make long is split over several events.

use std::sync::Arc;

use event_manager::{EventOps, Events};
use vm_memory::GuestMemoryMmap;

use super::interrupt::Interrupt;
use super::queue::{ActiveQueue, QueueError};

/// Guest memory, shared by all who may touch it.
pub type GuestMemory = Arc<GuestMemoryMmap<()>>;

/// A configured device that its driver has not started.
pub trait VirtioDevice: Send {
    /// The device type, from [`super::device_type`].
    fn device_type(&self) -> u32;

    /// A short name for messages and threads.
    fn name(&self) -> &'static str;

    /// The device's own feature bits. The transport adds those of [`super::feature`].
    fn features(&self) -> u64;

    /// The most entries of each queue, each a power of two. The length is the number of queues;
    /// all of them must be set up by the driver before it may start the device.
    fn queue_max_sizes(&self) -> &[u16];

    /// Reads the configuration space. It does not change during the device's life, and the
    /// driver cannot write to it. `data` beyond its end is left as it is (zeroes).
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Starts the device. Everything that can fail has been done before (in the constructor).
    fn activate(self: Box<Self>, activation: Activation) -> Box<dyn ActiveDevice>;
}

/// What the driver negotiated, handed over by value.
#[derive(Debug)]
pub struct Activation {
    /// The guest's memory.
    pub memory: GuestMemory,
    /// All queues, in the device's order, frozen.
    pub queues: Vec<ActiveQueue>,
    /// Feature bits that both sides agreed on, those of [`super::feature`] included.
    pub features: u64,
    /// The way to the driver.
    pub interrupt: Interrupt,
}

impl Activation {
    /// The queues as an array, for devices whose number of queues is fixed.
    ///
    /// # Panics
    /// When `N` is not the number of [`VirtioDevice::queue_max_sizes`]: the transport gives
    /// exactly as many queues.
    pub fn take_queues<const N: usize>(&mut self) -> [ActiveQueue; N] {
        std::mem::take(&mut self.queues)
            .try_into()
            .expect("the transport hands over every queue of the device")
    }
}

/// A running device.
pub trait ActiveDevice: Send {
    /// Registers everything the device waits for with the loop of the thread that takes it over.
    /// The kick eventfds keep kicks that came before.
    ///
    /// # Errors
    /// When a registration fails; the device then counts as broken.
    fn register(&mut self, ops: &mut EventOps<'_>) -> Result<(), DeviceError>;

    /// Handles one event of a registered descriptor. Ends at a request boundary.
    ///
    /// # Errors
    /// When the driver broke the rules or the device cannot go on. The host then stops calling,
    /// and sets `DEVICE_NEEDS_RESET`.
    fn process(&mut self, event: Events, ops: &mut EventOps<'_>) -> Result<(), DeviceError>;

    /// Makes durable what the device keeps in memory; called when the guest has ended by itself.
    ///
    /// # Errors
    /// What the host says.
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }

    /// Freezes what the device has written so far and goes on in `directory`, an empty one.
    ///
    /// # Errors
    /// `Unsupported` for devices without a writable layer; what the host says: the device then
    /// goes on as before.
    fn freeze(&mut self, directory: std::os::fd::OwnedFd) -> std::io::Result<()> {
        drop(directory);
        Err(std::io::ErrorKind::Unsupported.into())
    }

    /// Gives the configured device back: the driver has reset it. Queues, connections and open
    /// requests are dropped; what the configuration named stays.
    fn reset(self: Box<Self>) -> Box<dyn VirtioDevice>;
}

/// Why a device cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The driver put nonsense on a queue.
    #[error("the driver broke a virtqueue")]
    Queue(#[from] QueueError),
    /// Registration with the event loop failed.
    #[error("the event loop refused a descriptor")]
    EventLoop(#[source] event_manager::Error),
    /// A host resource failed.
    #[error("{what} failed")]
    Host {
        /// What was tried.
        what: &'static str,
        /// What the host said.
        #[source]
        source: std::io::Error,
    },
}

impl From<event_manager::Error> for DeviceError {
    fn from(error: event_manager::Error) -> Self {
        Self::EventLoop(error)
    }
}
