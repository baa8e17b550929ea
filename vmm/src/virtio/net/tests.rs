//! Frames through the device, and drivers and peers that misbehave.

use std::os::fd::OwnedFd;

use proptest::prelude::*;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use vm_memory::{Bytes, GuestAddress};

use super::device::{BUDGET, ETHERNET_LEN, HEADER_LEN, RX_SIZE};
use super::*;
use crate::virtio::device::GuestMemory;
use crate::virtio::test_driver::{
    BUFFERS, Driver, MEMORY_SIZE, NEXT, Ring, WRITE, memory, wait_for,
};

const MAC: [u8; 6] = [2, 1, 2, 3, 4, 5];
const MTU: u16 = 4000;
const RX: u32 = 0;
const TX: u32 = 1;
const TX_BUFFER: u64 = BUFFERS + 0x4_0000;

fn pair(kind: SocketType) -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, kind, flags, None).unwrap()
}

struct Guest<'a> {
    memory: &'a GuestMemory,
    driver: Driver,
    rx: Ring<'a>,
    tx: Ring<'a>,
    peer: OwnedFd,
}

impl<'a> Guest<'a> {
    fn new(memory: &'a GuestMemory) -> Self {
        let (ours, peer) = pair(SocketType::SEQPACKET);
        let net = Net::new(MAC, MTU, ours).unwrap();
        let mut driver = Driver::new(Box::new(net), memory);
        let (rx, tx) = (Ring::new(memory, 0, 64), Ring::new(memory, 1, 256));
        driver.start(&[&rx, &tx]);
        Self {
            memory,
            driver,
            rx,
            tx,
            peer,
        }
    }

    /// Makes a transmit chain of one segment available, a header and this frame.
    fn queue(&mut self, frame: &[u8]) {
        let mut bytes = vec![0xee; HEADER_LEN];
        bytes.extend(frame);
        self.memory
            .write_slice(&bytes, GuestAddress(TX_BUFFER))
            .unwrap();
        self.tx.add(&[(TX_BUFFER, bytes.len() as u32, false)]);
    }

    fn transmit(&mut self, frame: &[u8]) {
        self.queue(frame);
        self.driver.kick(TX);
        assert_eq!(self.tx.wait_used(), (0, 0));
    }

    /// The next frame that the peer gets.
    fn sent(&self) -> Vec<u8> {
        wait_for(|| receive(&self.peer))
    }

    fn offer(&mut self, len: u32) {
        self.rx.add(&[(BUFFERS, len, true)]);
        self.driver.kick(RX);
    }

    fn peer_sends(&self, frame: &[u8]) {
        assert_eq!(
            send(&self.peer, frame, SendFlags::NOSIGNAL),
            Ok(frame.len())
        );
    }
}

fn receive(peer: &OwnedFd) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 70_000];
    let (len, _) = recv(peer, &mut buffer[..], RecvFlags::DONTWAIT).ok()?;
    buffer.truncate(len);
    Some(buffer)
}

fn frame(fill: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| fill.wrapping_add(at as u8)).collect()
}

#[test]
fn the_configuration_holds_address_and_packet_size() {
    let memory = memory();
    let mut guest = Guest::new(&memory);
    let mut config = [0; 12];
    for (at, word) in config.chunks_mut(4).enumerate() {
        let word: &mut [u8; 4] = word.try_into().unwrap();
        *word = guest.driver.read(0x100 + 4 * at as u64).to_le_bytes();
    }
    assert_eq!(config[..6], MAC);
    assert_eq!(config[10..], MTU.to_le_bytes());
}

#[test]
fn only_a_socket_that_keeps_messages_apart_is_taken() {
    for kind in [SocketType::STREAM, SocketType::DGRAM] {
        let (ours, _theirs) = pair(kind);
        assert!(matches!(
            Net::new(MAC, MTU, ours),
            Err(NetError::SocketType)
        ));
    }
}

#[test]
fn frames_of_every_length_go_out_as_they_are() {
    let memory = memory();
    let mut guest = Guest::new(&memory);
    for len in [ETHERNET_LEN, 60, 1514, usize::from(MTU) + ETHERNET_LEN] {
        guest.transmit(&frame(1, len));
        assert_eq!(guest.sent(), frame(1, len));
    }
}

#[test]
fn a_scattered_frame_goes_out_whole() {
    let memory = memory();
    let mut guest = Guest::new(&memory);
    let bytes = frame(7, 100);
    memory
        .write_slice(&bytes, GuestAddress(TX_BUFFER + 0x100))
        .unwrap();
    let at = TX_BUFFER + 0x100;
    guest.tx.add(&[
        (TX_BUFFER, 5, false),
        (TX_BUFFER + 0x50, 7, false),
        (at, 1, false),
        (at + 1, 60, false),
        (at + 61, 39, false),
    ]);
    guest.driver.kick(TX);
    assert_eq!(guest.sent(), bytes);
}

