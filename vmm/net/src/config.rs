//! What a network process is told when it starts.
//!
//! The configuration is one JSON document, read from the descriptor named by `--config-fd`.
//! Numbers are descriptor numbers in the new process; there are no paths.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::egress::Cidr;

/// The generation of configuration and control socket, spoken by exactly one `pyro-net`.
pub const GENERATION: u32 = 1;

/// A descriptor number inherited by the process.
pub type FdNumber = i32;

/// The whole configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Always [`GENERATION`]; anything else is refused.
    pub generation: u32,
    /// A connected Unix `SOCK_SEQPACKET` socket, one Ethernet frame a message. Its other end is
    /// the monitor's `net.backend_fd`. The process ends when it is closed.
    pub frames_fd: FdNumber,
    /// A listening Unix stream socket for [`crate::control`]. Whoever connects may ask.
    pub control_listener_fd: FdNumber,
    /// The monitor's vsock socket (`vsock.sock`), opened with `O_PATH`. Without it no port can be
    /// published: what a policy without published ports is given.
    #[serde(default)]
    pub vsock_fd: Option<FdNumber>,
    /// The addresses that guest and network agree on.
    #[serde(default)]
    pub addresses: Addresses,
    /// Ranges that a guest may reach although [`crate::egress`] would refuse them. The host's own
    /// addresses stay refused, whatever is named here.
    #[serde(default)]
    pub egress_allow: Vec<Cidr>,
    /// How much at a time.
    #[serde(default)]
    pub limits: Limits,
}

/// The addresses that guest and network agree on. The default is every workspace's: no guest sees
/// another's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Addresses {
    /// The guest's address.
    pub guest: Ipv4Addr,
    /// Bits of the guest's subnet.
    pub prefix: u8,
    /// The guest's default gateway.
    pub gateway: Ipv4Addr,
    /// The guest's resolver.
    pub dns: Ipv4Addr,
    /// The guest's Ethernet address, locally administered.
    pub guest_mac: [u8; 6],
    /// The Ethernet address of everything else.
    pub gateway_mac: [u8; 6],
    /// Longest IP packet in either direction, 576 to 65520.
    pub mtu: u16,
}

impl Default for Addresses {
    fn default() -> Self {
        Self {
            guest: Ipv4Addr::new(10, 0, 2, 15),
            prefix: 24,
            gateway: Ipv4Addr::new(10, 0, 2, 2),
            dns: Ipv4Addr::new(10, 0, 2, 3),
            guest_mac: [0x02, 0x70, 0x79, 0x72, 0x6f, 0x0f],
            gateway_mac: [0x02, 0x70, 0x79, 0x72, 0x6f, 0x02],
            mtu: 65520,
        }
    }
}

/// How much at a time. What is beyond is refused and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// TCP connections from the guest, those being made included. Each may hold half a MiB of data on
    /// its way.
    pub tcp_connections: usize,
    /// UDP flows; a new one takes the place of the one that was idle longest.
    pub udp_flows: usize,
    /// Connections to published ports.
    pub published_connections: usize,
    /// Published ports.
    pub published_ports: usize,
    /// Seconds that a connection may take to be made.
    pub connect_timeout_s: u32,
    /// Bytes per second in each direction; `None` is as fast as it goes.
    pub bytes_per_second: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tcp_connections: 512,
            udp_flows: 256,
            published_connections: 128,
            published_ports: 64,
            connect_timeout_s: 60,
            bytes_per_second: None,
        }
    }
}
