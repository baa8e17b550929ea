//! The device towards its queues: configured, and active.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use event_manager::{EventOps, EventSet, Events};
use rustix::event::{EventfdFlags, eventfd};
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;

use crate::virtio::device::{Activation, ActiveDevice, DeviceError, VirtioDevice};
use crate::virtio::device_type;
use crate::virtio::interrupt::Interrupt;
use crate::virtio::iovec;
use crate::virtio::queue::ActiveQueue;

// Feature bits (§5.1.3).
/// `VIRTIO_NET_F_CSUM`: takes frames whose checksum is not filled in.
const F_CSUM: u64 = 1 << 0;
/// `VIRTIO_NET_F_GUEST_CSUM`: the driver takes our word for checksums.
const F_GUEST_CSUM: u64 = 1 << 1;
/// `VIRTIO_NET_F_MTU`: the longest packet is in the configuration.
const F_MTU: u64 = 1 << 3;
/// `VIRTIO_NET_F_MAC`: the address is in the configuration.
const F_MAC: u64 = 1 << 5;

/// `struct virtio_net_hdr` with `num_buffers`, which version 1 always has (§5.1.6).
pub(super) const HEADER_LEN: usize = 12;
/// `VIRTIO_NET_HDR_F_DATA_VALID` in its `flags` (§5.1.6.4.1).
const HDR_F_DATA_VALID: u8 = 1 << 1;
/// Where `num_buffers` is in it.
const NUM_BUFFERS: usize = 10;

/// Ethernet's header: the shortest frame there is.
pub(super) const ETHERNET_LEN: usize = 14;

/// Entries of the receive queue. Linux fills every one with buffers for the longest frame.
pub(super) const RX_SIZE: u16 = 64;
/// Entries of the transmit queue.
const TX_SIZE: u16 = 256;
/// Frames of one direction in one event, so that the other gets its turn.
pub(super) const BUDGET: usize = 64;

/// What an event of the host loop is about.
mod source {
    pub(super) const RX: u32 = 0;
    pub(super) const TX: u32 = 1;
    pub(super) const SOCKET: u32 = 2;
    pub(super) const AGAIN: u32 = 3;
}

/// Why a network device cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The socket keeps no messages apart.
    #[error("the network's socket is not of type SOCK_SEQPACKET")]
    SocketType,
    /// The host refused something.
    #[error("the host refused the network's socket")]
    Host(#[from] io::Error),
}

/// The configured device.
#[derive(Debug)]
pub struct Net {
    mac: [u8; 6],
    mtu: u16,
    socket: OwnedFd,
}

impl Net {
    /// Takes over a connected `SOCK_SEQPACKET` socket.
    ///
    /// # Errors
    /// When it is of another kind, or the host refuses.
    pub fn new(mac: [u8; 6], mtu: u16, socket: OwnedFd) -> Result<Self, NetError> {
        if socket_type(&socket).map_err(io::Error::from)? != SocketType::SEQPACKET {
            return Err(NetError::SocketType);
        }
        rustix::io::ioctl_fionbio(&socket, true).map_err(io::Error::from)?;
        Ok(Self { mac, mtu, socket })
    }
}

impl VirtioDevice for Net {
    fn device_type(&self) -> u32 {
        device_type::NETWORK
    }

    fn name(&self) -> &'static str {
        "net"
    }

    fn features(&self) -> u64 {
        F_CSUM | F_GUEST_CSUM | F_MTU | F_MAC
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[RX_SIZE, TX_SIZE]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // `struct virtio_net_config` (§5.1.4): address, status, pairs of queues, MTU.
        let mut config = [0; 12];
        config[..6].copy_from_slice(&self.mac);
        config[10..].copy_from_slice(&self.mtu.to_le_bytes());
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| config.get(offset..));
        for (to, from) in data.iter_mut().zip(rest.unwrap_or_default()) {
            *to = *from;
        }
    }

    fn activate(self: Box<Self>, mut activation: Activation) -> Box<dyn ActiveDevice> {
        let [rx, tx] = activation.take_queues();
        let mut header = [0; HEADER_LEN];
        if activation.features & F_GUEST_CSUM != 0 {
            header[0] = HDR_F_DATA_VALID;
        }
        header[NUM_BUFFERS..].copy_from_slice(&1u16.to_le_bytes());
        Box::new(ActiveNet {
            frame_max: ETHERNET_LEN + usize::from(self.mtu),
            device: *self,
            rx,
            tx,
            interrupt: activation.interrupt,
            header,
            again: None,
            closed: false,
            used: [0; 2],
        })
    }
}

/// The running device.
#[derive(Debug)]
struct ActiveNet {
    device: Net,
    rx: ActiveQueue,
    tx: ActiveQueue,
    interrupt: Interrupt,
    /// What comes before every frame to the guest.
    header: [u8; HEADER_LEN],
    /// Longest frame in either direction.
    frame_max: usize,
    /// Readable while a budget ran out with work left; made anew by each host.
    again: Option<OwnedFd>,
    /// Nobody has the socket's other end any more.
    closed: bool,
    /// The used index of each queue when the driver was last interrupted for it.
    used: [u16; 2],
}

impl ActiveNet {
    /// One round over everything that can be done now.
    fn serve(&mut self) -> Result<(), DeviceError> {
        let more_tx = self.serve_tx()?;
        let more_rx = self.serve_rx()?;
        self.interrupt_driver()?;
        if more_tx || more_rx {
            self.come_back()?;
        }
        Ok(())
    }

