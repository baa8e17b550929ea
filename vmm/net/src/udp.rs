//! UDP of the guest: each pair of a guest's port and a destination is a flow with a connected
//! socket of its own, so that what comes in is from that destination and nobody else.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with,
};

use crate::egress::{Egress, Routing};
use crate::frames::Frames;
use crate::poller::{Id, Ids, Poller, Source};
use crate::wire::{self, Unreachable};
use crate::world::World;

/// A flow ends when it was silent for so long.
const IDLE: Duration = Duration::from_secs(60);
/// How often silent flows are looked for.
const SWEEP: Duration = Duration::from_secs(10);
/// Datagrams of one flow in one turn.
const BUDGET: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    guest_port: u16,
    remote: SocketAddrV4,
}

#[derive(Debug)]
struct Flow {
    key: Key,
    socket: OwnedFd,
    used: Instant,
    is_due: bool,
}

/// All flows.
#[derive(Debug)]
pub(crate) struct Udp {
    guest: Ipv4Addr,
    ids: Ids,
    by_key: HashMap<Key, Id>,
    flows: HashMap<Id, Flow>,
    due: VecDeque<Id>,
    most: usize,
    swept: Instant,
}

impl Udp {
    pub(crate) fn new(guest: Ipv4Addr, most: usize, now: Instant) -> Self {
        Self {
            guest,
            ids: Ids::default(),
            by_key: HashMap::new(),
            flows: HashMap::new(),
            due: VecDeque::new(),
            most,
            swept: now,
        }
    }

    /// Flows that there are.
    pub(crate) fn count(&self) -> usize {
        self.flows.len()
    }

    /// Whether [`Self::run`] has something to do at once.
    pub(crate) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// When [`Self::expire`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        (!self.flows.is_empty()).then(|| self.swept + SWEEP)
    }

    /// Sends a datagram of the guest on.
    ///
    /// # Errors
    /// Why the guest is to be told that it went nowhere. What the host cannot send now is lost.
    pub(crate) fn send<R: Routing>(
        &mut self,
        guest_port: u16,
        remote: SocketAddrV4,
        payload: &[u8],
        egress: &mut Egress<R>,
        world: &mut World<'_>,
    ) -> Result<(), Unreachable> {
        let key = Key { guest_port, remote };
        let id = match self.by_key.get(&key) {
            Some(id) => *id,
            None => {
                let stats = &mut world.frames.stats;
                if egress.check((*remote.ip()).into()).is_err() {
                    stats.egress_refused += 1;
                    return Err(Unreachable::Prohibited);
                }
                match self.open(key, world.poller, world.now) {
                    Ok(id) => {
                        stats.udp_flows += 1;
                        id
                    }
                    Err(Errno::NETUNREACH | Errno::HOSTUNREACH) => return Err(Unreachable::Host),
                    Err(_) => return Ok(()),
                }
            }
        };
        let Some(flow) = self.flows.get_mut(&id) else {
            return Ok(());
        };
        flow.used = world.now;
        // An error that waits in the socket is of an earlier datagram: this one is sent behind it.
        for _ in 0..2 {
            match send(&flow.socket, payload, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                Err(Errno::CONNREFUSED) => {
                    tell_refused(world.frames, self.guest, flow.key, world.now);
                }
                Err(Errno::NETUNREACH | Errno::HOSTUNREACH) => return Err(Unreachable::Host),
                Ok(_) | Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    fn open(&mut self, key: Key, poller: &Poller, now: Instant) -> Result<Id, Errno> {
        if self.flows.len() >= self.most {
            let oldest = self.flows.iter().min_by_key(|(_, flow)| flow.used);
            if let Some(id) = oldest.map(|(id, _)| *id) {
                self.remove(id);
            }
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
        connect(&socket, &key.remote)?;
        let id = self.ids.next();
        poller
            .watch(&socket, Source::Udp(id))
            .map_err(|error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        let flow = Flow {
            key,
            socket,
            used: now,
            is_due: false,
        };
        self.by_key.insert(key, id);
        self.flows.insert(id, flow);
        Ok(id)
    }

    fn remove(&mut self, id: Id) {
        if let Some(flow) = self.flows.remove(&id) {
            self.by_key.remove(&flow.key);
        }
    }

    /// A flow's socket has something.
    pub(crate) fn ready(&mut self, id: Id) {
        if let Some(flow) = self.flows.get_mut(&id)
            && !std::mem::replace(&mut flow.is_due, true)
        {
            self.due.push_back(id);
        }
    }

    /// Gives the guest what has come for it, as long as frames can be sent.
    pub(crate) fn run(&mut self, buffer: &mut [u8], frames: &mut Frames, now: Instant) {
        for _ in 0..self.due.len() {
            if !frames.is_open(now) {
                return;
            }
            if let Some(id) = self.due.pop_front()
                && let Some(flow) = self.flows.get_mut(&id)
            {
                flow.is_due = false;
                if turn(flow, self.guest, buffer, frames, now) {
                    self.ready(id);
                }
            }
        }
    }

    /// Ends silent flows.
    pub(crate) fn expire(&mut self, now: Instant) {
        if now < self.swept + SWEEP {
            return;
        }
        self.swept = now;
        let silent = |flow: &Flow| now.saturating_duration_since(flow.used) >= IDLE;
        let ended: Vec<Id> = self
            .flows
            .iter()
            .filter(|(_, flow)| silent(flow))
            .map(|(id, _)| *id)
            .collect();
        for id in ended {
            self.remove(id);
        }
    }
}

/// One turn of a flow. True when there may be more.
fn turn(
    flow: &mut Flow,
    guest: Ipv4Addr,
    buffer: &mut [u8],
    frames: &mut Frames,
    now: Instant,
) -> bool {
    for _ in 0..BUDGET {
        if !frames.is_open(now) {
            return true;
        }
        match recv(&flow.socket, &mut *buffer, RecvFlags::empty()) {
            Ok((length, _)) => {
                flow.used = now;
                let to = SocketAddrV4::new(guest, flow.key.guest_port);
                wire::send_udp(frames, flow.key.remote, to, &buffer[..length], now);
            }
            Err(Errno::INTR) => {}
            Err(Errno::CONNREFUSED) => tell_refused(frames, guest, flow.key, now),
            Err(_) => return false,
        }
    }
    true
}

/// Tells the guest that nobody listens there.
fn tell_refused(frames: &mut Frames, guest: Ipv4Addr, key: Key, now: Instant) {
    let from = SocketAddrV4::new(guest, key.guest_port);
    let sent = wire::datagram_head(from, key.remote);
    wire::refuse_port(frames, &sent, now);
}
