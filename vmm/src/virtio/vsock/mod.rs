//! The socket device (virtio 1.2 §5.10): byte streams between programs in the guest and Unix
//! sockets on the host, in user space, without vhost.
//!
//! # The protocol in short
//!
//! Guest and host exchange packets, a 44-byte header and perhaps data, over two queues. A stream
//! is named by its two addresses (context id and port). It begins with `REQUEST` and `RESPONSE`
//! (or `RST`), carries `RW`, and ends with `SHUTDOWN`, direction by direction, answered by `RST`.
//! Every header tells how large its sender's buffer is and how many bytes left it so far
//! (*credit*), so that neither side sends what the other could not keep.
//!
//! # Three layers
//!
//! * [`device`]: queues, budgets, interrupts. Knows packets, no connections.
//! * [`muxer`]: the table of connections, their limits and whose turn it is. Knows no queues.
//! * [`connection`]: one stream's state and credit, and its socket.
//!
//! [`backend`] holds the sockets the device was given, [`poller`] watches them.
//!
//! # Towards the host
//!
//! A host program connects to the listener, or uses a stream it was given, and writes
//! `CONNECT <port>\n`. When a guest program accepts, it reads `OK <host port>\n` and then owns a
//! byte stream to it. Otherwise (nobody listens on the port, a line that is not understood, too
//! many connections, no answer in time) it reads the end of the stream and nothing else. Before
//! the guest's driver runs, clients and their lines wait in the sockets: no more of them than
//! the listener's backlog holds.
//!
//! The guest connects to a configured host port; the program behind it is sent the port and one
//! end of a new stream.
//!
//! # Promises
//!
//! * No thread waits here, and no socket or guest can make the device spin: sockets are watched
//!   only while something can be done for them.
//! * The guest can make the device hold at most what [`limits`] says, and cannot make it panic.
//! * A guest program that closes loses no byte it has written, however slow the host reads.
//! * One round does a bounded amount of work, connections taking turns packet by packet.

mod backend;
mod backlog;
mod connection;
mod credit;
mod device;
mod handshake;
mod limits;
mod muxer;
mod packet;
mod poller;
mod slots;
#[cfg(test)]
mod tests;

pub use backend::{ConfigError, VsockConfig};
pub use device::{ActiveVsock, Vsock};
pub use packet::{Cid, Port};
