//! Frozen virtqueues and checked descriptor chains.
//!
//! An [`ActiveQueue`] is made by the transport at `DRIVER_OK` from registers that can no longer
//! change. It yields [`Chain`]s that were read *once* and checked as a whole, before a device sees
//! any of it (virtio 1.2 §2.7):
//!
//! * every segment `address + len` lies in guest RAM and does not wrap,
//! * the chain ends: no loop, no index out of range, no more segments than the queue has entries,
//!   indirect tables included,
//! * device-readable segments come before device-writable ones,
//! * all lengths together fit 32 bits.
//!
//! A driver that breaks one of these gets [`QueueError::BadChain`], and the queue stays broken: it
//! yields no further chain until the device is reset.
//!
//! # The loop of a device
//!
//! ```ignore
//! loop {
//!     queue.disable_notification()?;
//!     while let Some(chain) = queue.pop()? {
//!         let written = serve(&chain);
//!         queue.push_used(chain.head(), written)?;
//!     }
//!     if !queue.enable_notification()? {
//!         break;
//!     }
//! }
//! if queue.needs_interrupt()? {
//!     interrupt.used_buffer();
//! }
//! ```

use std::io;

use virtio_queue::{Queue, QueueOwnedT, QueueState, QueueT};
use vm_memory::bitmap::BS;
use vm_memory::{GuestAddress, GuestMemoryBackend, VolatileSlice};
use vmm_sys_util::eventfd::EventFd;

use super::device::GuestMemory;

/// A piece of guest memory, already validated.
pub type GuestSlice<'a> = VolatileSlice<'a, BS<'a, ()>>;

/// How a driver can break a queue.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// A descriptor chain breaks the rules of virtio 1.2 §2.7.
    #[error("descriptor chain {head} {fault}")]
    BadChain {
        /// Index of the chain's first descriptor.
        head: u16,
        /// What is wrong with it.
        fault: ChainFault,
    },
    /// The rings themselves are not usable.
    #[error("the rings are not usable: {0}")]
    Rings(#[source] virtio_queue::Error),
    /// The queue was broken before.
    #[error("the queue is broken since an earlier error")]
    Broken,
}

/// What is wrong with a descriptor chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// No end within the queue's size, an index out of range, or a bad indirect table.
    #[error("does not end properly")]
    Unterminated,
    /// A segment is not in guest memory.
    #[error("has a segment outside guest memory")]
    OutsideMemory,
    /// A device-readable segment follows a device-writable one.
    #[error("has a readable segment after a writable one")]
    ReadableAfterWritable,
}

/// A queue that the driver has set up and can no longer reconfigure.
#[derive(Debug)]
pub struct ActiveQueue {
    queue: Queue,
    memory: GuestMemory,
    kick: EventFd,
    broken: bool,
}

impl ActiveQueue {
    /// Freezes `queue`.
    ///
    /// # Errors
    /// When it is not ready or its rings are not in `memory`.
    pub fn new(queue: Queue, memory: GuestMemory, kick: EventFd) -> Result<Self, QueueError> {
        if queue.is_valid(memory.as_ref()) {
            Ok(Self {
                queue,
                memory,
                kick,
                broken: false,
            })
        } else {
            Err(QueueError::Rings(virtio_queue::Error::QueueNotReady))
        }
    }

    /// The eventfd (non-blocking) that is written when the driver notifies this queue. Register it for input.
    pub fn kick(&self) -> &EventFd {
        &self.kick
    }

    /// Empties the kick eventfd; call it first when it is readable.
    pub fn drain_kick(&self) {
        // Nothing to read is as good as something read: the caller looks at the ring anyway.
        let _ = self.kick.read();
    }

    /// The number of entries.
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// Takes the next chain that the driver has made available, if any.
    ///
    /// # Errors
    /// When the driver broke the queue; every later call fails too.
    pub fn pop(&mut self) -> Result<Option<Chain>, QueueError> {
        if self.broken {
            return Err(QueueError::Broken);
        }
        let popped = self.pop_checked();
        self.broken = popped.is_err();
        popped
    }

