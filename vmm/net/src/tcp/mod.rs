//! TCP of the guest: each connection is one of smoltcp's towards the guest and one of the kernel's
//! towards the world, and bytes are carried between the two.
//!
//! A SYN is not answered until the host's own connection is there: it is kept, and given to a
//! socket made for it when `connect(2)` has succeeded. So the guest sees what it would see without
//! us: a refusal is a RST, an unreachable host an ICMP error, silence is silence.
//!
//! Each connection has a smoltcp socket *set* of its own, and segments find it by their addresses in a
//! hash table: what one connection costs does not depend on how many there are.

mod flow;
mod link;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use self::flow::Flow;
use self::link::Link;
use crate::config::{Addresses, Limits};
use crate::dns::Resolvers;
use crate::egress::{Egress, Routing};
use crate::frames::Frames;
use crate::poller::{Id, Ids, Ready, Source};
use crate::wire::{self, Segment, Unreachable};
use crate::world::World;

/// Which connection a segment belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    guest_port: u16,
    remote: SocketAddrV4,
}

/// All connections of the guest.
pub(crate) struct Tcp {
    interface: Interface,
    addresses: Addresses,
    start: Instant,
    ids: Ids,
    by_key: HashMap<Key, Id>,
    flows: HashMap<Id, Entry>,
    /// Who may have something to do, in turn.
    due: VecDeque<Id>,
    /// When somebody has something to do.
    deadlines: BTreeSet<(Instant, Id)>,
    most: usize,
    connect_timeout: Duration,
}

struct Entry {
    key: Key,
    flow: Flow,
    is_due: bool,
    deadline: Option<Instant>,
}

