//! The virtio-mmio transport, version 2 (virtio 1.2 §4.2.2), as an explicit status machine.
//!
//! A driver walks through the phases of virtio 1.2 §3.1 and can only go forward, or back to the
//! start by a reset:
//!
//! ```text
//! Reset -> Acknowledged -> Driver -> FeaturesOk -> Running
//! ```
//!
//! What it may write depends on the phase: feature bits in `Driver`, queue registers in
//! `FeaturesOk`, nothing but `QueueNotify`, `InterruptACK` and `Status` when `Running`. Every
//! other write is ignored. In `Running` the queues have been moved into the device, so there is
//! nothing left that a write could change. Reads of what does not exist give 0; registers are 32
//! bits wide and any other access to them is ignored.
//!
//! Kicks normally do not come here: KVM turns a write to `QueueNotify` into an eventfd. These
//! eventfds exist from the start and keep what comes before activation, so no kick is lost.

mod registers;
#[cfg(test)]
mod tests;

use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

use self::registers::{Register, status};
use super::device::{Activation, GuestMemory, VirtioDevice};
use super::feature;
use super::host::DeviceHost;
use super::interrupt::Interrupt;
use super::queue::{ActiveQueue, QueueError};
use crate::layout::Slot;
use crate::report;

pub use self::registers::QUEUE_NOTIFY;

/// `MagicValue`: "virt".
const MAGIC: u32 = 0x7472_6976;
/// `Version`: not legacy.
const VERSION: u32 = 2;
/// `VendorID`: "PYRO".
const VENDOR: u32 = 0x4f52_5950;
/// Where the configuration space begins.
const CONFIG_START: u64 = 0x100;
/// As much configuration space as any of our devices has.
const CONFIG_SIZE: usize = 256;
/// What the transport and the queues offer for every device.
const TRANSPORT_FEATURES: u64 = feature::VERSION_1 | feature::EVENT_IDX | feature::INDIRECT_DESC;

/// How far the driver has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Reset,
    Acknowledged,
    Driver,
    FeaturesOk,
    /// `DRIVER_OK` was written.
    Running,
}

impl Phase {
    /// The bits of `Status` that this phase stands for.
    fn bits(self) -> u32 {
        use status::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK};
        match self {
            Self::Reset => 0,
            Self::Acknowledged => ACKNOWLEDGE,
            Self::Driver => ACKNOWLEDGE | DRIVER,
            Self::FeaturesOk => ACKNOWLEDGE | DRIVER | FEATURES_OK,
            Self::Running => ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK,
        }
    }

    fn next(self) -> Option<Self> {
        match self {
            Self::Reset => Some(Self::Acknowledged),
            Self::Acknowledged => Some(Self::Driver),
            Self::Driver => Some(Self::FeaturesOk),
            Self::FeaturesOk => Some(Self::Running),
            Self::Running => None,
        }
    }
}

/// What the driver has said about a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct QueueRegisters {
    max_size: u16,
    size: u16,
    ready: bool,
    descriptors: u64,
    available: u64,
    used: u64,
}

impl QueueRegisters {
    fn new(max_size: u16) -> Self {
        Self {
            max_size,
            size: max_size,
            ready: false,
            descriptors: 0,
            available: 0,
            used: 0,
        }
    }

    /// Freezes the queue.
    fn activate(
        self,
        memory: &GuestMemory,
        event_idx: bool,
        kick: EventFd,
    ) -> Result<ActiveQueue, QueueError> {
        let build = || {
            let mut queue = Queue::new(self.max_size)?;
            queue.try_set_size(self.size)?;
            queue.try_set_desc_table_address(GuestAddress(self.descriptors))?;
            queue.try_set_avail_ring_address(GuestAddress(self.available))?;
            queue.try_set_used_ring_address(GuestAddress(self.used))?;
            queue.set_event_idx(event_idx);
            queue.set_ready(self.ready);
            Ok(queue)
        };
        ActiveQueue::new(build().map_err(QueueError::Rings)?, memory.clone(), kick)
    }
}

/// Where the device is.
enum Place {
    /// Here, configured.
    Here(Box<dyn VirtioDevice>),
    /// Active on the device thread.
    Hosted,
}

/// The registers of one device slot.
pub struct MmioTransport {
    slot: Slot,
    place: Place,
    host: DeviceHost,
    memory: GuestMemory,
    interrupt: Interrupt,
    kicks: Vec<EventFd>,
    device_type: u32,
    offered: u64,
    config: [u8; CONFIG_SIZE],
    phase: Phase,
    failed: bool,
    device_features_select: u32,
    driver_features_select: u32,
    accepted: u64,
    queue_select: u32,
    queues: Vec<QueueRegisters>,
}

