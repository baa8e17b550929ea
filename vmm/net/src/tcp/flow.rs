//! One connection: the kernel's socket, smoltcp's, and the bytes between.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::sockopt::{
    set_socket_keepalive, set_socket_linger, set_tcp_nodelay, socket_error,
};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, connect, recv, send,
    shutdown, socket_with,
};
use smoltcp::iface::{Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{self, SocketBuffer, State};
use smoltcp::time::{Duration, Instant as Time};
use smoltcp::wire::{Ipv4Packet, TcpPacket};

use super::link::Link;
use crate::dns::QueryStream;
use crate::poller::Ready;

/// Bytes on their way in each direction: four of the longest segments, so that neither side waits
/// for the other. The kernel's buffers bear what the distance to the peer asks for. Memory that is
/// not touched costs nothing.
const BUFFER: usize = 256 << 10;
/// How long the guest may take to complete its handshake.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// How often a guest that says nothing is asked whether it still has the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// Packets of one turn.
const PACKETS: usize = 16;
/// How long a connection waits that has nothing to do and does not know until when.
const PAUSE: Duration = Duration::from_millis(1);

/// A connection of the guest.
pub(super) struct Flow {
    socket: OwnedFd,
    readable: bool,
    writable: bool,
    state: Stage,
}

enum Stage {
    /// The host's connection is being made.
    Connecting {
        /// The guest's first packet.
        syn: Vec<u8>,
        deadline: Instant,
        /// What passes are questions to a resolver.
        questions: bool,
    },
    /// Both are there.
    Open(Box<Open>),
}

struct Open {
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    established: bool,
    /// The host's side will read no more from the guest: it was told that the guest has ended.
    guest_ended: bool,
    /// The host's side has ended, and the guest is told when it has all before.
    host_ended: bool,
    questions: Option<QueryStream>,
}

/// What comes after a turn.
pub(super) enum Next {
    /// There is more to do.
    Again,
    /// Nothing to do until this time, or until something happens.
    Wait(Option<Time>),
    /// The same in the host's time.
    WaitUntil(Instant),
    /// The host's connection is there, and the guest is answered with the next turn.
    Connected,
    /// It could not be made; the guest's SYN waits for an answer.
    Failed(Vec<u8>, Errno),
    /// It is over.
    Ended,
}

impl Flow {
    /// Begins a connection to `target` for the guest's `syn`.
    pub(super) fn connect(
        target: SocketAddr,
        syn: &[u8],
        questions: bool,
        deadline: Instant,
    ) -> io::Result<Self> {
        let family = match target {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        // What the guest sends has waited once already; and a peer that is gone shall not keep a
        // connection of ours for ever.
        set_tcp_nodelay(&socket, true)?;
        set_socket_keepalive(&socket, true)?;
        match connect(&socket, &target) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(Self {
            socket,
            readable: false,
            writable: false,
            state: Stage::Connecting {
                syn: syn.to_vec(),
                deadline,
                questions,
            },
        })
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn ready(&mut self, ready: Ready) {
        self.readable |= ready.readable;
        self.writable |= ready.writable;
    }

    /// A segment of the guest, which is `link`'s packet.
    pub(super) fn receive(&mut self, interface: &mut Interface, time: Time, link: &mut Link<'_>) {
        // While connecting, it can only be the SYN again: it is known.
        if let Stage::Open(open) = &mut self.state {
            interface.poll_ingress_single(time, link, &mut open.sockets);
        }
    }

    /// Does what can be done now, within bounds.
    pub(super) fn turn(
        &mut self,
        interface: &mut Interface,
        time: Time,
        link: &mut Link<'_>,
    ) -> Next {
        match &mut self.state {
            Stage::Connecting { .. } => self.connecting(interface, time, link),
            Stage::Open(open) => {
                let mut host = Host {
                    socket: self.socket.as_fd(),
                    readable: &mut self.readable,
                    writable: &mut self.writable,
                };
                open.turn(&mut host, interface, time, link)
            }
        }
    }

    fn connecting(&mut self, interface: &mut Interface, time: Time, link: &mut Link<'_>) -> Next {
        let Stage::Connecting {
            syn,
            deadline,
            questions,
        } = &mut self.state
        else {
            return Next::Ended;
        };
        if !self.writable {
            if link.now() >= *deadline {
                return Next::Failed(std::mem::take(syn), Errno::TIMEDOUT);
            }
            return Next::WaitUntil(*deadline);
        }
        match socket_error(&self.socket) {
            Ok(Ok(())) => {}
            Ok(Err(errno)) | Err(errno) => {
                return Next::Failed(std::mem::take(syn), errno);
            }
        }
        let questions = questions.then(QueryStream::default);
        match Open::new(interface, time, link, syn, questions) {
            Some(open) => {
                self.state = Stage::Open(Box::new(open));
                Next::Connected
            }
            None => Next::Failed(std::mem::take(syn), Errno::CONNREFUSED),
        }
    }
}

/// The kernel's socket, and what is known of it.
struct Host<'a> {
    socket: BorrowedFd<'a>,
    readable: &'a mut bool,
    writable: &'a mut bool,
}

/// The connection is broken.
struct Broken;

impl Host<'_> {
    /// Writes; 0 when the socket takes nothing now.
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        loop {
            return match send(self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(count) => Ok(count),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {
                    *self.writable = false;
                    Ok(0)
                }
                Err(_) => Err(Broken),
            };
        }
    }

    /// Reads; `None` at the end, 0 when there is nothing now.
    fn read(&mut self, room: &mut [u8]) -> Result<Option<usize>, Broken> {
        loop {
            return match recv(self.socket, &mut *room, RecvFlags::empty()) {
                Ok((0, _)) => Ok(None),
                Ok((count, _)) => Ok(Some(count)),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {
                    *self.readable = false;
                    Ok(Some(0))
                }
                Err(_) => Err(Broken),
            };
        }
    }
}

