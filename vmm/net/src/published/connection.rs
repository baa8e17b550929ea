//! One connection to a published port: to the guest's agent through the monitor's vsock socket,
//! and from there to the guest's port.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use pyro_agent_protocol::{
    AGENT_PORT, Connect, ConnectEvent, FrameHeader, FrameKind, Request, encode_message, parse,
};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_keepalive, set_socket_linger, set_tcp_nodelay};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with,
};

use super::relay::{Broken, Direction, Readiness};

/// Longest answer before the relay: the handshake's line, and one small frame.
const ANSWER_MAX: usize = 16 << 10;

/// How long the guest may take to connect.
const PATIENCE: Duration = Duration::from_secs(15);

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) host_port: u16,
    /// It waits for a turn.
    pub(super) is_due: bool,
    client: OwnedFd,
    agent: OwnedFd,
    client_ready: Readiness,
    agent_ready: Readiness,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The agent is asked.
    Asking {
        /// What was not sent yet.
        request: Vec<u8>,
        /// What has come.
        answer: Vec<u8>,
        deadline: Instant,
    },
    /// The guest's port is there.
    Relaying { up: Direction, down: Direction },
}

/// What comes after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// There is more to do.
    Again,
    /// Nothing to do until something happens.
    Wait,
    /// The guest's port is there.
    Connected,
    /// It is over.
    Ended,
    /// The guest did not take it.
    Failed,
}

impl Connection {
    /// Begins to connect `client` to a port of the guest's loopback.
    pub(super) fn new(
        client: OwnedFd,
        vsock: BorrowedFd<'_>,
        host_port: u16,
        guest_port: u16,
        now: Instant,
    ) -> io::Result<Self> {
        set_tcp_nodelay(&client, true)?;
        set_socket_keepalive(&client, true)?;
        rustix::io::ioctl_fionbio(&client, true)?;
        let agent = dial(vsock)?;
        let connect = Request::Connect(Connect {
            host: "127.0.0.1".to_owned(),
            port: guest_port,
            timeout_ms: None,
        });
        let mut request = format!("CONNECT {AGENT_PORT}\n").into_bytes();
        request.extend(encode_message(&connect).map_err(io::Error::other)?);
        Ok(Self {
            host_port,
            is_due: false,
            client,
            agent: agent.into(),
            client_ready: Readiness::default(),
            agent_ready: Readiness::default(),
            stage: Stage::Asking {
                request,
                answer: Vec::new(),
                deadline: now + PATIENCE,
            },
        })
    }

    pub(super) fn client(&self) -> BorrowedFd<'_> {
        self.client.as_fd()
    }

    pub(super) fn agent(&self) -> BorrowedFd<'_> {
        self.agent.as_fd()
    }

    pub(super) fn client_ready(&mut self) -> &mut Readiness {
        &mut self.client_ready
    }

    pub(super) fn agent_ready(&mut self) -> &mut Readiness {
        &mut self.agent_ready
    }

    /// When it is given up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Asking { deadline, .. } => Some(*deadline),
            Stage::Relaying { .. } => None,
        }
    }

    /// Does what can be done now, within bounds.
    pub(super) fn turn(&mut self, now: Instant) -> Next {
        let next = match self.step(now) {
            Ok(next) => next,
            Err(Broken) => match &self.stage {
                Stage::Asking { .. } => Next::Failed,
                Stage::Relaying { up, down } if up.is_over() && down.is_over() => Next::Ended,
                Stage::Relaying { .. } => {
                    // Who is left must not take it for an end.
                    self.break_off();
                    Next::Ended
                }
            },
        };
        if next == Next::Failed {
            self.break_off();
        }
        next
    }

    /// Makes the client see a broken connection, not one that has ended.
    pub(super) fn break_off(&self) {
        let _ = set_socket_linger(&self.client, Some(Duration::ZERO));
    }

    fn step(&mut self, now: Instant) -> Result<Next, Broken> {
        match &mut self.stage {
            Stage::Asking {
                request,
                answer,
                deadline,
            } => {
                if now >= *deadline {
                    return Err(Broken);
                }
                tell(&self.agent, request, &mut self.agent_ready)?;
                let Some(rest) = hear(&self.agent, answer, &mut self.agent_ready)? else {
                    return Ok(Next::Wait);
                };
                self.stage = Stage::Relaying {
                    up: Direction::default(),
                    down: Direction::starting_with(rest),
                };
                Ok(Next::Connected)
            }
            Stage::Relaying { up, down } => {
                let (client, agent) = (self.client.as_fd(), self.agent.as_fd());
                let more_up = up.carry(
                    (client, &mut self.client_ready),
                    (agent, &mut self.agent_ready),
                )?;
                let more_down = down.carry(
                    (agent, &mut self.agent_ready),
                    (client, &mut self.client_ready),
                )?;
                Ok(if up.is_over() && down.is_over() {
                    Next::Ended
                } else if more_up || more_down {
                    Next::Again
                } else {
                    Next::Wait
                })
            }
        }
    }
}

/// Connects to the monitor's socket. A descriptor opened with `O_PATH` is a name for it that no
/// rename changes, and that is never too long for an address.
fn dial(vsock: BorrowedFd<'_>) -> io::Result<UnixStream> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", vsock.as_raw_fd());
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

/// Sends what is left of the request.
fn tell(agent: &OwnedFd, request: &mut Vec<u8>, ready: &mut Readiness) -> Result<(), Broken> {
    while !request.is_empty() && ready.writable {
        match send(agent, request, SendFlags::NOSIGNAL) {
            Ok(count) => drop(request.drain(..count)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => ready.writable = false,
            Err(_) => return Err(Broken),
        }
    }
    Ok(())
}

/// Reads answers until the guest's port is there; what came behind them is the first of its bytes.
fn hear(
    agent: &OwnedFd,
    answer: &mut Vec<u8>,
    ready: &mut Readiness,
) -> Result<Option<Vec<u8>>, Broken> {
    while ready.readable {
        let mut piece = [0; 4096];
        match recv(agent, &mut piece[..], RecvFlags::empty()) {
            Ok((0, _)) => return Err(Broken),
            Ok((count, _)) => answer.extend_from_slice(&piece[..count]),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => ready.readable = false,
            Err(_) => return Err(Broken),
        }
        if let Some(rest) = understand(answer)? {
            return Ok(Some(rest));
        }
        if answer.len() > ANSWER_MAX {
            return Err(Broken);
        }
    }
    Ok(None)
}

/// What follows `OK <port>\n` and a frame with [`ConnectEvent::Connected`]; `None` while they are not
/// whole.
fn understand(answer: &[u8]) -> Result<Option<Vec<u8>>, Broken> {
    if !b"OK ".starts_with(&answer[..answer.len().min(3)]) {
        return Err(Broken);
    }
    let Some(line) = answer.iter().position(|byte| *byte == b'\n') else {
        return Ok(None);
    };
    let frames = &answer[line + 1..];
    let Some(header) = frames.first_chunk::<{ FrameHeader::LEN }>() else {
        return Ok(None);
    };
    let header = FrameHeader::decode(*header).map_err(|_| Broken)?;
    let end = FrameHeader::LEN + header.length();
    let Some(payload) = frames.get(FrameHeader::LEN..end) else {
        return Ok(None);
    };
    match parse(payload) {
        Ok(ConnectEvent::Connected) if header.kind() == FrameKind::Message => {
            Ok(Some(frames[end..].to_vec()))
        }
        _ => Err(Broken),
    }
}
