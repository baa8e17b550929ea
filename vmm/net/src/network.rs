//! The process's loop: waits, takes the guest's frames, gives everybody a turn.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use crate::config::{Addresses, Config};
use crate::control::{Reply, Request, Stats};
use crate::dns::{self, Forwarder, Resolvers};
use crate::egress::{Egress, HostRouting};
use crate::frames::{Frames, Read};
use crate::peers::Peers;
use crate::poller::{Poller, Ready, Source};
use crate::published::Ports;
use crate::tcp::Tcp;
use crate::udp::Udp;
use crate::wire::{self, Incoming, Unreachable};
use crate::world::World;

/// Frames of the guest in one round, so that others get their turn.
const BUDGET: usize = 64;
/// Room for the longest frame and the longest datagram.
const BUFFER: usize = 1 << 17;

/// Everything that the process holds open.
pub(crate) struct Resources {
    pub(crate) frames: OwnedFd,
    pub(crate) control: UnixListener,
    pub(crate) vsock: Option<OwnedFd>,
}

/// The network of one guest.
pub(crate) struct Network {
    poller: Poller,
    addresses: Addresses,
    frames: Frames,
    tcp: Tcp,
    udp: Udp,
    forwarder: Forwarder,
    resolvers: Resolvers,
    egress: Egress<HostRouting>,
    ports: Ports,
    peers: Peers,
    /// What is read goes here first.
    buffer: Vec<u8>,
    now: Instant,
}

