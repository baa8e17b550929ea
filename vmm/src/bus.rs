//! Port and memory accesses that leave the guest, and who answers them.
//!
//! The table is fixed: the device slots, the serial port, the power registers. Everything else, an
//! empty slot too, reads as all ones (ports) or zero (memory) and ignores writes. Each device has a lock of its
//! own, held for one register access; no access takes two.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

use crate::console::Console;
use crate::layout::{SERIAL_PORT, SLEEP_STATUS_PORT, Slot};
use crate::power::{self, PowerEvent};
use crate::virtio::mmio::MmioTransport;

/// Number of ports of a 16550.
const SERIAL_PORTS: u16 = 8;
/// `WAK_STS`, the only bit of the sleep status register (ACPI 6.5 §4.8.3.7.2): never set, since
/// nothing wakes up here.
const SLEEP_STATUS: u8 = 0;

/// The serial port's interrupt.
#[derive(Debug)]
pub struct SerialLine(EventFd);

impl Trigger for SerialLine {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// All that answers outside of KVM.
pub struct Bus {
    /// By number.
    slots: [Option<Mutex<MmioTransport>>; Slot::ALL.len()],
    serial: Mutex<Serial<SerialLine, NoEvents, Console>>,
    port_exits: AtomicU64,
    memory_exits: AtomicU64,
}

impl Bus {
    /// A bus with these devices, each in its slot.
    pub fn new(devices: Vec<MmioTransport>, serial_line: EventFd, console: Console) -> Self {
        let mut slots = [const { None }; Slot::ALL.len()];
        for device in devices {
            let slot = device.slot();
            slots[slot as usize] = Some(Mutex::new(device));
        }
        Self {
            slots,
            serial: Mutex::new(Serial::new(SerialLine(serial_line), console)),
            port_exits: AtomicU64::new(0),
            memory_exits: AtomicU64::new(0),
        }
    }

    /// Port exits so far.
    pub fn port_exits(&self) -> u64 {
        self.port_exits.load(Ordering::Relaxed)
    }

    /// Memory-mapped exits so far.
    pub fn memory_exits(&self) -> u64 {
        self.memory_exits.load(Ordering::Relaxed)
    }

    /// The guest reads from a port. `data` is filled.
    pub fn port_read(&self, port: u16, data: &mut [u8]) {
        self.port_exits.fetch_add(1, Ordering::Relaxed);
        // An access to nothing reads all ones, as on a PC.
        data.fill(0xff);
        let [byte] = data else { return };
        if port == SLEEP_STATUS_PORT {
            *byte = SLEEP_STATUS;
        } else if let Some(register) = serial_register(port) {
            *byte = lock(&self.serial).read(register);
        }
    }

    /// The guest writes to a port.
    pub fn port_write(&self, port: u16, data: &[u8]) -> Option<PowerEvent> {
        self.port_exits.fetch_add(1, Ordering::Relaxed);
        let [byte] = *data else { return None };
        if let Some(register) = serial_register(port) {
            // A failing interrupt only means that the driver polls; the console cannot fail.
            let _ = lock(&self.serial).write(register, byte);
            return None;
        }
        power::written(port, byte)
    }

    /// The guest reads from an address that is not RAM. `data` is filled.
    pub fn memory_read(&self, address: u64, data: &mut [u8]) {
        self.memory_exits.fetch_add(1, Ordering::Relaxed);
        match self.device_at(address) {
            Some((device, offset)) => lock(device).read(offset, data),
            None => data.fill(0),
        }
    }

    /// The guest writes to an address that is not RAM.
    pub fn memory_write(&self, address: u64, data: &[u8]) {
        self.memory_exits.fetch_add(1, Ordering::Relaxed);
        if let Some((device, offset)) = self.device_at(address) {
            lock(device).write(offset, data);
        }
    }

    fn device_at(&self, address: u64) -> Option<(&Mutex<MmioTransport>, u64)> {
        let (slot, offset) = Slot::at(address)?;
        Some((self.slots[slot as usize].as_ref()?, offset))
    }
}

fn serial_register(port: u16) -> Option<u8> {
    let register = port
        .checked_sub(SERIAL_PORT)
        .filter(|register| *register < SERIAL_PORTS)?;
    u8::try_from(register).ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic in any thread ends the process; there is no half-done state to see.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::host::DeviceHost;
    use crate::virtio::rng::Rng;
    use crate::virtio::test_driver::memory;

    /// All slots but the network's.
    const FILLED: [Slot; 3] = [Slot::Root, Slot::Vsock, Slot::Rng];

    fn bus() -> (Bus, Console) {
        let memory = memory();
        let transports = FILLED
            .map(|slot| {
                let host = DeviceHost::new().unwrap();
                MmioTransport::new(slot, Box::new(Rng), memory.clone(), host).unwrap()
            })
            .into_iter()
            .collect();
        let console = Console::new(false);
        let line = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        (Bus::new(transports, line, console.clone()), console)
    }

    #[test]
    fn every_filled_slot_answers_at_its_place_and_nothing_else_does() {
        let (bus, _) = bus();
        let mut word = [0xaa; 4];
        for slot in FILLED {
            bus.memory_read(slot.base(), &mut word);
            assert_eq!(&word, b"virt");
        }
        for address in [
            0xc000_0000,
            Slot::Net.base(),
            Slot::Net.base() + 0x1000,
            u64::MAX,
        ] {
            word = [0xaa; 4];
            bus.memory_read(address, &mut word);
            assert_eq!(word, [0; 4]);
            bus.memory_write(address, &word);
        }
        assert_eq!(bus.memory_exits(), 11);
    }

    #[test]
    fn ports_that_do_not_exist_read_all_ones_and_wide_accesses_reach_nothing() {
        let (bus, console) = bus();
        for (port, len) in [(0x80, 1), (0x3f8, 2), (0x600, 4), (0xffff, 1), (0x3f8, 0)] {
            let mut data = vec![0; len];
            bus.port_read(port, &mut data);
            assert!(data.iter().all(|byte| *byte == 0xff));
            assert_eq!(bus.port_write(port, &vec![0x34; len]), None);
        }
        assert_eq!(console.tail(9).0, "");
    }

    #[test]
    fn the_serial_port_is_ready_and_writes_to_the_console() {
        let (bus, console) = bus();
        let mut status = [0];
        bus.port_read(0x3fd, &mut status);
        // Line status: transmitter empty.
        assert_eq!(status[0] & 0x60, 0x60);
        for byte in b"hello" {
            bus.port_write(0x3f8, &[*byte]);
        }
        assert_eq!(console.tail(9).0, "hello");
    }

    #[test]
    fn the_power_registers_end_the_vm() {
        let (bus, _) = bus();
        assert_eq!(bus.port_write(0x600, &[0x34]), Some(PowerEvent::Off));
        assert_eq!(bus.port_write(0x604, &[1]), Some(PowerEvent::Reset));
    }
}
