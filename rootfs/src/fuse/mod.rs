//! The FUSE server: the kernel's protocol on one side, [`crate::tree`] on the other.
//!
//! [`Server::handle`] takes one request and writes its reply. Where the two come from is a
//! [`transport`]'s business: the virtio-fs device of the monitor carries them through guest memory,
//! [`dev`] through `/dev/fuse` on the host, where the same server is tested and measured at native
//! speed.
//!
//! Whoever writes the requests is not trusted. A request is copied once into owned types (`args`)
//! and judged there; names are single components ([`crate::tree::Name`]) that never become paths
//! of the host; node ids are numbers in our own tree; lengths are compared with what is there.
//! The server never opens a host file itself.

pub mod abi;
mod args;
mod buffer;
pub mod dev;
mod server;
pub mod transport;

pub use buffer::{SliceReply, SliceRequest};
pub use server::{Caching, MAX_WRITE, Server};
