//! What the host's routing says of a destination, asked over rtnetlink(7).
//!
//! A list of the host's addresses would be old as soon as it is made, and leaves out what a
//! routing table declares local without an interface. The kernel's own answer for one destination
//! is neither. Asking needs no privilege and sends nothing.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

/// What kind of destination an address is for the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    /// Somebody else, or nobody.
    Elsewhere,
    /// The host itself.
    Host,
    /// Everybody in a network of the host.
    Broadcast,
}

/// Who knows the host's routing.
pub trait Routing {
    /// What kind of destination `address` is now.
    ///
    /// # Errors
    /// When that cannot be told.
    fn kind(&mut self, address: IpAddr) -> io::Result<RouteKind>;
}

/// The kernel.
#[derive(Debug)]
pub struct HostRouting {
    socket: OwnedFd,
    sequence: u32,
}

// Linux, include/uapi/linux/netlink.h and rtnetlink.h.
const NLMSG_ERROR: u16 = 2;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const NLM_F_REQUEST: u16 = 1;
const RTA_DST: u16 = 1;
const RTN_LOCAL: u8 = 2;
const RTN_BROADCAST: u8 = 3;
const RTN_ANYCAST: u8 = 4;
const RTN_MULTICAST: u8 = 5;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct rtmsg`.
const ROUTE_MESSAGE: usize = 12;
/// Where `rtm_type` is in it.
const ROUTE_TYPE: usize = 7;

impl HostRouting {
    /// Opens a socket to the kernel.
    ///
    /// # Errors
    /// When the host has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // NETLINK_ROUTE is protocol 0, the default.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }
}

impl Routing for HostRouting {
    fn kind(&mut self, address: IpAddr) -> io::Result<RouteKind> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request(address, self.sequence);
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.socket, &request, SendFlags::empty(), &kernel)?;
        let mut buffer = [0; 4096];
        loop {
            // The kernel has answered when the request is taken.
            let (length, _) = recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT)?;
            if let Some(answer) = parse(&buffer[..length.min(4096)], self.sequence) {
                return answer;
            }
        }
    }
}

fn request(address: IpAddr, sequence: u32) -> Vec<u8> {
    let (family, octets) = match address {
        IpAddr::V4(address) => (AddressFamily::INET, address.octets().to_vec()),
        IpAddr::V6(address) => (AddressFamily::INET6, address.octets().to_vec()),
    };
    let size = |length: usize| u16::try_from(length).expect("an address is short");
    let attribute = 4 + octets.len();
    let mut message = Vec::with_capacity(HEADER + ROUTE_MESSAGE + attribute);
    message.extend(u32::from(size(HEADER + ROUTE_MESSAGE + attribute)).to_ne_bytes());
    message.extend(RTM_GETROUTE.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]);
    let bits = u8::try_from(octets.len() * 8).expect("at most 128");
    message.extend([u8::try_from(family.as_raw()).unwrap_or(0), bits]);
    message.extend([0; ROUTE_MESSAGE - 2]);
    message.extend(size(attribute).to_ne_bytes());
    message.extend(RTA_DST.to_ne_bytes());
    message.extend(octets);
    message
}

/// The answer to the request with this number; `None` for another message.
fn parse(message: &[u8], sequence: u32) -> Option<io::Result<RouteKind>> {
    let header = message.first_chunk::<HEADER>();
    let body = message.get(HEADER..).unwrap_or_default();
    let Some(header) = header else {
        return Some(Err(io::ErrorKind::InvalidData.into()));
    };
    let kind = u16::from_ne_bytes([header[4], header[5]]);
    if u32::from_ne_bytes([header[8], header[9], header[10], header[11]]) != sequence {
        return None;
    }
    Some(
        match (kind, body.get(ROUTE_TYPE), body.first_chunk::<4>()) {
            (RTM_NEWROUTE, Some(kind), _) => Ok(match *kind {
                RTN_LOCAL | RTN_ANYCAST => RouteKind::Host,
                RTN_BROADCAST | RTN_MULTICAST => RouteKind::Broadcast,
                _ => RouteKind::Elsewhere,
            }),
            (NLMSG_ERROR, _, Some(error)) => {
                match Errno::from_raw_os_error(i32::from_ne_bytes(*error).saturating_neg()) {
                    // No way there, or one that an administrator closed: connecting will tell.
                    Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::ACCESS | Errno::INVAL => {
                        Ok(RouteKind::Elsewhere)
                    }
                    error => Err(error.into()),
                }
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_its_own_addresses() {
        let mut routing = HostRouting::new().unwrap();
        let mut kind = |address: &str| routing.kind(address.parse().unwrap()).unwrap();
        assert_eq!(kind("127.0.0.1"), RouteKind::Host);
        assert_eq!(kind("127.1.2.3"), RouteKind::Host);
        assert_eq!(kind("203.0.113.80"), RouteKind::Elsewhere);
    }

    #[test]
    fn every_interface_s_address_is_the_host_s() {
        // The address that a packet to elsewhere would have as its source.
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        if socket.connect("203.0.113.80:9").is_err() {
            eprintln!("skipped: this machine has no route");
            return;
        }
        let own = socket.local_addr().unwrap().ip();
        let mut routing = HostRouting::new().unwrap();
        assert_eq!(routing.kind(own).unwrap(), RouteKind::Host);
    }

    #[test]
    fn a_short_or_foreign_message_is_no_answer() {
        assert!(parse(&[0; 5], 1).unwrap().is_err());
        let mut message = request("192.0.2.1".parse().unwrap(), 7);
        assert!(parse(&message, 8).is_none());
        message.truncate(HEADER);
        message[4..6].copy_from_slice(&RTM_NEWROUTE.to_ne_bytes());
        assert!(parse(&message, 7).unwrap().is_err());
    }
}