impl MmioTransport {
    /// Puts `device` into `slot`. Active, it runs on `host`.
    ///
    /// # Errors
    /// When the host has no descriptor left.
    pub fn new(
        slot: Slot,
        device: Box<dyn VirtioDevice>,
        memory: GuestMemory,
        host: DeviceHost,
    ) -> std::io::Result<Self> {
        let event_fd = || EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
        let sizes = device.queue_max_sizes();
        let kicks = sizes.iter().map(|_| event_fd()).collect::<Result<_, _>>()?;
        let queues = sizes
            .iter()
            .map(|size| QueueRegisters::new(*size))
            .collect();
        let mut config = [0; CONFIG_SIZE];
        device.read_config(0, &mut config);
        Ok(Self {
            slot,
            host,
            memory,
            interrupt: Interrupt::new(event_fd()?),
            kicks,
            device_type: device.device_type(),
            offered: device.features() | TRANSPORT_FEATURES,
            config,
            place: Place::Here(device),
            phase: Phase::Reset,
            failed: false,
            device_features_select: 0,
            driver_features_select: 0,
            accepted: 0,
            queue_select: 0,
            queues,
        })
    }

    /// The slot.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// The interrupt, for registration with KVM.
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// The queues' kick eventfds, for registration with KVM: a write of a queue's number to
    /// [`QUEUE_NOTIFY`] is to write its eventfd.
    pub fn kicks(&self) -> &[EventFd] {
        &self.kicks
    }

