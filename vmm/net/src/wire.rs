//! Frames and packets as bytes: what a guest's frame is, and the few packets that are made here.
//!
//! TCP's own packets are smoltcp's ([`crate::tcp`]); everything else is small enough for its
//! packet types alone.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Instant;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv4DstUnreachable, Icmpv4Packet,
    Icmpv4Repr, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, TcpPacket, UdpPacket, UdpRepr,
};

use crate::config::Addresses;
use crate::frames::{ETHERNET, ETHERTYPE_ARP, ETHERTYPE_IPV4, Frames};

/// Time to live of packets made here.
const HOP_LIMIT: u8 = 64;
/// Length of UDP's header.
pub(crate) const UDP_HEADER: usize = 8;
/// Length of an IPv4 header without options.
pub(crate) const IP_HEADER: usize = 20;
/// What ICMP errors quote: the header and 64 bits (RFC 792).
const QUOTED: usize = 8;

/// A frame of the guest, understood as far as its kind and addresses.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming<'a> {
    /// Who has this address?
    Arp(Ipv4Addr),
    /// A TCP segment.
    Tcp(Segment<'a>),
    /// A UDP datagram.
    Udp {
        guest_port: u16,
        remote: SocketAddrV4,
        payload: &'a [u8],
        /// The whole packet, for an error.
        packet: &'a [u8],
    },
    /// An ICMP echo request.
    Echo { to: Ipv4Addr, packet: &'a [u8] },
}

/// A TCP segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment<'a> {
    pub(crate) guest_port: u16,
    pub(crate) remote: SocketAddrV4,
    /// It asks for a connection: SYN without ACK or RST.
    pub(crate) opens: bool,
    /// The whole IP packet.
    pub(crate) packet: &'a [u8],
}

/// What a frame is. `None` for one that is malformed, not the guest's, or of a kind that is not
/// served: fragments, IPv6, other protocols.
pub(crate) fn parse<'a>(frame: &'a [u8], addresses: &Addresses) -> Option<Incoming<'a>> {
    let (header, payload) = frame.split_at_checked(ETHERNET)?;
    if header[6..12] != addresses.guest_mac {
        return None;
    }
    match u16::from_be_bytes([header[12], header[13]]) {
        ETHERTYPE_ARP => parse_arp(payload, addresses),
        ETHERTYPE_IPV4 if header[..6] == addresses.gateway_mac => parse_ip(payload, addresses),
        _ => None,
    }
}

fn parse_arp<'a>(payload: &[u8], addresses: &Addresses) -> Option<Incoming<'a>> {
    let packet = ArpPacket::new_checked(payload).ok()?;
    match ArpRepr::parse(&packet).ok()? {
        ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_protocol_addr,
            target_protocol_addr,
            ..
        } => {
            // Nobody else may have the guest's address; a probe for it (RFC 5227) goes unanswered.
            let asked = target_protocol_addr != addresses.guest;
            (asked && source_protocol_addr == addresses.guest)
                .then_some(Incoming::Arp(target_protocol_addr))
        }
        _ => None,
    }
}

fn parse_ip<'a>(payload: &'a [u8], addresses: &Addresses) -> Option<Incoming<'a>> {
    let ip = Ipv4Packet::new_checked(payload).ok()?;
    let whole = ip.version() == 4 && !ip.more_frags() && ip.frag_offset() == 0;
    if !whole || !ip.verify_checksum() || ip.src_addr() != addresses.guest {
        return None;
    }
    let packet = &payload[..usize::from(ip.total_len())];
    let body = &packet[usize::from(ip.header_len())..];
    let to = ip.dst_addr();
    match ip.next_header() {
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(body).ok()?;
            if tcp.src_port() == 0 || tcp.dst_port() == 0 {
                return None;
            }
            Some(Incoming::Tcp(Segment {
                guest_port: tcp.src_port(),
                remote: SocketAddrV4::new(to, tcp.dst_port()),
                opens: tcp.syn() && !tcp.ack() && !tcp.rst(),
                packet,
            }))
        }
        IpProtocol::Udp => {
            let udp = UdpPacket::new_checked(body).ok()?;
            if udp.src_port() == 0 || udp.dst_port() == 0 {
                return None;
            }
            let payload = body.get(UDP_HEADER..usize::from(udp.len()))?;
            Some(Incoming::Udp {
                guest_port: udp.src_port(),
                remote: SocketAddrV4::new(to, udp.dst_port()),
                payload,
                packet,
            })
        }
        IpProtocol::Icmp => {
            let icmp = Icmpv4Packet::new_checked(body).ok()?;
            let repr = Icmpv4Repr::parse(&icmp, &ChecksumCapabilities::default()).ok()?;
            matches!(repr, Icmpv4Repr::EchoRequest { .. }).then_some(Incoming::Echo { to, packet })
        }
        _ => None,
    }
}

/// Tells the guest that `address` is reached through us.
pub(crate) fn answer_arp(
    frames: &mut Frames,
    addresses: &Addresses,
    address: Ipv4Addr,
    now: Instant,
) {
    let reply = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: EthernetAddress(addresses.gateway_mac),
        source_protocol_addr: address,
        target_hardware_addr: EthernetAddress(addresses.guest_mac),
        target_protocol_addr: addresses.guest,
    };
    frames.send(ETHERTYPE_ARP, reply.buffer_len(), now, |bytes| {
        reply.emit(&mut ArpPacket::new_unchecked(bytes));
    });
}

