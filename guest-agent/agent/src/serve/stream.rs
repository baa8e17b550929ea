//! One operation's stream to the host: frames in, frames out, never blocking.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use pyro_agent_protocol::{
    Decoder, ErrorCode, Event, Frame, FrameError, FrameHeader, FrameKind, encode_into,
    encode_message,
};
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown, send, shutdown};
use serde::Serialize;

use super::exec::Sink;
use super::poller::{Interest, OperationId, Output, Poller, Source, Watched};

/// While more than this waits to be sent, no more output is taken from a program.
const QUEUE_LIMIT: usize = 256 << 10;
/// How much is read from a socket or a pipe at once.
pub(super) const PIECE: usize = 64 << 10;

/// The stream cannot be used any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

/// What one look at the socket gave.
#[derive(Debug)]
pub(super) enum Received {
    /// These frames, perhaps none.
    Frames(Vec<Frame>),
    /// These frames, and then bytes that are no frame.
    Garbage(Vec<Frame>, FrameError),
    /// The peer has closed.
    End,
}

#[derive(Debug)]
pub(super) struct Stream {
    socket: Watched,
    decoder: Decoder,
    queue: Vec<u8>,
    sent: usize,
}

impl Stream {
    /// Takes over a connected, non-blocking socket.
    pub(super) fn new(socket: OwnedFd, id: OperationId, poller: &Poller) -> Self {
        let socket = Watched::new(socket, Source::Stream(id), poller);
        Self {
            socket,
            decoder: Decoder::new(),
            queue: Vec::new(),
            sent: 0,
        }
    }

    /// Reads once.
    pub(super) fn receive(&mut self) -> Received {
        let mut piece = [const { MaybeUninit::<u8>::uninit() }; PIECE];
        let mut input: &[u8] = match rustix::io::read(self.socket.as_fd(), &mut piece[..]) {
            Ok(([], _)) => return Received::End,
            Ok((bytes, _)) => bytes,
            Err(Errno::AGAIN | Errno::INTR) => &[],
            Err(_) => return Received::End,
        };
        let mut frames = Vec::new();
        loop {
            match self.decoder.decode(&mut input) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return Received::Frames(frames),
                Err(error) => return Received::Garbage(frames, error),
            }
        }
    }

    /// Queues a message.
    pub(super) fn say<T: Serialize>(&mut self, event: &T) {
        match encode_message(event) {
            Ok(bytes) => self.queue.extend_from_slice(&bytes),
            // Only a message that repeats much of the request can be too long.
            Err(_) => {
                let message = "the answer is too long for a frame".to_owned();
                let event = Event::Failed {
                    code: ErrorCode::Internal,
                    message,
                };
                let bytes = encode_message(&event).expect("a short message fits");
                self.queue.extend_from_slice(&bytes);
            }
        }
    }

    /// Queues bytes as one frame.
    pub(super) fn put(&mut self, kind: FrameKind, bytes: &[u8]) {
        if self.queue.is_empty() {
            self.queue.reserve_exact(FrameHeader::LEN + bytes.len());
        }
        encode_into(&mut self.queue, kind, bytes).expect("a piece is shorter than a frame");
    }

    /// Queues whole frames as they are.
    pub(super) fn put_frames(&mut self, frames: &[u8]) {
        self.queue.extend_from_slice(frames);
    }

    /// Says that nothing more will be sent.
    pub(super) fn finish(&self) {
        let _ = shutdown(self.socket.as_fd(), Shutdown::Write);
    }

    /// Bytes that wait to be sent.
    pub(super) fn queued(&self) -> usize {
        self.queue.len() - self.sent
    }

    /// Whether more output may be queued.
    pub(super) fn has_room(&self) -> bool {
        self.queued() < QUEUE_LIMIT
    }

    /// Sends what the socket takes.
    pub(super) fn flush(&mut self) -> Result<(), Gone> {
        while self.sent < self.queue.len() {
            match send(
                self.socket.as_fd(),
                &self.queue[self.sent..],
                SendFlags::NOSIGNAL,
            ) {
                Ok(length) => self.sent += length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return Err(Gone),
            }
        }
        if self.sent == self.queue.len() {
            self.queue.clear();
            // There may be a thousand streams.
            self.queue.shrink_to(PIECE);
            self.sent = 0;
        } else if self.sent > self.queue.len() / 2 {
            self.queue.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    /// The socket, and what has yet to be sent. `None` when it is in the middle of a frame.
    pub(super) fn into_raw(mut self) -> Option<(Watched, Vec<u8>)> {
        self.decoder.finish().ok()?;
        self.queue.drain(..self.sent);
        Some((self.socket, self.queue))
    }

    pub(super) fn watch(&mut self, interest: Interest) -> Result<(), Errno> {
        self.socket.watch(interest)
    }
}

/// The output of an exec goes to its stream as it comes, and waits in its pipes when that is full.
impl Sink for Stream {
    fn has_room(&self, _: Output) -> bool {
        Stream::has_room(self)
    }

    fn relay(&mut self, pipe: BorrowedFd<'_>, output: Output, most: usize) -> Result<usize, Errno> {
        let mut piece = [const { MaybeUninit::<u8>::uninit() }; PIECE];
        let (bytes, _) = rustix::io::read(pipe, &mut piece[..most.min(PIECE)])?;
        if !bytes.is_empty() {
            self.put(output.kind(), bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Gone> {
        Stream::flush(self)
    }
}
