//! Guests that do not keep the rules.

use super::driver::{Driver, Piece};
use super::guest::header;
use super::world::{HOST_PORT, World, is_at_end, read_available};
use crate::virtio::device::DeviceError;
use crate::virtio::queue::QueueError;
use crate::virtio::vsock::packet::{Cid, HEADER_LEN, Header, Op, Port};

const BUFFER: u64 = 0x100_0000;

/// A world with an open connection from guest port 1, and a guest that only listens.
fn connected() -> (World, std::os::unix::net::UnixStream) {
    let mut world = World::new();
    let stream = world.connect_to_host(1);
    world.guest.passive = true;
    (world, stream)
}

/// Sends one packet and returns the headers that come back.
fn answers(world: &mut World, header: &Header, data: &[u8]) -> Vec<Header> {
    assert!(world.guest.driver.send(header, data));
    world.settle();
    world
        .guest
        .inbox
        .drain(..)
        .map(|packet| packet.header)
        .collect()
}

/// Sends bytes as a chain of these pieces and returns the headers that come back.
fn answers_to_chain(world: &mut World, bytes: &Header, pieces: &[Piece]) -> Vec<Header> {
    let memory = world.guest.driver.memory.clone();
    let whole = [&bytes.to_bytes()[..], &[7; 256]].concat();
    vm_memory::Bytes::write_slice(&*memory, &whole, vm_memory::GuestAddress(BUFFER)).unwrap();
    world.guest.driver.reclaim();
    world.guest.driver.tx.offer(pieces);
    world.settle();
    world.guest.driver.reclaim();
    world
        .guest
        .inbox
        .drain(..)
        .map(|packet| packet.header)
        .collect()
}

#[test]
fn packets_of_no_connection_are_reset_unless_they_are_resets() {
    let mut world = World::new();
    world.guest.passive = true;
    for op in [1, 2, 4, 5, 6, 7, 0, 8, 0xffff] {
        let packet = header(Op::from(op), HOST_PORT + 1, 9);
        let answers = answers(&mut world, &packet, &[]);
        assert_eq!(answers, [packet.reset()], "op {op}");
    }
    assert!(answers(&mut world, &header(Op::Rst, HOST_PORT, 9), &[]).is_empty());
}

#[test]
fn wrong_addresses_and_types_do_not_reach_a_connection() {
    let (mut world, mut stream) = connected();
    let data = header(Op::Rw, HOST_PORT, 1);
    let data = Header { len: 3, ..data };
    for cid in [0, 1, 2, 4, 3 << 32, 3 | 1 << 32, u64::MAX] {
        let forged = Header {
            src_cid: Cid(cid),
            ..data
        };
        assert!(
            answers(&mut world, &forged, b"bad").is_empty(),
            "from {cid}"
        );
    }
    for cid in [0, 1, 3, 2 | 1 << 32, u64::MAX] {
        let astray = Header {
            dst_cid: Cid(cid),
            ..data
        };
        assert_eq!(
            answers(&mut world, &astray, b"bad"),
            [astray.reset()],
            "to {cid}"
        );
    }
    for socket_type in [0, 2, 3, u16::MAX] {
        let packet = Header {
            socket_type,
            ..data
        };
        assert_eq!(
            answers(&mut world, &packet, b"bad"),
            [packet.reset()],
            "{socket_type}"
        );
        let reset = Header {
            socket_type,
            ..header(Op::Rst, HOST_PORT, 1)
        };
        assert!(answers(&mut world, &reset, &[]).is_empty());
    }
    assert!(answers(&mut world, &data, b"yes").is_empty());
    let mut read = Vec::new();
    read_available(&mut stream, &mut read);
    assert_eq!(read, b"yes");
}

#[test]
fn operations_in_the_wrong_state_reset_the_connection() {
    for op in [1, 2, 0, 8, 0xffff] {
        let (mut world, mut stream) = connected();
        let answers = answers(&mut world, &header(Op::from(op), HOST_PORT, 1), &[]);
        assert_eq!(answers.len(), 1, "op {op}");
        assert_eq!(answers[0].op, Op::Rst);
        assert!(is_at_end(&mut stream));
        assert_eq!(world.device().muxer.connections(), 0);
    }
    // Before the guest has answered a request.
    for op in [1, 4, 5, 6, 7, 0, 9] {
        let mut world = World::new();
        world.guest.passive = true;
        let mut client = world.client("CONNECT 1\n");
        let host = world.guest.inbox.remove(0).header.src_port.0;
        let answers = answers(&mut world, &header(Op::from(op), host, 1), &[]);
        assert_eq!(answers.len(), 1, "op {op}");
        assert_eq!(answers[0].op, Op::Rst);
        assert!(is_at_end(&mut client), "the client was refused");
    }
}

