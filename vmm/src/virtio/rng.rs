//! The entropy device (virtio 1.2 §5.4): the host's random bytes for the guest's generator.

use std::io;

use event_manager::{EventOps, Events};
use rustix::rand::{GetRandomFlags, getrandom};
use vmm_sys_util::epoll::EventSet;

use super::device::{Activation, ActiveDevice, DeviceError, VirtioDevice};
use super::device_type;
use super::interrupt::Interrupt;
use super::queue::{ActiveQueue, Chain};

/// Most bytes given for one request; Linux asks for 32 to 64 at a time.
const BYTES_MAX: usize = 256;
/// Most requests served in one event, so that other devices of the thread get their turn.
const BUDGET: usize = 64;
const QUEUE_SIZE: u16 = 64;

/// The configured device.
#[derive(Debug, Default)]
pub struct Rng;

impl VirtioDevice for Rng {
    fn device_type(&self) -> u32 {
        device_type::ENTROPY
    }

    fn name(&self) -> &'static str {
        "rng"
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn activate(self: Box<Self>, mut activation: Activation) -> Box<dyn ActiveDevice> {
        let [requests] = activation.take_queues();
        Box::new(ActiveRng {
            requests,
            interrupt: activation.interrupt,
        })
    }
}

/// The running device.
#[derive(Debug)]
struct ActiveRng {
    requests: ActiveQueue,
    interrupt: Interrupt,
}

impl ActiveDevice for ActiveRng {
    fn register(&mut self, ops: &mut EventOps<'_>) -> Result<(), DeviceError> {
        Ok(ops.add(Events::new(self.requests.kick(), EventSet::IN))?)
    }

    fn process(&mut self, _event: Events, _ops: &mut EventOps<'_>) -> Result<(), DeviceError> {
        self.requests.drain_kick();
        self.requests.disable_notification()?;
        let mut left = BUDGET;
        let more = loop {
            if left == 0 {
                break true;
            }
            // A ring that changes all the time is no reason to stay either.
            left -= 1;
            match self.requests.pop()? {
                Some(chain) => {
                    let written = fill(&chain).map_err(|source| DeviceError::Host {
                        what: "getrandom",
                        source,
                    })?;
                    self.requests.push_used(chain.head(), written)?;
                }
                None if self.requests.enable_notification()? => {}
                None => break false,
            }
        };
        if more {
            // Come back after the others.
            let _ = self.requests.kick().write(1);
        }
        if self.requests.needs_interrupt()? {
            self.interrupt.used_buffer();
        }
        Ok(())
    }

    fn reset(self: Box<Self>) -> Box<dyn VirtioDevice> {
        Box::new(Rng)
    }
}

/// Fills a request's buffer with as many bytes as one request gets.
fn fill(chain: &Chain) -> io::Result<u32> {
    let mut bytes = [0; BYTES_MAX];
    let mut writer = chain.writer();
    let wanted = writer.remaining().min(BYTES_MAX);
    // Never blocks once the host has booted, and gives up to 256 bytes whole.
    let count = getrandom(&mut bytes[..wanted], GetRandomFlags::empty())?;
    writer.write_all(&bytes[..count])?;
    Ok(writer.consumed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::test_driver::{BUFFERS, Driver, MEMORY_SIZE, Ring, memory, wait_for};

    #[test]
    fn a_request_is_filled_with_bounded_random_bytes() {
        let memory = memory();
        let mut driver = Driver::new(Box::new(Rng), &memory);
        let mut ring = Ring::new(&memory, 0, 64);
        driver.start(&[&ring]);
        ring.add(&[(BUFFERS, 40, true), (BUFFERS + 0x1000, 4096, true)]);
        driver.kick(0);
        assert_eq!(ring.wait_used(), (0, BYTES_MAX as u32));
        assert_ne!(ring.read(BUFFERS, 32), [0; 32]);
        let rest = ring.read(BUFFERS + 0x1000, 4096);
        assert!(rest[..BYTES_MAX - 40].iter().any(|byte| *byte != 0));
        assert!(rest[BYTES_MAX - 40..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn requests_beyond_the_budget_are_served_too() {
        let memory = memory();
        let mut driver = Driver::new(Box::new(Rng), &memory);
        let mut ring = Ring::new(&memory, 0, 64);
        driver.start(&[&ring]);
        for round in 0..3 {
            for _ in 0..64 {
                ring.add(&[(BUFFERS, 8, true)]);
            }
            driver.kick(0);
            for request in 0..64 {
                assert_eq!(ring.wait_used(), (0, 8), "round {round}, request {request}");
            }
        }
    }

    #[test]
    fn a_readable_only_request_is_returned_empty_and_a_bad_one_stops_the_device() {
        let memory = memory();
        let mut driver = Driver::new(Box::new(Rng), &memory);
        let mut ring = Ring::new(&memory, 0, 64);
        driver.start(&[&ring]);
        ring.add(&[(BUFFERS, 8, false)]);
        driver.kick(0);
        assert_eq!(ring.wait_used(), (0, 0));
        ring.add(&[(MEMORY_SIZE - 1, 8, true)]);
        driver.kick(0);
        wait_for(|| driver.needs_reset().then_some(()));
    }
}
