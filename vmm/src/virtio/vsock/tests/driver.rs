//! The driver's half of three virtqueues, with event-idx, as an honest driver has it; dishonest
//! ones reach for [`Ring::offer`] themselves.

use std::collections::HashMap;

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use crate::virtio::device::GuestMemory;
use crate::virtio::queue::ActiveQueue;
use crate::virtio::vsock::packet::{HEADER_LEN, Header};

pub(super) const MEMORY: u64 = 64 << 20;
const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// Where the buffers of the queues lie.
const TX_BUFFERS: u64 = 0x10_0000;
const TX_STRIDE: u64 = 0x1_2000;
const RX_BUFFERS: u64 = 0x200_0000;
const RX_STRIDE: u64 = 0x1_2000;
/// What Linux gives to the receive queue.
pub(super) const RX_BUFFER_LEN: u32 = 4096;

/// A descriptor: address, length, whether the device writes it.
pub(super) type Piece = (u64, u32, bool);

#[derive(Debug)]
pub(super) struct Ring {
    memory: GuestMemory,
    base: u64,
    size: u16,
    avail: u16,
    used: u16,
    free: Vec<u16>,
    /// The descriptors of each chain that is with the device.
    chains: HashMap<u16, Vec<u16>>,
    kick: EventFd,
    pub(super) kicks: usize,
}

impl Ring {
    /// A ring and the device's end of it.
    pub(super) fn new(memory: &GuestMemory, index: u64, size: u16) -> (Ring, ActiveQueue) {
        let base = 0x1_0000 * (index + 1);
        let kick = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let mut queue = Queue::new(size).unwrap();
        queue.set_desc_table_address(Some(u32::try_from(base).unwrap()), Some(0));
        queue.set_avail_ring_address(Some(u32::try_from(base + 0x4000).unwrap()), Some(0));
        queue.set_used_ring_address(Some(u32::try_from(base + 0x8000).unwrap()), Some(0));
        queue.set_event_idx(true);
        queue.set_ready(true);
        let active = ActiveQueue::new(queue, memory.clone(), kick.try_clone().unwrap()).unwrap();
        let ring = Ring {
            memory: memory.clone(),
            base,
            size,
            avail: 0,
            used: 0,
            free: (0..size).rev().collect(),
            chains: HashMap::new(),
            kick,
            kicks: 0,
        };
        (ring, active)
    }

    pub(super) fn has_room(&self, descriptors: usize) -> bool {
        self.free.len() >= descriptors
    }

    /// Makes a chain available and kicks if the device wants that. Returns its head.
    pub(super) fn offer(&mut self, pieces: &[Piece]) -> u16 {
        let chain: Vec<u16> = pieces.iter().map(|_| self.free.pop().unwrap()).collect();
        for (at, (address, len, writable)) in pieces.iter().enumerate() {
            let next = chain.get(at + 1).copied();
            let flags = if *writable { WRITE } else { 0 } | next.map_or(0, |_| NEXT);
            self.describe(chain[at], *address, *len, flags, next.unwrap_or(0));
        }
        let head = chain[0];
        self.chains.insert(head, chain);
        self.publish(head);
        head
    }

    /// Writes one descriptor.
    pub(super) fn describe(&self, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let at = self.base + 16 * u64::from(index);
        self.write(at, address);
        self.write(at + 8, len);
        self.write(at + 12, flags);
        self.write(at + 14, next);
    }

    /// Puts a head into the available ring and kicks as the specification has it (virtio 1.2
    /// §2.7.10): when the index passes the one that the device has asked for.
    pub(super) fn publish(&mut self, head: u16) {
        let avail = self.base + 0x4000;
        self.write(avail + 4 + 2 * u64::from(self.avail % self.size), head);
        let old = self.avail;
        self.avail = self.avail.wrapping_add(1);
        self.write(avail + 2, self.avail);
        let event = self.base + 0x8000 + 4 + 8 * u64::from(self.size);
        let event: u16 = self.memory.read_obj(GuestAddress(event)).unwrap();
        if self.avail.wrapping_sub(event).wrapping_sub(1) < self.avail.wrapping_sub(old) {
            self.kick.write(1).unwrap();
            self.kicks += 1;
        }
    }

