//! Published ports: ports of the host's loopback that lead to ports of the guest's.
//!
//! They need no network device: a connection goes through the monitor's vsock socket to the agent,
//! which connects to the guest's port. What the agent says is the guest's word, and is only ever
//! carried.

mod connection;
mod relay;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use self::connection::{Connection, Next};
use crate::config::Limits;
use crate::control::{ErrorCode, Published, Stats};
use crate::poller::{Id, Ids, Poller, Ready, Source};

/// Connections accepted in one go.
const ACCEPT_BUDGET: usize = 16;
/// When a port whose accept(2) failed is tried again.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Port {
    listener: TcpListener,
    guest_port: u16,
    is_due: bool,
}

/// All published ports and their connections.
#[derive(Debug)]
pub(crate) struct Ports {
    vsock: Option<OwnedFd>,
    ports: BTreeMap<u16, Port>,
    connections: HashMap<Id, Connection>,
    due: VecDeque<Id>,
    ids: Ids,
    most_ports: usize,
    most_connections: usize,
    retry: Option<Instant>,
}

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
}

impl Refused {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl Ports {
    /// None yet; `vsock` is the monitor's socket, without which there will be none.
    pub(crate) fn new(vsock: Option<OwnedFd>, limits: &Limits) -> Self {
        Self {
            vsock,
            ports: BTreeMap::new(),
            connections: HashMap::new(),
            due: VecDeque::new(),
            ids: Ids::default(),
            most_ports: limits.published_ports,
            most_connections: limits.published_connections,
            retry: None,
        }
    }

