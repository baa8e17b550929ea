//! The sockets' side of the muxer: clients, events, deadlines.

use std::io;
use std::os::unix::net::UnixStream;
#[cfg(test)]
use std::time::Duration;
use std::time::Instant;

use rustix::event::epoll::EventFlags;

use super::{
    Connection, Draining, Entry, Handshake, Muxer, Place, Poller, SlotId, Token, close_in_order,
    free_host_port,
};
use crate::virtio::vsock::backend::Backend;
use crate::virtio::vsock::handshake::{self, Progress};
use crate::virtio::vsock::limits::{ACCEPT_BUDGET, ACCEPT_RETRY, MAX_HANDSHAKES};
use crate::virtio::vsock::packet::Port;

impl Muxer {
    /// Watches everything with a new epoll set, and gives every deadline its full time again: the
    /// device may have been parked for long, and what it waits for with it.
    pub(in crate::virtio::vsock) fn register(&mut self) -> io::Result<()> {
        self.poller = Poller::new()?;
        self.listener_watched = false;
        self.watch_listener()?;
        let slots: Vec<SlotId> = self.places.iter_mut().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.watch(slot)?;
        }
        Ok(())
    }

    /// Handles some of the events that are due. True says that there may be more.
    pub(in crate::virtio::vsock) fn poll(&mut self) -> io::Result<bool> {
        let mut events = Vec::new();
        let more = self.poller.take(&mut events)?;
        for (token, flags) in events {
            match token {
                Token::Listener => self.accept()?,
                Token::Timer => self.expire()?,
                Token::Slot(slot) => self.socket_event(slot, flags),
            }
        }
        self.watch_listener()?;
        Ok(more)
    }

    /// Waits until host programs have taken all bytes that the guest has sent, at most to
    /// `deadline`; those that do not read by then lose them. The one place that blocks: for the
    /// end of a VM.
    pub(in crate::virtio::vsock) fn flush(&mut self, deadline: Instant) -> io::Result<()> {
        while self
            .places
            .iter_mut()
            .any(|(_, place)| place.entry.has_backlog())
        {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.poller.wait(left)?;
            self.poll()?;
        }
        Ok(())
    }

    /// Takes streams in whose clients are still to say what they want.
    pub(super) fn take_clients(&mut self, clients: Vec<UnixStream>) {
        for stream in clients {
            let handshake = Handshake {
                stream,
                configured: true,
            };
            self.places.insert(Place::new(Entry::Handshake(handshake)));
        }
    }

    /// Closes all connections, without a word to the guest. Clients that have not been promised
    /// anything yet stay.
    pub(in crate::virtio::vsock) fn end_connections(&mut self) {
        let ended: Vec<SlotId> = self
            .places
            .iter_mut()
            .filter(|(_, place)| !matches!(place.entry, Entry::Handshake(_)))
            .map(|(slot, _)| slot)
            .collect();
        for slot in ended {
            self.remove(slot);
        }
        self.resets.clear();
    }

    /// Closes connections and clients.
    pub(in crate::virtio::vsock) fn hang_up(&mut self) {
        let all: Vec<SlotId> = self.places.iter_mut().map(|(slot, _)| slot).collect();
        for slot in all {
            self.remove(slot);
        }
        self.resets.clear();
    }

    /// Closes everything and goes on with other sockets. Nothing is watched before the next
    /// [`Self::register`].
    ///
    /// The epoll set is left alone: after `fork(2)` it is the original's too, and forgetting a
    /// socket here would make the original deaf to it.
    pub(in crate::virtio::vsock) fn rewire(&mut self, backend: Backend, clients: Vec<UnixStream>) {
        self.forget();
        drop(self.places.drain());
        self.backend = backend;
        self.take_clients(clients);
    }

    /// Forgets what is kept about the entries, which are all being taken out.
    fn forget(&mut self) {
        self.by_key.clear();
        self.ready.clear();
        self.resets.clear();
        self.draining.clear();
        self.connections = 0;
        self.handshakes = 0;
    }

    /// Gives back what the configuration named: the ways in, and the clients that have not been
    /// promised anything yet. Connections are closed.
    pub(in crate::virtio::vsock) fn dismantle(mut self) -> (Backend, Poller, Vec<UnixStream>) {
        let mut clients = Vec::new();
        for place in self.places.drain() {
            self.poller.remove(place.entry.stream());
            if let Entry::Handshake(handshake) = place.entry {
                clients.push(handshake.stream);
            }
        }
        (self.backend, self.poller, clients)
    }

    fn socket_event(&mut self, slot: SlotId, flags: EventFlags) {
        // A stale event finds nothing.
        let Some(place) = self.places.get_mut(slot) else {
            return;
        };
        match &mut place.entry {
            Entry::Handshake(handshake) => {
                let last = flags.intersects(EventFlags::HUP | EventFlags::RDHUP | EventFlags::ERR);
                match handshake::advance(&handshake.stream, last) {
                    Progress::Waiting => {}
                    Progress::Connect(port) => self.connect_to_guest(slot, port),
                    Progress::Refused => self.refuse(slot),
                }
            }
            Entry::Connection(connection) => {
                connection.socket_event(flags);
                self.settle(slot);
            }
            Entry::Draining(draining) => {
                if flush(draining) {
                    self.refuse(slot);
                }
            }
        }
    }

    /// A client has named its port: the guest is asked.
    fn connect_to_guest(&mut self, slot: SlotId, port: Port) {
        if !self.make_room() {
            self.refuse(slot);
            return;
        }
        let Some(Entry::Handshake(Handshake { stream, .. })) = self.remove(slot) else {
            return;
        };
        let key = free_host_port(&mut self.next_host_port, port, &self.by_key);
        // Registering it anew makes bytes behind the line show up.
        self.insert_connection(Connection::from_host(key, self.guest_cid, stream));
    }

    /// Closes an entry in order.
    fn refuse(&mut self, slot: SlotId) {
        match self.remove(slot) {
            Some(Entry::Handshake(Handshake { stream, .. })) => close_in_order(stream),
            Some(Entry::Draining(Draining { stream, .. })) => close_in_order(stream),
            Some(Entry::Connection(_)) | None => {}
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        for _ in 0..ACCEPT_BUDGET {
            let Some(listener) = &self.backend.listener else {
                return Ok(());
            };
            if self.handshakes >= MAX_HANDSHAKES {
                return Ok(());
            }
            match listener.accept() {
                Ok((stream, _)) => self.begin_handshake(stream),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(()),
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    // Out of descriptors, most likely: an event for each client would spin.
                    _ => {
                        self.accept_again = Some(Instant::now() + ACCEPT_RETRY);
                        return Ok(());
                    }
                },
            }
        }
        Ok(())
    }

    fn begin_handshake(&mut self, stream: UnixStream) {
        if handshake::prepare(&stream).is_err() {
            return;
        }
        let handshake = Handshake {
            stream,
            configured: false,
        };
        let slot = self.places.insert(Place::new(Entry::Handshake(handshake)));
        self.handshakes += 1;
        if self.watch(slot).is_err() {
            self.remove(slot);
        }
    }

    /// Watches the listener exactly while another client can be taken.
    fn watch_listener(&mut self) -> io::Result<()> {
        let Some(listener) = &self.backend.listener else {
            return Ok(());
        };
        if let Some(again) = self.accept_again {
            self.poller.wake_by(again)?;
        }
        let wanted = self.handshakes < MAX_HANDSHAKES && self.accept_again.is_none();
        if wanted == self.listener_watched {
            return Ok(());
        }
        if wanted {
            self.poller.add(listener, Token::Listener, EventFlags::IN)?;
        } else {
            self.poller.remove(listener);
        }
        self.listener_watched = wanted;
        Ok(())
    }

    /// Ends what has waited for too long.
    fn expire(&mut self) -> io::Result<()> {
        self.poller.timer_fired()?;
        let now = Instant::now();
        if self.accept_again.is_some_and(|again| again <= now) {
            self.accept_again = None;
        }
        let mut next: Option<Instant> = None;
        let mut late = Vec::new();
        for (slot, place) in self.places.iter_mut() {
            match place.deadline {
                Some((_, deadline)) if deadline <= now => late.push(slot),
                Some((_, deadline)) => next = Some(next.map_or(deadline, |n| n.min(deadline))),
                None => {}
            }
        }
        for slot in late {
            let is_connection = self.connection(slot).is_some();
            if is_connection {
                self.abort(slot);
            } else {
                self.refuse(slot);
            }
        }
        if let Some(next) = next {
            self.poller.wake_by(next)?;
        }
        Ok(())
    }

    /// Lets `passed` go by for all deadlines.
    #[cfg(test)]
    pub(in crate::virtio::vsock) fn let_pass(&mut self, passed: Duration) {
        for (_, place) in self.places.iter_mut() {
            if let Some((_, deadline)) = &mut place.deadline {
                *deadline = deadline
                    .checked_sub(passed)
                    .expect("the clock has run for longer");
            }
        }
        self.poller
            .wake_by(Instant::now())
            .expect("a timer can be set");
    }
}

/// Writes what the socket takes; true when nothing is left to do.
fn flush(draining: &mut Draining) -> bool {
    draining.backlog.flush(&draining.stream).is_err() || draining.backlog.is_empty()
}
