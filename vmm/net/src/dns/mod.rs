//! DNS at the network's resolver address: questions go on to the host's resolvers.
//!
//! A question over UDP gets a socket of its own, so its port is one that nobody can guess, and goes
//! to the host's resolvers one after the other until one answers. Questions over TCP are a
//! connection to the first ([`crate::tcp`]). Either way only questions pass ([`message`]): the
//! host's resolvers may trust the host with more than that.

mod message;
mod resolvers;
mod stream;

use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with,
};

use self::message::{Verdict, refusal, verdict};
use crate::frames::Frames;
use crate::poller::{Id, Ids, Poller, Source};
use crate::wire;

pub(crate) use self::resolvers::Resolvers;
pub(crate) use self::stream::QueryStream;

/// DNS's port.
pub(crate) const PORT: u16 = 53;
/// Most questions at a time; the oldest is given up for one more.
const QUERIES_MAX: usize = 128;
/// How long a resolver may take before the next is asked. Guests give up after five seconds.
const PATIENCE: Duration = Duration::from_millis(2000);
/// Longest answer: what a packet holds.
const ANSWER_MAX: usize = 65_535;

/// One question on its way.
#[derive(Debug)]
struct Query {
    guest_port: u16,
    question: Vec<u8>,
    socket: OwnedFd,
    /// Resolvers that are still to be asked.
    others: Vec<SocketAddr>,
    deadline: Instant,
}

/// All questions on their way.
#[derive(Debug, Default)]
pub(crate) struct Forwarder {
    queries: HashMap<Id, Query>,
    deadlines: BTreeSet<(Instant, Id)>,
    ids: Ids,
}

/// What the forwarder works with.
pub(crate) struct World<'a> {
    pub(crate) frames: &'a mut Frames,
    pub(crate) poller: &'a Poller,
    /// The guest's address and the resolver's that it knows.
    pub(crate) guest: Ipv4Addr,
    pub(crate) dns: Ipv4Addr,
    pub(crate) now: Instant,
}

impl World<'_> {
    fn answer(&mut self, guest_port: u16, message: &[u8]) {
        let from = SocketAddrV4::new(self.dns, PORT);
        let to = SocketAddrV4::new(self.guest, guest_port);
        wire::send_udp(self.frames, from, to, message, self.now);
    }
}

impl Forwarder {
    /// When [`Self::expire`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// A question of the guest.
    pub(crate) fn ask(
        &mut self,
        guest_port: u16,
        question: &[u8],
        resolvers: &mut Resolvers,
        world: &mut World<'_>,
    ) {
        match verdict(question) {
            Verdict::Forward => {}
            Verdict::Refuse(code) => {
                return world.answer(guest_port, &refusal(question, code));
            }
            Verdict::Drop => {
                world.frames.stats.frames_dropped += 1;
                return;
            }
        }
        // Impatient guests ask again: the answer is on its way.
        let known = |query: &Query| query.guest_port == guest_port && query.question == question;
        if self.queries.values().any(known) {
            return;
        }
        if self.queries.len() >= QUERIES_MAX
            && let Some((_, oldest)) = self.deadlines.first().copied()
        {
            self.remove(oldest);
        }
        world.frames.stats.dns_queries += 1;
        // The last first: they are taken from the end.
        let others = resolvers.all().iter().rev().copied().collect();
        self.try_next(guest_port, question.to_vec(), others, world);
    }

    /// Asks the next resolver that can be asked; without one the guest is told.
    fn try_next(
        &mut self,
        guest_port: u16,
        question: Vec<u8>,
        mut others: Vec<SocketAddr>,
        world: &mut World<'_>,
    ) {
        while let Some(resolver) = others.pop() {
            let id = self.ids.next();
            let Ok(socket) = send_to(resolver, &question) else {
                continue;
            };
            if world.poller.watch(&socket, Source::Query(id)).is_err() {
                break;
            }
            let deadline = world.now + PATIENCE;
            self.deadlines.insert((deadline, id));
            let query = Query {
                guest_port,
                question,
                socket,
                others,
                deadline,
            };
            self.queries.insert(id, query);
            return;
        }
        world.answer(guest_port, &refusal(&question, message::SERVFAIL));
    }

    fn remove(&mut self, id: Id) -> Option<Query> {
        let query = self.queries.remove(&id)?;
        self.deadlines.remove(&(query.deadline, id));
        Some(query)
    }

    /// A resolver has answered, or something that claims so.
    pub(crate) fn ready(&mut self, id: Id, buffer: &mut [u8], world: &mut World<'_>) {
        // An answer is one datagram; what is not one is looked at a few times at most.
        for _ in 0..4 {
            let Some(query) = self.queries.get(&id) else {
                return;
            };
            let room = &mut buffer[..ANSWER_MAX];
            match recv(&query.socket, room, RecvFlags::empty()) {
                Ok((length, _)) => {
                    let answer = &buffer[..length];
                    if message::answers(&query.question, answer) {
                        let guest_port = query.guest_port;
                        world.answer(guest_port, answer);
                        self.remove(id);
                        return;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // Nobody listens there.
                Err(_) => return self.give_up(id, world),
            }
        }
    }

    /// Asks the next resolver in the place of the one that did not answer.
    fn give_up(&mut self, id: Id, world: &mut World<'_>) {
        if let Some(query) = self.remove(id) {
            self.try_next(query.guest_port, query.question, query.others, world);
        }
    }

    /// Gives up on resolvers whose time is over.
    pub(crate) fn expire(&mut self, world: &mut World<'_>) {
        while let Some((at, id)) = self.deadlines.first().copied()
            && at <= world.now
        {
            self.give_up(id, world);
        }
    }
}

/// A socket that has sent this question.
fn send_to(resolver: SocketAddr, question: &[u8]) -> Result<OwnedFd, Errno> {
    let family = match resolver {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::DGRAM, flags, None)?;
    connect(&socket, &resolver)?;
    send(&socket, question, SendFlags::NOSIGNAL)?;
    Ok(socket)
}
