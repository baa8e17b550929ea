//! The socket that the guest's Ethernet frames come from and go to.
//!
//! A frame that the socket does not take is kept, and while one is kept nobody may send another
//! ([`Frames::is_open`]) nor is a frame of the guest read: what a frame causes at once (a reset, an
//! echo) is little, so what is kept is little.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::bucket::Bucket;
use crate::config::Addresses;
use crate::control::Stats;

/// Ethernet's header.
pub(crate) const ETHERNET: usize = 14;
/// `ETH_P_IP`.
pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
/// `ETH_P_ARP`.
pub(crate) const ETHERTYPE_ARP: u16 = 0x0806;

/// What reading gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// A frame of this length is in the buffer.
    Frame(usize),
    /// There is none, or none may be read now.
    Nothing,
    /// Nobody has the other end.
    Closed,
}

/// Our end of the socket.
#[derive(Debug)]
pub(crate) struct Frames {
    socket: OwnedFd,
    guest_mac: [u8; 6],
    gateway_mac: [u8; 6],
    mtu: usize,
    /// Frames that the socket did not take.
    kept: VecDeque<Vec<u8>>,
    /// Frames are built here.
    scratch: Vec<u8>,
    readable: bool,
    from_guest: Bucket,
    to_guest: Bucket,
    closed: bool,
    pub(crate) stats: Stats,
}

impl Frames {
    pub(crate) fn new(
        socket: OwnedFd,
        addresses: &Addresses,
        bytes_per_second: Option<u64>,
        now: Instant,
    ) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self {
            socket,
            guest_mac: addresses.guest_mac,
            gateway_mac: addresses.gateway_mac,
            mtu: addresses.mtu.into(),
            kept: VecDeque::new(),
            scratch: Vec::new(),
            readable: true,
            from_guest: Bucket::new(bytes_per_second, now),
            to_guest: Bucket::new(bytes_per_second, now),
            closed: false,
            stats: Stats::default(),
        })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Longest IP packet.
    pub(crate) fn mtu(&self) -> usize {
        self.mtu
    }

    /// The socket has something to read.
    pub(crate) fn set_readable(&mut self) {
        self.readable = true;
    }

    /// Whether reading may give a frame now.
    pub(crate) fn wants_to_read(&self, now: Instant) -> bool {
        self.readable && self.kept.is_empty() && self.from_guest.is_open(now)
    }

    /// Whether frames may be sent now.
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        self.kept.is_empty() && self.to_guest.is_open(now)
    }

    /// When to look again because of a limit of the bandwidth.
    pub(crate) fn opens_at(&self, now: Instant) -> Option<Instant> {
        let reads = self.from_guest.opens_at(now).filter(|_| self.readable);
        [reads, self.to_guest.opens_at(now)]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next frame of the guest.
    pub(crate) fn read(&mut self, buffer: &mut [u8], now: Instant) -> Read {
        if self.closed {
            return Read::Closed;
        }
        if !self.wants_to_read(now) {
            return Read::Nothing;
        }
        loop {
            return match recv(&self.socket, &mut *buffer, RecvFlags::TRUNC) {
                Ok((0, _)) => Read::Closed,
                Ok((length, real)) => {
                    self.stats.frames_from_guest += 1;
                    self.stats.bytes_from_guest += real as u64;
                    self.from_guest.take(real, now);
                    if real > length || length < ETHERNET {
                        self.stats.frames_dropped += 1;
                        continue;
                    }
                    Read::Frame(length)
                }
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {
                    self.readable = false;
                    Read::Nothing
                }
                Err(_) => Read::Closed,
            };
        }
    }

    /// Sends one frame to the guest, whose payload `fill` writes; keeps it if the socket is full.
    pub(crate) fn send<R>(
        &mut self,
        ethertype: u16,
        length: usize,
        now: Instant,
        fill: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        let mut frame = std::mem::take(&mut self.scratch);
        frame.clear();
        frame.resize(ETHERNET + length, 0);
        frame[..6].copy_from_slice(&self.guest_mac);
        frame[6..12].copy_from_slice(&self.gateway_mac);
        frame[12..ETHERNET].copy_from_slice(&ethertype.to_be_bytes());
        let result = fill(&mut frame[ETHERNET..]);
        self.stats.frames_to_guest += 1;
        self.stats.bytes_to_guest += frame.len() as u64;
        self.to_guest.take(frame.len(), now);
        if !self.kept.is_empty() || !self.put(&frame) {
            self.kept.push_back(frame);
        } else {
            self.scratch = frame;
        }
        result
    }

    /// Sends what was kept, as far as the socket takes it.
    pub(crate) fn flush(&mut self) {
        while let Some(frame) = self.kept.pop_front() {
            if !self.put(&frame) {
                self.kept.push_front(frame);
                return;
            }
        }
    }

    /// False when the socket is full.
    fn put(&mut self, frame: &[u8]) -> bool {
        loop {
            return match send(&self.socket, frame, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => false,
                Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => {
                    self.closed = true;
                    true
                }
                // Lost, as frames may be.
                Ok(_) | Err(_) => true,
            };
        }
    }
}
