//! The host's side: Unix sockets that are given, never named.

use std::collections::HashMap;
use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketType, sendmsg,
};

use super::limits::MAX_CONNECTIONS;
use super::packet::{Cid, Port};

/// Everything the device is given.
#[derive(Debug)]
pub struct VsockConfig {
    /// The guest's context id.
    pub guest_cid: Cid,
    /// A listening Unix stream socket for connections from the host.
    pub listener: Option<OwnedFd>,
    /// Connected Unix stream sockets, each for one connection from the host.
    pub streams: Vec<OwnedFd>,
    /// The host ports that the guest may connect to, each with the connected `SOCK_SEQPACKET`
    /// Unix socket that is sent the port and the stream.
    pub host_ports: Vec<(Port, OwnedFd)>,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The guest's context id is reserved or wider than 32 bits.
    #[error("the guest's context id must be from 3 to 4294967294")]
    ReservedCid,
    /// A descriptor is not what it is said to be.
    #[error("{what} is not a {expected}")]
    WrongSocket {
        /// Which one.
        what: &'static str,
        /// What it has to be.
        expected: &'static str,
    },
    /// One port is given twice.
    #[error("host port {} is given twice", .0.0)]
    DuplicatePort(Port),
    /// More streams than connections.
    #[error("more than {MAX_CONNECTIONS} streams are given")]
    TooManyStreams,
    /// The host refused something.
    #[error("cannot prepare the vsock device's sockets")]
    Host(#[from] io::Error),
}

/// The listener and the acceptors, through which all new connections pass.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) listener: Option<UnixListener>,
    host_ports: HashMap<Port, OwnedFd>,
}

impl Backend {
    /// Checks and takes over what is configured.
    pub(super) fn new(config: VsockConfig) -> Result<(Backend, Vec<UnixStream>), ConfigError> {
        let reserved = config.guest_cid.0 < Cid::MIN_GUEST.0 || config.guest_cid.0 >= Cid::ANY.0;
        if reserved {
            return Err(ConfigError::ReservedCid);
        }
        if config.streams.len() > MAX_CONNECTIONS {
            return Err(ConfigError::TooManyStreams);
        }
        let listener = config.listener.map(listener).transpose()?;
        let mut host_ports = HashMap::new();
        for (port, acceptor) in config.host_ports {
            check(&acceptor, SocketType::SEQPACKET, false).ok_or(ConfigError::WrongSocket {
                what: "an acceptor",
                expected: "SOCK_SEQPACKET Unix socket",
            })?;
            if host_ports.insert(port, acceptor).is_some() {
                return Err(ConfigError::DuplicatePort(port));
            }
        }
        let streams = config
            .streams
            .into_iter()
            .map(stream)
            .collect::<Result<_, _>>()?;
        let backend = Backend {
            listener,
            host_ports,
        };
        Ok((backend, streams))
    }

    /// Whether the guest may connect to this port.
    pub(super) fn offers(&self, port: Port) -> bool {
        self.host_ports.contains_key(&port)
    }

    /// Makes a stream for the guest's connection to `port` and hands its other end over. Does
    /// not block: an acceptor that does not keep up counts as an error.
    pub(super) fn open(&self, port: Port) -> io::Result<UnixStream> {
        let acceptor = self.host_ports.get(&port).ok_or(io::ErrorKind::NotFound)?;
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let rights = [theirs.as_fd()];
        if !control.push(SendAncillaryMessage::ScmRights(&rights)) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let message = port.0.to_le_bytes();
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        sendmsg(acceptor, &[IoSlice::new(&message)], &mut control, flags)?;
        Ok(ours)
    }
}

fn listener(fd: OwnedFd) -> Result<UnixListener, ConfigError> {
    check(&fd, SocketType::STREAM, true).ok_or(ConfigError::WrongSocket {
        what: "the listener",
        expected: "listening Unix stream socket",
    })?;
    let listener = UnixListener::from(fd);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn stream(fd: OwnedFd) -> Result<UnixStream, ConfigError> {
    check(&fd, SocketType::STREAM, false).ok_or(ConfigError::WrongSocket {
        what: "a stream",
        expected: "connected Unix stream socket",
    })?;
    let stream = UnixStream::from(fd);
    stream.set_nonblocking(true)?;
    Ok(stream)
}

fn check(fd: impl AsFd, wanted: SocketType, listening: bool) -> Option<()> {
    let right = socket_domain(&fd).ok()? == AddressFamily::UNIX
        && socket_type(&fd).ok()? == wanted
        && socket_acceptconn(&fd).ok()? == listening;
    right.then_some(())
}

/// Closes a stream so that its peer reads an orderly end. A Unix socket closed over unread bytes
/// shows its peer `ECONNRESET` instead, so those are thrown away first; the peer can add none,
/// and a socket holds little.
pub(super) fn close_in_order(mut stream: UnixStream) {
    const PIECES: usize = 64;
    let _ = stream.shutdown(std::net::Shutdown::Both);
    let mut scratch = [0; 16 * 1024];
    for _ in 0..PIECES {
        match stream.read(&mut scratch) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn config() -> VsockConfig {
        VsockConfig {
            guest_cid: Cid(3),
            listener: None,
            streams: Vec::new(),
            host_ports: Vec::new(),
        }
    }

    fn seqpacket() -> OwnedFd {
        rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .unwrap()
        .0
    }

    #[test]
    fn reserved_context_ids_are_refused() {
        for cid in [0, 1, 2, 0xffff_ffff, 1 << 32] {
            let config = VsockConfig {
                guest_cid: Cid(cid),
                ..config()
            };
            assert!(
                matches!(Backend::new(config), Err(ConfigError::ReservedCid)),
                "{cid}"
            );
        }
        assert!(Backend::new(config()).is_ok());
    }

    #[test]
    fn sockets_of_the_wrong_kind_are_refused() {
        let file = || OwnedFd::from(tempfile::tempfile().unwrap());
        let stream = || OwnedFd::from(UnixStream::pair().unwrap().0);
        let wrong = |config| {
            let result = Backend::new(config);
            assert!(
                matches!(result, Err(ConfigError::WrongSocket { .. })),
                "{result:?}"
            );
        };
        for fd in [file(), stream(), seqpacket()] {
            wrong(VsockConfig {
                listener: Some(fd),
                ..config()
            });
        }
        for fd in [file(), seqpacket()] {
            wrong(VsockConfig {
                streams: vec![fd],
                ..config()
            });
        }
        for fd in [file(), stream()] {
            wrong(VsockConfig {
                host_ports: vec![(Port(1), fd)],
                ..config()
            });
        }
    }

    #[test]
    fn a_port_given_twice_is_refused() {
        let config = VsockConfig {
            host_ports: vec![(Port(1), seqpacket()), (Port(1), seqpacket())],
            ..config()
        };
        assert!(matches!(
            Backend::new(config),
            Err(ConfigError::DuplicatePort(Port(1)))
        ));
    }

    #[test]
    fn a_peer_reads_an_orderly_end_though_its_bytes_were_not_read() {
        let (mut peer, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        peer.write_all(&[7; 100_000]).unwrap();
        close_in_order(ours);
        assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
    }
}
