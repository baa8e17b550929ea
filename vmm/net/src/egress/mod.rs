//! Which destinations a guest may reach.
//!
//! [`Egress::check`] is asked once for each flow, with the very address that the flow will use. It
//! refuses every address that is not a public one of somebody else's: what a range says of itself
//! ([`special`]), and what the host's routing says of its own ([`Routing`]): an address of any of its
//! interfaces, also a public one, or a broadcast address of a network it is in.
//!
//! Documentation ranges are not refused: nobody routes them, or somebody does on purpose.

mod cidr;
mod routing;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use cidr::{BadCidr, Cidr};
pub use routing::{HostRouting, RouteKind, Routing};

/// Why a destination is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `0.0.0.0/8`, `::`.
    Unspecified,
    /// `127.0.0.0/8`, `::1`.
    Loopback,
    /// RFC 1918, unique local addresses, site-local addresses.
    Private,
    /// `100.64.0.0/10`.
    CarrierNat,
    /// `169.254.0.0/16`, `fe80::/10`: metadata services too.
    LinkLocal,
    /// Metadata services beyond link-local.
    Metadata,
    /// Multicast.
    Multicast,
    /// Limited broadcast, or a directed one of a network of the host.
    Broadcast,
    /// `198.18.0.0/15`, `2001:2::/48`.
    Benchmarking,
    /// `192.0.0.0/24`, `192.88.99.0/24`, `240.0.0.0/4`, and what IPv6 reserves.
    Reserved,
    /// An address of the host itself.
    Host,
    /// The host cannot tell; so it is not tried.
    Unknown,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::CarrierNat => "carrier-grade NAT",
            Self::LinkLocal => "link-local",
            Self::Metadata => "metadata service",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Benchmarking => "benchmarking",
            Self::Reserved => "reserved",
            Self::Host => "the host's own",
            Self::Unknown => "unknown",
        })
    }
}

/// The check, with what an operator allows.
#[derive(Debug)]
pub struct Egress<R> {
    allow: Vec<Cidr>,
    routing: R,
}

impl<R: Routing> Egress<R> {
    /// A check that lets the ranges of `allow` pass, except where they hold the host's own addresses.
    ///
    /// A range opens what is refused for the same reason as its first address. So `10.0.0.0/8` opens
    /// private addresses and `0.0.0.0/0` nothing: a metadata service is opened by its own name only.
    pub fn new(allow: Vec<Cidr>, routing: R) -> Self {
        Self { allow, routing }
    }

    /// Whether a flow to `address` may be made now.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&mut self, address: IpAddr) -> Result<(), Refusal> {
        let address = address.to_canonical();
        match special(address) {
            // No range of these is anybody's to allow.
            Some(
                refusal @ (Refusal::Unspecified
                | Refusal::Loopback
                | Refusal::Multicast
                | Refusal::Broadcast),
            ) => return Err(refusal),
            Some(refusal) if !self.allows(address, refusal) => return Err(refusal),
            _ => {}
        }
        match self.routing.kind(address) {
            Ok(RouteKind::Elsewhere) => Ok(()),
            Ok(RouteKind::Host) => Err(Refusal::Host),
            Ok(RouteKind::Broadcast) => Err(Refusal::Broadcast),
            Err(_) => Err(Refusal::Unknown),
        }
    }

    fn allows(&self, address: IpAddr, refusal: Refusal) -> bool {
        self.allow
            .iter()
            .any(|range| range.contains(address) && special(range.first()) == Some(refusal))
    }
}

/// What the range that `address` lies in says of it, if that forbids it. IPv4 inside IPv6 (mapped,
/// compatible, NAT64, 6to4) is judged as the IPv4 address that it leads to; Teredo is refused.
pub fn special(address: IpAddr) -> Option<Refusal> {
    match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    }
}

fn special_v4(address: Ipv4Addr) -> Option<Refusal> {
    Some(match address.octets() {
        [0, ..] => Refusal::Unspecified,
        [127, ..] => Refusal::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Refusal::Private,
        // The metadata service of a large cloud, in the range of carriers.
        [100, 100, 100, 200] => Refusal::Metadata,
        [100, 64..=127, ..] => Refusal::CarrierNat,
        [169, 254, ..] => Refusal::LinkLocal,
        // Another's virtual machines reach their host's services here, although it is public.
        [168, 63, 129, 16] => Refusal::Metadata,
        [192, 0, 0, _] | [192, 88, 99, _] => Refusal::Reserved,
        [198, 18..=19, ..] => Refusal::Benchmarking,
        [224..=239, ..] => Refusal::Multicast,
        [255, 255, 255, 255] => Refusal::Broadcast,
        [240..=255, ..] => Refusal::Reserved,
        _ => return None,
    })
}

fn special_v6(address: Ipv6Addr) -> Option<Refusal> {
    if address.is_unspecified() {
        return Some(Refusal::Unspecified);
    }
    if address.is_loopback() {
        return Some(Refusal::Loopback);
    }
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        special_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        // Mapped and compatible addresses, and NAT64's well-known prefix.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            v4(high, low)
        }
        // NAT64's local prefixes lead to whatever the network's owner wants.
        [0x64, 0xff9b, 1, ..] => Some(Refusal::Reserved),
        // 6to4.
        [0x2002, high, low, ..] => v4(high, low),
        [0x2001, 2, 0, ..] => Some(Refusal::Benchmarking),
        // Teredo, ORCHID and the others of 2001::/23.
        [0x2001, 0..=0x1ff, ..] => Some(Refusal::Reserved),
        [0xfe80..=0xfebf, ..] => Some(Refusal::LinkLocal),
        // A large cloud's metadata service, among unique local addresses.
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] => Some(Refusal::Metadata),
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Some(Refusal::Private),
        [0xff00..=0xffff, ..] => Some(Refusal::Multicast),
        // Everything that is global unicast lies in 2000::/3.
        [0x2000..=0x3fff, ..] => None,
        _ => Some(Refusal::Reserved),
    }
}

#[cfg(test)]
mod tests;
