//! Bytes both ways between a stream of the host and a connection in the guest.
//!
//! Each direction ends by itself. What one side has sent before it ended reaches the other, unless
//! the other does not take it.

use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown, send, shutdown, sockopt};

use crate::serve::poller::{Interest, Watched};
use crate::serve::stream::PIECE;

/// Pieces that are relayed before others get their turn.
const TURNS: usize = 4;
/// How soon it is looked whether a host that sends no more is still there. It may wait for an
/// answer, or have gone without a trace: the end of its stream looks the same.
const CHECK: Duration = Duration::from_secs(10);

/// It is over.
#[derive(Debug)]
pub(super) struct Over;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Connection {
    host: Watched,
    peer: Watched,
    to_host: Direction,
    to_peer: Direction,
    /// When to look after the host.
    check: Option<Instant>,
    /// Whether the guest's side has taken anything since the last look.
    moved: bool,
}

/// One of the two ways.
#[derive(Debug, Default)]
struct Direction {
    /// What the receiver has yet to take; nothing more is read until it has.
    waiting: Vec<u8>,
    written: usize,
    /// The sender sends no more.
    ended: bool,
    /// The receiver has been told so.
    told: bool,
}

/// The receiver takes no more.
#[derive(Debug)]
enum Broken {
    Sender,
    Receiver,
}

impl Connection {
    /// Connects the two; `unsent` goes to the host first.
    pub(super) fn new(host: Watched, unsent: Vec<u8>, peer: Watched) -> Self {
        Self {
            host,
            peer,
            to_host: Direction {
                waiting: unsent,
                ..Direction::default()
            },
            to_peer: Direction::default(),
            check: None,
            moved: false,
        }
    }

    /// Relays what there is, as far as the sides take it, and watches for more.
    pub(super) fn relay(&mut self) -> Result<(), Over> {
        match self.to_peer.relay(&self.host, &self.peer, &mut self.moved) {
            Ok(()) => {}
            // It may have answered before it closed.
            Err(Broken::Receiver) => self.to_peer.give_up(),
            Err(Broken::Sender) => return self.broken(),
        }
        let mut moved = false;
        if self
            .to_host
            .relay(&self.peer, &self.host, &mut moved)
            .is_err()
        {
            return self.broken();
        }
        if self.to_host.told && self.to_peer.told {
            return Err(Over);
        }
        let host = Interest {
            readable: self.to_peer.reads(),
            writable: self.to_host.writes(),
            peer_closed: false,
        };
        let peer = Interest {
            readable: self.to_host.reads(),
            writable: self.to_peer.writes(),
            peer_closed: false,
        };
        if self.host.watch(host).is_err() || self.peer.watch(peer).is_err() {
            return self.broken();
        }
        if self.to_peer.reads() {
            self.check = None;
        } else if self.check.is_none() {
            self.check = Some(Instant::now() + CHECK);
        }
        Ok(())
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.check
    }

    /// Looks after the host when it is time to.
    pub(super) fn check_time(&mut self, now: Instant) -> Result<(), Over> {
        if self.check.is_none_or(|check| check > now) {
            return Ok(());
        }
        self.check = Some(now + CHECK);
        let moved = std::mem::take(&mut self.moved);
        if !(moved && self.to_peer.writes()) && self.host_is_gone() {
            return self.broken();
        }
        Ok(())
    }

    /// Whether nobody is left to whom anything could be sent.
    fn host_is_gone(&self) -> bool {
        let mut fds = [PollFd::new(&self.host, PollFlags::empty())];
        let hung_up = poll(&mut fds, Some(&Timespec::default())).is_ok()
            && fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR);
        // Vsock hangs up only when both ends have: but it refuses to send.
        hung_up
            || matches!(send(self.host.as_fd(), &[], SendFlags::NOSIGNAL), Err(errno)
                if errno != Errno::AGAIN && errno != Errno::INTR)
    }

    /// Ends it so that the guest's side sees that not all was said.
    fn broken(&self) -> Result<(), Over> {
        let _ = sockopt::set_socket_linger(&self.peer, Some(Duration::ZERO));
        Err(Over)
    }
}

