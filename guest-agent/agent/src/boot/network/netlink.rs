//! What of rtnetlink(7) the boot needs: an interface up, with an address and a default route.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice, recv, sendto,
    socket_with,
};

// Linux, include/uapi/linux/netlink.h, rtnetlink.h, if_link.h and if_addr.h.
const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RTN_UNICAST: u8 = 1;
const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;
/// `struct nlmsghdr`.
const HEADER: usize = 16;

/// A socket to the kernel.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    pub(super) fn open() -> Result<Self, Errno> {
        // NETLINK_ROUTE is protocol 0, the default.
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// The number of the interface of this name.
    pub(super) fn index(&self, name: &str) -> Result<u32, Errno> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
        netdevice::name_to_index(socket, name)
    }

    /// Sets an interface up.
    pub(super) fn up(&mut self, interface: u32, mtu: u16) -> Result<(), Errno> {
        // `struct ifinfomsg`: family, padding, type, index, flags, which of them to change.
        let mut body = vec![AF_UNSPEC, 0, 0, 0];
        body.extend(interface.to_ne_bytes());
        body.extend(IFF_UP.to_ne_bytes());
        body.extend(IFF_UP.to_ne_bytes());
        attribute(&mut body, IFLA_MTU, u32::from(mtu).to_ne_bytes());
        self.ask(RTM_NEWLINK, 0, &body)
    }

    /// Gives an interface an address.
    pub(super) fn add_address(
        &mut self,
        interface: u32,
        address: Ipv4Addr,
        prefix: u8,
    ) -> Result<(), Errno> {
        // `struct ifaddrmsg`: family, prefix, flags, scope, index.
        let mut body = vec![AF_INET, prefix, 0, RT_SCOPE_UNIVERSE];
        body.extend(interface.to_ne_bytes());
        attribute(&mut body, IFA_LOCAL, address.octets());
        attribute(&mut body, IFA_ADDRESS, address.octets());
        attribute(
            &mut body,
            IFA_BROADCAST,
            broadcast(address, prefix).octets(),
        );
        self.ask(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &body)
    }

    /// Leads everything else through `gateway`.
    pub(super) fn add_default_route(
        &mut self,
        interface: u32,
        gateway: Ipv4Addr,
    ) -> Result<(), Errno> {
        // `struct rtmsg`: family, lengths of destination and source, TOS, table, who made it,
        // scope, type, flags.
        let mut body = vec![AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT];
        body.extend([RT_SCOPE_UNIVERSE, RTN_UNICAST, 0, 0, 0, 0]);
        attribute(&mut body, RTA_GATEWAY, gateway.octets());
        attribute(&mut body, RTA_OIF, interface.to_ne_bytes());
        self.ask(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &body)
    }

    fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> Result<(), Errno> {
        self.sequence += 1;
        let message = message(kind, flags, self.sequence, body);
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.socket, &message, SendFlags::empty(), &kernel)?;
        loop {
            let mut answer = [0; 512];
            let (length, _) = recv(&self.socket, &mut answer[..], RecvFlags::empty())?;
            if let Some(result) = acknowledged(&answer[..length.min(512)], self.sequence) {
                return result;
            }
        }
    }
}

fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]);
    message.extend(body);
    message
}

/// What the acknowledgement of the request with this number says; `None` for another message.
fn acknowledged(message: &[u8], sequence: u32) -> Option<Result<(), Errno>> {
    let header = message.first_chunk::<HEADER>()?;
    let kind = u16::from_ne_bytes([header[4], header[5]]);
    let number = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
    let error = message.get(HEADER..)?.first_chunk::<4>()?;
    (kind == NLMSG_ERROR && number == sequence).then(|| match i32::from_ne_bytes(*error) {
        0 => Ok(()),
        errno => Err(Errno::from_raw_os_error(errno.saturating_neg())),
    })
}

/// Every attribute of ours holds four bytes, so none needs padding.
fn attribute(body: &mut Vec<u8>, kind: u16, value: [u8; 4]) {
    body.extend(8u16.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
}

fn broadcast(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let hosts = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() | hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broadcast_address_is_the_last_of_the_network() {
        let address = Ipv4Addr::new(10, 0, 2, 15);
        assert_eq!(broadcast(address, 24), Ipv4Addr::new(10, 0, 2, 255));
        assert_eq!(broadcast(address, 32), address);
        assert_eq!(broadcast(address, 0), Ipv4Addr::BROADCAST);
    }

    #[test]
    fn the_kernel_understands_the_messages_and_says_what_is_wrong() {
        let mut kernel = Netlink::open().unwrap();
        assert_eq!(kernel.index("no-such-device"), Err(Errno::NODEV));
        let address = Ipv4Addr::new(192, 0, 2, 1);
        // No interface has this number. A caller that may not set one up is told so first.
        let nobody = 0x7fff_ffff;
        for result in [
            kernel.up(nobody, 1500),
            kernel.add_address(nobody, address, 24),
            kernel.add_default_route(nobody, address),
        ] {
            assert!(matches!(
                result,
                Err(Errno::NODEV | Errno::PERM | Errno::NETUNREACH)
            ));
        }
    }
}