    /// The driver reads `data.len()` bytes at `offset`. `data` is filled completely.
    pub fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(start) = offset.checked_sub(CONFIG_START) {
            let config = usize::try_from(start)
                .ok()
                .and_then(|start| self.config.get(start..));
            for (to, from) in data.iter_mut().zip(config.unwrap_or_default()) {
                *to = *from;
            }
        } else if let (Ok(word), Some(register)) =
            (<&mut [u8; 4]>::try_from(data), Register::at(offset))
        {
            *word = self.read_register(register).to_le_bytes();
        }
    }

    /// The driver writes `data` at `offset`. The configuration space is read-only.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        if let (Ok(word), Some(register)) = (<[u8; 4]>::try_from(data), Register::at(offset)) {
            self.write_register(register, u32::from_le_bytes(word));
        }
    }

    fn read_register(&self, register: Register) -> u32 {
        let queue = self.selected_queue();
        match register {
            Register::MagicValue => MAGIC,
            Register::Version => VERSION,
            Register::DeviceId => self.device_type,
            Register::VendorId => VENDOR,
            Register::DeviceFeatures => match self.device_features_select {
                0 => low_half(self.offered),
                1 => high_half(self.offered),
                _ => 0,
            },
            Register::QueueSizeMax => queue.map_or(0, |queue| queue.max_size.into()),
            Register::QueueReady => queue.map_or(0, |queue| queue.ready.into()),
            Register::InterruptStatus => self.interrupt.status(),
            Register::Status => self.status(),
            // There is no shared memory region: its length is all ones (§4.2.2).
            Register::SharedMemoryLengthLow
            | Register::SharedMemoryLengthHigh
            | Register::SharedMemoryBaseLow
            | Register::SharedMemoryBaseHigh => u32::MAX,
            // The configuration never changes.
            Register::ConfigGeneration => 0,
            // Write-only registers.
            _ => 0,
        }
    }

    fn write_register(&mut self, register: Register, value: u32) {
        match register {
            Register::DeviceFeaturesSelect => self.device_features_select = value,
            Register::DriverFeaturesSelect => self.driver_features_select = value,
            Register::DriverFeatures if self.phase == Phase::Driver => {
                match self.driver_features_select {
                    0 => set_low_half(&mut self.accepted, value),
                    1 => set_high_half(&mut self.accepted, value),
                    _ => {}
                }
            }
            Register::QueueSelect => self.queue_select = value,
            Register::QueueNotify => self.kick(value),
            Register::InterruptAck => self.interrupt.acknowledge(value),
            Register::Status => self.write_status(value),
            _ if self.phase == Phase::FeaturesOk => self.write_queue_register(register, value),
            _ => {}
        }
    }

    fn selected_queue(&self) -> Option<&QueueRegisters> {
        self.queues.get(usize::try_from(self.queue_select).ok()?)
    }

    fn write_queue_register(&mut self, register: Register, value: u32) {
        let selected = usize::try_from(self.queue_select).ok();
        let Some(queue) = selected.and_then(|index| self.queues.get_mut(index)) else {
            return;
        };
        if register == Register::QueueReady {
            queue.ready = value == 1;
            return;
        }
        // "The driver MUST NOT write [these] while QueueReady is 1" (§4.2.2.2).
        if queue.ready {
            return;
        }
        match register {
            Register::QueueSize => {
                let size = u16::try_from(value).ok();
                if let Some(size) = size.filter(|s| s.is_power_of_two() && *s <= queue.max_size) {
                    queue.size = size;
                }
            }
            Register::QueueDescLow => set_low_half(&mut queue.descriptors, value),
            Register::QueueDescHigh => set_high_half(&mut queue.descriptors, value),
            Register::QueueDriverLow => set_low_half(&mut queue.available, value),
            Register::QueueDriverHigh => set_high_half(&mut queue.available, value),
            Register::QueueDeviceLow => set_low_half(&mut queue.used, value),
            Register::QueueDeviceHigh => set_high_half(&mut queue.used, value),
            _ => {}
        }
    }

    fn status(&self) -> u32 {
        let failed = if self.failed { status::FAILED } else { 0 };
        let needs_reset = if self.interrupt.is_reset_needed() {
            status::DEVICE_NEEDS_RESET
        } else {
            0
        };
        self.phase.bits() | failed | needs_reset
    }

    fn write_status(&mut self, value: u32) {
        if value == 0 {
            self.reset();
            return;
        }
        // The driver cannot clear what the device says about itself.
        let value = value & !status::DEVICE_NEEDS_RESET;
        if value & status::FAILED != 0 {
            // The driver gave up; only a reset helps.
            self.failed = true;
            return;
        }
        let Some(next) = self
            .phase
            .next()
            .filter(|next| !self.failed && next.bits() == value)
        else {
            return;
        };
        match next {
            Phase::FeaturesOk => {
                // Left unset when the device cannot work with them (§3.1.1, step 6).
                let known = self.accepted & !self.offered == 0;
                if known && self.accepted & feature::VERSION_1 != 0 {
                    self.phase = next;
                }
            }
            Phase::Running => {
                self.phase = next;
                self.activate();
            }
            _ => self.phase = next,
        }
    }

    fn kick(&self, index: u32) {
        if let Some(kick) = usize::try_from(index)
            .ok()
            .and_then(|index| self.kicks.get(index))
        {
            // At the counter's limit it is readable anyway.
            let _ = kick.write(1);
        }
    }

    /// Moves the device and its queues to the device thread. A driver that set the queues up
    /// wrongly is told that the device needs a reset.
    fn activate(&mut self) {
        match self.freeze_queues() {
            Err(error) => {
                let slot = self.slot;
                report::guest(format_args!("device {slot:?} cannot start: {error}"));
                self.interrupt.needs_reset();
            }
            Ok(queues) => {
                if let Place::Here(device) = std::mem::replace(&mut self.place, Place::Hosted) {
                    let active = device.activate(Activation {
                        memory: self.memory.clone(),
                        queues,
                        features: self.accepted,
                        interrupt: self.interrupt.clone(),
                    });
                    self.host.adopt(self.slot, active, self.interrupt.clone());
                    // Whatever the driver has queued already is looked at now.
                    (0..)
                        .zip(&self.kicks)
                        .for_each(|(index, _)| self.kick(index));
                }
            }
        }
    }

    fn freeze_queues(&self) -> Result<Vec<ActiveQueue>, QueueError> {
        let event_idx = self.accepted & feature::EVENT_IDX != 0;
        self.queues
            .iter()
            .zip(&self.kicks)
            .map(|(queue, kick)| {
                let kick = kick
                    .try_clone()
                    .map_err(|_| QueueError::Rings(virtio_queue::Error::QueueNotReady))?;
                queue.activate(&self.memory, event_idx, kick)
            })
            .collect()
    }

    /// Back to the start (§2.4), whatever the phase.
    fn reset(&mut self) {
        if matches!(self.place, Place::Hosted) {
            self.place = Place::Here(self.host.release(self.slot).reset());
        }
        for kick in &self.kicks {
            // Nothing to read is fine: it is to be empty.
            let _ = kick.read();
        }
        self.interrupt.reset();
        self.phase = Phase::Reset;
        self.failed = false;
        self.device_features_select = 0;
        self.driver_features_select = 0;
        self.accepted = 0;
        self.queue_select = 0;
        for queue in &mut self.queues {
            *queue = QueueRegisters::new(queue.max_size);
        }
    }
}

fn low_half(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).expect("32 bits")
}

fn high_half(value: u64) -> u32 {
    u32::try_from(value >> 32).expect("32 bits")
}

fn set_low_half(value: &mut u64, half: u32) {
    *value = *value & !0xffff_ffff | u64::from(half);
}

fn set_high_half(value: &mut u64, half: u32) {
    *value = *value & 0xffff_ffff | u64::from(half) << 32;
}