impl Direction {
    fn relay(&mut self, from: &Watched, to: &Watched, moved: &mut bool) -> Result<(), Broken> {
        for _ in 0..TURNS {
            while self.written < self.waiting.len() {
                match send(
                    to.as_fd(),
                    &self.waiting[self.written..],
                    SendFlags::NOSIGNAL,
                ) {
                    Ok(length) => {
                        self.written += length;
                        *moved = true;
                    }
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => return Ok(()),
                    Err(_) => return Err(Broken::Receiver),
                }
            }
            self.waiting = Vec::new();
            self.written = 0;
            if self.ended {
                if !self.told {
                    let _ = shutdown(to, Shutdown::Write);
                    self.told = true;
                }
                return Ok(());
            }
            let mut piece = [const { MaybeUninit::<u8>::uninit() }; PIECE];
            match rustix::io::read(from, &mut piece[..]) {
                Ok(([], _)) => self.ended = true,
                Ok((bytes, _)) => match send(to.as_fd(), bytes, SendFlags::NOSIGNAL) {
                    Ok(length) => {
                        *moved = true;
                        self.waiting.extend_from_slice(&bytes[length..]);
                    }
                    Err(Errno::INTR | Errno::AGAIN) => self.waiting.extend_from_slice(bytes),
                    Err(_) => return Err(Broken::Receiver),
                },
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(_) => return Err(Broken::Sender),
            }
        }
        Ok(())
    }

    /// Relays nothing more.
    fn give_up(&mut self) {
        self.waiting = Vec::new();
        self.written = 0;
        self.ended = true;
        self.told = true;
    }

    fn reads(&self) -> bool {
        self.waiting.is_empty() && !self.ended
    }

    fn writes(&self) -> bool {
        !self.waiting.is_empty() || (self.ended && !self.told)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::Shutdown as Side;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::serve::poller::{OperationId, Poller, Source};

    const ID: OperationId = OperationId(1);

    /// A connection, the host's end of it and the guest's.
    fn connection() -> (Connection, UnixStream, UnixStream) {
        let poller = Poller::new().unwrap();
        let end = |source| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            (Watched::new(OwnedFd::from(ours), source, &poller), theirs)
        };
        let (ours, host) = end(Source::Stream(ID));
        let (peers, guest) = end(Source::Peer(ID));
        (Connection::new(ours, Vec::new(), peers), host, guest)
    }

    /// Later than any check is due.
    fn later() -> Instant {
        Instant::now() + 2 * CHECK
    }

    #[test]
    fn a_host_that_waits_for_an_answer_is_waited_for() {
        let (mut connection, mut host, mut guest) = connection();
        connection.relay().unwrap();
        assert_eq!(connection.deadline(), None, "nothing to look after");
        host.write_all(b"question").unwrap();
        host.shutdown(Side::Write).unwrap();
        connection.relay().unwrap();
        let mut question = String::new();
        guest.read_to_string(&mut question).unwrap();
        assert_eq!(question, "question");
        assert!(connection.deadline().is_some());
        for _ in 0..3 {
            connection.check_time(later()).unwrap();
        }
        guest.write_all(b"answer").unwrap();
        drop(guest);
        assert!(connection.relay().is_err(), "both have ended");
        let mut answer = String::new();
        host.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer");
    }

    #[test]
    fn a_host_that_has_gone_is_found_out_though_the_guest_says_nothing() {
        let (mut connection, host, _guest) = connection();
        host.shutdown(Side::Write).unwrap();
        connection.relay().unwrap();
        connection.check_time(later()).unwrap();
        drop(host);
        connection.check_time(Instant::now()).unwrap();
        assert!(connection.check_time(later() + CHECK).is_err());
    }

    #[test]
    fn what_a_host_left_is_given_to_the_guest_as_long_as_it_takes_it() {
        let (mut connection, mut host, mut guest) = connection();
        host.set_nonblocking(true).unwrap();
        // More than the guest's side holds.
        let mut sent = 0;
        loop {
            match host.write(&[7; 65_536]) {
                Ok(length) => sent += length,
                Err(_) if connection.to_peer.writes() => break,
                Err(_) => connection.relay().unwrap(),
            }
        }
        drop(host);
        let mut piece = vec![0; 32 << 10];
        let mut now = later();
        let mut got = 0;
        while sent - got > 256 << 10 {
            got += guest.read(&mut piece).unwrap();
            connection.relay().unwrap();
            now += 2 * CHECK;
            if connection.moved {
                connection.check_time(now).unwrap();
            }
        }
        // It takes no more.
        now += 2 * CHECK;
        let _ = connection.check_time(now);
        assert!(connection.check_time(now + 2 * CHECK).is_err());
    }
}