    /// Begins to listen.
    pub(crate) fn publish(
        &mut self,
        host_port: Option<u16>,
        guest_port: u16,
        poller: &Poller,
    ) -> Result<Published, Refused> {
        use ErrorCode::{Internal, InvalidRequest, NotAllowed, PortReserved, PortTaken, TooMany};
        if self.vsock.is_none() {
            let message = "the network policy publishes no ports";
            return Err(Refused::new(NotAllowed, message));
        }
        if guest_port == 0 {
            return Err(Refused::new(InvalidRequest, "port 0 is no port of a guest"));
        }
        if self.ports.len() >= self.most_ports {
            let message = format!("{} ports are published already", self.most_ports);
            return Err(Refused::new(TooMany, message));
        }
        let asked = host_port.unwrap_or(0);
        let listen = || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, asked))?;
            listener.set_nonblocking(true)?;
            let host_port = listener.local_addr()?.port();
            poller.watch(&listener, Source::Port(host_port))?;
            Ok((host_port, listener))
        };
        let (host_port, listener) = listen().map_err(|error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => {
                Refused::new(PortTaken, format!("port {asked} of the host is in use"))
            }
            io::ErrorKind::PermissionDenied => Refused::new(
                PortReserved,
                format!("port {asked} of the host needs a privilege"),
            ),
            _ => Refused::new(Internal, format!("cannot listen on port {asked}: {error}")),
        })?;
        let port = Port {
            listener,
            guest_port,
            is_due: false,
        };
        self.ports.insert(host_port, port);
        Ok(Published {
            host_port,
            guest_port,
        })
    }

    /// Stops listening, and breaks the port's connections.
    pub(crate) fn withdraw(&mut self, host_port: u16) -> Result<(), Refused> {
        if self.ports.remove(&host_port).is_none() {
            let message = format!("port {host_port} is not published");
            return Err(Refused::new(ErrorCode::NotPublished, message));
        }
        self.connections.retain(|_, connection| {
            let stays = connection.host_port != host_port;
            if !stays {
                connection.break_off();
            }
            stays
        });
        Ok(())
    }

    /// All published ports.
    pub(crate) fn list(&self) -> Vec<Published> {
        let published = |(host_port, port): (&u16, &Port)| Published {
            host_port: *host_port,
            guest_port: port.guest_port,
        };
        self.ports.iter().map(published).collect()
    }

    /// Connections that there are.
    pub(crate) fn count(&self) -> usize {
        self.connections.len()
    }

    /// Whether [`Self::run`] has something to do at once.
    pub(crate) fn is_due(&self) -> bool {
        !self.due.is_empty() || (self.retry.is_none() && self.ports.values().any(|it| it.is_due))
    }

    /// When [`Self::expire`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let connections = self.connections.values().filter_map(Connection::deadline);
        connections.chain(self.retry).min()
    }

    /// Somebody connects to a port.
    pub(crate) fn port_ready(&mut self, host_port: u16) {
        if let Some(port) = self.ports.get_mut(&host_port) {
            port.is_due = true;
        }
    }

    /// The client's socket can be read or written.
    pub(crate) fn client_ready(&mut self, id: Id, ready: Ready) {
        if let Some(connection) = self.connections.get_mut(&id) {
            let known = connection.client_ready();
            known.readable |= ready.readable;
            known.writable |= ready.writable;
            self.wake(id);
        }
    }

    /// The guest's socket can be read or written.
    pub(crate) fn agent_ready(&mut self, id: Id, ready: Ready) {
        if let Some(connection) = self.connections.get_mut(&id) {
            let known = connection.agent_ready();
            known.readable |= ready.readable;
            known.writable |= ready.writable;
            self.wake(id);
        }
    }

    /// Gives each that has something to do one turn.
    pub(crate) fn run(&mut self, poller: &Poller, stats: &mut Stats, now: Instant) {
        let due: Vec<u16> = self
            .ports
            .iter()
            .filter(|(_, port)| port.is_due && self.retry.is_none())
            .map(|(number, _)| *number)
            .collect();
        for host_port in due {
            self.accept(host_port, poller, stats, now);
        }
        for _ in 0..self.due.len() {
            if let Some(id) = self.due.pop_front() {
                self.turn(id, stats, now);
            }
        }
    }

    fn turn(&mut self, id: Id, stats: &mut Stats, now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.is_due = false;
        match connection.turn(now) {
            Next::Wait => {}
            Next::Again => self.wake(id),
            Next::Connected => {
                stats.published_connected += 1;
                self.wake(id);
            }
            Next::Ended => drop(self.connections.remove(&id)),
            Next::Failed => {
                stats.published_failed += 1;
                self.connections.remove(&id);
            }
        }
    }

    fn accept(&mut self, host_port: u16, poller: &Poller, stats: &mut Stats, now: Instant) {
        let (Some(port), Some(vsock)) = (self.ports.get_mut(&host_port), &self.vsock) else {
            return;
        };
        for _ in 0..ACCEPT_BUDGET {
            let client = match port.listener.accept() {
                Ok((client, _)) => OwnedFd::from(client),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    port.is_due = false;
                    return;
                }
                // No descriptors: later there may be some.
                Err(_) => {
                    self.retry = Some(now + ACCEPT_RETRY);
                    return;
                }
            };
            if self.connections.len() >= self.most_connections {
                stats.over_limit += 1;
                refuse(&client);
                continue;
            }
            let id = self.ids.next();
            let made = client.try_clone().and_then(|spare| {
                let vsock = vsock.as_fd();
                let made = Connection::new(client, vsock, host_port, port.guest_port, now);
                let connection = made.inspect_err(|_| refuse(&spare))?;
                poller.watch(connection.client(), Source::Client(id))?;
                poller.watch(connection.agent(), Source::Agent(id))?;
                Ok(connection)
            });
            match made {
                Ok(connection) => drop(self.connections.insert(id, connection)),
                Err(_) => stats.published_failed += 1,
            }
        }
    }

    /// Gives up those whose time is over, and tries ports again.
    pub(crate) fn expire(&mut self, now: Instant) {
        if self.retry.is_some_and(|at| at <= now) {
            self.retry = None;
        }
        let over = |connection: &Connection| connection.deadline().is_some_and(|at| at <= now);
        let connections = self.connections.iter();
        let ids = connections.filter(|(_, connection)| over(connection));
        let ids: Vec<Id> = ids.map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.wake(id));
    }

    /// Something about this connection is to be looked at; once, however often that is said.
    fn wake(&mut self, id: Id) {
        if let Some(connection) = self.connections.get_mut(&id)
            && !std::mem::replace(&mut connection.is_due, true)
        {
            self.due.push_back(id);
        }
    }
}

/// Makes a client see a broken connection.
fn refuse(client: &OwnedFd) {
    let _ = rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO));
}