    /// Takes frames from the guest. True says that the budget ran out first.
    fn serve_tx(&mut self) -> Result<bool, DeviceError> {
        self.tx.disable_notification()?;
        for _ in 0..BUDGET {
            let Some(chain) = self.tx.pop()? else {
                if self.tx.enable_notification()? {
                    // A ring that changes all the time is no reason to stay.
                    self.tx.disable_notification()?;
                    continue;
                }
                return Ok(false);
            };
            let mut frame = chain.reader();
            frame.skip(HEADER_LEN);
            // What is no frame is dropped, as by a cable.
            let sent = if (ETHERNET_LEN..=self.frame_max).contains(&frame.remaining()) {
                self.send(frame.slices(self.frame_max))
            } else {
                Ok(())
            };
            match sent {
                Ok(()) => self.tx.push_used(chain.head(), 0)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // The socket's edge tells when it goes on; kicks are of no use until then.
                    self.tx.undo_pop();
                    return Ok(false);
                }
                Err(source) => return Err(host("sending a frame")(source)),
            }
        }
        Ok(true)
    }

    /// Sends a frame to the socket. One that nobody has the other end of swallows all.
    fn send<'a>(
        &mut self,
        frame: impl Iterator<Item = crate::virtio::queue::GuestSlice<'a>>,
    ) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        match iovec::send(self.device.socket.as_fd(), frame) {
            Ok(_) => Ok(()),
            Err(error) if is_closed(&error) => {
                self.closed = true;
                Ok(())
            }
            // The socket's buffer could never hold it, or the kernel has no memory for it: lost, as
            // frames may be.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EMSGSIZE | libc::ENOBUFS | libc::ENOMEM)
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Gives frames to the guest. True says that the budget ran out first.
    fn serve_rx(&mut self) -> Result<bool, DeviceError> {
        self.rx.disable_notification()?;
        for _ in 0..BUDGET {
            if self.closed {
                return Ok(false);
            }
            let Some(chain) = self.rx.pop()? else {
                // A kick tells when there are buffers again.
                if self.rx.enable_notification()? {
                    self.rx.disable_notification()?;
                    continue;
                }
                return Ok(false);
            };
            if chain.writable_len() < HEADER_LEN + ETHERNET_LEN {
                // A buffer that holds no frame goes back as it came.
                self.rx.push_used(chain.head(), 0)?;
                continue;
            }
            let mut writer = chain.writer();
            let mut header = writer.split_to(HEADER_LEN);
            let frame = writer.slices(self.frame_max);
            match iovec::receive(self.device.socket.as_fd(), frame) {
                Ok(received) if received.len == 0 => {
                    self.closed = true;
                    self.rx.undo_pop();
                }
                // Half a frame is none.
                Ok(received) if received.truncated || received.len < ETHERNET_LEN => {
                    self.rx.undo_pop();
                }
                Ok(received) => {
                    header
                        .write_all(&self.header)
                        .map_err(host("writing a header"))?;
                    let written = u32::try_from(HEADER_LEN + received.len)
                        .expect("a frame is at most as long as frame_max");
                    self.rx.push_used(chain.head(), written)?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.rx.undo_pop();
                    return Ok(false);
                }
                Err(error) if is_closed(&error) => {
                    self.closed = true;
                    self.rx.undo_pop();
                }
                Err(source) => return Err(host("receiving a frame")(source)),
            }
        }
        Ok(true)
    }

    /// Interrupts the driver if it wants to know of what was used since the last time.
    fn interrupt_driver(&mut self) -> Result<(), DeviceError> {
        let mut wanted = false;
        let queues = [&mut self.rx, &mut self.tx];
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

    fn come_back(&self) -> Result<(), DeviceError> {
        let Some(again) = &self.again else {
            return Ok(());
        };
        match rustix::io::write(again, &1_u64.to_ne_bytes()) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(error) => Err(host("waking the network device")(error.into())),
        }
    }
}

impl ActiveDevice for ActiveNet {
    fn register(&mut self, ops: &mut EventOps<'_>) -> Result<(), DeviceError> {
        let again = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
            .map_err(|error| host("making an eventfd")(error.into()))?;
        for (fd, source, set) in [
            (self.rx.kick().as_raw_fd(), source::RX, EventSet::IN),
            (self.tx.kick().as_raw_fd(), source::TX, EventSet::IN),
            (again.as_raw_fd(), source::AGAIN, EventSet::IN),
            (
                self.device.socket.as_raw_fd(),
                source::SOCKET,
                EventSet::IN | EventSet::OUT | EventSet::EDGE_TRIGGERED,
            ),
        ] {
            ops.add(Events::with_data_raw(fd, source, set))?;
        }
        self.again = Some(again);
        // Work that was left when the device was parked.
        self.come_back()
    }

    fn process(&mut self, event: Events, _: &mut EventOps<'_>) -> Result<(), DeviceError> {
        match event.data() {
            source::RX => self.rx.drain_kick(),
            source::TX => self.tx.drain_kick(),
            source::AGAIN => {
                if let Some(again) = &self.again {
                    let _ = rustix::io::read(again, &mut [0; 8]);
                }
            }
            // An edge needs no draining.
            _ => {}
        }
        self.serve()
    }

    fn reset(self: Box<Self>) -> Box<dyn VirtioDevice> {
        Box::new(self.device)
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN | libc::ECONNREFUSED)
    )
}

fn host(what: &'static str) -> impl FnOnce(io::Error) -> DeviceError {
    move |source| DeviceError::Host { what, source }
}