/// Answers an echo request in the name of whom it was sent to.
pub(crate) fn answer_echo(frames: &mut Frames, request: &[u8], now: Instant) {
    let Ok(ip) = Ipv4Packet::new_checked(request) else {
        return;
    };
    let checksums = ChecksumCapabilities::default();
    let repr = Icmpv4Packet::new_checked(ip.payload()).and_then(|icmp| {
        match Icmpv4Repr::parse(&icmp, &checksums)? {
            Icmpv4Repr::EchoRequest {
                ident,
                seq_no,
                data,
            } => Ok(Icmpv4Repr::EchoReply {
                ident,
                seq_no,
                data: &ip.payload()[QUOTED..QUOTED + data.len()],
            }),
            _ => Err(smoltcp::wire::Error),
        }
    });
    if let Ok(reply) = repr {
        send_icmp(frames, ip.dst_addr(), ip.src_addr(), &reply, now);
    }
}

/// Why a packet went nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreachable {
    /// Nobody has that address.
    Host,
    /// Nobody has that port.
    Port,
    /// It may not be sent there.
    Prohibited,
}

/// Tells the guest that a packet of its went nowhere, in the gateway's name.
pub(crate) fn refuse(
    frames: &mut Frames,
    gateway: Ipv4Addr,
    packet: &[u8],
    why: Unreachable,
    now: Instant,
) {
    let checksums = ChecksumCapabilities::ignored();
    let Ok(ip) = Ipv4Packet::new_checked(packet) else {
        return;
    };
    let Ok(header) = Ipv4Repr::parse(&ip, &checksums) else {
        return;
    };
    let error = Icmpv4Repr::DstUnreachable {
        reason: match why {
            Unreachable::Host => Icmpv4DstUnreachable::HostUnreachable,
            Unreachable::Port => Icmpv4DstUnreachable::PortUnreachable,
            Unreachable::Prohibited => Icmpv4DstUnreachable::CommProhibited,
        },
        header,
        data: ip.payload().get(..QUOTED).unwrap_or_default(),
    };
    // A port is refused by its owner, the others by the gateway.
    let from = match why {
        Unreachable::Port => header.dst_addr,
        Unreachable::Host | Unreachable::Prohibited => gateway,
    };
    send_icmp(frames, from, header.src_addr, &error, now);
}

/// The same for a port, which its owner refuses.
pub(crate) fn refuse_port(frames: &mut Frames, packet: &[u8], now: Instant) {
    refuse(
        frames,
        Ipv4Addr::UNSPECIFIED,
        packet,
        Unreachable::Port,
        now,
    );
}

fn send_icmp(
    frames: &mut Frames,
    from: Ipv4Addr,
    to: Ipv4Addr,
    message: &Icmpv4Repr<'_>,
    now: Instant,
) {
    let checksums = ChecksumCapabilities::default();
    let ip = header(from, to, IpProtocol::Icmp, message.buffer_len());
    frames.send(ETHERTYPE_IPV4, IP_HEADER + ip.payload_len, now, |bytes| {
        let (head, body) = bytes.split_at_mut(IP_HEADER);
        message.emit(&mut Icmpv4Packet::new_unchecked(body), &checksums);
        ip.emit(&mut Ipv4Packet::new_unchecked(head), &checksums);
    });
}

/// Gives the guest a datagram; one that is longer than a packet can be is lost.
pub(crate) fn send_udp(
    frames: &mut Frames,
    from: SocketAddrV4,
    to: SocketAddrV4,
    payload: &[u8],
    now: Instant,
) {
    let length = UDP_HEADER + payload.len();
    if IP_HEADER + length > frames.mtu() {
        return;
    }
    let checksums = ChecksumCapabilities::default();
    let ip = header(*from.ip(), *to.ip(), IpProtocol::Udp, length);
    let udp = UdpRepr {
        src_port: from.port(),
        dst_port: to.port(),
    };
    frames.send(ETHERTYPE_IPV4, IP_HEADER + length, now, |bytes| {
        let (head, body) = bytes.split_at_mut(IP_HEADER);
        ip.emit(&mut Ipv4Packet::new_unchecked(head), &checksums);
        udp.emit(
            &mut UdpPacket::new_unchecked(body),
            &IpAddress::Ipv4(*from.ip()),
            &IpAddress::Ipv4(*to.ip()),
            payload.len(),
            |room| room.copy_from_slice(payload),
            &checksums,
        );
    });
}

/// A datagram of the guest as its bytes were, for [`refuse`].
pub(crate) fn datagram_head(from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    let ip = header(*from.ip(), *to.ip(), IpProtocol::Udp, UDP_HEADER);
    let mut bytes = vec![0; IP_HEADER + UDP_HEADER];
    ip.emit(
        &mut Ipv4Packet::new_unchecked(&mut bytes[..]),
        &ChecksumCapabilities::default(),
    );
    let mut udp = UdpPacket::new_unchecked(&mut bytes[IP_HEADER..]);
    udp.set_src_port(from.port());
    udp.set_dst_port(to.port());
    udp.set_len(8);
    bytes
}

fn header(from: Ipv4Addr, to: Ipv4Addr, protocol: IpProtocol, payload_len: usize) -> Ipv4Repr {
    Ipv4Repr {
        src_addr: from,
        dst_addr: to,
        next_header: protocol,
        payload_len,
        hop_limit: HOP_LIMIT,
    }
}
