//! From the guest to the socket: packets, their data, and the backlog of a slow reader.

use std::io;
use std::net::Shutdown as SocketSide;

use super::{BOTH, Connection, Phase, Verdict};
use crate::virtio::iovec;
use crate::virtio::queue::Cursor;
use crate::virtio::vsock::handshake;
use crate::virtio::vsock::limits::MAX_PAYLOAD;
use crate::virtio::vsock::packet::{Header, Op, Shutdown};

impl Connection {
    /// Takes a packet of the guest's. `payload` is what its chain really holds behind the header.
    pub(in crate::virtio::vsock) fn receive(
        &mut self,
        header: &Header,
        mut payload: Cursor<'_>,
    ) -> Verdict {
        self.credit.heard(header.buf_alloc, header.fwd_cnt);
        if self.credit.peer_free() > 0 {
            self.asked = false;
            self.owed.credit_request = false;
        }
        match (self.phase, header.op) {
            (Phase::Requested, Op::Response) => self.accepted(),
            (_, Op::Rst) => Verdict::Finished { answer: false },
            (Phase::Open, Op::Rw) => {
                let len = header.len as usize;
                if self.guest.send || header.len > MAX_PAYLOAD || len > payload.remaining() {
                    return Verdict::Violation;
                }
                self.take_data(payload.split_to(len))
            }
            (Phase::Open, Op::CreditUpdate) => Verdict::Keep,
            (Phase::Open, Op::CreditRequest) => {
                self.owed.credit_update = true;
                Verdict::Keep
            }
            (Phase::Open, Op::Shutdown) => self.shut_down(Shutdown::from_flags(header.flags)),
            _ => Verdict::Violation,
        }
    }

    /// The guest accepted: the client learns it before any byte of the guest's.
    fn accepted(&mut self) -> Verdict {
        self.phase = Phase::Open;
        let answer = handshake::accepted(self.key.host);
        match io::Write::write(&mut &self.stream, answer.as_bytes()) {
            Ok(written) if written == answer.len() => {}
            // The client is gone. The guest has a connection and is told so in order.
            _ => self.lost_reader(),
        }
        Verdict::Keep
    }

    fn take_data(&mut self, mut payload: Cursor<'_>) -> Verdict {
        if self.host.receive {
            self.forwarded(payload.remaining());
            return Verdict::Keep;
        }
        if !self.backlog.has_room(payload.remaining()) {
            return Verdict::Violation;
        }
        while self.backlog.is_empty() && payload.remaining() > 0 {
            match iovec::send(&self.stream, payload.slices(payload.remaining())) {
                Ok(count) if count > 0 => {
                    payload.skip(count);
                    self.forwarded(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.backlog.append(payload);
                    return Verdict::Keep;
                }
                Ok(_) | Err(_) => {
                    self.forwarded(payload.remaining());
                    self.lost_reader();
                    return Verdict::Keep;
                }
            }
        }
        if payload.remaining() > 0 {
            self.backlog.append(payload);
        }
        Verdict::Keep
    }

    fn shut_down(&mut self, flags: Shutdown) -> Verdict {
        let before = self.guest;
        self.guest.merge(flags);
        if self.guest.both() {
            return Verdict::Finished { answer: true };
        }
        if self.guest.receive && !before.receive {
            // The host's next write fails, as it would with a local reader that went away.
            let _ = self.stream.shutdown(SocketSide::Read);
            self.readable = false;
            if self.hung_up {
                self.host = BOTH;
            }
        }
        if self.guest.send && !before.send && self.backlog.is_empty() {
            let _ = self.stream.shutdown(SocketSide::Write);
        }
        Verdict::Keep
    }

    /// Writes what the socket takes of the backlog.
    pub(super) fn flush(&mut self) {
        if self.backlog.is_empty() {
            return;
        }
        match self.backlog.flush(&self.stream) {
            Ok(written) => {
                self.forwarded(written);
                if self.backlog.is_empty() && self.guest.send {
                    let _ = self.stream.shutdown(SocketSide::Write);
                }
            }
            Err(_) => self.lost_reader(),
        }
    }

    /// The socket takes no more bytes.
    fn lost_reader(&mut self) {
        let dropped = self.backlog.discard();
        self.forwarded(dropped);
        self.host.receive = true;
    }

    fn forwarded(&mut self, count: usize) {
        self.credit
            .forwarded(u32::try_from(count).expect("never more than the backlog and a packet"));
        if self.credit.update_due() {
            self.owed.credit_update = true;
        }
    }
}
