//! A workspace's network: user-space TCP/IP in a process without privileges.
//!
//! One process `pyro-net` belongs to one running monitor of a workspace whose policy allows a
//! network. The guest's Ethernet frames come to it over a socket pair; it ends the guest's TCP
//! connections and makes the host's for them with ordinary sockets, so that nothing on the host
//! needs root, a TAP device or a firewall rule.
//!
//! * [`config`]: what the process is told when it starts. Types for whoever starts it.
//! * [`control`]: what it can be asked while it runs. Types for whoever asks.
//! * [`egress`]: which destinations a guest may reach. Checked at the moment of use, on the
//!   destination of each flow, so a name that is rebound to another address gains nothing.
//! * [`process`]: the process, from its arguments to its exit code.
//!
//! The TCP towards the guest is smoltcp's: well kept, no allocation of its own, hostile input is
//! its daily bread, and it leaves sockets and time to its user.
//!
//! # What the guest sees
//!
//! One Ethernet neighbour that answers for everything but the guest itself ([`config::Addresses`]).
//! TCP to any address that [`egress`] lets pass; a connection is accepted only once the host's
//! own was, so what is refused looks refused and what does not answer looks like that. UDP, each
//! pair of addresses a flow that ends when it is idle. DNS at [`config::Addresses::dns`], over UDP
//! and TCP, answered by the host's resolvers (`/etc/resolv.conf`, read again when it changes).
//! ICMP echo for the gateway and the resolver, and no other. IPv4 only: a guest has no IPv6 address
//! and no IPv6 route; other frames are dropped. Fragmented datagrams are dropped.
//!
//! # Starting it
//!
//! ```text
//! let (monitors, nets) = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC);
//! listener             = listening Unix stream socket, `net.sock` in the workspace's folder
//! vsock                = open("…/vsock.sock", O_PATH | O_CLOEXEC)    only to publish ports
//!
//! pyro-vmm:  Config { net: Some(Net { backend_fd: monitors, .. }), .. }
//! pyro-net --config-fd N       N: memory file with JSON of config::Config { frames_fd: nets, .. }
//! ```
//!
//! Descriptors are inherited under the numbers that the configuration names; all others are
//! closed. Start it before or after the monitor, in the host's network namespace; the current
//! directory and the environment are not looked at. The parent must close its copies of both
//! ends of the pair: the process *ends, with code 0, when the monitor's end is closed*, and with it
//! every connection and every published port. It survives its parent; standard error is its log.
//! There is no word of readiness: the listener accepts from the beginning, and requests sent
//! before the process runs are answered when it does. The guest needs its part too: the monitor's
//! device with [`config::Addresses::guest_mac`], and the agent's `Welcome.network` with the same
//! addresses.
//!
//! # Rules
//!
//! Frames, and whatever comes from the network, are hostile: no panic, no spin, no memory beyond
//! [`config::Limits`]. A peer that does not read is not read for: every queue is bounded and holds
//! up its source.

mod bucket;
pub mod config;
pub mod control;
mod dns;
pub mod egress;
mod frames;
mod inherit;
mod network;
mod peers;
mod poller;
pub mod process;
mod published;
mod sandbox;
mod tcp;
mod udp;
mod wire;
mod world;