#[test]
fn data_after_the_end_of_data_resets() {
    let (mut world, _stream) = connected();
    let end = Header {
        flags: 2,
        ..header(Op::Shutdown, HOST_PORT, 1)
    };
    assert!(answers(&mut world, &end, &[]).is_empty());
    let data = Header {
        len: 1,
        ..header(Op::Rw, HOST_PORT, 1)
    };
    assert_eq!(answers(&mut world, &data, b"x")[0].op, Op::Rst);
}

#[test]
fn a_length_that_lies_resets() {
    for len in [4, 65_537, 0x7fff_ffff, u32::MAX] {
        let (mut world, mut stream) = connected();
        let packet = Header {
            len,
            ..header(Op::Rw, HOST_PORT, 1)
        };
        assert_eq!(answers(&mut world, &packet, b"abc")[0].op, Op::Rst, "{len}");
        assert!(is_at_end(&mut stream));
    }
    // Longer than told is no lie: the rest is padding.
    let (mut world, mut stream) = connected();
    let packet = Header {
        len: 2,
        ..header(Op::Rw, HOST_PORT, 1)
    };
    assert!(answers(&mut world, &packet, b"abc").is_empty());
    let mut read = Vec::new();
    read_available(&mut stream, &mut read);
    assert_eq!(read, b"ab");
}

#[test]
fn a_packet_larger_than_allowed_resets_even_if_it_is_all_there() {
    let (mut world, _stream) = connected();
    let data = vec![1; 65_537];
    let packet = Header {
        len: 65_537,
        ..header(Op::Rw, HOST_PORT, 1)
    };
    assert_eq!(answers(&mut world, &packet, &data)[0].op, Op::Rst);
}

#[test]
fn chains_without_a_whole_header_are_dropped() {
    let (mut world, _stream) = connected();
    let packet = header(Op::Rw, HOST_PORT, 1);
    for pieces in [
        &[(BUFFER, 0, false)][..],
        &[(BUFFER, 43, false)],
        &[(BUFFER, 20, false), (BUFFER + 20, 23, false)],
        &[(BUFFER, 44, true)],
        &[(BUFFER, 20, false), (BUFFER + 20, 24, true)],
    ] {
        assert!(
            answers_to_chain(&mut world, &packet, pieces).is_empty(),
            "{pieces:?}"
        );
    }
    assert_eq!(world.device().muxer.connections(), 1);
}

#[test]
fn descriptors_may_be_cut_anywhere() {
    let (mut world, mut stream) = connected();
    let packet = Header {
        len: 100,
        ..header(Op::Rw, HOST_PORT, 1)
    };
    let single: Vec<Piece> = (0..60).map(|at| (BUFFER + at, 1, false)).collect();
    for pieces in [
        vec![(BUFFER, 144, false)],
        vec![(BUFFER, 43, false), (BUFFER + 43, 101, false)],
        vec![
            (BUFFER, 1, false),
            (BUFFER + 1, 0, false),
            (BUFFER + 1, 143, false),
        ],
        [&single[..], &[(BUFFER + 60, 84, false)]].concat(),
        vec![(BUFFER, 144, false), (BUFFER + 200, 10, true)],
    ] {
        let answers = answers_to_chain(&mut world, &packet, &pieces);
        assert!(answers.is_empty(), "{pieces:?}: {answers:?}");
        let mut read = Vec::new();
        read_available(&mut stream, &mut read);
        assert_eq!(read, [7; 100], "{pieces:?}");
    }
}

