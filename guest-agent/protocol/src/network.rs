//! The guest's network, as the host has laid it out.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// Most name servers, as resolv.conf(5) has it.
pub const RESOLVERS_MAX: usize = 3;

/// How the guest's one interface is set up. The agent refuses nothing here, and reports to the
/// guest's console what it cannot do: the guest boots all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The guest's address.
    pub address: Ipv4Addr,
    /// Bits of `address` that name its network, 0 to 32.
    pub prefix: u8,
    /// Where everything else is reached.
    pub gateway: Ipv4Addr,
    /// Name servers, in the order in which to ask them. More than [`RESOLVERS_MAX`] are ignored.
    pub dns: Vec<Ipv4Addr>,
    /// Longest packet in bytes, at least 576 (RFC 791).
    pub mtu: u16,
}
