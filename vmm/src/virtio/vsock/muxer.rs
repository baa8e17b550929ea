//! All connections of the device: who gets a packet of the guest's, and whose turn it is when
//! the guest has room for one.
//!
//! This file is the guest's side; [`host`] is the sockets' side.

mod entry;
mod host;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use super::backend::{Backend, close_in_order};
use super::connection::{Connection, Fill, Verdict};
use super::limits::{FIRST_HOST_PORT, MAX_CONNECTIONS, MAX_PENDING_RESETS};
use super::packet::{Cid, ConnKey, Header, Op, Port, TYPE_STREAM};
use super::poller::{Poller, Token};
use super::slots::{SlotId, Slots};
use crate::virtio::queue::Cursor;
use entry::{Draining, Entry, Handshake, Place};

/// The table of connections.
#[derive(Debug)]
pub(super) struct Muxer {
    guest_cid: Cid,
    backend: Backend,
    poller: Poller,
    places: Slots<Place>,
    by_key: HashMap<ConnKey, SlotId>,
    /// Connections with something for the guest; each takes one packet's turn.
    ready: VecDeque<SlotId>,
    /// Resets that belong to no connection any more.
    resets: VecDeque<Header>,
    /// Connections that are over for the guest, oldest first.
    draining: VecDeque<SlotId>,
    /// Entries that are connections or draining.
    connections: usize,
    /// Entries that are handshakes of the listener's clients.
    handshakes: usize,
    listener_watched: bool,
    /// Accepting failed and is tried again then.
    accept_again: Option<Instant>,
    next_host_port: u32,
}

impl Muxer {
    /// `clients` are the streams that were configured and not used yet.
    pub(super) fn new(
        guest_cid: Cid,
        backend: Backend,
        poller: Poller,
        clients: Vec<UnixStream>,
    ) -> Muxer {
        let mut muxer = Muxer {
            guest_cid,
            backend,
            poller,
            places: Slots::new(),
            by_key: HashMap::new(),
            ready: VecDeque::new(),
            resets: VecDeque::new(),
            draining: VecDeque::new(),
            connections: 0,
            handshakes: 0,
            listener_watched: false,
            accept_again: None,
            next_host_port: FIRST_HOST_PORT,
        };
        muxer.take_clients(clients);
        muxer
    }

    /// The epoll set to wait for.
    pub(super) fn poller(&self) -> &Poller {
        &self.poller
    }

    /// Whether a place in guest memory would be of use now.
    pub(super) fn has_output(&self) -> bool {
        !self.resets.is_empty() || !self.ready.is_empty()
    }

    /// Puts the next packet, if there is one, into guest memory. The place has room for a header.
    pub(super) fn fill(&mut self, mut place: Cursor<'_>) -> Fill {
        loop {
            if let Some(reset) = self.resets.pop_front() {
                return match place.write_all(&reset.to_bytes()) {
                    Ok(()) => Fill::Packet(place.consumed()),
                    Err(_) => Fill::NoRoom,
                };
            }
            let Some(slot) = self.ready.pop_front() else {
                return Fill::Nothing;
            };
            let Some(Place {
                entry: Entry::Connection(connection),
                queued,
                ..
            }) = self.places.get_mut(slot)
            else {
                continue;
            };
            *queued = false;
            let filled = connection.fill(place.clone());
            if filled == Fill::Failed {
                self.abort(slot);
                continue;
            }
            self.settle(slot);
            if filled != Fill::Nothing {
                return filled;
            }
        }
    }

    /// Takes a packet from the guest.
    pub(super) fn receive(&mut self, header: &Header, payload: Cursor<'_>) {
        if header.src_cid != self.guest_cid {
            // A forged address: there is nobody to answer.
            return;
        }
        if header.dst_cid != Cid::HOST || header.socket_type != TYPE_STREAM {
            self.answer_with_reset(header);
            return;
        }
        let key = ConnKey {
            host: header.dst_port,
            guest: header.src_port,
        };
        let Some(slot) = self.by_key.get(&key).copied() else {
            match header.op {
                Op::Request => self.connect_to_host(header),
                _ => self.answer_with_reset(header),
            }
            return;
        };
        let Some(connection) = self.connection(slot) else {
            return;
        };
        match connection.receive(header, payload) {
            Verdict::Keep => self.settle(slot),
            Verdict::Finished { answer } => {
                self.finish(slot);
                if answer {
                    self.answer_with_reset(header);
                }
            }
            Verdict::Violation => self.abort(slot),
        }
    }

    /// The guest wants to connect to a port of the host.
    fn connect_to_host(&mut self, request: &Header) {
        if !self.backend.offers(request.dst_port) || !self.make_room() {
            self.answer_with_reset(request);
            return;
        }
        match self.backend.open(request.dst_port) {
            Ok(stream) => {
                let connection = Connection::from_guest(request, self.guest_cid, stream);
                self.insert_connection(connection);
            }
            // Out of descriptors, or nobody accepts: the guest may try again.
            Err(_) => self.answer_with_reset(request),
        }
    }

    /// Owes the guest a reset in answer to its packet, unless that was a reset itself.
    fn answer_with_reset(&mut self, header: &Header) {
        if header.op != Op::Rst {
            self.owe(header.reset());
        }
    }

    fn owe(&mut self, reset: Header) {
        if self.resets.len() < MAX_PENDING_RESETS {
            self.resets.push_back(reset);
        }
    }

    /// Sees to it that one more connection is allowed. Those that only drain to a slow reader
    /// give way, the oldest first.
    fn make_room(&mut self) -> bool {
        while self.connections >= MAX_CONNECTIONS {
            let Some(oldest) = self.draining.front().copied() else {
                return false;
            };
            self.remove(oldest);
        }
        true
    }

