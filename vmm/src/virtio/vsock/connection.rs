//! One connection between a guest program and a Unix socket.
//!
//! ```text
//!            REQUEST sent                     RESPONSE
//! host ────────────────────▶ Requested ─────────────────────▶ Open
//! guest REQUEST, we owe a RESPONSE ─────────────────────────▶ Open
//!
//! Open: each side gives its directions up one by one with SHUTDOWN. The guest's SEND becomes
//! shutdown(SHUT_WR) when all its bytes are out, its RECEIVE shutdown(SHUT_RD). End-of-file on
//! the socket becomes our SEND, a socket that takes no more our RECEIVE.
//! ```
//!
//! A connection does no I/O but on its own socket, never blocks, and does not know of queues: it
//! is given a packet ([`inbound`]), or a place to put one.

mod inbound;

use std::io;
use std::os::unix::net::UnixStream;

use rustix::event::epoll::EventFlags;

use super::backlog::Backlog;
use super::credit::Credit;
use super::limits::MAX_PAYLOAD;
use super::packet::{Cid, ConnKey, HEADER_LEN, Header, Op, Shutdown, TYPE_STREAM};
use crate::virtio::iovec;
use crate::virtio::queue::Cursor;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The host wants to connect; the guest has not answered.
    Requested,
    Open,
}

/// Packets without data that are to be sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Owed {
    request: bool,
    response: bool,
    credit_update: bool,
    credit_request: bool,
}

/// What is to become of a connection after a packet of the guest's.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on.
    Keep,
    /// The guest is done with it. What it sent before is still to reach the host.
    Finished {
        /// The guest waits for a reset as the answer (virtio 1.2 §5.10.6.6).
        answer: bool,
    },
    /// The guest broke the protocol: reset it and drop everything.
    Violation,
}

/// What a connection did with a place for a packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fill {
    /// It wrote a packet of so many bytes.
    Packet(u32),
    /// It has nothing to say.
    Nothing,
    /// It has data, but the place has no room for any.
    NoRoom,
    /// Its socket failed: reset it.
    Failed,
}

#[derive(Debug)]
pub(super) struct Connection {
    key: ConnKey,
    guest_cid: Cid,
    stream: UnixStream,
    phase: Phase,
    credit: Credit,
    backlog: Backlog,
    owed: Owed,
    /// What the guest has given up.
    guest: Shutdown,
    /// What the socket has given up, seen from the guest.
    host: Shutdown,
    /// What of `host` the guest was told.
    told: Shutdown,
    /// The socket is dead in both directions, though bytes may still be read from it.
    hung_up: bool,
    /// The socket may have bytes, or its end, to read.
    readable: bool,
    /// The guest has no room for them and was asked for a credit update.
    asked: bool,
    /// The socket's input is watched.
    input_armed: bool,
}

impl Connection {
    /// A connection from the host: the guest is to be asked.
    pub(super) fn from_host(key: ConnKey, guest_cid: Cid, stream: UnixStream) -> Connection {
        let owed = Owed {
            request: true,
            ..Owed::default()
        };
        Self::new(key, guest_cid, stream, Phase::Requested, owed)
    }

    /// A connection from the guest, already handed to the host: the guest is to be told.
    pub(super) fn from_guest(request: &Header, guest_cid: Cid, stream: UnixStream) -> Connection {
        let key = ConnKey {
            host: request.dst_port,
            guest: request.src_port,
        };
        let owed = Owed {
            response: true,
            ..Owed::default()
        };
        let mut connection = Self::new(key, guest_cid, stream, Phase::Open, owed);
        connection.credit.heard(request.buf_alloc, request.fwd_cnt);
        connection
    }

    fn new(
        key: ConnKey,
        guest_cid: Cid,
        stream: UnixStream,
        phase: Phase,
        owed: Owed,
    ) -> Connection {
        Connection {
            key,
            guest_cid,
            stream,
            phase,
            credit: Credit::default(),
            backlog: Backlog::default(),
            owed,
            guest: Shutdown::default(),
            host: Shutdown::default(),
            told: Shutdown::default(),
            hung_up: false,
            readable: false,
            asked: false,
            input_armed: true,
        }
    }