impl Tcp {
    pub(crate) fn new(
        addresses: Addresses,
        limits: &Limits,
        seed: u64,
        frames: &mut Frames,
        now: Instant,
    ) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let time = smoltcp::time::Instant::ZERO;
        let mut interface = Interface::new(config, &mut Link::new(frames, None, now), time);
        interface.update_ip_addrs(|list| {
            let gateway = IpCidr::new(IpAddress::Ipv4(addresses.gateway), addresses.prefix.min(32));
            // The list has room for one.
            let _ = list.push(gateway);
        });
        interface.set_any_ip(true);
        Self {
            interface,
            addresses,
            start: now,
            ids: Ids::default(),
            by_key: HashMap::new(),
            flows: HashMap::new(),
            due: VecDeque::new(),
            deadlines: BTreeSet::new(),
            most: limits.tcp_connections,
            connect_timeout: Duration::from_secs(limits.connect_timeout_s.into()),
        }
    }

    /// Connections, those being made included.
    pub(crate) fn count(&self) -> usize {
        self.flows.len()
    }

    /// Whether [`Self::run`] has something to do at once.
    pub(crate) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// When [`Self::expire`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// A segment of the guest.
    pub(crate) fn receive<R: Routing>(
        &mut self,
        segment: Segment<'_>,
        egress: &mut Egress<R>,
        resolvers: &mut Resolvers,
        world: &mut World<'_>,
    ) {
        let key = Key {
            guest_port: segment.guest_port,
            remote: segment.remote,
        };
        if let Some(id) = self.by_key.get(&key).copied() {
            let time = self.time(world.now);
            if let Some(entry) = self.flows.get_mut(&id) {
                let mut link = Link::new(world.frames, Some(segment.packet), world.now);
                entry.flow.receive(&mut self.interface, time, &mut link);
                self.wake(id);
            }
        } else if segment.opens {
            self.open(key, segment, egress, resolvers, world);
        } else {
            self.reset(segment.packet, world);
        }
    }

    fn open<R: Routing>(
        &mut self,
        key: Key,
        segment: Segment<'_>,
        egress: &mut Egress<R>,
        resolvers: &mut Resolvers,
        world: &mut World<'_>,
    ) {
        let is_resolver = *key.remote.ip() == self.addresses.dns && key.remote.port() == 53;
        let target = if is_resolver {
            resolvers.first().map(|resolver| (resolver, true))
        } else if *key.remote.ip() == self.addresses.dns
            || *key.remote.ip() == self.addresses.gateway
            || *key.remote.ip() == self.addresses.guest
        {
            None
        } else if egress.check((*key.remote.ip()).into()).is_ok() {
            Some((key.remote.into(), false))
        } else {
            world.frames.stats.egress_refused += 1;
            None
        };
        match target {
            Some((target, is_resolver)) => self.begin(key, segment, target, is_resolver, world),
            None => self.reset(segment.packet, world),
        }
    }

    /// Begins the host's connection to `target`, which the guest may reach.
    fn begin(
        &mut self,
        key: Key,
        segment: Segment<'_>,
        target: SocketAddr,
        is_resolver: bool,
        world: &mut World<'_>,
    ) {
        if self.flows.len() >= self.most {
            world.frames.stats.over_limit += 1;
            return self.reset(segment.packet, world);
        }
        let id = self.ids.next();
        let deadline = world.now + self.connect_timeout;
        let made = Flow::connect(target, segment.packet, is_resolver, deadline).and_then(|flow| {
            world.poller.watch(flow.socket(), Source::Tcp(id))?;
            Ok(flow)
        });
        match made {
            Ok(flow) => {
                self.by_key.insert(key, id);
                self.flows.insert(
                    id,
                    Entry {
                        key,
                        flow,
                        is_due: false,
                        deadline: None,
                    },
                );
                self.schedule(id, Some(deadline));
            }
            Err(error) => {
                world.frames.stats.tcp_failed += 1;
                self.failed(segment.packet, Errno::from_io_error(&error), world);
            }
        }
    }

    /// Answers a segment with a RST, as whoever has no such connection does.
    fn reset(&mut self, packet: &[u8], world: &mut World<'_>) {
        let mut nobody = SocketSet::new([]);
        let mut link = Link::new(world.frames, Some(packet), world.now);
        let time = self.time(world.now);
        self.interface
            .poll_ingress_single(time, &mut link, &mut nobody);
    }

    /// Tells the guest how the host's connection failed, in the words of the net.
    fn failed(&mut self, syn: &[u8], error: Option<Errno>, world: &mut World<'_>) {
        match error {
            Some(Errno::TIMEDOUT) => {}
            Some(Errno::HOSTUNREACH | Errno::NETUNREACH) => {
                let why = Unreachable::Host;
                wire::refuse(world.frames, self.addresses.gateway, syn, why, world.now);
            }
            // Also what only the host can know, such as that it has no descriptor left.
            _ => self.reset(syn, world),
        }
    }

    /// The host's side of a connection is readable or writable.
    pub(crate) fn ready(&mut self, id: Id, ready: Ready) {
        if let Some(entry) = self.flows.get_mut(&id) {
            entry.flow.ready(ready);
            self.wake(id);
        }
    }

    /// Something about this connection is to be looked at.
    fn wake(&mut self, id: Id) {
        if let Some(entry) = self.flows.get_mut(&id)
            && !std::mem::replace(&mut entry.is_due, true)
        {
            self.due.push_back(id);
        }
    }

    /// Wakes those whose time has come.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((at, id)) = self.deadlines.first().copied()
            && at <= now
        {
            self.deadlines.remove(&(at, id));
            if let Some(entry) = self.flows.get_mut(&id) {
                entry.deadline = None;
            }
            self.wake(id);
        }
    }

    /// Gives each connection that has something to do one turn, as long as frames can be sent.
    pub(crate) fn run(&mut self, world: &mut World<'_>) {
        for _ in 0..self.due.len() {
            if !world.frames.is_open(world.now) {
                return;
            }
            let Some(id) = self.due.pop_front() else {
                return;
            };
            self.turn(id, world);
        }
    }

    fn turn(&mut self, id: Id, world: &mut World<'_>) {
        let time = self.time(world.now);
        let Some(entry) = self.flows.get_mut(&id) else {
            return;
        };
        entry.is_due = false;
        let mut link = Link::new(world.frames, None, world.now);
        match entry.flow.turn(&mut self.interface, time, &mut link) {
            flow::Next::Again => self.wake(id),
            flow::Next::Wait(until) => {
                let at = until.map(|until| self.start + Duration::from_micros(micros(until)));
                self.schedule(id, at);
            }
            flow::Next::Connected => {
                world.frames.stats.tcp_connected += 1;
                self.schedule(id, None);
                self.wake(id);
            }
            flow::Next::WaitUntil(at) => self.schedule(id, Some(at)),
            flow::Next::Failed(syn, error) => {
                world.frames.stats.tcp_failed += 1;
                self.failed(&syn, Some(error), world);
                self.remove(id);
            }
            flow::Next::Ended => self.remove(id),
        }
    }

    fn schedule(&mut self, id: Id, at: Option<Instant>) {
        if let Some(entry) = self.flows.get_mut(&id) {
            if let Some(old) = entry.deadline.take() {
                self.deadlines.remove(&(old, id));
            }
            entry.deadline = at;
            if let Some(at) = at {
                self.deadlines.insert((at, id));
            }
        }
    }

    fn remove(&mut self, id: Id) {
        self.schedule(id, None);
        if let Some(entry) = self.flows.remove(&id) {
            self.by_key.remove(&entry.key);
        }
    }

    fn time(&self, now: Instant) -> smoltcp::time::Instant {
        let micros = now.saturating_duration_since(self.start).as_micros();
        smoltcp::time::Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }
}

fn micros(time: smoltcp::time::Instant) -> u64 {
    u64::try_from(time.total_micros()).unwrap_or(0)
}
