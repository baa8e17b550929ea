//! The network device (virtio 1.2 §5.1): Ethernet frames between the guest's driver and one
//! socket of the host.
//!
//! One receive and one transmit queue. A frame goes straight between guest memory and the socket,
//! one message each, without a copy of ours. What a frame means is not looked at here: whoever has
//! the socket's other end does, in a process of its own.
//!
//! # Features
//!
//! * `MAC`, `MTU`. Packets are as long as IP's can be, so nothing needs to be cut or put together.
//! * `CSUM`, `GUEST_CSUM`: nobody computes checksums of what only moves in memory. Without the
//!   first Linux also offers no scattered frames: it would copy each into 64 KiB that lie together,
//!   which a guest that has run for a while does not have.
//! * Not mergeable buffers: the driver must see all buffers of a frame used at once, for which
//!   the queue has no means. Its receive queue is short instead ([`device::RX_SIZE`]).
//! * Not `STATUS`: the link is always up.
//!
//! # Pressure
//!
//! A socket that takes no frame leaves it, and those behind it, in the transmit queue, where the
//! driver holds its senders up. A receive queue without buffers leaves frames in the socket. Neither
//! side is polled for: an edge of the socket, or a kick, says when to look again.

mod device;
#[cfg(test)]
mod tests;

pub use self::device::{Net, NetError};
