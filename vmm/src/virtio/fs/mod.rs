//! The file system device (virtio 1.2 §5.11): carries FUSE messages between the guest's kernel and
//! the server of [`pyro_rootfs`].
//!
//! One high-priority queue and one request queue. A request is a descriptor chain: its readable
//! part is the message, its writable part takes the reply. File contents go straight between host
//! files and guest memory (`transport`). Requests are served one at a time, in order, on the
//! device's own thread; what takes long is a read or write of at most the chain's length.

#[cfg(test)]
mod tests;
mod transport;

use std::os::fd::OwnedFd;

use event_manager::{EventOps, Events};
use pyro_rootfs::fuse::Server;
use pyro_rootfs::fuse::transport::Outcome;
use vmm_sys_util::epoll::EventSet;

use self::transport::{ChainReply, ChainRequest};
use super::device::{Activation, ActiveDevice, DeviceError, VirtioDevice};
use super::device_type;
use super::interrupt::Interrupt;
use super::queue::{ActiveQueue, QueueError};

/// Length of the tag in the configuration space (§5.11.4).
const TAG_SIZE: usize = 36;
/// The root's tag.
pub const ROOT_TAG: &str = "root";
/// Request queues; one server thread has no use for more.
const REQUEST_QUEUES: u32 = 1;
/// FORGET and INTERRUPT are all that comes here.
const HIPRIO_SIZE: u16 = 128;
/// Room for the largest request: Linux limits the pages of one to the queue's size less its
/// headers.
const REQUEST_SIZE: u16 = 1024;
/// Most requests of one queue in one event, so that the other queue and a park get their turn, and
/// those who wait for the first replies need not wait for the last.
const BUDGET: usize = 16;

/// The configured device.
pub struct Fs {
    server: Server,
    config: [u8; TAG_SIZE + 4],
}

impl Fs {
    /// Serves `server` under `tag`.
    ///
    /// # Panics
    /// When the tag is longer than 36 bytes; tags are constants.
    pub fn new(tag: &str, server: Server) -> Self {
        let mut config = [0; TAG_SIZE + 4];
        config[..tag.len()].copy_from_slice(tag.as_bytes());
        config[TAG_SIZE..].copy_from_slice(&REQUEST_QUEUES.to_le_bytes());
        Self { server, config }
    }
}

impl VirtioDevice for Fs {
    fn device_type(&self) -> u32 {
        device_type::FILE_SYSTEM
    }

    fn name(&self) -> &'static str {
        "fs"
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[HIPRIO_SIZE, REQUEST_SIZE]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.config.get(offset..));
        data.iter_mut()
            .zip(rest.unwrap_or_default())
            .for_each(|(to, from)| *to = *from);
    }

    fn activate(self: Box<Self>, mut activation: Activation) -> Box<dyn ActiveDevice> {
        let [hiprio, requests] = activation.take_queues();
        Box::new(ActiveFs {
            device: *self,
            hiprio,
            requests,
            interrupt: activation.interrupt,
        })
    }
}

/// The running device.
struct ActiveFs {
    device: Fs,
    hiprio: ActiveQueue,
    requests: ActiveQueue,
    interrupt: Interrupt,
}

impl ActiveDevice for ActiveFs {
    fn register(&mut self, ops: &mut EventOps<'_>) -> Result<(), DeviceError> {
        ops.add(Events::new(self.hiprio.kick(), EventSet::IN))?;
        ops.add(Events::new(self.requests.kick(), EventSet::IN))?;
        Ok(())
    }

    fn process(&mut self, _event: Events, _ops: &mut EventOps<'_>) -> Result<(), DeviceError> {
        let server = &mut self.device.server;
        serve(server, &mut self.hiprio, &self.interrupt)?;
        serve(server, &mut self.requests, &self.interrupt)?;
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(self.device.server.sync()?)
    }

    fn freeze(&mut self, directory: OwnedFd) -> std::io::Result<()> {
        let frozen = self.device.server.freeze(directory);
        frozen.map_err(std::io::Error::other)
    }

    fn reset(self: Box<Self>) -> Box<dyn VirtioDevice> {
        Box::new(self.device)
    }
}

/// Serves what is in the queue, at most [`BUDGET`] requests; more of them come with another event.
fn serve(
    server: &mut Server,
    queue: &mut ActiveQueue,
    interrupt: &Interrupt,
) -> Result<(), QueueError> {
    queue.drain_kick();
    queue.disable_notification()?;
    let mut left = BUDGET;
    let more = loop {
        if left == 0 {
            break true;
        }
        // A ring that changes all the time is no reason to stay either.
        left -= 1;
        match queue.pop()? {
            Some(chain) => {
                let mut reply = ChainReply::new(&chain);
                let written = match server.handle(&mut ChainRequest::new(&chain), &mut reply) {
                    Outcome::Replied { len } => u32::try_from(len).unwrap_or(u32::MAX),
                    Outcome::NoReply => 0,
                };
                queue.push_used(chain.head(), written)?;
            }
            None if queue.enable_notification()? => {}
            None => break false,
        }
    };
    if more {
        // Come back after the other queue.
        let _ = queue.kick().write(1);
    }
    if queue.needs_interrupt()? {
        interrupt.used_buffer();
    }
    Ok(())
}