    /// Takes a chain that the device is done with: its head and how much it wrote.
    pub(super) fn take(&mut self) -> Option<(u16, u32)> {
        let used = self.base + 0x8000;
        let index: u16 = self.memory.read_obj(GuestAddress(used + 2)).unwrap();
        if index == self.used {
            return None;
        }
        let at = used + 4 + 8 * u64::from(self.used % self.size);
        let head: u32 = self.memory.read_obj(GuestAddress(at)).unwrap();
        let len: u32 = self.memory.read_obj(GuestAddress(at + 4)).unwrap();
        self.used = self.used.wrapping_add(1);
        // Ask for an interrupt for the next one.
        self.write(self.base + 0x4000 + 4 + 2 * u64::from(self.size), self.used);
        let head = u16::try_from(head).unwrap();
        let chain = self
            .chains
            .remove(&head)
            .expect("the device returns only what it was given");
        self.free.extend(chain);
        Some((head, len))
    }

    fn write<T: vm_memory::ByteValued>(&self, address: u64, value: T) {
        self.memory.write_obj(value, GuestAddress(address)).unwrap();
    }
}

/// What the guest finds in its receive queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) header: Header,
    pub(super) data: Vec<u8>,
}

/// All three rings and their buffers.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) memory: GuestMemory,
    pub(super) rx: Ring,
    pub(super) tx: Ring,
    pub(super) event: Ring,
    /// Keep this many receive buffers with the device.
    pub(super) rx_wanted: usize,
    rx_posted: usize,
    pub(super) rx_buffer_len: u32,
}

impl Driver {
    pub(super) fn new(sizes: &[u16]) -> (Driver, Vec<ActiveQueue>) {
        let ranges = [(GuestAddress(0), usize::try_from(MEMORY).unwrap())];
        let memory = GuestMemory::new(GuestMemoryMmap::from_ranges(&ranges).unwrap());
        let (rx, rx_queue) = Ring::new(&memory, 0, sizes[0]);
        let (tx, tx_queue) = Ring::new(&memory, 1, sizes[1]);
        let (event, event_queue) = Ring::new(&memory, 2, sizes[2]);
        let driver = Driver {
            memory,
            rx,
            tx,
            event,
            rx_wanted: usize::from(sizes[0]),
            rx_posted: 0,
            rx_buffer_len: RX_BUFFER_LEN,
        };
        (driver, vec![rx_queue, tx_queue, event_queue])
    }

    /// Where the receive buffer of a descriptor lies.
    pub(super) fn rx_buffer(index: u16) -> u64 {
        RX_BUFFERS + RX_STRIDE * u64::from(index)
    }

    /// Fills the receive queue up. True if something was added.
    pub(super) fn refill(&mut self) -> bool {
        let mut added = false;
        while self.rx_posted < self.rx_wanted && self.rx.has_room(1) {
            let next = *self.rx.free.last().unwrap();
            self.rx
                .offer(&[(Self::rx_buffer(next), self.rx_buffer_len, true)]);
            self.rx_posted += 1;
            added = true;
        }
        added
    }

    /// Takes a packet that the device has sent.
    pub(super) fn receive(&mut self) -> Option<Packet> {
        loop {
            let (head, len) = self.rx.take()?;
            self.rx_posted = self.rx_posted.saturating_sub(1);
            if len == 0 {
                continue;
            }
            let mut bytes = vec![0; len as usize];
            let address = GuestAddress(Self::rx_buffer(head));
            self.memory.read_slice(&mut bytes, address).unwrap();
            let (head, data) = bytes.split_first_chunk::<HEADER_LEN>().unwrap();
            let header = Header::from_bytes(head);
            assert_eq!(
                header.len as usize,
                data.len(),
                "the header tells the data's length"
            );
            let data = data.to_vec();
            return Some(Packet { header, data });
        }
    }

    /// Takes back the transmit buffers that the device is done with.
    pub(super) fn reclaim(&mut self) {
        while let Some((_, written)) = self.tx.take() {
            assert_eq!(written, 0, "nothing is written into a transmit buffer");
        }
    }

    /// Sends a packet as Linux does: one descriptor for the header, one for the data. False if
    /// the queue is full.
    pub(super) fn send(&mut self, header: &Header, data: &[u8]) -> bool {
        self.reclaim();
        if !self.tx.has_room(2) {
            return false;
        }
        let address = TX_BUFFERS + TX_STRIDE * u64::from(*self.tx.free.last().unwrap());
        self.place(address, header, data);
        let len = u32::try_from(data.len()).unwrap();
        let head = (address, u32::try_from(HEADER_LEN).unwrap(), false);
        if data.is_empty() {
            self.tx.offer(&[head]);
        } else {
            self.tx.offer(&[head, (address + 64, len, false)]);
        }
        true
    }

    /// Writes header and data to where a transmit buffer may lie.
    pub(super) fn place(&self, address: u64, header: &Header, data: &[u8]) {
        let header = header.to_bytes();
        self.memory
            .write_slice(&header, GuestAddress(address))
            .unwrap();
        self.memory
            .write_slice(data, GuestAddress(address + 64))
            .unwrap();
    }
}
