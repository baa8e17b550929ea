use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

use super::*;
use crate::frames::ETHERNET;
use crate::poller::Poller;

const GUEST_PORT: u16 = 40_000;
const REMOTE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 1), 80);
const KEY: Key = Key {
    guest_port: GUEST_PORT,
    remote: REMOTE,
};

/// Connections between a guest that a test plays and a listener of the host.
struct Rig {
    tcp: Tcp,
    frames: Frames,
    poller: Poller,
    guest: OwnedFd,
    listener: TcpListener,
    now: Instant,
    /// Where the next byte for the guest is, as the last segment with any says.
    next: TcpSeqNumber,
    established: bool,
}

impl Rig {
    fn new() -> Self {
        let flags = SocketFlags::NONBLOCK;
        let (guest, frames) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let (addresses, now) = (Addresses::default(), Instant::now());
        let mut frames = Frames::new(frames, &addresses, None, now).unwrap();
        Self {
            tcp: Tcp::new(addresses, &Limits::default(), 1, &mut frames, now),
            frames,
            poller: Poller::new().unwrap(),
            guest,
            listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
            now,
            next: TcpSeqNumber(0),
            established: false,
        }
    }

    /// A connection up to the answer to the guest's SYN, and the host's end of it.
    fn connect(&mut self) -> TcpStream {
        let target = self.listener.local_addr().unwrap();
        let syn = packet(segment(TcpControl::Syn, 0));
        let mut world = World {
            frames: &mut self.frames,
            poller: &self.poller,
            now: self.now,
        };
        let segment = Segment {
            guest_port: GUEST_PORT,
            remote: REMOTE,
            opens: true,
            packet: &syn,
        };
        self.tcp.begin(KEY, segment, target, false, &mut world);
        let (host, _) = self.listener.accept().unwrap();
        host.set_nonblocking(true).unwrap();
        self.established = false;
        while !self.established {
            self.turns(Duration::from_secs(30));
        }
        host
    }

    /// What a segment of the guest does.
    fn receive(&mut self, repr: TcpRepr<'_>) {
        let packet = packet(repr);
        if let Some(id) = self.tcp.by_key.get(&KEY).copied() {
            let time = self.tcp.time(self.now);
            let mut link = Link::new(&mut self.frames, Some(&packet), self.now);
            let entry = self.tcp.flows.get_mut(&id).unwrap();
            entry.flow.receive(&mut self.tcp.interface, time, &mut link);
            self.tcp.wake(id);
        }
        self.turns(Duration::ZERO);
    }

    /// Turns until nobody has anything to do.
    fn turns(&mut self, patience: Duration) {
        for ready in self.poller.wait(Some(patience)).unwrap() {
            if let Source::Tcp(id) = ready.source {
                self.tcp.ready(id, ready);
            }
        }
        self.frames.flush();
        self.tcp.expire(self.now);
        for round in 0.. {
            self.drain();
            if !self.tcp.is_due() {
                return;
            }
            assert!(round < 10_000, "it has something to do for ever");
            let mut world = World {
                frames: &mut self.frames,
                poller: &self.poller,
                now: self.now,
            };
            self.tcp.run(&mut world);
        }
    }

    /// Takes what came for the guest.
    fn drain(&mut self) {
        let mut buffer = vec![0; 70_000];
        loop {
            self.frames.flush();
            let Ok((length, _)) = recv(&self.guest, &mut buffer[..], RecvFlags::empty()) else {
                return;
            };
            let ip = Ipv4Packet::new_checked(&buffer[ETHERNET..length]).unwrap();
            let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
            self.established |= tcp.syn() && tcp.ack();
            self.next = tcp.seq_number() + tcp.segment_len();
        }
    }
}

/// A segment of the guest with nothing in it.
fn segment(control: TcpControl, sequence: i32) -> TcpRepr<'static> {
    TcpRepr {
        src_port: GUEST_PORT,
        dst_port: REMOTE.port(),
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
    }
}

/// Its packet.
fn packet(tcp: TcpRepr<'_>) -> Vec<u8> {
    let checksums = ChecksumCapabilities::default();
    let (from, to) = (Addresses::default().guest, *REMOTE.ip());
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
    let mut rig = Rig::new();
    let mut host = rig.connect();
    assert_eq!(rig.tcp.count(), 1);

    rig.receive(segment(TcpControl::Rst, 1));

    assert_eq!(rig.tcp.count(), 0);
    host.set_nonblocking(false).unwrap();
    let broken = host.read(&mut [0]).unwrap_err();
    assert_eq!(broken.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_guest_that_says_anything_on_its_connections_neither_ends_nor_spins_us() {
    // xorshift64*: the same each time.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: u64| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) % below
    };
    let noise = vec![7; 70_000];
    let mut rig = Rig::new();
    for _ in 0..150 {
        let mut host = rig.connect();
        // The next byte that the guest would send if it were honest.
        let mut mine = 1i32;
        for step in 0..60 {
            let near = |random: &mut dyn FnMut(u64) -> u64, around: i32| match random(8) {
                0 => random(1 << 32) as u32 as i32,
                1 => around.wrapping_add(random(600_000) as i32 - 300_000),
                2 => around.wrapping_add(random(7) as i32 - 3),
                _ => around,
            };
            let control = match random(40) {
                0 => TcpControl::Rst,
                1 => TcpControl::Syn,
                2..=4 => TcpControl::Fin,
                5..=15 => TcpControl::Psh,
                _ => TcpControl::None,
            };
            let sequence = near(&mut random, mine);
            let ack = near(&mut random, rig.next.0);
            let length = match random(4) {
                0 => random(30_000) as usize,
                1 => random(3) as usize,
                _ => 0,
            };
            let mut repr = segment(control, sequence);
            // An honest first answer, most times, so that there is a connection.
            let honest = step == 0 && random(8) != 0;
            if honest {
                repr = segment(TcpControl::None, mine);
                repr.ack_number = Some(rig.next);
            } else {
                repr.ack_number = (random(12) != 0).then_some(TcpSeqNumber(ack));
                repr.payload = &noise[..length];
                repr.window_len = [0, 1, 1000, 0xffff][random(4) as usize];
                if random(6) == 0 {
                    let edge = |random: &mut dyn FnMut(u64) -> u64| random(1 << 32) as u32;
                    repr.sack_ranges[0] = Some((edge(&mut random), edge(&mut random)));
                }
                if control == TcpControl::Syn {
                    repr.max_seg_size = Some(random(1 << 16) as u16);
                    repr.window_scale = Some(random(256) as u8);
                }
            }
            if sequence == mine && !honest {
                mine = mine.wrapping_add(i32::try_from(length).unwrap());
            }
            rig.receive(repr);
            match random(6) {
                0 => drop(host.write(&noise[..random(70_000) as usize])),
                1 => drop(host.read(&mut [0; 40_000])),
                2 if random(10) == 0 => drop(host.shutdown(Shutdown::Write)),
                3 => rig.now += Duration::from_millis(random(5000)),
                4 if random(10) == 0 => rig.now += Duration::from_secs(random(100)),
                _ => {}
            }
            rig.turns(Duration::ZERO);
        }
        // Whatever it has become, its end ends it.
        drop(host);
        let ids: Vec<Id> = rig.tcp.flows.keys().copied().collect();
        ids.into_iter().for_each(|id| rig.tcp.remove(id));
        assert!(rig.tcp.deadlines.is_empty() && rig.tcp.by_key.is_empty());
    }
}
