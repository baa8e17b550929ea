//! A driver for tests: sets a device up through its registers, as a guest does, and moves chains
//! through its queues.

use std::sync::Arc;
use std::time::{Duration, Instant};

use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::mock::{AvailRing, DescriptorTable, UsedRing};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::device::{GuestMemory, VirtioDevice};
use super::host::{DeviceHost, DeviceThread, Hosted};
use super::mmio::MmioTransport;
use crate::layout::Slot;

/// Descriptor flags (virtio 1.2 §2.7.5).
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

pub(crate) const MEMORY_SIZE: u64 = 1 << 20;
/// Buffers go here; rings lie below.
pub(crate) const BUFFERS: u64 = 0x8_0000;

/// How long a test waits for a device thread before it calls it dead.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn memory() -> GuestMemory {
    Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY_SIZE as usize)]).unwrap())
}

/// The driver's side of one queue. (The mock crate's own placement of a whole queue lets the
/// rings overlap; here each part has room of its own.)
pub(crate) struct Ring<'a> {
    table: DescriptorTable<'a, GuestMemoryMmap<()>>,
    pub(crate) available: AvailRing<'a, GuestMemoryMmap<()>>,
    used: UsedRing<'a, GuestMemoryMmap<()>>,
    start: u64,
    memory: &'a GuestMemoryMmap<()>,
    size: u16,
    added: u16,
    seen: u16,
}

/// Room for each part of a queue.
const PART: u64 = 0x4000;

impl<'a> Ring<'a> {
    pub(crate) fn new(memory: &'a GuestMemory, index: u16, size: u16) -> Self {
        let start = 0x1_0000 + u64::from(index) * 4 * PART;
        let memory = memory.as_ref();
        Self {
            table: DescriptorTable::new(memory, GuestAddress(start), size),
            available: AvailRing::new(memory, GuestAddress(start + PART), size),
            used: UsedRing::new(memory, GuestAddress(start + 2 * PART), size),
            start,
            memory,
            size,
            added: 0,
            seen: 0,
        }
    }

    /// Addresses of descriptor table, available ring and used ring.
    pub(crate) fn addresses(&self) -> [u64; 3] {
        [self.start, self.start + PART, self.start + 2 * PART]
    }

    /// The device's side of the queue.
    pub(crate) fn queue(&self) -> Queue {
        let [table, available, used] = self.addresses().map(GuestAddress);
        let mut queue = Queue::new(self.size).unwrap();
        queue.try_set_desc_table_address(table).unwrap();
        queue.try_set_avail_ring_address(available).unwrap();
        queue.try_set_used_ring_address(used).unwrap();
        queue.set_event_idx(true);
        queue.set_ready(true);
        queue
    }

    /// Writes raw descriptors (address, length, flags, next) from `at` on.
    pub(crate) fn write_descriptors(&self, at: u16, descriptors: &[(u64, u32, u16, u16)]) {
        for (index, (address, len, flags, next)) in (at..).zip(descriptors) {
            let descriptor = Descriptor::new(*address, *len, *flags, *next);
            self.table
                .store(index, RawDescriptor::from(descriptor))
                .unwrap();
        }
    }

    /// Makes the chain that starts at `head` available.
    pub(crate) fn make_available(&mut self, head: u16) {
        let at = usize::from(self.added % self.size);
        self.available
            .ring()
            .ref_at(at)
            .unwrap()
            .store(head.to_le());
        self.added = self.added.wrapping_add(1);
        self.available.idx().store(self.added.to_le());
    }

    /// Adds a proper chain of (address, length, writable) at descriptor 0.
    pub(crate) fn add(&mut self, segments: &[(u64, u32, bool)]) {
        let last = segments.len() - 1;
        let descriptors: Vec<_> = (0u16..)
            .zip(segments)
            .map(|(index, (address, len, writable))| {
                let next = if usize::from(index) < last { NEXT } else { 0 };
                (
                    *address,
                    *len,
                    next | if *writable { WRITE } else { 0 },
                    index + 1,
                )
            })
            .collect();
        self.write_descriptors(0, &descriptors);
        self.make_available(0);
    }

    /// The next used element (head, length), if the device has put one there.
    pub(crate) fn take_used(&mut self) -> Option<(u32, u32)> {
        if u16::from_le(self.used.idx().load()) == self.seen {
            return None;
        }
        let at = usize::from(self.seen % self.size);
        let element = self.used.ring().ref_at(at).unwrap().load();
        self.seen = self.seen.wrapping_add(1);
        Some((element.id(), element.len()))
    }

    pub(crate) fn wait_used(&mut self) -> (u32, u32) {
        wait_for(|| self.take_used())
    }

    pub(crate) fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory
            .read_slice(&mut bytes, GuestAddress(address))
            .unwrap();
        bytes
    }
}

/// Waits until `get` has something; a device that never answers fails the test.
pub(crate) fn wait_for<T>(mut get: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = get() {
            return value;
        }
        assert!(Instant::now() < end, "the device does not answer");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A device in its slot, with its thread, and a driver at its registers.
pub(crate) struct Driver {
    pub(crate) transport: MmioTransport,
    host: DeviceHost,
    thread: Option<DeviceThread>,
}

impl Driver {
    pub(crate) fn new(device: Box<dyn VirtioDevice>, memory: &GuestMemory) -> Self {
        let host = DeviceHost::new().unwrap();
        let thread = DeviceThread::start("test", host.clone(), Vec::new()).unwrap();
        let transport =
            MmioTransport::new(Slot::Root, device, memory.clone(), host.clone()).unwrap();
        Self {
            transport,
            host,
            thread: Some(thread),
        }
    }

    pub(crate) fn read(&mut self, offset: u64) -> u32 {
        let mut word = [0; 4];
        self.transport.read(offset, &mut word);
        u32::from_le_bytes(word)
    }

    pub(crate) fn write(&mut self, offset: u64, value: u32) {
        self.transport.write(offset, &value.to_le_bytes());
    }

    /// Takes all features, sets up these queues and starts the device (virtio 1.2 §3.1.1).
    pub(crate) fn start(&mut self, rings: &[&Ring<'_>]) {
        for status in [0, 1, 3] {
            self.write(0x070, status);
        }
        for half in [0, 1] {
            self.write(0x014, half);
            let features = self.read(0x010);
            self.write(0x024, half);
            self.write(0x020, features);
        }
        self.write(0x070, 11);
        for (index, ring) in (0..).zip(rings) {
            self.set_up_queue(index, ring);
        }
        self.write(0x070, 15);
    }

    pub(crate) fn set_up_queue(&mut self, index: u32, ring: &Ring<'_>) {
        self.write(0x030, index);
        self.write(0x038, ring.size.into());
        for (offset, address) in [0x080, 0x090, 0x0a0].into_iter().zip(ring.addresses()) {
            self.write(offset, address as u32);
            self.write(offset + 4, (address >> 32) as u32);
        }
        self.write(0x044, 1);
    }

    /// Does something with the device while it has no thread.
    pub(crate) fn while_parked(&mut self, act: impl FnOnce(&mut Hosted)) {
        let mut parked = self.thread.take().expect("it runs").park();
        act(&mut parked[0]);
        let thread = DeviceThread::start("test", self.host.clone(), parked);
        self.thread = Some(thread.unwrap());
    }

    pub(crate) fn kick(&mut self, queue: u32) {
        self.write(0x050, queue);
    }

    pub(crate) fn needs_reset(&mut self) -> bool {
        self.read(0x070) & 64 != 0
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.park();
        }
    }
}
