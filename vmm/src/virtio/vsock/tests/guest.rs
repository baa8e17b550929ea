//! A guest that keeps the protocol: its programs accept, connect, send and receive.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::driver::{Driver, Packet};
use crate::virtio::vsock::limits::MAX_PAYLOAD;
use crate::virtio::vsock::packet::{Cid, Header, Op, Port, Shutdown, TYPE_STREAM};

pub(super) const GUEST: Cid = Cid(3);

/// One end of a stream in the guest.
#[derive(Debug, Default)]
pub(super) struct Socket {
    /// What came and was not read; the program reads at once unless `lazy`.
    pub(super) received: Vec<u8>,
    /// Bytes received in all, and bytes taken out of the buffer.
    pub(super) received_count: u32,
    pub(super) read_count: u32,
    /// The `read_count` that the device was told last.
    told_count: u32,
    /// The program does not read, so no credit comes back.
    pub(super) lazy: bool,
    /// To be sent as credit allows.
    pub(super) outgoing: VecDeque<u8>,
    pub(super) sent_count: u32,
    pub(super) peer_buf_alloc: u32,
    pub(super) peer_fwd_cnt: u32,
    /// Directions the device has given up.
    pub(super) peer_shutdown: Shutdown,
    pub(super) accepted: bool,
    pub(super) was_reset: bool,
    /// Ops of the packets that came, for tests that count them.
    pub(super) log: Vec<Op>,
}

/// The guest's side of all connections.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) driver: Driver,
    pub(super) sockets: BTreeMap<(u32, u32), Socket>,
    pub(super) listening: BTreeSet<u32>,
    /// The buffer that every socket has.
    pub(super) buf_alloc: u32,
    /// Packets go to `inbox` and nothing is done about them.
    pub(super) passive: bool,
    pub(super) inbox: Vec<Packet>,
    pub(super) packet_len: usize,
}

/// A packet from the guest with generous credit.
pub(super) fn header(op: Op, host: u32, guest: u32) -> Header {
    Header {
        src_cid: GUEST,
        dst_cid: Cid::HOST,
        src_port: Port(guest),
        dst_port: Port(host),
        len: 0,
        socket_type: TYPE_STREAM,
        op,
        flags: 0,
        buf_alloc: 256 * 1024,
        fwd_cnt: 0,
    }
}

impl Guest {
    pub(super) fn new(driver: Driver) -> Guest {
        Guest {
            driver,
            sockets: BTreeMap::new(),
            listening: BTreeSet::new(),
            buf_alloc: 256 * 1024,
            passive: false,
            inbox: Vec::new(),
            packet_len: 64 * 1024,
        }
    }

    pub(super) fn socket(&mut self, host: u32, guest: u32) -> &mut Socket {
        self.sockets
            .get_mut(&(host, guest))
            .expect("the guest has this socket")
    }

    /// Sends a packet of a connection; the queue must have room.
    pub(super) fn send(&mut self, op: Op, host: u32, guest: u32, flags: u32, data: &[u8]) {
        let fwd_cnt = self.sockets.get_mut(&(host, guest)).map_or(0, |socket| {
            socket.told_count = socket.read_count;
            socket.read_count
        });
        let header = Header {
            len: u32::try_from(data.len()).unwrap(),
            flags,
            buf_alloc: self.buf_alloc,
            fwd_cnt,
            ..header(op, host, guest)
        };
        assert!(
            self.driver.send(&header, data),
            "the transmit queue has room"
        );
    }

    /// Starts a connection to a port of the host.
    pub(super) fn connect(&mut self, host: u32, guest: u32) {
        self.sockets.insert((host, guest), Socket::default());
        self.send(Op::Request, host, guest, 0, &[]);
    }

    pub(super) fn shutdown(&mut self, host: u32, guest: u32, receive: bool, send: bool) {
        self.send(
            Op::Shutdown,
            host,
            guest,
            Shutdown { receive, send }.flags(),
            &[],
        );
    }

    /// Does everything a guest would do now. True if it did anything.
    pub(super) fn step(&mut self) -> bool {
        let mut active = false;
        while let Some(packet) = self.driver.receive() {
            active = true;
            if self.passive {
                self.inbox.push(packet);
            } else {
                self.handle(packet);
            }
        }
        active |= self.driver.refill();
        active |= self.transmit();
        active
    }

    fn handle(&mut self, packet: Packet) {
        let Packet { header, data } = packet;
        assert_eq!((header.src_cid, header.dst_cid), (Cid::HOST, GUEST));
        let (host, guest) = (header.src_port.0, header.dst_port.0);
        if header.op == Op::Request {
            if self.listening.contains(&guest) {
                let socket = Socket {
                    accepted: true,
                    ..Socket::default()
                };
                self.sockets.insert((host, guest), socket);
                self.send(Op::Response, host, guest, 0, &[]);
            } else {
                self.send(Op::Rst, host, guest, 0, &[]);
            }
        }
        let buf_alloc = self.buf_alloc;
        let Some(socket) = self.sockets.get_mut(&(host, guest)) else {
            return;
        };
        socket.peer_buf_alloc = header.buf_alloc;
        socket.peer_fwd_cnt = header.fwd_cnt;
        socket.log.push(header.op);
        match header.op {
            Op::Response => socket.accepted = true,
            Op::Rst => socket.was_reset = true,
            Op::Shutdown => socket
                .peer_shutdown
                .merge(Shutdown::from_flags(header.flags)),
            Op::Rw => {
                assert!(!socket.peer_shutdown.send, "no data after the end of it");
                assert!(
                    header.len <= MAX_PAYLOAD,
                    "no packet is larger than allowed"
                );
                socket.received_count += header.len;
                let waiting = socket.received_count - socket.read_count;
                assert!(
                    waiting <= buf_alloc,
                    "the device keeps to the guest's credit"
                );
                socket.received.extend(data);
                if !socket.lazy {
                    socket.read_count = socket.received_count;
                    if socket.read_count.wrapping_sub(socket.told_count) > buf_alloc / 4 {
                        self.send(Op::CreditUpdate, host, guest, 0, &[]);
                    }
                }
            }
            Op::CreditRequest => {
                self.send(Op::CreditUpdate, host, guest, 0, &[]);
            }
            _ => {}
        }
    }

    fn transmit(&mut self) -> bool {
        let keys: Vec<(u32, u32)> = self.sockets.keys().copied().collect();
        let mut active = false;
        for (host, guest) in keys {
            loop {
                let packet_len = self.packet_len;
                let socket = self.socket(host, guest);
                let credit = socket
                    .peer_buf_alloc
                    .saturating_sub(socket.sent_count.wrapping_sub(socket.peer_fwd_cnt));
                let count = socket.outgoing.len().min(credit as usize).min(packet_len);
                if count == 0 || !socket.accepted || socket.was_reset {
                    break;
                }
                let data = socket.outgoing.make_contiguous()[..count].to_vec();
                let header = Header {
                    len: u32::try_from(count).unwrap(),
                    fwd_cnt: socket.read_count,
                    buf_alloc: self.buf_alloc,
                    ..header(Op::Rw, host, guest)
                };
                if !self.driver.send(&header, &data) {
                    break;
                }
                let socket = self.socket(host, guest);
                socket.outgoing.drain(..count);
                socket.sent_count = socket.sent_count.wrapping_add(header.len);
                active = true;
            }
        }
        active
    }
}
