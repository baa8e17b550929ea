//! Streams under credit, the same at both ends of an operation.
//!
//! A sender spends its [`Credit`], which is what its peer has granted. An [`Inlet`] takes what the
//! peer sends, hands it to a thread that writes it out, and grants more as it is written. See
//! [`crate::wire`].

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use serde::Serialize;

use crate::wire::{self, CHUNK, Frame, Kind, Stream, WINDOW};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked here left a whole value: nothing in this module panics half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sending half of an operation's byte stream, shared by its threads.
#[derive(Clone)]
pub struct Outbox(Arc<Mutex<Box<dyn Write + Send>>>);

impl Outbox {
    /// Takes the writer over.
    #[must_use]
    pub fn new(writer: Box<dyn Write + Send>) -> Self {
        Self(Arc::new(Mutex::new(writer)))
    }

    /// Sends a frame; blocks while the transport is full.
    ///
    /// # Errors
    /// What writing gives: the peer has gone.
    pub fn frame(&self, kind: Kind, stream: Stream, payload: &[u8]) -> io::Result<()> {
        let mut writer = lock(&self.0);
        wire::write_frame(&mut **writer, kind, stream, payload)?;
        writer.flush()
    }

    /// Sends a message.
    ///
    /// # Errors
    /// As [`Outbox::frame`].
    pub fn message<T: Serialize>(&self, message: &T) -> io::Result<()> {
        let mut writer = lock(&self.0);
        wire::write_message(&mut **writer, message)?;
        writer.flush()
    }
}

/// What a sender may still send of one stream.
#[derive(Default)]
pub struct Credit {
    left: Mutex<Left>,
    changed: Condvar,
}

struct Left {
    bytes: u64,
    closed: bool,
}

impl Default for Left {
    fn default() -> Self {
        Self {
            bytes: WINDOW,
            closed: false,
        }
    }
}