impl Open {
    /// A socket that has taken the guest's SYN. `None` when it did not: the SYN was none.
    fn new(
        interface: &mut Interface,
        time: Time,
        link: &mut Link<'_>,
        syn: &[u8],
        questions: Option<QueryStream>,
    ) -> Option<Self> {
        let ip = Ipv4Packet::new_checked(syn).ok()?;
        let segment = TcpPacket::new_checked(ip.payload()).ok()?;
        let buffer = || SocketBuffer::new(vec![0; BUFFER]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        socket.set_timeout(Some(HANDSHAKE));
        socket.listen((ip.dst_addr(), segment.dst_port())).ok()?;
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        interface.poll_ingress_single(time, &mut link.with_packet(syn), &mut sockets);
        let accepted = sockets.get::<tcp::Socket<'_>>(handle).state() == State::SynReceived;
        accepted.then_some(Self {
            sockets,
            handle,
            established: false,
            guest_ended: false,
            host_ended: false,
            questions,
        })
    }

    fn turn(
        &mut self,
        host: &mut Host<'_>,
        interface: &mut Interface,
        time: Time,
        link: &mut Link<'_>,
    ) -> Next {
        let moved = self.carry(host);
        if moved.is_err() {
            self.sockets.get_mut::<tcp::Socket<'_>>(self.handle).abort();
        }
        // One packet a call.
        let mut sent = 0;
        while sent < PACKETS
            && interface.poll_egress(time, link, &mut self.sockets) != PollResult::None
        {
            sent += 1;
        }
        let socket = self.sockets.get::<tcp::Socket<'_>>(self.handle);
        // A guest that takes its SYN back makes the socket listen again (RFC 9293 §3.10.7.4), for
        // somebody who never comes.
        let taken_back = socket.state() == State::Listen;
        if taken_back || socket.state() == State::Closed && socket.remote_endpoint().is_none() {
            // A guest that broke the connection breaks the host's; one that ended, and was told
            // so, has nothing to break.
            if moved.is_err() || !self.guest_ended || !self.host_ended {
                let _ = set_socket_linger(host.socket, Some(std::time::Duration::ZERO));
            }
            return Next::Ended;
        }
        let state = socket.state();
        let at = interface.poll_at(time, &self.sockets);
        let waits = at.is_none_or(|at| at > time);
        if waits && state == State::TimeWait {
            // The guest has everything, and has said so: its link loses nothing that would have to
            // be said again.
            return Next::Ended;
        }
        match moved {
            Ok(true) => Next::Again,
            _ if waits => Next::Wait(at),
            _ if sent > 0 || !link.is_open() => Next::Again,
            // It says that there is something to send, and sends nothing: not at once again.
            _ => Next::Wait(Some(time + PAUSE)),
        }
    }

    /// Carries bytes both ways. True when there may be more to carry at once.
    fn carry(&mut self, host: &mut Host<'_>) -> Result<bool, Broken> {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.handle);
        if !self.established {
            if matches!(socket.state(), State::Listen | State::SynReceived) {
                return Ok(false);
            }
            self.established = true;
            socket.set_timeout(None);
            socket.set_keep_alive(Some(KEEP_ALIVE));
        }
        let to_host = match &mut self.questions {
            None => guest_to_host(socket, host)?,
            Some(questions) => questions_to_host(socket, questions, host)?,
        };
        let pending = self.questions.as_ref().is_some_and(QueryStream::has_output);
        let ended = matches!(
            socket.state(),
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait
        );
        if ended && !socket.can_recv() && !pending && !self.guest_ended {
            self.guest_ended = true;
            // The host may have ended meanwhile, which its next read tells.
            let _ = shutdown(host.socket, Shutdown::Write);
        }
        let to_guest = !self.host_ended && self.host_to_guest(host)?;
        Ok(to_host || to_guest)
    }

    /// Reads from the host what the guest's window and our buffer have room for.
    fn host_to_guest(&mut self, host: &mut Host<'_>) -> Result<bool, Broken> {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.handle);
        // Twice: a ring's room may be in two pieces.
        for _ in 0..2 {
            if !*host.readable || !socket.can_send() {
                break;
            }
            let read = socket.send(|room| match host.read(room) {
                Ok(Some(count)) => (count, Ok(false)),
                Ok(None) => (0, Ok(true)),
                Err(broken) => (0, Err(broken)),
            });
            if read.unwrap_or(Ok(false))? {
                self.host_ended = true;
                socket.close();
                return Ok(false);
            }
        }
        Ok(*host.readable && socket.can_send())
    }
}

/// Writes to the host what the guest has sent.
fn guest_to_host(socket: &mut tcp::Socket<'_>, host: &mut Host<'_>) -> Result<bool, Broken> {
    for _ in 0..2 {
        if !*host.writable || !socket.can_recv() {
            break;
        }
        let wrote = socket.recv(|bytes| match host.write(bytes) {
            Ok(count) => (count, Ok(())),
            Err(broken) => (0, Err(broken)),
        });
        wrote.unwrap_or(Ok(()))?;
    }
    Ok(*host.writable && socket.can_recv())
}

/// The same for questions to a resolver, which are looked at.
fn questions_to_host(
    socket: &mut tcp::Socket<'_>,
    questions: &mut QueryStream,
    host: &mut Host<'_>,
) -> Result<bool, Broken> {
    while *host.writable {
        if questions.has_output() {
            let count = host.write(questions.output())?;
            questions.sent(count);
        } else if socket.can_recv() {
            let taken = socket.recv(|bytes| {
                let taken = questions.take(bytes);
                (taken.unwrap_or(bytes.len()), taken)
            });
            if taken.is_ok_and(|taken| taken.is_none()) {
                return Err(Broken);
            }
        } else {
            break;
        }
    }
    Ok(*host.writable && (socket.can_recv() || questions.has_output()))
}