#[test]
fn receive_buffers_may_be_cut_anywhere() {
    let (mut world, mut stream) = connected();
    world.guest.driver.rx_wanted = 0;
    world.settle();
    // Use up what is there.
    while !world.guest.driver.rx.has_room(128) {
        assert!(
            world
                .guest
                .driver
                .send(&header(Op::CreditRequest, HOST_PORT, 1), &[])
        );
        world.settle();
    }
    world.guest.inbox.clear();
    let at = Driver::rx_buffer(0);
    let rx = &mut world.guest.driver.rx;
    rx.offer(&[(at, 0, true)]);
    rx.offer(&[(at, 43, true)]);
    rx.offer(&[(at, 44, false)]);
    rx.offer(&[(at, 44, true)]);
    let pieces: Vec<Piece> = (0..50).map(|n| (at + 0x100 + n, 1, true)).collect();
    rx.offer(&[&[(at, 8, false)], &pieces[..]].concat());
    std::io::Write::write_all(&mut stream, b"sixsix").unwrap();
    world.device_rounds();
    let mut lens = Vec::new();
    while let Some((_, len)) = world.guest.driver.rx.take() {
        lens.push(len);
    }
    assert_eq!(
        lens,
        [0, 0, 0, 0, 50],
        "too small ones come back empty, the last is full"
    );
    let mut bytes = [0; 50];
    let memory = world.guest.driver.memory.clone();
    vm_memory::Bytes::read_slice(&*memory, &mut bytes, vm_memory::GuestAddress(at + 0x100))
        .unwrap();
    let (head, data) = bytes.split_first_chunk::<HEADER_LEN>().unwrap();
    let header = Header::from_bytes(head);
    assert_eq!(
        (header.op, header.len, header.dst_port),
        (Op::Rw, 6, Port(1))
    );
    assert_eq!(data, b"sixsix");
}

#[test]
fn receive_buffers_too_small_for_a_header_lose_no_packet() {
    let (mut world, _stream) = connected();
    world.guest.driver.rx_wanted = 0;
    while !world.guest.driver.rx.has_room(128) {
        assert!(
            world
                .guest
                .driver
                .send(&header(Op::CreditRequest, HOST_PORT, 1), &[])
        );
        world.settle();
    }
    let at = Driver::rx_buffer(0);
    for packet in [
        header(Op::CreditRequest, HOST_PORT, 1),
        header(Op::Rw, 9, 9),
    ] {
        world.guest.driver.rx.offer(&[(at, 43, true)]);
        world.guest.driver.rx.offer(&[(at, 44, true)]);
        assert!(world.guest.driver.send(&packet, &[]));
        world.device_rounds();
        let mut take = || world.guest.driver.rx.take().map(|(_, len)| len);
        assert_eq!([take(), take()], [Some(0), Some(44)], "{:?}", packet.op);
    }
    assert_eq!(world.device().muxer.connections(), 1);
}

#[test]
fn credit_that_makes_no_sense_harms_only_its_own_connection() {
    let (mut world, mut stream) = connected();
    let mut other = {
        world.guest.passive = false;
        let stream = world.connect_to_host(2);
        world.guest.passive = true;
        stream
    };
    for (buf_alloc, fwd_cnt) in [
        (0, 0),
        (0, u32::MAX),
        (1, 1 << 31),
        (u32::MAX, u32::MAX),
        (u32::MAX, 1),
        (5, 6),
    ] {
        let packet = Header {
            buf_alloc,
            fwd_cnt,
            ..header(Op::CreditUpdate, HOST_PORT, 1)
        };
        std::io::Write::write_all(&mut stream, b"for one").unwrap();
        answers(&mut world, &packet, &[]);
    }
    std::io::Write::write_all(&mut other, b"for two").unwrap();
    world.settle();
    let data: Vec<u8> = world
        .guest
        .inbox
        .iter()
        .filter(|packet| packet.header.dst_port == Port(2))
        .flat_map(|packet| packet.data.clone())
        .collect();
    assert_eq!(data, b"for two");
    assert_eq!(world.device().muxer.connections(), 2);
}

#[test]
fn a_broken_queue_stops_the_device_and_ends_its_streams() {
    let (mut world, mut stream) = connected();
    world.guest.driver.tx.describe(0, BUFFER, 44, 1, 0); // its own successor
    world.guest.driver.tx.publish(0);
    world.settle();
    let error = world.hosted().error.take();
    assert!(
        matches!(error, Some(DeviceError::Queue(QueueError::BadChain { .. }))),
        "{error:?}"
    );
    assert!(is_at_end(&mut stream));
}

#[test]
fn a_buffer_outside_memory_stops_the_device() {
    for pieces in [
        [(super::driver::MEMORY - 10, 44, false)],
        [(u64::MAX - 3, 44, false)],
        [(BUFFER, u32::MAX, false)],
    ] {
        let (mut world, _stream) = connected();
        world.guest.driver.tx.offer(&pieces);
        world.settle();
        assert!(world.hosted().error.is_some(), "{pieces:?}");
    }
}

#[test]
fn an_available_index_that_jumps_stops_the_device() {
    let (mut world, _stream) = connected();
    for _ in 0..200 {
        world.guest.driver.tx.publish(0);
    }
    world.settle();
    assert!(world.hosted().error.is_some());
}
