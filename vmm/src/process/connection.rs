//! The control socket: framed messages, never blocking, bounded both ways.
//!
//! A peer that sends faster than it reads is not read from until it has taken its replies; one
//! that sends a frame that is too long or not understood is told so, or dropped when the frames
//! themselves are lost. A descriptor that comes with a message is kept, the newest only, until a
//! request takes it.

use std::io::{self, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::control::{MAX_MESSAGE, Message, Request};

const LENGTH: usize = 4;
/// Above this many unsent bytes no further request is looked at.
const OUTBOX_MAX: usize = MAX_MESSAGE;

/// What came from the peer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// A request.
    Request(Request),
    /// A frame that is no request; the text says why.
    Nonsense(String),
    /// The peer is gone, or the frames are lost.
    Closed,
}

/// The monitor's end.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    descriptor: Option<OwnedFd>,
    closed: bool,
}

impl Connection {
    /// Takes over a connected socket.
    ///
    /// # Errors
    /// When it cannot be made non-blocking.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            inbox: Vec::new(),
            outbox: Vec::new(),
            descriptor: None,
            closed: false,
        })
    }

    /// The next thing the peer says, if there is one without waiting.
    pub(super) fn receive(&mut self) -> Option<Incoming> {
        loop {
            if !self.wants_to_receive() {
                return None;
            }
            if let Some(frame) = self.take_frame() {
                return Some(frame);
            }
            if self.closed {
                return Some(Incoming::Closed);
            }
            let mut chunk = [0; 4096];
            match self.read(&mut chunk) {
                Ok(0) => self.closed = true,
                Ok(count) => self.inbox.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.closed = true,
            }
        }
    }

    /// Reads bytes, and the descriptor that may come with them; more than one at a time are closed.
    fn read(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut chunk = [IoSliceMut::new(chunk)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(&self.stream, &mut chunk, &mut control, flags)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptor = descriptors.last().or(self.descriptor.take());
            }
        }
        Ok(received.bytes)
    }

    /// The newest descriptor that came and was not taken yet.
    pub(super) fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptor.take()
    }

    fn take_frame(&mut self) -> Option<Incoming> {
        let (length, rest) = self.inbox.split_first_chunk::<LENGTH>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length > MAX_MESSAGE {
            // Where the next frame begins is not known any more.
            self.closed = true;
            self.inbox.clear();
            return Some(Incoming::Closed);
        }
        let frame = rest.get(..length)?;
        let incoming = match serde_json::from_slice(frame) {
            Ok(request) => Incoming::Request(request),
            Err(error) => Incoming::Nonsense(error.to_string()),
        };
        self.inbox.drain(..LENGTH + length);
        Some(incoming)
    }

    /// Sends a message, or keeps it until the peer reads.
    pub(super) fn send(&mut self, message: &Message) {
        let body = serde_json::to_vec(message).expect("messages are plain data");
        let length = u32::try_from(body.len()).expect("messages are far shorter than 4 GiB");
        self.outbox.extend_from_slice(&length.to_le_bytes());
        self.outbox.extend_from_slice(&body);
        self.flush();
    }

    /// Sends as much of what is kept as the peer takes now.
    pub(super) fn flush(&mut self) {
        while !self.outbox.is_empty() {
            match self.stream.write(&self.outbox) {
                Ok(count) => drop(self.outbox.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    // Nobody will read it.
                    self.outbox.clear();
                    self.closed = true;
                }
            }
        }
    }

    /// Sends what is kept, waiting at most `limit` for a slow peer.
    pub(super) fn flush_within(&mut self, limit: Duration) {
        let end = Instant::now() + limit;
        loop {
            self.flush();
            let left = end.saturating_duration_since(Instant::now());
            if self.outbox.is_empty() || left.is_zero() {
                return;
            }
            let timeout = Timespec::try_from(left).expect("a second or so");
            let stream = self.stream.as_fd();
            let mut fds = [PollFd::from_borrowed_fd(stream, PollFlags::OUT)];
            // Whatever it says, the next round looks again.
            let _ = poll(&mut fds, Some(&timeout));
        }
    }

    /// Whether [`Self::receive`] would look at what comes; not while too much waits to be sent.
    pub(super) fn wants_to_receive(&self) -> bool {
        self.outbox.len() <= OUTBOX_MAX
    }

    /// Whether all that was sent was taken by the peer's socket.
    pub(super) fn delivered(&self) -> bool {
        !self.closed && self.outbox.is_empty()
    }

    /// Whether something waits to be sent.
    pub(super) fn wants_to_send(&self) -> bool {
        !self.outbox.is_empty()
    }
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{IoSlice, Read};

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use super::*;
    use crate::control::{Event, Reply};

    fn pair() -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Connection::new(ours).unwrap(), theirs)
    }

    fn frame(body: &[u8]) -> Vec<u8> {
        [&u32::try_from(body.len()).unwrap().to_le_bytes()[..], body].concat()
    }

    #[test]
    fn a_descriptor_comes_with_its_request_and_only_the_newest_is_kept() {
        let (mut connection, peer) = pair();
        let bytes = frame(br#"{"request":"freeze"}"#);
        let files: Vec<_> = (0..3).map(|_| tempfile::tempfile().unwrap()).collect();
        let inode = |fd: std::os::fd::BorrowedFd<'_>| rustix::fs::fstat(fd).unwrap().st_ino;
        for file in &files {
            let fds = [file.as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
            sendmsg(
                &peer,
                &[IoSlice::new(&bytes)],
                &mut control,
                SendFlags::empty(),
            )
            .unwrap();
        }
        for file in &files[..2] {
            let freeze = Some(Incoming::Request(Request::Freeze));
            assert_eq!(connection.receive(), freeze);
            if std::ptr::eq(file, &files[1]) {
                let taken = connection.take_descriptor().unwrap();
                assert_eq!(inode(taken.as_fd()), inode(file.as_fd()));
            }
        }
        assert!(connection.take_descriptor().is_none());
    }

    #[test]
    fn requests_arrive_however_they_are_cut() {
        let (mut connection, mut peer) = pair();
        let bytes = [
            frame(br#"{"request":"stats"}"#),
            frame(br#"{"request":"stop"}"#),
        ]
        .concat();
        let mut seen = Vec::new();
        for byte in bytes {
            peer.write_all(&[byte]).unwrap();
            seen.extend(connection.receive());
        }
        assert_eq!(
            seen,
            [
                Incoming::Request(Request::Stats),
                Incoming::Request(Request::Stop)
            ]
        );
        drop(peer);
        assert_eq!(connection.receive(), Some(Incoming::Closed));
    }

    #[test]
    fn nonsense_is_told_and_the_next_frame_understood() {
        let (mut connection, mut peer) = pair();
        peer.write_all(&frame(b"{}")).unwrap();
        peer.write_all(&frame(br#"{"request":"pause"}"#)).unwrap();
        assert!(matches!(connection.receive(), Some(Incoming::Nonsense(_))));
        assert_eq!(
            connection.receive(),
            Some(Incoming::Request(Request::Pause))
        );
        assert_eq!(connection.receive(), None);
    }

    #[test]
    fn a_frame_that_is_too_long_closes_the_connection() {
        let (mut connection, mut peer) = pair();
        peer.write_all(&u32::MAX.to_le_bytes()).unwrap();
        assert_eq!(connection.receive(), Some(Incoming::Closed));
        assert_eq!(connection.receive(), Some(Incoming::Closed));
    }

    #[test]
    fn a_peer_that_does_not_read_is_not_read_from() {
        let (mut connection, mut peer) = pair();
        let text = "x".repeat(64 << 10);
        for _ in 0..64 {
            connection.send(&Message::Reply(Reply::Console {
                text: text.clone(),
                dropped: 0,
            }));
        }
        peer.write_all(&frame(br#"{"request":"stats"}"#)).unwrap();
        assert_eq!(connection.receive(), None);
        assert!(connection.wants_to_send());
        // Its requests must not wake anybody meanwhile.
        assert!(!connection.wants_to_receive());
        connection.flush_within(Duration::from_millis(1));
    }

    #[test]
    fn messages_go_out_framed() {
        let (mut connection, mut peer) = pair();
        connection.send(&Message::Event(Event::Started));
        let mut length = [0; 4];
        peer.read_exact(&mut length).unwrap();
        let mut body = vec![0; u32::from_le_bytes(length) as usize];
        peer.read_exact(&mut body).unwrap();
        assert_eq!(body, br#"{"type":"event","event":"started"}"#);
    }
}
