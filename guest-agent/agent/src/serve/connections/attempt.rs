//! Connecting to a port, one address after the other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use pyro_agent_protocol::{CONNECT_TIMEOUT_MS, Connect, ConnectEvent, ErrorCode};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, connect, getpeername, getsockname, socket_with, sockopt,
};

use crate::serve::poller::{Interest, OperationId, Poller, Source, Watched};

/// See the [module](self).
#[derive(Debug)]
pub(in crate::serve) struct Attempt {
    /// Those that have not been tried, the next one last.
    addresses: Vec<SocketAddr>,
    /// Being connected.
    socket: Option<Watched>,
    /// Why the first address failed, which tells the most: it is the one that is meant.
    failed: Option<Errno>,
    deadline: Option<Instant>,
}

/// How far an attempt is.
#[derive(Debug)]
pub(super) enum Progress {
    Waits,
    Connected(Watched),
    Failed(ConnectEvent),
}

impl Attempt {
    /// An attempt that has not begun, or why there can be none.
    pub(super) fn new(request: &Connect) -> Result<Self, ConnectEvent> {
        let invalid = |message: &str| ConnectEvent::Failed {
            code: ErrorCode::InvalidRequest,
            message: message.to_owned(),
        };
        if request.port == 0 {
            return Err(invalid("there is no port 0"));
        }
        let addresses: Vec<IpAddr> = if request.host == "localhost" {
            vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]
        } else {
            let address = request.host.parse();
            vec![address.map_err(|_| invalid("the host is neither an address nor localhost"))?]
        };
        let timeout = Duration::from_millis(request.timeout_ms.unwrap_or(CONNECT_TIMEOUT_MS));
        Ok(Self {
            addresses: addresses
                .into_iter()
                .map(|address| SocketAddr::new(address, request.port))
                .collect(),
            socket: None,
            failed: None,
            deadline: Instant::now().checked_add(timeout),
        })
    }

    pub(in crate::serve) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Looks at what has become of it, and begins with the next address if need be.
    pub(super) fn go_on(&mut self, id: OperationId, poller: &Poller) -> Progress {
        if self.socket.is_some()
            && self
                .deadline
                .is_some_and(|deadline| deadline <= Instant::now())
        {
            return self.give_up(Errno::TIMEDOUT);
        }
        loop {
            match self.socket.take() {
                Some(socket) => match outcome(&socket) {
                    Ok(true) => return Progress::Connected(socket),
                    Ok(false) => {
                        self.socket = Some(socket);
                        return Progress::Waits;
                    }
                    Err(errno) => _ = self.failed.get_or_insert(errno),
                },
                None => match self.addresses.pop() {
                    Some(address) => match begin(address, id, poller) {
                        Ok(socket) => self.socket = Some(socket),
                        Err(errno) => _ = self.failed.get_or_insert(errno),
                    },
                    None => return self.give_up(Errno::HOSTUNREACH),
                },
            }
        }
    }

    /// Says why it has come to nothing.
    fn give_up(&mut self, otherwise: Errno) -> Progress {
        self.socket = None;
        let errno = self.failed.unwrap_or(otherwise);
        let (code, message) = match errno {
            Errno::CONNREFUSED | Errno::CONNRESET => (
                ErrorCode::ConnectionRefused,
                "nobody listens at the port".to_owned(),
            ),
            Errno::TIMEDOUT => (
                ErrorCode::TimedOut,
                "the connection has taken too long to be made".to_owned(),
            ),
            Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => (
                ErrorCode::OutOfResources,
                format!("the guest has no room for a connection: {errno}"),
            ),
            errno => (
                ErrorCode::Unreachable,
                format!("the address cannot be reached: {errno}"),
            ),
        };
        Progress::Failed(ConnectEvent::Failed { code, message })
    }
}

/// A socket that connects to an address.
fn begin(address: SocketAddr, id: OperationId, poller: &Poller) -> Result<Watched, Errno> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    match connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(errno) => return Err(errno),
    }
    let mut socket = Watched::new(socket, Source::Peer(id), poller);
    socket.watch(Interest::WRITE)?;
    Ok(socket)
}

/// Whether a socket is connected by now.
fn outcome(socket: &Watched) -> Result<bool, Errno> {
    sockopt::socket_error(socket)??;
    match getpeername(socket) {
        // Where nobody listens at a port that the kernel gives to those who connect, it may have
        // given that port to us, and we are connected to ourselves (RFC 9293, simultaneous open).
        Ok(peer) if peer.is_some() && peer == getsockname(socket).ok() => Err(Errno::CONNREFUSED),
        Ok(_) => Ok(true),
        Err(Errno::NOTCONN) => Ok(false),
        Err(errno) => Err(errno),
    }
}
