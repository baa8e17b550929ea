//! Waiting for many descriptors: epoll(7) on edges, with names for what is watched.
//!
//! Everything is registered once, for reading and writing, and remembered as readable or writable
//! by its owner until the kernel says `WouldBlock`. So no descriptor that is not looked at keeps
//! the loop awake, and no system call is needed to stop looking.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// Number of a connection or flow. Never used twice, so an event that comes too late finds nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Id(u64);

/// Gives out [`Id`]s.
#[derive(Debug, Default)]
pub(crate) struct Ids(u64);

impl Ids {
    pub(crate) fn next(&mut self) -> Id {
        self.0 += 1;
        Id(self.0)
    }
}

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The guest's frames.
    Frames,
    /// Where control peers connect.
    Control,
    /// A control peer.
    Peer(Id),
    /// The host's side of a TCP connection.
    Tcp(Id),
    /// The host's side of a UDP flow.
    Udp(Id),
    /// A query on its way to a resolver.
    Query(Id),
    /// A published port.
    Port(u16),
    /// The client of a connection to a published port.
    Client(Id),
    /// The guest's side of it.
    Agent(Id),
}

impl Source {
    fn to_token(self) -> u64 {
        let (kind, number) = match self {
            Self::Frames => (0, 0),
            Self::Control => (1, 0),
            Self::Peer(id) => (2, id.0),
            Self::Tcp(id) => (3, id.0),
            Self::Udp(id) => (4, id.0),
            Self::Query(id) => (5, id.0),
            Self::Port(port) => (6, port.into()),
            Self::Client(id) => (7, id.0),
            Self::Agent(id) => (8, id.0),
        };
        number << 4 | kind
    }

    fn from_token(token: u64) -> Option<Self> {
        let number = token >> 4;
        let id = Id(number);
        Some(match token & 15 {
            0 => Self::Frames,
            1 => Self::Control,
            2 => Self::Peer(id),
            3 => Self::Tcp(id),
            4 => Self::Udp(id),
            5 => Self::Query(id),
            6 => Self::Port(u16::try_from(number).ok()?),
            7 => Self::Client(id),
            8 => Self::Agent(id),
            _ => return None,
        })
    }
}

/// What happened to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) source: Source,
    /// Reading may tell something new: bytes, the end, an error.
    pub(crate) readable: bool,
    /// Writing may.
    pub(crate) writable: bool,
}

/// Most events of one wait.
const EVENTS: usize = 256;

/// The set of what is watched.
pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS),
        })
    }

    /// Watches `fd` until it is closed.
    pub(crate) fn watch(&self, fd: impl AsFd, source: Source) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        let data = EventData::new_u64(source.to_token());
        Ok(epoll::add(&self.epoll, fd, data, flags)?)
    }

    /// Waits for something to happen, at most `timeout`; for ever without one.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Vec<Ready>> {
        // A nanosecond early would mean a round for nothing; what is too long is for ever.
        let timeout = timeout.and_then(|left| Timespec::try_from(left).ok());
        self.events.clear();
        match epoll::wait(
            &self.epoll,
            spare_capacity(&mut self.events),
            timeout.as_ref(),
        ) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let broken = EventFlags::ERR | EventFlags::HUP;
        let ready = |event: &Event| {
            // The kernel packs the structure, so fields are copied out.
            let (data, flags) = (event.data, event.flags);
            Some(Ready {
                source: Source::from_token(data.u64())?,
                readable: flags.intersects(EventFlags::IN | EventFlags::RDHUP | broken),
                writable: flags.intersects(EventFlags::OUT | broken),
            })
        };
        Ok(self.events.iter().filter_map(ready).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_survives_its_token() {
        let id = Id((1 << 60) - 1);
        for source in [
            Source::Frames,
            Source::Control,
            Source::Peer(id),
            Source::Tcp(id),
            Source::Udp(id),
            Source::Query(id),
            Source::Port(65535),
            Source::Client(id),
            Source::Agent(id),
        ] {
            assert_eq!(Source::from_token(source.to_token()), Some(source));
        }
    }
}
