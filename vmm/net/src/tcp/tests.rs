use std::net::{Ipv4Addr, TcpListener};

use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

use super::*;
use crate::frames::ETHERNET;
use crate::poller::Poller;

const GUEST_PORT: u16 = 40_000;

/// A segment of the guest to `remote`.
fn packet(remote: SocketAddrV4, control: TcpControl, sequence: i32) -> Vec<u8> {
    let checksums = ChecksumCapabilities::default();
    let (from, to) = (Addresses::default().guest, *remote.ip());
    let tcp = TcpRepr {
        src_port: GUEST_PORT,
        dst_port: remote.port(),
        control,
        seq_number: TcpSeqNumber(sequence),
        ack_number: None,
        window_len: 1000,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let ip = Ipv4Repr {
        src_addr: from,
        dst_addr: to,
        next_header: IpProtocol::Tcp,
        payload_len: tcp.buffer_len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; ip.buffer_len() + tcp.buffer_len()];
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut bytes[..]), &checksums);
    let mut body = TcpPacket::new_unchecked(&mut bytes[ip.buffer_len()..]);
    tcp.emit(&mut body, &from.into(), &to.into(), &checksums);
    bytes
}

#[test]
fn a_syn_that_the_guest_takes_back_leaves_nothing() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (guest, frames) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::NONBLOCK,
        None,
    )
    .unwrap();
    let (addresses, now) = (Addresses::default(), Instant::now());
    let mut frames = Frames::new(frames, &addresses, None, now).unwrap();
    let mut poller = Poller::new().unwrap();
    let mut tcp = Tcp::new(addresses, &Limits::default(), 1, &mut frames, now);
    let remote = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 1), 80);
    let key = Key {
        guest_port: GUEST_PORT,
        remote,
    };
    let target = listener.local_addr().unwrap();
    let syn = packet(remote, TcpControl::Syn, 1);
    let segment = |packet| Segment {
        guest_port: GUEST_PORT,
        remote,
        opens: true,
        packet,
    };
    let mut world = World {
        frames: &mut frames,
        poller: &poller,
        now,
    };
    tcp.begin(key, segment(&syn), target, false, &mut world);
    let mut buffer = [0; 2048];
    let answer = loop {
        for ready in poller.wait(Some(Duration::from_secs(30))).unwrap() {
            if let Source::Tcp(id) = ready.source {
                tcp.ready(id, ready);
            }
        }
        let mut world = World {
            frames: &mut frames,
            poller: &poller,
            now,
        };
        while tcp.is_due() {
            tcp.run(&mut world);
        }
        if let Ok((length, _)) = recv(&guest, &mut buffer[..], RecvFlags::empty()) {
            break &buffer[ETHERNET..length];
        }
    };
    let answer = Ipv4Packet::new_checked(answer).unwrap();
    let answer = TcpPacket::new_checked(answer.payload()).unwrap();
    assert!(answer.syn() && answer.ack());
    assert_eq!(tcp.count(), 1);

    let rst = packet(remote, TcpControl::Rst, 2);
    let mut world = World {
        frames: &mut frames,
        poller: &poller,
        now,
    };
    let id = tcp.by_key[&key];
    let time = tcp.time(now);
    let entry = tcp.flows.get_mut(&id).unwrap();
    let mut link = Link::new(world.frames, Some(&rst), now);
    entry.flow.receive(&mut tcp.interface, time, &mut link);
    tcp.wake(id);
    tcp.run(&mut world);

    assert_eq!(tcp.count(), 0);
}
