//! The guest's frames as smoltcp's device: at most one packet in, packets out as long as the
//! socket takes them.

use std::time::Instant;

use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};

use crate::frames::{ETHERTYPE_IPV4, Frames};

pub(super) struct Link<'a> {
    frames: &'a mut Frames,
    packet: Option<&'a [u8]>,
    now: Instant,
}

impl<'a> Link<'a> {
    pub(super) fn new(frames: &'a mut Frames, packet: Option<&'a [u8]>, now: Instant) -> Self {
        Self {
            frames,
            packet,
            now,
        }
    }

    /// The same with another packet.
    pub(super) fn with_packet<'b>(&'b mut self, packet: &'b [u8]) -> Link<'b> {
        Link::new(self.frames, Some(packet), self.now)
    }

    /// Whether packets can be sent.
    pub(super) fn is_open(&self) -> bool {
        self.frames.is_open(self.now)
    }

    pub(super) fn now(&self) -> Instant {
        self.now
    }
}

pub(super) struct Packet<'a>(&'a [u8]);

impl RxToken for Packet<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

pub(super) struct Sender<'a>(&'a mut Frames, Instant);

impl TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        self.0.send(ETHERTYPE_IPV4, length, self.1, f)
    }
}

impl Device for Link<'_> {
    type RxToken<'a>
        = Packet<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Sender<'a>
    where
        Self: 'a;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Packet<'_>, Sender<'_>)> {
        // What a packet is answered with at once is sent or kept, whatever the socket says.
        let packet = self.packet.take()?;
        Some((Packet(packet), Sender(self.frames, self.now)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Sender<'_>> {
        self.is_open().then_some(Sender(self.frames, self.now))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.frames.mtu();
        // The guest leaves TCP's out, and nothing between it and us can damage a frame.
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities
    }
}
