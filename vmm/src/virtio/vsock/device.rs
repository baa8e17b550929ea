//! The device towards its queues: configured, and active.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use event_manager::{EventOps, EventSet, Events};
use rustix::event::{EventfdFlags, eventfd};

use super::backend::{Backend, ConfigError, VsockConfig};
use super::connection::Fill;
use super::limits::{FLUSH_TIMEOUT, RX_BUDGET, TX_BUDGET};
use super::muxer::Muxer;
use super::packet::{Cid, HEADER_LEN, Header};
use super::poller::Poller;
use crate::virtio::device::{Activation, ActiveDevice, DeviceError, VirtioDevice};
use crate::virtio::device_type;
use crate::virtio::interrupt::Interrupt;
use crate::virtio::queue::ActiveQueue;

/// Entries of the receive, transmit and event queue (virtio 1.2 §5.10.2). The guest keeps every
/// entry of the first filled with a page of its memory.
const QUEUE_SIZES: [u16; 3] = [128, 128, 16];

/// `VIRTIO_VSOCK_F_STREAM` (virtio 1.2 §5.10.3): stream sockets.
const F_STREAM: u64 = 1 << 0;

/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET` (virtio 1.2 §5.10.6.7), as the whole of
/// `struct virtio_vsock_event`.
const EVENT_TRANSPORT_RESET: [u8; 4] = [0; 4];

/// What an event of the host loop is about.
mod source {
    pub(super) const RX: u32 = 0;
    pub(super) const TX: u32 = 1;
    pub(super) const EVENT: u32 = 2;
    pub(super) const SOCKETS: u32 = 3;
    pub(super) const AGAIN: u32 = 4;
}

/// The configured device.
#[derive(Debug)]
pub struct Vsock {
    guest_cid: Cid,
    backend: Backend,
    poller: Poller,
    again: OwnedFd,
    /// Clients that were given with the configuration, or came while an earlier driver ran, and
    /// have not been promised anything yet.
    clients: Vec<UnixStream>,
}

impl Vsock {
    /// Takes over the sockets.
    ///
    /// # Errors
    /// When the guest's id is reserved, a socket is of the wrong kind, a port is given twice, or
    /// the host refuses a descriptor.
    pub fn new(config: VsockConfig) -> Result<Vsock, ConfigError> {
        let guest_cid = config.guest_cid;
        let (backend, clients) = Backend::new(config)?;
        Ok(Vsock {
            guest_cid,
            backend,
            poller: Poller::new()?,
            again: again_fd()?,
            clients,
        })
    }

    /// As [`VirtioDevice::activate`], with the type known.
    pub fn start(self, mut activation: Activation) -> ActiveVsock {
        let [rx, tx, event] = activation.take_queues();
        ActiveVsock {
            guest_cid: self.guest_cid,
            rx,
            tx,
            event,
            interrupt: activation.interrupt,
            muxer: Muxer::new(self.guest_cid, self.backend, self.poller, self.clients),
            again: self.again,
            reset_owed: false,
            used: [0; 3],
        }
    }
}

impl VirtioDevice for Vsock {
    fn device_type(&self) -> u32 {
        device_type::SOCKET
    }

    fn name(&self) -> &'static str {
        "vsock"
    }

    fn features(&self) -> u64 {
        F_STREAM
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // `struct virtio_vsock_config` (virtio 1.2 §5.10.4): the guest's id.
        let config = self.guest_cid.0.to_le_bytes();
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| config.get(offset..));
        for (to, from) in data.iter_mut().zip(rest.unwrap_or_default()) {
            *to = *from;
        }
    }

    fn activate(self: Box<Self>, activation: Activation) -> Box<dyn ActiveDevice> {
        Box::new(self.start(activation))
    }
}

/// The running device.
#[derive(Debug)]
pub struct ActiveVsock {
    guest_cid: Cid,
    rx: ActiveQueue,
    tx: ActiveQueue,
    event: ActiveQueue,
    interrupt: Interrupt,
    pub(super) muxer: Muxer,
    /// Readable while a budget ran out with work left.
    again: OwnedFd,
    /// The guest is to be told that all connections are gone.
    reset_owed: bool,
    /// The used index of each queue when the driver was last interrupted for it.
    used: [u16; 3],
}

impl ActiveVsock {
    /// Closes all connections and tells the guest so with an event (virtio 1.2 §5.10.6.7), as
    /// after a restore. Listeners on both sides survive, and so do clients whose `CONNECT` has
    /// not come. If the driver has no buffer for the event, it goes out with the next one.
    ///
    /// # Errors
    /// When the driver broke a queue.
    pub fn transport_reset(&mut self) -> Result<(), DeviceError> {
        self.muxer.end_connections();
        self.reset_owed = true;
        self.serve()
    }

    /// Replaces every socket, for a copy of the VM in a process of its own: what was connected
    /// belongs to the original, so it is only closed here, not shut down. The guest is told by an
    /// event once the device is registered with its new loop. The guest's id must be the same.
    ///
    /// # Errors
    /// As [`Vsock::new`]; the device then has its old sockets still.
    pub fn rewire(&mut self, config: VsockConfig) -> Result<(), ConfigError> {
        let (backend, clients) = Backend::new(config)?;
        self.muxer.rewire(backend, clients);
        self.reset_owed = true;
        Ok(())
    }

    /// As [`ActiveDevice::reset`], with the type known.
    pub fn stop(self) -> Vsock {
        let (backend, poller, clients) = self.muxer.dismantle();
        Vsock {
            guest_cid: self.guest_cid,
            backend,
            poller,
            again: self.again,
            clients,
        }
    }

    /// One round over everything that can be done now.
    fn serve(&mut self) -> Result<(), DeviceError> {
        // Of what the guest sends, part wants an answer: that goes out in the same round.
        let more_tx = self.serve_tx()?;
        let more_rx = self.serve_rx()?;
        self.serve_event()?;
        self.interrupt_driver()?;
        if more_tx || more_rx {
            self.come_back()?;
        }
        Ok(())
    }

    /// Interrupts the driver if it wants to know of what was used since the last time.
    fn interrupt_driver(&mut self) -> Result<(), DeviceError> {
        let mut wanted = false;
        let queues = [&mut self.rx, &mut self.tx, &mut self.event];
        for (queue, used) in queues.into_iter().zip(&mut self.used) {
            // Without event-idx a queue says yes to everything, so it is not asked for nothing.
            let now = queue.state().next_used;
            wanted |= now != *used && queue.needs_interrupt()?;
            *used = now;
        }
        if wanted {
            self.interrupt.used_buffer();
        }
        Ok(())
    }

    /// Takes packets from the guest. True says that the budget ran out first.
    fn serve_tx(&mut self) -> Result<bool, DeviceError> {
        let mut budget = TX_BUDGET;
        loop {
            self.tx.disable_notification()?;
            while budget > 0 {
                let Some(chain) = self.tx.pop()? else { break };
                budget -= 1;
                let mut reader = chain.reader();
                let mut header = [0; HEADER_LEN];
                // A chain without room for a header has no sender to answer.
                if reader.read_exact(&mut header).is_ok() {
                    self.muxer.receive(&Header::from_bytes(&header), reader);
                }
                self.tx.push_used(chain.head(), 0)?;
            }
            // A ring that changes all the time is no reason to stay either.
            budget = budget.saturating_sub(1);
            if budget == 0 {
                return Ok(true);
            }
            if !self.tx.enable_notification()? {
                return Ok(false);
            }
        }
    }

    /// Gives packets to the guest. True says that the budget ran out first.
    fn serve_rx(&mut self) -> Result<bool, DeviceError> {
        self.rx.disable_notification()?;
        for _ in 0..RX_BUDGET {
            if !self.muxer.has_output() {
                return Ok(false);
            }
            let Some(chain) = self.rx.pop()? else {
                // A kick tells when there are buffers again; until then nothing is looked at.
                if self.rx.enable_notification()? {
                    self.rx.disable_notification()?;
                    continue;
                }
                return Ok(false);
            };
            // A buffer too small for a header, or for any data, goes back as it came.
            let filled = if chain.writable_len() < HEADER_LEN {
                Fill::NoRoom
            } else {
                self.muxer.fill(chain.writer())
            };
            match filled {
                Fill::Packet(len) => self.rx.push_used(chain.head(), len)?,
                Fill::NoRoom => self.rx.push_used(chain.head(), 0)?,
                Fill::Nothing | Fill::Failed => {
                    self.rx.undo_pop();
                    return Ok(false);
                }
            }
        }
        Ok(self.muxer.has_output())
    }

    fn serve_event(&mut self) -> Result<(), DeviceError> {
        if !self.reset_owed {
            self.event.disable_notification()?;
            return Ok(());
        }
        for _ in 0..QUEUE_SIZES[2] {
            let Some(chain) = self.event.pop()? else {
                if self.event.enable_notification()? {
                    continue;
                }
                return Ok(());
            };
            let mut writer = chain.writer();
            let told = writer.write_all(&EVENT_TRANSPORT_RESET).is_ok();
            self.event.push_used(chain.head(), writer.consumed())?;
            if told {
                self.reset_owed = false;
                break;
            }
        }
        Ok(())
    }

    fn come_back(&self) -> Result<(), DeviceError> {
        match rustix::io::write(&self.again, &1_u64.to_ne_bytes()) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(error) => Err(host("waking the vsock device")(error.into())),
        }
    }

    fn handle(&mut self, source: u32) -> Result<(), DeviceError> {
        match source {
            source::RX => self.rx.drain_kick(),
            source::TX => self.tx.drain_kick(),
            source::EVENT => self.event.drain_kick(),
            source::AGAIN => {
                let _ = rustix::io::read(&self.again, &mut [0; 8]);
            }
            source::SOCKETS => {
                // What is left shows up as another event.
                self.muxer.poll().map_err(host("watching sockets"))?;
            }
            _ => {}
        }
        self.serve()
    }
}

impl ActiveDevice for ActiveVsock {
    fn register(&mut self, ops: &mut EventOps<'_>) -> Result<(), DeviceError> {
        // Nothing of the loop that hosted the device before is kept: it may be the loop of the
        // process that this one was forked from, which shares its descriptors.
        self.again = again_fd().map_err(host("making an eventfd"))?;
        self.muxer.register().map_err(host("watching sockets"))?;
        for (fd, source) in [
            (self.rx.kick().as_raw_fd(), source::RX),
            (self.tx.kick().as_raw_fd(), source::TX),
            (self.event.kick().as_raw_fd(), source::EVENT),
            (self.muxer.poller().fd().as_raw_fd(), source::SOCKETS),
            (self.again.as_raw_fd(), source::AGAIN),
        ] {
            ops.add(Events::with_data_raw(fd, source, EventSet::IN))?;
        }
        // Work that was left when the device was parked.
        self.come_back()
    }

    fn process(&mut self, event: Events, _: &mut EventOps<'_>) -> Result<(), DeviceError> {
        let result = self.handle(event.data());
        if result.is_err() {
            // Nobody will call again until the driver has reset the device: the host's programs
            // must not wait for that.
            self.muxer.hang_up();
        }
        result
    }

    fn flush(&mut self) -> io::Result<()> {
        // The processors have stopped, so the ring ends. What it holds was sent before that.
        while self.serve_tx().map_err(io::Error::other)? {}
        self.muxer.flush(Instant::now() + FLUSH_TIMEOUT)
    }

    fn reset(self: Box<Self>) -> Box<dyn VirtioDevice> {
        Box::new(self.stop())
    }
}

fn again_fd() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?)
}

fn host(what: &'static str) -> impl FnOnce(io::Error) -> DeviceError {
    move |source| DeviceError::Host { what, source }
}