    /// Takes a new connection in; [`Self::make_room`] has said that it may.
    fn insert_connection(&mut self, connection: Connection) {
        let key = connection.key();
        let slot = self
            .places
            .insert(Place::new(Entry::Connection(Box::new(connection))));
        self.connections += 1;
        self.by_key.insert(key, slot);
        if self.watch(slot).is_err() {
            self.abort(slot);
            return;
        }
        self.settle(slot);
    }

    /// Brings everything that follows from a connection's state up to date: its turn, what its
    /// socket is watched for, its deadline.
    fn settle(&mut self, slot: SlotId) {
        let Some(place) = self.places.get_mut(slot) else {
            return;
        };
        if let Entry::Connection(connection) = &place.entry
            && connection.has_output()
            && !place.queued
        {
            place.queued = true;
            self.ready.push_back(slot);
        }
        let interest = place.entry.interest();
        if interest != place.watched {
            let token = Token::Slot(slot);
            if self
                .poller
                .modify(place.entry.stream(), token, interest)
                .is_err()
            {
                self.abort(slot);
                return;
            }
            place.watched = interest;
        }
        let patience = place.entry.patience();
        if place.deadline.map(|(patience, _)| patience) != patience {
            place.start_deadline();
            self.set_alarm(slot);
        }
    }

    /// Registers an entry's socket and starts its patience.
    fn watch(&mut self, slot: SlotId) -> io::Result<()> {
        let Some(place) = self.places.get_mut(slot) else {
            return Ok(());
        };
        place.watched = place.entry.interest();
        place.start_deadline();
        self.poller
            .add(place.entry.stream(), Token::Slot(slot), place.watched)?;
        self.set_alarm(slot);
        Ok(())
    }

    fn set_alarm(&mut self, slot: SlotId) {
        let deadline = self.places.get_mut(slot).and_then(|place| place.deadline);
        if let Some((_, deadline)) = deadline {
            // Setting a timer that exists, to a valid time, cannot fail.
            let _ = self.poller.wake_by(deadline);
        }
    }

    /// The guest is done with a connection. Bytes that it sent before still reach the host.
    fn finish(&mut self, slot: SlotId) {
        let Some(Entry::Connection(connection)) = self.remove(slot) else {
            return;
        };
        let (stream, backlog) = connection.into_parts();
        if backlog.is_empty() {
            close_in_order(stream);
            return;
        }
        // The guest reads no more: a host program that goes on writing is told.
        let _ = stream.shutdown(std::net::Shutdown::Read);
        let draining = Draining { stream, backlog };
        let slot = self.places.insert(Place::new(Entry::Draining(draining)));
        self.connections += 1;
        self.draining.push_back(slot);
        if self.watch(slot).is_err() {
            self.remove(slot);
        }
    }

    /// Resets a connection, dropping all that is on its way.
    fn abort(&mut self, slot: SlotId) {
        let Some(Entry::Connection(connection)) = self.remove(slot) else {
            return;
        };
        let key = connection.key();
        self.owe(Header {
            src_cid: Cid::HOST,
            dst_cid: self.guest_cid,
            src_port: key.host,
            dst_port: key.guest,
            len: 0,
            socket_type: TYPE_STREAM,
            op: Op::Rst,
            flags: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
        });
        if connection.is_requested() {
            // The client reads an end, never an error, when it is refused.
            close_in_order(connection.into_parts().0);
        }
    }

    /// Takes an entry out and forgets everything about it.
    fn remove(&mut self, slot: SlotId) -> Option<Entry> {
        let place = self.places.remove(slot)?;
        self.poller.remove(place.entry.stream());
        if place.queued {
            self.ready.retain(|other| *other != slot);
        }
        match &place.entry {
            Entry::Handshake(handshake) => {
                if !handshake.configured {
                    self.handshakes -= 1;
                }
            }
            Entry::Connection(connection) => {
                self.connections -= 1;
                self.by_key.remove(&connection.key());
            }
            Entry::Draining(_) => {
                self.connections -= 1;
                self.draining.retain(|other| *other != slot);
            }
        }
        Some(place.entry)
    }

    fn connection(&mut self, slot: SlotId) -> Option<&mut Connection> {
        match &mut self.places.get_mut(slot)?.entry {
            Entry::Connection(connection) => Some(connection),
            Entry::Handshake(_) | Entry::Draining(_) => None,
        }
    }

    /// Bytes of memory held for the guest's sake.
    #[cfg(test)]
    pub(super) fn memory(&mut self) -> usize {
        let queues = self.resets.capacity() * size_of::<Header>() + self.ready.capacity() * 8;
        let backlogs: usize = self
            .places
            .iter_mut()
            .map(|(_, place)| match &place.entry {
                Entry::Connection(connection) => connection.memory(),
                Entry::Draining(draining) => draining.backlog.memory(),
                Entry::Handshake(_) => 0,
            })
            .sum();
        queues + backlogs
    }

    /// Connections, those that drain included.
    #[cfg(test)]
    pub(super) fn connections(&self) -> usize {
        self.connections
    }
}

/// The next port for a connection from the host that no connection uses.
fn free_host_port(next: &mut u32, guest: Port, by_key: &HashMap<ConnKey, SlotId>) -> ConnKey {
    loop {
        let key = ConnKey {
            host: Port(*next),
            guest,
        };
        // The highest number means "any port" (`VMADDR_PORT_ANY`).
        *next = if *next < u32::MAX - 1 {
            *next + 1
        } else {
            FIRST_HOST_PORT
        };
        if !by_key.contains_key(&key) {
            return key;
        }
    }
}
