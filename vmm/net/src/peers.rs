//! The control socket: whoever connects may ask. Framed messages, never blocking, bounded both
//! ways: a peer that does not read is not read from, one that loses the frames is dropped.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use crate::control::{ErrorCode, MAX_MESSAGE, Reply, Request};
use crate::poller::{Id, Ids, Poller, Ready, Source};

const LENGTH: usize = 4;
/// Most peers at a time; the one that came first goes for one more.
const PEERS_MAX: usize = 8;
/// Requests of one peer in one turn.
const BUDGET: usize = 16;

#[derive(Debug)]
struct Peer {
    stream: UnixStream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    readable: bool,
    closed: bool,
}

/// All peers.
#[derive(Debug)]
pub(crate) struct Peers {
    listener: UnixListener,
    peers: BTreeMap<Id, Peer>,
    ids: Ids,
    waiting: bool,
}

impl Peers {
    pub(crate) fn new(listener: UnixListener, poller: &Poller) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        poller.watch(&listener, Source::Control)?;
        Ok(Self {
            listener,
            peers: BTreeMap::new(),
            ids: Ids::default(),
            waiting: false,
        })
    }

    /// Whether [`Self::run`] has something to do at once.
    pub(crate) fn is_due(&self) -> bool {
        self.waiting || self.peers.values().any(Peer::is_due)
    }

    /// Somebody connects.
    pub(crate) fn listener_ready(&mut self) {
        self.waiting = true;
    }

    /// A peer can be read or written.
    pub(crate) fn peer_ready(&mut self, id: Id, ready: Ready) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.readable |= ready.readable;
            peer.flush();
        }
    }

    /// Answers what is asked.
    pub(crate) fn run(&mut self, poller: &Poller, mut answer: impl FnMut(Request) -> Reply) {
        self.accept(poller);
        for peer in self.peers.values_mut() {
            for _ in 0..BUDGET {
                let Some(asked) = peer.receive() else { break };
                let reply = match asked {
                    Ok(request) => answer(request),
                    Err(message) => Reply::Error {
                        code: ErrorCode::InvalidRequest,
                        message,
                    },
                };
                peer.send(&reply);
            }
        }
        self.peers.retain(|_, peer| !peer.closed);
    }

    fn accept(&mut self, poller: &Poller) {
        while std::mem::take(&mut self.waiting) {
            // Out of descriptors: the next connection wakes us for this one too.
            let Ok((stream, _)) = self.listener.accept() else {
                return;
            };
            self.waiting = true;
            let id = self.ids.next();
            let watched = stream
                .set_nonblocking(true)
                .and_then(|()| poller.watch(&stream, Source::Peer(id)));
            if watched.is_err() {
                continue;
            }
            if self.peers.len() >= PEERS_MAX {
                self.peers.pop_first();
            }
            let peer = Peer {
                stream,
                inbox: Vec::new(),
                outbox: Vec::new(),
                readable: true,
                closed: false,
            };
            self.peers.insert(id, peer);
        }
    }
}

impl Peer {
    fn is_due(&self) -> bool {
        (self.readable && self.outbox.is_empty()) || self.closed
    }

    /// The next request, or why what came is none.
    fn receive(&mut self) -> Option<Result<Request, String>> {
        loop {
            if !self.outbox.is_empty() || self.closed {
                return None;
            }
            if let Some(frame) = self.take_frame() {
                return Some(frame);
            }
            if !self.readable {
                return None;
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece) {
                Ok(0) => self.closed = true,
                Ok(count) => self.inbox.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(_) => self.closed = true,
            }
        }
    }

    fn take_frame(&mut self) -> Option<Result<Request, String>> {
        let (length, rest) = self.inbox.split_first_chunk::<LENGTH>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length > MAX_MESSAGE {
            // Where the next frame begins is not known any more.
            self.closed = true;
            return None;
        }
        let frame = rest.get(..length)?;
        let request = serde_json::from_slice(frame).map_err(|error| error.to_string());
        self.inbox.drain(..LENGTH + length);
        Some(request)
    }

    fn send(&mut self, reply: &Reply) {
        let body = serde_json::to_vec(reply).expect("replies are plain data");
        let length = u32::try_from(body.len()).expect("replies are short");
        self.outbox.extend_from_slice(&length.to_le_bytes());
        self.outbox.extend_from_slice(&body);
        self.flush();
    }

    fn flush(&mut self) {
        while !self.outbox.is_empty() {
            match self.stream.write(&self.outbox) {
                Ok(count) => drop(self.outbox.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.outbox.clear();
                    self.closed = true;
                }
            }
        }
    }
}