    fn pop_checked(&mut self) -> Result<Option<Chain>, QueueError> {
        let size = usize::from(self.queue.size());
        let raw = self
            .queue
            .iter(self.memory.as_ref())
            .map_err(QueueError::Rings)?
            .next();
        match raw {
            None => Ok(None),
            Some(raw) => {
                let head = raw.head_index();
                Chain::parse(raw, size, self.memory.clone())
                    .map(Some)
                    .map_err(|fault| QueueError::BadChain { head, fault })
            }
        }
    }

    /// Puts the chain that was popped last back: the next [`Self::pop`] yields it again.
    pub fn undo_pop(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Whether the driver has made chains available that were not popped.
    ///
    /// # Errors
    /// When the rings cannot be read.
    pub fn has_available(&self) -> Result<bool, QueueError> {
        let index = self
            .queue
            .avail_idx(self.memory.as_ref(), std::sync::atomic::Ordering::Acquire)
            .map_err(QueueError::Rings)?;
        Ok(index.0 != self.queue.next_avail())
    }

    /// Returns the chain with this head to the driver, `written` bytes of its writable part filled.
    ///
    /// # Errors
    /// When the rings cannot be written.
    pub fn push_used(&mut self, head: u16, written: u32) -> Result<(), QueueError> {
        self.queue
            .add_used(self.memory.as_ref(), head, written)
            .map_err(QueueError::Rings)
    }

    /// Asks the driver not to kick, while the device looks at the ring anyway.
    ///
    /// # Errors
    /// When the rings cannot be written.
    pub fn disable_notification(&mut self) -> Result<(), QueueError> {
        self.queue
            .disable_notification(self.memory.as_ref())
            .map_err(QueueError::Rings)
    }

    /// Asks the driver to kick from now on. True means that chains have come in the meantime and
    /// no kick will tell: look again.
    ///
    /// # Errors
    /// When the rings cannot be accessed.
    pub fn enable_notification(&mut self) -> Result<bool, QueueError> {
        self.queue
            .enable_notification(self.memory.as_ref())
            .map_err(QueueError::Rings)
    }

    /// Whether the driver wants an interrupt for what was pushed since the last call. Call it once
    /// after a batch.
    ///
    /// # Errors
    /// When the rings cannot be read.
    pub fn needs_interrupt(&mut self) -> Result<bool, QueueError> {
        self.queue
            .needs_notification(self.memory.as_ref())
            .map_err(QueueError::Rings)
    }

    /// The queue as plain data.
    pub fn state(&self) -> QueueState {
        self.queue.state()
    }
}

/// A checked piece of guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    address: GuestAddress,
    len: usize,
}

/// A descriptor chain that keeps the rules. Owned: it borrows nothing from the queue.
///
/// A chain that is dropped is lost for the driver; give it back with [`ActiveQueue::push_used`].
#[derive(Debug)]
pub struct Chain {
    memory: GuestMemory,
    head: u16,
    /// Device-readable segments first, then device-writable ones; none is empty.
    segments: Vec<Segment>,
    /// Where the writable segments begin.
    first_writable: usize,
    readable_len: usize,
    writable_len: usize,
}

impl Chain {
    fn parse(
        mut raw: virtio_queue::DescriptorChain<&vm_memory::GuestMemoryMmap<()>>,
        queue_size: usize,
        memory: GuestMemory,
    ) -> Result<Self, ChainFault> {
        let mut chain = Self {
            memory,
            head: raw.head_index(),
            segments: Vec::with_capacity(8),
            first_writable: 0,
            readable_len: 0,
            writable_len: 0,
        };
        let mut ended = false;
        let mut count = 0;
        for descriptor in raw.by_ref() {
            count += 1;
            if count > queue_size {
                return Err(ChainFault::Unterminated);
            }
            ended = !descriptor.has_next();
            chain.push(
                descriptor.addr(),
                descriptor.len(),
                descriptor.is_write_only(),
            )?;
        }
        // The iterator stops alike at the end and at a descriptor it cannot follow.
        if ended {
            Ok(chain)
        } else {
            Err(ChainFault::Unterminated)
        }
    }

    fn push(&mut self, address: GuestAddress, len: u32, writable: bool) -> Result<(), ChainFault> {
        let len = len as usize;
        if len == 0 {
            return Ok(());
        }
        // One region, so that the segment is one slice of host memory.
        if self.memory.get_slice(address, len).is_err() {
            return Err(ChainFault::OutsideMemory);
        }
        if writable {
            self.writable_len += len;
        } else if self.first_writable < self.segments.len() {
            return Err(ChainFault::ReadableAfterWritable);
        } else {
            self.first_writable += 1;
            self.readable_len += len;
        }
        self.segments.push(Segment { address, len });
        Ok(())
    }