impl Network {
    pub(crate) fn new(
        config: &Config,
        resources: Resources,
        resolvers: Resolvers,
    ) -> io::Result<Self> {
        let (addresses, limits, now) = (config.addresses, config.limits, Instant::now());
        let poller = Poller::new()?;
        let rate = limits.bytes_per_second;
        let mut frames = Frames::new(resources.frames, &addresses, rate, now)?;
        poller.watch(frames.fd(), Source::Frames)?;
        let mut seed = [0; 8];
        rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())?;
        let seed = u64::from_ne_bytes(seed);
        let tcp = Tcp::new(addresses, &limits, seed, &mut frames, now);
        Ok(Self {
            peers: Peers::new(resources.control, &poller)?,
            poller,
            addresses,
            frames,
            tcp,
            udp: Udp::new(addresses.guest, limits.udp_flows, now),
            forwarder: Forwarder::default(),
            resolvers,
            egress: Egress::new(config.egress_allow.clone(), HostRouting::new()?),
            ports: Ports::new(resources.vsock, &limits),
            buffer: vec![0; BUFFER],
            now,
        })
    }

    /// Serves until the guest's frames end.
    ///
    /// # Errors
    /// When the host lets it wait no more.
    pub(crate) fn run(mut self) -> io::Result<()> {
        loop {
            let ready = self.poller.wait(self.timeout())?;
            self.now = Instant::now();
            for event in ready {
                self.ready(event);
            }
            if !self.read_frames() {
                return Ok(());
            }
            self.turns();
        }
    }

    /// How long there is nothing to do.
    fn timeout(&self) -> Option<Duration> {
        let now = Instant::now();
        let flows = self.tcp.is_due() || self.udp.is_due();
        let due = (flows && self.frames.is_open(now))
            || self.frames.wants_to_read(now)
            || self.ports.is_due()
            || self.peers.is_due();
        if due {
            return Some(Duration::ZERO);
        }
        let deadlines = [
            self.tcp.deadline(),
            self.udp.deadline(),
            self.forwarder.deadline(),
            self.ports.deadline(),
            self.frames.opens_at(now),
        ];
        let next = deadlines.into_iter().flatten().min()?;
        Some(next.saturating_duration_since(now))
    }

    fn ready(&mut self, event: Ready) {
        match event.source {
            Source::Frames => {
                self.frames.flush();
                if event.readable {
                    self.frames.set_readable();
                }
            }
            Source::Control => self.peers.listener_ready(),
            Source::Peer(id) => self.peers.peer_ready(id, event),
            Source::Tcp(id) => self.tcp.ready(id, event),
            Source::Udp(id) => self.udp.ready(id),
            Source::Query(id) => {
                let mut buffer = std::mem::take(&mut self.buffer);
                self.with_dns(|forwarder, _, world| forwarder.ready(id, &mut buffer, world));
                self.buffer = buffer;
            }
            Source::Port(port) => self.ports.port_ready(port),
            Source::Client(id) => self.ports.client_ready(id, event),
            Source::Agent(id) => self.ports.agent_ready(id, event),
        }
    }

    /// Takes frames of the guest. False when there will be no more.
    fn read_frames(&mut self) -> bool {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut open = true;
        for _ in 0..BUDGET {
            match self.frames.read(&mut buffer, self.now) {
                Read::Frame(length) => self.receive(&buffer[..length]),
                Read::Nothing => break,
                Read::Closed => {
                    open = false;
                    break;
                }
            }
        }
        self.buffer = buffer;
        open
    }

    fn receive(&mut self, frame: &[u8]) {
        let (addresses, now) = (self.addresses, self.now);
        match wire::parse(frame, &addresses) {
            None => self.frames.stats.frames_dropped += 1,
            Some(Incoming::Arp(address)) => {
                wire::answer_arp(&mut self.frames, &addresses, address, now);
            }
            Some(Incoming::Tcp(segment)) => {
                let mut world = World {
                    frames: &mut self.frames,
                    poller: &self.poller,
                    now,
                };
                let (egress, resolvers) = (&mut self.egress, &mut self.resolvers);
                self.tcp.receive(segment, egress, resolvers, &mut world);
            }
            Some(Incoming::Udp {
                guest_port,
                remote,
                payload,
                packet,
            }) => {
                let to = *remote.ip();
                let sent = if to == addresses.dns && remote.port() == dns::PORT {
                    self.with_dns(|forwarder, resolvers, world| {
                        forwarder.ask(guest_port, payload, resolvers, world);
                    });
                    Ok(())
                } else if [addresses.dns, addresses.gateway, addresses.guest].contains(&to) {
                    Err(Unreachable::Port)
                } else {
                    let mut world = World {
                        frames: &mut self.frames,
                        poller: &self.poller,
                        now,
                    };
                    let egress = &mut self.egress;
                    self.udp
                        .send(guest_port, remote, payload, egress, &mut world)
                };
                if let Err(why) = sent {
                    wire::refuse(&mut self.frames, addresses.gateway, packet, why, now);
                }
            }
            Some(Incoming::Echo { to, packet }) => {
                if [addresses.dns, addresses.gateway].contains(&to) {
                    wire::answer_echo(&mut self.frames, packet, now);
                } else {
                    self.frames.stats.egress_refused += 1;
                    let why = Unreachable::Prohibited;
                    wire::refuse(&mut self.frames, addresses.gateway, packet, why, now);
                }
            }
        }
    }

    fn with_dns(&mut self, act: impl FnOnce(&mut Forwarder, &mut Resolvers, &mut dns::World<'_>)) {
        let mut world = dns::World {
            frames: &mut self.frames,
            poller: &self.poller,
            guest: self.addresses.guest,
            dns: self.addresses.dns,
            now: self.now,
        };
        act(&mut self.forwarder, &mut self.resolvers, &mut world);
    }

    /// Gives everybody who has something to do a turn.
    fn turns(&mut self) {
        let now = self.now;
        self.tcp.expire(now);
        self.udp.expire(now);
        self.ports.expire(now);
        self.with_dns(|forwarder, _, world| forwarder.expire(world));
        let mut world = World {
            frames: &mut self.frames,
            poller: &self.poller,
            now,
        };
        self.tcp.run(&mut world);
        self.udp.run(&mut self.buffer, &mut self.frames, now);
        let stats = &mut self.frames.stats;
        self.ports.run(&self.poller, stats, now);
        let mut stats = *stats;
        stats.tcp_open = self.tcp.count() as u64;
        stats.udp_open = self.udp.count() as u64;
        stats.published_open = self.ports.count() as u64;
        let (ports, poller) = (&mut self.ports, &self.poller);
        self.peers
            .run(poller, |request| answer(request, ports, poller, stats));
    }
}

fn answer(request: Request, ports: &mut Ports, poller: &Poller, stats: Stats) -> Reply {
    let done = match request {
        Request::Publish {
            host_port,
            guest_port,
        } => ports
            .publish(host_port, guest_port, poller)
            .map(Reply::Published),
        Request::Withdraw { host_port } => ports.withdraw(host_port).map(|()| Reply::Ok),
        Request::List => Ok(Reply::List {
            published: ports.list(),
        }),
        Request::Stats => Ok(Reply::Stats(stats)),
    };
    done.unwrap_or_else(|refused| Reply::Error {
        code: refused.code,
        message: refused.message,
    })
}
