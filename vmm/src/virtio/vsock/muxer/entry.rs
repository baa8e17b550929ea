//! What the muxer holds: clients, connections, and what is left of connections.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use crate::virtio::vsock::backlog::Backlog;
use crate::virtio::vsock::connection::Connection;
use crate::virtio::vsock::limits::{CLOSE_TIMEOUT, CONNECT_TIMEOUT, HANDSHAKE_TIMEOUT};

/// A client that has not finished its `CONNECT` line.
#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) stream: UnixStream,
    /// It was given with the configuration, so it may take its time.
    pub(super) configured: bool,
}

/// A connection that is over for the guest while its last bytes are on their way to the host.
#[derive(Debug)]
pub(super) struct Draining {
    pub(super) stream: UnixStream,
    pub(super) backlog: Backlog,
}

#[derive(Debug)]
pub(super) enum Entry {
    Handshake(Handshake),
    Connection(Box<Connection>),
    Draining(Draining),
}

impl Entry {
    pub(super) fn stream(&self) -> &UnixStream {
        match self {
            Entry::Handshake(handshake) => &handshake.stream,
            Entry::Connection(connection) => connection.stream(),
            Entry::Draining(draining) => &draining.stream,
        }
    }

    pub(super) fn interest(&self) -> EventFlags {
        match self {
            Entry::Handshake(_) => EventFlags::IN | EventFlags::RDHUP | EventFlags::ET,
            Entry::Connection(connection) => connection.interest(),
            Entry::Draining(_) => EventFlags::OUT | EventFlags::ET,
        }
    }

    /// Bytes of the guest's wait for the host to read.
    pub(super) fn has_backlog(&self) -> bool {
        match self {
            Entry::Handshake(_) => false,
            Entry::Connection(connection) => connection.has_backlog(),
            Entry::Draining(draining) => !draining.backlog.is_empty(),
        }
    }

    /// What it waits for that may not take for ever.
    pub(super) fn patience(&self) -> Option<Duration> {
        match self {
            Entry::Handshake(handshake) if handshake.configured => None,
            Entry::Handshake(_) => Some(HANDSHAKE_TIMEOUT),
            Entry::Connection(connection) if connection.is_requested() => Some(CONNECT_TIMEOUT),
            Entry::Connection(connection) if connection.awaits_reset() => Some(CLOSE_TIMEOUT),
            Entry::Connection(_) | Entry::Draining(_) => None,
        }
    }
}

/// An entry with what the muxer knows of it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) entry: Entry,
    /// What its socket is watched for.
    pub(super) watched: EventFlags,
    /// It stands in the queue of those that have something for the guest.
    pub(super) queued: bool,
    /// When its patience ends, and how much it had.
    pub(super) deadline: Option<(Duration, Instant)>,
}

impl Place {
    pub(super) fn new(entry: Entry) -> Place {
        Place {
            entry,
            watched: EventFlags::empty(),
            queued: false,
            deadline: None,
        }
    }

    /// Gives the entry all its patience, from now.
    pub(super) fn start_deadline(&mut self) {
        self.deadline = self
            .entry
            .patience()
            .map(|patience| (patience, Instant::now() + patience));
    }
}
