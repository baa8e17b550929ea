//! What is to be written to a program's input: pieces of several streams, in the order in which
//! they came.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::serve::poller::{Interest, OperationId, Poller, Source, Watched};

/// While more input than this waits for the program to read it, no stream is read for more.
const LIMIT: usize = 64 << 10;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Input {
    /// Absent when it is closed, or was never open.
    pipe: Option<Watched>,
    /// What has been written of the first piece is not in it any more.
    waiting: VecDeque<Piece>,
    /// Of all pieces.
    bytes: usize,
    /// The host has sent all.
    complete: bool,
    /// Whether an empty frame closes it: not where it is a terminal.
    closes: bool,
}

#[derive(Debug)]
struct Piece {
    /// The stream that waits until it is written, if any does.
    from: Option<OperationId>,
    bytes: Vec<u8>,
    written: usize,
}

impl Input {
    pub(super) fn new(
        pipe: Option<OwnedFd>,
        closes: bool,
        id: OperationId,
        poller: &Poller,
    ) -> Self {
        Self {
            pipe: pipe.map(|pipe| Watched::new(pipe, Source::Stdin(id), poller)),
            waiting: VecDeque::new(),
            bytes: 0,
            complete: false,
            closes,
        }
    }

    /// Takes a frame of a stream for which nobody waits. An empty one ends the input.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            self.complete |= self.closes;
        } else {
            self.queue(None, bytes);
        }
        self.write();
    }

    /// Takes a frame of a stream that waits until it is written; nothing once it is not open.
    pub(super) fn take_from(&mut self, id: OperationId, bytes: &[u8]) {
        self.queue(Some(id), bytes);
        self.write();
    }

    fn queue(&mut self, from: Option<OperationId>, bytes: &[u8]) {
        if !self.is_open() {
            return;
        }
        self.bytes += bytes.len();
        match self.waiting.back_mut() {
            Some(last) if last.from == from => {
                last.bytes.drain(..last.written);
                last.written = 0;
                last.bytes.extend_from_slice(bytes);
            }
            _ => self.waiting.push_back(Piece {
                from,
                bytes: bytes.to_vec(),
                written: 0,
            }),
        }
    }

    /// Whether it takes more.
    pub(super) fn is_open(&self) -> bool {
        self.pipe.is_some() && !self.complete
    }

    /// Whether nothing more is written.
    pub(super) fn is_gone(&self) -> bool {
        self.pipe.is_none()
    }

    /// Whether something of this stream has not been written, perhaps because it never will be.
    pub(super) fn owes(&self, id: OperationId) -> bool {
        self.waiting.iter().any(|piece| piece.from == Some(id))
    }

    /// Forgets what has not been written of this stream.
    pub(super) fn withdraw(&mut self, id: OperationId) {
        self.waiting.retain(|piece| piece.from != Some(id));
        let left = |piece: &Piece| piece.bytes.len() - piece.written;
        self.bytes = self.waiting.iter().map(left).sum();
        self.write();
    }

    /// Writes what the program's pipe takes.
    pub(super) fn write(&mut self) {
        let Some(pipe) = &self.pipe else { return };
        while let Some(first) = self.waiting.front_mut() {
            match rustix::io::write(pipe, &first.bytes[first.written..]) {
                Ok(length) => {
                    first.written += length;
                    self.bytes -= length;
                    if first.written == first.bytes.len() {
                        self.waiting.pop_front();
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // EPIPE: nobody will read. The rest is taken and thrown away.
                Err(_) => return self.close(),
            }
        }
        if self.complete {
            self.close();
        }
    }

    /// Nothing more is written. Who waits is still owed what was not.
    pub(super) fn close(&mut self) {
        self.pipe = None;
        self.bytes = 0;
        self.waiting.retain_mut(|piece| {
            piece.bytes = Vec::new();
            piece.written = 0;
            piece.from.is_some()
        });
    }

    pub(super) fn has_room(&self) -> bool {
        self.bytes < LIMIT
    }

    pub(super) fn watch(&mut self) -> Result<(), Errno> {
        match &mut self.pipe {
            Some(pipe) => pipe.watch(if self.waiting.is_empty() {
                Interest::NONE
            } else {
                Interest::WRITE
            }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    const ONE: OperationId = OperationId(1);
    const TWO: OperationId = OperationId(2);

    fn full_pipe() -> (OwnedFd, Input) {
        let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let poller = Poller::new().unwrap();
        let mut input = Input::new(Some(ours), true, OperationId(9), &poller);
        while input.bytes == 0 {
            input.take(&[0; 4096]);
        }
        (theirs, input)
    }

    fn read_all(theirs: &OwnedFd, input: &mut Input) -> Vec<u8> {
        let mut all = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = rustix::io::read(theirs, &mut piece) {
            all.extend(piece[..length].iter().filter(|byte| **byte != 0));
            input.write();
        }
        all
    }

    #[test]
    fn pieces_of_several_streams_are_written_in_their_order() {
        let (theirs, mut input) = full_pipe();
        input.take_from(ONE, b"ab");
        input.take_from(TWO, b"cd");
        input.take_from(ONE, b"ef");
        input.take(b"gh");
        assert!(input.owes(ONE) && input.owes(TWO));
        assert_eq!(read_all(&theirs, &mut input), b"abcdefgh");
        assert!(!input.owes(ONE) && !input.owes(TWO));
        assert!(input.has_room() && input.bytes == 0);
    }

    #[test]
    fn what_is_withdrawn_is_not_written() {
        let (theirs, mut input) = full_pipe();
        input.take_from(ONE, b"ab");
        input.take_from(TWO, b"cd");
        input.withdraw(ONE);
        assert!(!input.owes(ONE));
        assert_eq!(read_all(&theirs, &mut input), b"cd");
    }

    #[test]
    fn many_small_pieces_of_one_stream_are_one() {
        let (_theirs, mut input) = full_pipe();
        let before = input.waiting.len();
        for _ in 0..1000 {
            input.take_from(ONE, b"x");
        }
        assert_eq!(input.waiting.len(), before + 1);
    }

    #[test]
    fn what_nobody_will_read_stays_owed_to_who_waits() {
        let (theirs, mut input) = full_pipe();
        input.take_from(ONE, b"ab");
        drop(theirs);
        input.write();
        assert!(!input.is_open() && input.owes(ONE));
        input.take_from(TWO, b"cd");
        assert!(!input.owes(TWO));
        input.take(b"ef");
        input.withdraw(ONE);
        assert!(!input.owes(ONE) && input.has_room());
    }

    #[test]
    fn what_came_before_the_end_is_written_and_nothing_after_it() {
        let (theirs, mut input) = full_pipe();
        input.take_from(ONE, b"ab");
        input.take(b"");
        input.take_from(TWO, b"cd");
        assert!(!input.owes(TWO));
        assert_eq!(read_all(&theirs, &mut input), b"ab");
        assert!(input.pipe.is_none() && !input.owes(ONE));
    }
}