    /// The chain's name towards the driver.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// Bytes that the driver gives the device.
    pub fn readable_len(&self) -> usize {
        self.readable_len
    }

    /// Bytes that the device may give the driver.
    pub fn writable_len(&self) -> usize {
        self.writable_len
    }

    /// The device-readable part, from its beginning.
    pub fn reader(&self) -> Cursor<'_> {
        Cursor::new(
            self,
            &self.segments[..self.first_writable],
            self.readable_len,
        )
    }

    /// The device-writable part, from its beginning.
    pub fn writer(&self) -> Cursor<'_> {
        Cursor::new(
            self,
            &self.segments[self.first_writable..],
            self.writable_len,
        )
    }
}

/// A position in the readable or the writable part of a [`Chain`].
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    memory: &'a GuestMemory,
    segments: &'a [Segment],
    /// Bytes of the first segment that are behind the position.
    offset: usize,
    remaining: usize,
    consumed: usize,
}

impl<'a> Cursor<'a> {
    fn new(chain: &'a Chain, segments: &'a [Segment], len: usize) -> Self {
        Self {
            memory: &chain.memory,
            segments,
            offset: 0,
            remaining: len,
            consumed: 0,
        }
    }

    /// Bytes from here to the end.
    pub fn remaining(&self) -> usize {
        self.remaining
    }

    /// Bytes from the beginning to here; for a writer, what to tell [`ActiveQueue::push_used`].
    pub fn consumed(&self) -> u32 {
        u32::try_from(self.consumed).expect("a chain's lengths add up to less than 2^32")
    }

    /// Copies `buffer.len()` bytes out of guest memory and moves on. Copy once, then decide: the
    /// guest can change its memory at any time.
    ///
    /// # Errors
    /// `UnexpectedEof` when fewer bytes remain; the position is then unchanged.
    pub fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.check(buffer.len())?;
        let mut done = 0;
        for slice in self.slices(buffer.len()) {
            done += slice.copy_to(&mut buffer[done..]);
        }
        self.skip(done);
        Ok(())
    }

    /// Copies `bytes` into guest memory and moves on.
    ///
    /// # Errors
    /// `UnexpectedEof` when fewer bytes remain; nothing is written then.
    pub fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.check(bytes.len())?;
        let mut done = 0;
        for slice in self.slices(bytes.len()) {
            slice.copy_from(&bytes[done..]);
            done += slice.len();
        }
        self.skip(done);
        Ok(())
    }

    /// The next `max` bytes (or what remains) as slices of guest memory, without moving on.
    pub fn slices(&self, max: usize) -> impl Iterator<Item = GuestSlice<'a>> + use<'a> {
        let (memory, mut offset, mut left) = (self.memory, self.offset, max.min(self.remaining));
        self.segments.iter().map_while(move |segment| {
            if left == 0 {
                return None;
            }
            let len = (segment.len - offset).min(left);
            let slice = memory
                .get_slice(segment.address, segment.len)
                .and_then(|slice| Ok(slice.subslice(offset, len)?))
                .expect("segments were checked against this very memory, which never shrinks");
            left -= len;
            offset = 0;
            Some(slice)
        })
    }

    /// Moves on by `count` bytes, or to the end when fewer remain.
    pub fn skip(&mut self, count: usize) {
        let count = count.min(self.remaining);
        self.remaining -= count;
        self.consumed += count;
        let mut left = count;
        while let [first, rest @ ..] = self.segments {
            let here = first.len - self.offset;
            if left < here {
                self.offset += left;
                return;
            }
            left -= here;
            self.offset = 0;
            self.segments = rest;
        }
    }

    /// Splits off the first `count` bytes (or what remains) as a cursor of their own and moves
    /// on behind them.
    #[must_use]
    pub fn split_to(&mut self, count: usize) -> Cursor<'a> {
        let mut front = self.clone();
        front.remaining = count.min(self.remaining);
        front.consumed = 0;
        self.skip(count);
        front
    }

    fn check(&self, len: usize) -> io::Result<()> {
        if len <= self.remaining {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

#[cfg(test)]
mod tests;