#[test]
fn frames_come_in_with_a_header_that_vouches_for_their_checksums() {
    let memory = memory();
    let mut guest = Guest::new(&memory);
    for len in [ETHERNET_LEN, 1514, usize::from(MTU) + ETHERNET_LEN] {
        guest.peer_sends(&frame(9, len));
        guest.offer(0x2000);
        assert_eq!(guest.rx.wait_used(), (0, (HEADER_LEN + len) as u32));
        let got = guest.rx.read(BUFFERS, HEADER_LEN + len);
        assert_eq!(got[..HEADER_LEN], [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        assert_eq!(got[HEADER_LEN..], frame(9, len));
    }
}

#[test]
fn a_peer_that_does_not_read_holds_the_driver_up_and_loses_nothing() {
    const COUNT: usize = 255;
    let memory = memory();
    let mut guest = Guest::new(&memory);
    let long = frame(3, usize::from(MTU));
    // As many as such a socket takes.
    let (ours, _theirs) = pair(SocketType::SEQPACKET);
    let full = (0..COUNT).take_while(|_| send(&ours, &long, SendFlags::DONTWAIT).is_ok());
    let room = full.count();
    assert!(room < COUNT);

    for _ in 0..COUNT {
        guest.queue(&long);
    }
    guest.driver.kick(TX);
    for _ in 0..room {
        guest.tx.wait_used();
    }
    guest.driver.kick(TX);
    guest.driver.while_parked(|_| ());
    assert_eq!(guest.tx.take_used(), None);
    for _ in 0..COUNT {
        assert_eq!(guest.sent(), long);
    }
    for _ in room..COUNT {
        guest.tx.wait_used();
    }
}

#[test]
fn frames_wait_in_the_socket_until_there_are_buffers() {
    let memory = memory();
    let mut guest = Guest::new(&memory);
    for fill in 0..20 {
        guest.peer_sends(&frame(fill, 100));
    }
    for fill in 0..20 {
        guest.offer(0x1000);
        guest.rx.wait_used();
        assert_eq!(guest.rx.read(BUFFERS + 12, 100), frame(fill, 100));
    }
}

#[test]
fn more_frames_than_a_budget_all_pass_in_order() {
    let memory = memory();
    let mut guest = Guest::new(&memory);
    let count = 2 * BUDGET + 3;
    for _ in 0..count {
        guest.queue(&frame(5, 64));
    }
    guest.driver.kick(TX);
    for _ in 0..count {
        assert_eq!(guest.sent(), frame(5, 64));
    }
    // Each buffer apart, so that all are offered at once.
    for index in 0..RX_SIZE {
        let address = BUFFERS + u64::from(index) * 0x200;
        guest
            .rx
            .write_descriptors(index, &[(address, 0x200, WRITE, 0)]);
        guest.rx.make_available(index);
    }
    for fill in 0..RX_SIZE {
        guest.peer_sends(&frame(fill as u8, 64));
    }
    guest.driver.kick(RX);
    for fill in 0..RX_SIZE {
        let (head, _) = guest.rx.wait_used();
        let address = BUFFERS + u64::from(head) * 0x200 + HEADER_LEN as u64;
        assert_eq!(guest.rx.read(address, 64), frame(fill as u8, 64));
    }
}

#[test]
fn what_is_no_frame_is_dropped_in_both_directions() {
    let memory = memory();
    let mut guest = Guest::new(&memory);
    for len in [0, 1, ETHERNET_LEN - 1, usize::from(MTU) + ETHERNET_LEN + 1] {
        guest.transmit(&frame(1, len));
    }
    // Not even a header; and nothing to read at all.
    guest.tx.add(&[(TX_BUFFER, 3, false)]);
    guest.driver.kick(TX);
    guest.tx.wait_used();
    guest.tx.add(&[(TX_BUFFER, 100, true)]);
    guest.driver.kick(TX);
    guest.tx.wait_used();
    guest.transmit(&frame(2, 60));
    assert_eq!(guest.sent(), frame(2, 60));

    for len in [1, ETHERNET_LEN - 1, usize::from(MTU) + ETHERNET_LEN + 1] {
        guest.peer_sends(&frame(1, len));
    }
    guest.peer_sends(&frame(2, 60));
    guest.offer(0x2000);
    assert_eq!(guest.rx.wait_used(), (0, 72));
}

#[test]
fn buffers_too_small_for_a_frame_go_back_and_a_frame_too_long_for_one_is_lost() {
    let memory = memory();
    let mut guest = Guest::new(&memory);
    for len in [1, 12, 25] {
        guest.offer(len);
        assert_eq!(guest.rx.wait_used(), (0, 0));
    }
    guest.rx.add(&[(BUFFERS, 100, false)]);
    guest.driver.kick(RX);
    assert_eq!(guest.rx.wait_used(), (0, 0));
    guest.peer_sends(&frame(1, 1000));
    guest.peer_sends(&frame(2, 60));
    guest.offer(100);
    assert_eq!(guest.rx.wait_used(), (0, 72));
    assert_eq!(guest.rx.read(BUFFERS + 12, 60), frame(2, 60));
}

#[test]
fn without_a_peer_the_guest_s_frames_are_dropped_and_the_device_lives() {
    let memory = memory();
    let mut guest = Guest::new(&memory);
    guest.offer(0x1000);
    let (unused, _) = pair(SocketType::SEQPACKET);
    drop(std::mem::replace(&mut guest.peer, unused));
    for _ in 0..5 {
        guest.transmit(&frame(1, 60));
    }
    assert!(!guest.driver.needs_reset());
    assert_eq!(guest.rx.take_used(), None);
}

#[test]
fn a_broken_chain_stops_the_device() {
    for (queue, flags) in [(RX, WRITE), (TX, 0)] {
        let memory = memory();
        let mut guest = Guest::new(&memory);
        let ring = if queue == RX {
            &mut guest.rx
        } else {
            &mut guest.tx
        };
        ring.write_descriptors(0, &[(MEMORY_SIZE - 1, 100, flags, 0)]);
        ring.make_available(0);
        guest.driver.kick(queue);
        wait_for(|| guest.driver.needs_reset().then_some(()));
    }
}

#[test]
fn parked_and_reset_it_keeps_its_socket_and_what_waits_there() {
    let memory = memory();
    let mut guest = Guest::new(&memory);
    guest.transmit(&frame(1, 60));
    guest.driver.while_parked(|_| ());
    guest.peer_sends(&frame(3, 60));
    guest.driver.while_parked(|_| ());
    guest.driver.write(0x070, 0);
    let (rx, tx) = (Ring::new(&memory, 0, 64), Ring::new(&memory, 1, 256));
    guest.driver.start(&[&rx, &tx]);
    (guest.rx, guest.tx) = (rx, tx);
    guest.offer(0x1000);
    guest.rx.wait_used();
    assert_eq!(guest.rx.read(BUFFERS + 12, 60), frame(3, 60));
    guest.transmit(&frame(2, 60));
    assert_eq!(guest.sent(), frame(1, 60));
    assert_eq!(guest.sent(), frame(2, 60));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever chains there are, the device ends up broken or empty, and never stuck.
    #[test]
    fn random_chains_are_all_used_or_stop_the_device(
        chains in prop::collection::vec(
            (any::<bool>(), prop::collection::vec((0u64..MEMORY_SIZE + 64, 0u32..9000, any::<bool>(), 0u16..70), 1..6)),
            1..24,
        ),
        frames in prop::collection::vec(0usize..6000, 0..24),
    ) {
        let memory = memory();
        let mut guest = Guest::new(&memory);
        for len in frames {
            if len > 0 {
                guest.peer_sends(&frame(1, len));
            }
        }
        let mut offered = 0;
        for (is_tx, segments) in chains {
            let ring = if is_tx { &mut guest.tx } else { &mut guest.rx };
            let last = segments.len() - 1;
            let descriptors: Vec<_> = segments
                .iter()
                .enumerate()
                .map(|(at, (address, len, writable, next))| {
                    let write = if *writable { WRITE } else { 0 };
                    // Mostly proper chains, sometimes to wherever.
                    let link = match next {
                        0 => (NEXT, 69),
                        _ if at < last => (NEXT, at as u16 + 1),
                        _ => (0, 0),
                    };
                    (*address, *len, write | link.0, link.1)
                })
                .collect();
            ring.write_descriptors(0, &descriptors);
            ring.make_available(0);
            guest.driver.kick(if is_tx { TX } else { RX });
            offered += usize::from(is_tx);
            while receive(&guest.peer).is_some() {}
            if guest.driver.needs_reset() {
                return Ok(());
            }
        }
        let mut used = 0;
        wait_for(|| {
            while receive(&guest.peer).is_some() {}
            used += std::iter::from_fn(|| guest.tx.take_used()).count();
            (used == offered || guest.driver.needs_reset()).then_some(())
        });
    }
}
