//! Waiting for many descriptors at once: epoll(7), level-triggered, with names for what is watched.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use pyro_agent_protocol::FrameKind;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::Timespec;

/// Number of an operation. Never used twice, so an event that comes too late finds nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OperationId(pub(crate) u64);

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Where new operations arrive.
    Listener,
    /// The signalfd.
    Signals,
    /// The eventfd of the threads that work on files.
    Work,
    /// An operation's stream to the host.
    Stream(OperationId),
    /// The pipe into a program.
    Stdin(OperationId),
    /// A pipe out of a program.
    Output(OperationId, Output),
    /// A connection to a port of the guest.
    Peer(OperationId),
}

/// Which of a program's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    Stdout,
    Stderr,
}

impl Output {
    pub(crate) const BOTH: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// The frames that carry it.
    pub(crate) const fn kind(self) -> FrameKind {
        match self {
            Self::Stdout => FrameKind::Stdout,
            Self::Stderr => FrameKind::Stderr,
        }
    }
}

impl Source {
    fn to_token(self) -> u64 {
        match self {
            Self::Listener => 0,
            Self::Signals => 1,
            Self::Work => 6,
            Self::Stream(id) => (id.0 << 3) | 2,
            Self::Stdin(id) => (id.0 << 3) | 3,
            Self::Output(id, Output::Stdout) => (id.0 << 3) | 4,
            Self::Output(id, Output::Stderr) => (id.0 << 3) | 5,
            Self::Peer(id) => (id.0 << 3) | 7,
        }
    }

    fn from_token(token: u64) -> Option<Self> {
        let id = OperationId(token >> 3);
        Some(match token & 7 {
            0 => Self::Listener,
            1 => Self::Signals,
            2 => Self::Stream(id),
            3 => Self::Stdin(id),
            4 => Self::Output(id, Output::Stdout),
            5 => Self::Output(id, Output::Stderr),
            6 => Self::Work,
            7 => Self::Peer(id),
            _ => return None,
        })
    }
}

/// What to be told of. Errors and hang-ups are told of as soon as anything is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Interest {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The peer will send no more, even while what it sent is still unread.
    pub(crate) peer_closed: bool,
}

impl Interest {
    pub(crate) const NONE: Self = Self {
        readable: false,
        writable: false,
        peer_closed: false,
    };
    pub(crate) const READ: Self = Self {
        readable: true,
        ..Self::NONE
    };
    pub(crate) const WRITE: Self = Self {
        writable: true,
        ..Self::NONE
    };

    fn flags(self) -> EventFlags {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, self.readable);
        flags.set(EventFlags::OUT, self.writable);
        flags.set(EventFlags::RDHUP, self.peer_closed);
        flags
    }
}

/// Something happened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) source: Source,
    /// There is something to read, or the end of it, or an error that reading will tell.
    pub(crate) readable: bool,
    /// The peer has closed its end, at least for sending.
    pub(crate) peer_closed: bool,
    /// Nobody is left at the other end, or the descriptor is broken.
    pub(crate) hung_up: bool,
}

/// An epoll instance. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Poller {
    epoll: Rc<OwnedFd>,
}

impl Poller {
    pub(crate) fn new() -> Result<Self, Errno> {
        Ok(Self {
            epoll: Rc::new(epoll::create(CreateFlags::CLOEXEC)?),
        })
    }

    /// Waits for something to happen, at most for `limit`. Gives nothing when interrupted.
    pub(crate) fn wait(&self, limit: Option<Duration>) -> Result<Vec<Ready>, Errno> {
        let mut space = [const { MaybeUninit::<Event>::uninit() }; 64];
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let (events, _) = match epoll::wait(&*self.epoll, &mut space[..], limit.as_ref()) {
            Ok(events) => events,
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(errno) => return Err(errno),
        };
        Ok(events.iter().filter_map(|event| ready(*event)).collect())
    }
}

fn ready(event: Event) -> Option<Ready> {
    let (flags, data) = (event.flags, event.data);
    let hung_up = flags.intersects(EventFlags::HUP | EventFlags::ERR);
    Some(Ready {
        source: Source::from_token(data.u64())?,
        readable: hung_up || flags.contains(EventFlags::IN),
        peer_closed: hung_up || flags.contains(EventFlags::RDHUP),
        hung_up,
    })
}

/// A descriptor and what it is watched for.
#[derive(Debug)]
pub(crate) struct Watched {
    fd: OwnedFd,
    source: Source,
    interest: Interest,
    poller: Poller,
}

impl Watched {
    /// Takes the descriptor over. It is not watched yet.
    pub(crate) fn new(fd: OwnedFd, source: Source, poller: &Poller) -> Self {
        Self {
            fd,
            source,
            interest: Interest::NONE,
            poller: poller.clone(),
        }
    }

    /// Watches for this from now on. With [`Interest::NONE`] the descriptor is taken off the
    /// epoll instance, since that would tell of a hang-up again and again otherwise.
    pub(crate) fn watch(&mut self, interest: Interest) -> Result<(), Errno> {
        if interest == self.interest {
            return Ok(());
        }
        let epoll = &*self.poller.epoll;
        let data = EventData::new_u64(self.source.to_token());
        if interest == Interest::NONE {
            epoll::delete(epoll, &self.fd)?;
        } else if self.interest == Interest::NONE {
            epoll::add(epoll, &self.fd, data, interest.flags())?;
        } else {
            epoll::modify(epoll, &self.fd, data, interest.flags())?;
        }
        self.interest = interest;
        Ok(())
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Watched {
    /// Closing alone would not do: a child that is about to exec may hold a copy.
    fn drop(&mut self) {
        let _ = self.watch(Interest::NONE);
    }
}

#[cfg(test)]
mod tests {
    use rustix::pipe::pipe;

    use super::*;

    #[test]
    fn tokens_come_back_as_their_sources() {
        let id = OperationId(77);
        for source in [
            Source::Listener,
            Source::Signals,
            Source::Work,
            Source::Stream(id),
            Source::Stdin(id),
            Source::Output(id, Output::Stdout),
            Source::Output(id, Output::Stderr),
            Source::Peer(id),
        ] {
            assert_eq!(Source::from_token(source.to_token()), Some(source));
        }
    }

    #[test]
    fn a_hang_up_is_not_told_of_while_nothing_is_wanted() {
        let poller = Poller::new().unwrap();
        let (read, write) = pipe().unwrap();
        let mut watched = Watched::new(read, Source::Listener, &poller);
        watched.watch(Interest::READ).unwrap();
        drop(write);
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap().len(), 1);
        watched.watch(Interest::NONE).unwrap();
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap().len(), 0);
    }
}