impl Credit {
    /// Waits until something may be sent, and says how much; `None` when the peer wants no more.
    /// Takes nothing: see [`Credit::spend`].
    pub fn wait(&self) -> Option<usize> {
        let mut left = lock(&self.left);
        while left.bytes == 0 && !left.closed {
            left = self
                .changed
                .wait(left)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if left.closed {
            None
        } else {
            Some(usize::try_from(left.bytes).map_or(CHUNK, |bytes| bytes.min(CHUNK)))
        }
    }

    /// Takes what was sent from what is left.
    pub fn spend(&self, bytes: usize) {
        let mut left = lock(&self.left);
        left.bytes = left.bytes.saturating_sub(bytes as u64);
    }

    /// The peer grants more.
    pub fn grant(&self, bytes: u64) {
        let mut left = lock(&self.left);
        left.bytes = left.bytes.saturating_add(bytes).min(WINDOW);
        self.changed.notify_all();
    }

    /// The peer wants no more, or has gone.
    pub fn close(&self) {
        lock(&self.left).closed = true;
        self.changed.notify_all();
    }

    /// Whether [`Credit::close`] was called.
    pub fn is_closed(&self) -> bool {
        lock(&self.left).closed
    }
}

/// Reads `from` to its end and sends it as `stream`, as fast as credit allows.
///
/// # Errors
/// When the peer has gone. A stream that cannot be read ends, like one at its end.
pub fn send_all(
    from: &mut dyn Read,
    stream: Stream,
    credit: &Credit,
    outbox: &Outbox,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    while let Some(allowed) = credit.wait() {
        match from.read(&mut buffer[..allowed]) {
            Ok(0) => break,
            Ok(read) => {
                credit.spend(read);
                outbox.frame(Kind::Data, stream, &buffer[..read])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    outbox.frame(Kind::End, stream, &[])
}

/// The receiving end of a stream: frames go in, bytes come out at a writer of their own thread.
pub struct Inlet {
    pieces: Option<Sender<Vec<u8>>>,
    on_the_way: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Inlet {
    /// Starts the thread that writes what arrives to `to`, which is dropped (closed) at the end of the stream.
    pub fn start(stream: Stream, to: Box<dyn Write + Send>, outbox: Outbox) -> io::Result<Self> {
        let (pieces, arrived) = mpsc::channel();
        let on_the_way = Arc::new(AtomicU64::new(0));
        let written = Arc::clone(&on_the_way);
        let thread = thread::Builder::new()
            .name(format!("{stream:?}"))
            .spawn(move || write_out(stream, to, &arrived, &written, &outbox))?;
        Ok(Self {
            pieces: Some(pieces),
            on_the_way,
            thread: Some(thread),
        })
    }

    /// Takes a frame of kind [`Kind::Data`] or [`Kind::End`]; never blocks.
    ///
    /// # Errors
    /// `InvalidData` when the peer sent more than it may.
    pub fn take(&mut self, frame: Frame) -> io::Result<()> {
        if frame.kind == Kind::End {
            self.pieces = None;
            return Ok(());
        }
        let length = frame.payload.len() as u64;
        let before = self.on_the_way.fetch_add(length, Ordering::Relaxed);
        if before.saturating_add(length) > WINDOW {
            return Err(wire::invalid("more of a stream than was granted"));
        }
        if let Some(pieces) = &self.pieces {
            // The receiver lives until this sender is dropped.
            let _ = pieces.send(frame.payload);
        }
        Ok(())
    }

    /// Ends the stream and waits until everything that arrived is written.
    pub fn finish(mut self) {
        self.pieces = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the writer has been printed; there is nothing left to write.
            let _ = thread.join();
        }
    }
}

fn write_out(
    stream: Stream,
    to: Box<dyn Write + Send>,
    arrived: &Receiver<Vec<u8>>,
    on_the_way: &AtomicU64,
    outbox: &Outbox,
) {
    let mut to = Some(to);
    for piece in arrived {
        if let Some(writer) = &mut to
            && writer
                .write_all(&piece)
                .and_then(|()| writer.flush())
                .is_err()
        {
            to = None;
            // When the peer has gone too, its connection says so to the reading thread.
            let _ = outbox.frame(Kind::Refuse, stream, &[]);
        }
        let length = piece.len() as u64;
        on_the_way.fetch_sub(length, Ordering::Relaxed);
        let _ = outbox.frame(Kind::Window, stream, &(piece.len() as u32).to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(length: usize) -> Frame {
        Frame {
            kind: Kind::Data,
            stream: Stream::Stdin,
            payload: vec![7; length],
        }
    }

    #[test]
    fn a_peer_that_sends_more_than_granted_is_refused() {
        let (reader, writer) = io::pipe().unwrap(); // nobody reads: 64 KiB fit
        let mut inlet = Inlet::start(
            Stream::Stdin,
            Box::new(writer),
            Outbox::new(Box::new(io::sink())),
        )
        .unwrap();
        let mut sent = 0;
        let error = loop {
            match inlet.take(data(CHUNK)) {
                Ok(()) => sent += CHUNK,
                Err(error) => break error,
            }
            assert!(sent as u64 <= 2 * WINDOW, "no end of it");
        };
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        drop(reader);
        inlet.finish();
    }

    #[test]
    fn a_writer_that_breaks_is_told_to_the_peer_and_drains_the_rest() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let (mut from, to) = io::pipe().unwrap();
        let mut inlet =
            Inlet::start(Stream::Stdout, Box::new(writer), Outbox::new(Box::new(to))).unwrap();
        for _ in 0..3 {
            inlet.take(data(10)).unwrap();
        }
        inlet.finish();
        let mut kinds = Vec::new();
        while let Some(frame) = wire::read_frame(&mut from).unwrap() {
            kinds.push(frame.kind);
        }
        assert_eq!(
            kinds,
            [Kind::Refuse, Kind::Window, Kind::Window, Kind::Window]
        );
    }

    #[test]
    fn a_source_stops_at_its_credit_and_goes_on_when_granted_more() {
        let credit = Arc::new(Credit::default());
        let (mut from, to) = io::pipe().unwrap();
        let sender = {
            let credit = Arc::clone(&credit);
            thread::spawn(move || {
                let content = vec![1; 3 * WINDOW as usize];
                send_all(
                    &mut content.as_slice(),
                    Stream::Stdout,
                    &credit,
                    &Outbox::new(Box::new(to)),
                )
            })
        };
        let mut total = 0;
        let mut pending = 0;
        while let Some(frame) = wire::read_frame(&mut from).unwrap() {
            total += frame.payload.len();
            pending += frame.payload.len() as u64;
            assert!(pending <= WINDOW);
            if pending == WINDOW {
                credit.grant(pending);
                pending = 0;
            }
        }
        sender.join().unwrap().unwrap();
        assert_eq!(total as u64, 3 * WINDOW);
    }
}