    pub(super) fn key(&self) -> ConnKey {
        self.key
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// The guest has not answered the request yet.
    pub(super) fn is_requested(&self) -> bool {
        self.phase == Phase::Requested
    }

    /// The guest was told that both directions are over and should answer with a reset.
    pub(super) fn awaits_reset(&self) -> bool {
        self.told.both()
    }

    /// Bytes of the guest's wait for the host to read.
    pub(super) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// What to watch the socket for.
    pub(super) fn interest(&self) -> EventFlags {
        let mut interest = EventFlags::ET;
        if self.input_armed {
            interest |= EventFlags::IN | EventFlags::RDHUP;
        }
        if !self.backlog.is_empty() {
            interest |= EventFlags::OUT;
        }
        interest
    }

    /// Takes the socket and what is still to be written to it.
    pub(super) fn into_parts(self) -> (UnixStream, Backlog) {
        (self.stream, self.backlog)
    }

    /// The socket's state changed. Does I/O only to flush the backlog.
    pub(super) fn socket_event(&mut self, flags: EventFlags) {
        if flags.contains(EventFlags::OUT) {
            self.flush();
        }
        if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            self.hung_up = true;
            if !self.backlog.is_empty() {
                self.flush();
            }
            if self.guest.receive || self.host.send {
                // Nothing is left to be read before the guest may know.
                self.host = BOTH;
            }
        }
        let input = EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        if flags.intersects(input) {
            // A second edge before the first could be served: the guest has no room, or no
            // buffers. What comes next can wait unnoticed.
            if self.readable {
                self.input_armed = false;
            }
            self.readable = true;
        }
    }

    /// Whether a place in the guest's memory would be of use now.
    pub(super) fn has_output(&self) -> bool {
        self.owed != Owed::default()
            || (self.phase == Phase::Open && (self.told != self.host || self.can_read()))
    }

    /// Bytes may wait in the socket, and the guest may get them or may have to be asked.
    fn can_read(&self) -> bool {
        self.wants_input() && self.readable && (self.credit.peer_free() > 0 || !self.asked)
    }

    fn wants_input(&self) -> bool {
        self.phase == Phase::Open && !self.guest.receive && !self.host.send
    }

    /// Puts the next packet, if there is one, into guest memory.
    pub(super) fn fill(&mut self, mut place: Cursor<'_>) -> Fill {
        let mut head = place.split_to(HEADER_LEN);
        if std::mem::take(&mut self.owed.request) {
            return self.put(&mut head, Op::Request, 0, 0);
        }
        if std::mem::take(&mut self.owed.response) {
            return self.put(&mut head, Op::Response, 0, 0);
        }
        if self.phase == Phase::Requested {
            return Fill::Nothing;
        }
        if self.can_read() {
            match self.read(&place) {
                Ok(Some(count)) => return self.put(&mut head, Op::Rw, count, 0),
                Ok(None) => {}
                Err(verdict) => return verdict,
            }
        }
        if self.told != self.host {
            self.told = self.host;
            return self.put(&mut head, Op::Shutdown, 0, self.told.flags());
        }
        if std::mem::take(&mut self.owed.credit_request) {
            return self.put(&mut head, Op::CreditRequest, 0, 0);
        }
        if std::mem::take(&mut self.owed.credit_update) {
            return self.put(&mut head, Op::CreditUpdate, 0, 0);
        }
        Fill::Nothing
    }

    /// Reads from the socket straight into guest memory.
    fn read(&mut self, place: &Cursor<'_>) -> Result<Option<u32>, Fill> {
        let free = self.credit.peer_free();
        if free == 0 {
            self.asked = true;
            self.owed.credit_request = true;
            return Ok(None);
        }
        let most = free.min(MAX_PAYLOAD) as usize;
        if place.remaining() == 0 {
            return Err(Fill::NoRoom);
        }
        match iovec::read(&self.stream, place.slices(most)) {
            Ok(0) => {
                self.readable = false;
                self.host.send = true;
                if self.hung_up {
                    self.host = BOTH;
                }
                Ok(None)
            }
            Ok(count) => {
                let count = u32::try_from(count).expect("at most MAX_PAYLOAD bytes were read");
                self.credit.sent(count);
                Ok(Some(count))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                self.input_armed = true;
                Ok(None)
            }
            Err(_) => Err(Fill::Failed),
        }
    }

    fn put(&mut self, head: &mut Cursor<'_>, op: Op, len: u32, flags: u32) -> Fill {
        let (buf_alloc, fwd_cnt) = self.credit.tell();
        self.owed.credit_update = false;
        let header = Header {
            src_cid: Cid::HOST,
            dst_cid: self.guest_cid,
            src_port: self.key.host,
            dst_port: self.key.guest,
            len,
            socket_type: TYPE_STREAM,
            op,
            flags,
            buf_alloc,
            fwd_cnt,
        };
        match head.write_all(&header.to_bytes()) {
            Ok(()) => {
                let header_len = u32::try_from(HEADER_LEN).expect("44 bytes");
                Fill::Packet(header_len + len)
            }
            // The caller offers places with room for a header only.
            Err(_) => Fill::Failed,
        }
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.backlog.memory()
    }
}

const BOTH: Shutdown = Shutdown {
    receive: true,
    send: true,
};
