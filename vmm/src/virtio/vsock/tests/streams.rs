//! Connections and the bytes they carry.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::guest::header;
use super::world::{
    HOST_PORT, World, activate, configuration, is_at_end, pattern, read_available, read_ok,
    write_available,
};
use crate::virtio::device::VirtioDevice;
use crate::virtio::vsock::packet::{Cid, Op, Port};
use crate::virtio::vsock::{Vsock, limits};

#[test]
fn a_client_of_the_listener_reaches_a_guest_program() {
    let mut world = World::new();
    let (mut client, host) = world.connect_to_guest(1024);
    client.write_all(b"ping").unwrap();
    world.guest.socket(host, 1024).outgoing.extend(b"pong");
    world.settle();
    assert_eq!(world.guest.socket(host, 1024).received, b"ping");
    let mut answer = Vec::new();
    read_available(&mut client, &mut answer);
    assert_eq!(answer, b"pong");
}

#[test]
fn a_configured_stream_reaches_a_guest_program() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut world = World::with_streams(vec![theirs.into()]);
    ours.set_nonblocking(true).unwrap();
    world.guest.listening.insert(7);
    let mut client = ours;
    client.write_all(b"CONN").unwrap();
    world.settle();
    client.write_all(b"ECT 7\nhello").unwrap();
    world.settle();
    let host = read_ok(&mut client);
    assert_eq!(world.guest.socket(host, 7).received, b"hello");
}

#[test]
fn a_line_sent_before_the_driver_runs_waits_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let (config, acceptor) = configuration(&directory, Vec::new());
    let device = Vsock::new(config).unwrap();
    let mut client = UnixStream::connect(directory.path().join("vsock")).unwrap();
    client.set_nonblocking(true).unwrap();
    client.write_all(b"CONNECT 9\n").unwrap();

    let mut world = World::run(device, directory, acceptor);
    world.guest.listening.insert(9);
    assert!(
        is_at_end(&mut client),
        "the driver ran, but nobody listened yet"
    );

    let (_, host) = world.connect_to_guest(9);
    assert!(host >= limits::FIRST_HOST_PORT);
}

#[test]
fn a_guest_program_reaches_a_host_port() {
    let mut world = World::new();
    let mut stream = world.connect_to_host(40_000);
    stream.write_all(b"welcome").unwrap();
    world
        .guest
        .socket(HOST_PORT, 40_000)
        .outgoing
        .extend(b"hello");
    world.settle();
    let mut said = Vec::new();
    read_available(&mut stream, &mut said);
    assert_eq!(said, b"hello");
    assert_eq!(world.guest.socket(HOST_PORT, 40_000).received, b"welcome");
}

#[test]
fn ports_that_nobody_serves_refuse() {
    let mut world = World::new();
    world.guest.connect(HOST_PORT + 1, 40_000);
    world.settle();
    assert!(world.guest.socket(HOST_PORT + 1, 40_000).was_reset);
    assert!(world.accept().is_none());

    let mut client = world.client("CONNECT 1\nand more");
    assert!(is_at_end(&mut client));
    for line in ["HELLO\n", "CONNECT x\n", &"CONNECT 1".repeat(10)] {
        let mut client = world.client(line);
        assert!(is_at_end(&mut client), "{line:?}");
    }
    assert_eq!(world.device().muxer.connections(), 0);
}

#[test]
fn a_host_port_whose_program_is_gone_refuses() {
    let mut world = World::new();
    let (gone, _) = UnixStream::pair().unwrap();
    world.acceptor = gone.into();
    world.guest.connect(HOST_PORT, 40_000);
    world.settle();
    assert!(world.guest.socket(HOST_PORT, 40_000).was_reset);
}

#[test]
fn an_acceptor_that_does_not_keep_up_refuses_instead_of_blocking() {
    let mut world = World::new();
    for guest in 0..u32::try_from(limits::MAX_CONNECTIONS).unwrap() * 8 {
        world.guest.connect(HOST_PORT, guest);
        world.settle();
        if world.guest.socket(HOST_PORT, guest).was_reset {
            return;
        }
        world.guest.send(Op::Rst, HOST_PORT, guest, 0, &[]);
        world.guest.sockets.clear();
    }
    panic!("nobody accepts, and the queue of streams has no end");
}

/// Sends `total` bytes each way at once and compares.
fn both_ways(world: &mut World, client: &mut UnixStream, host: u32, guest: u32, total: usize) {
    let down = pattern(total);
    let up: Vec<u8> = down.iter().rev().copied().collect();
    world.guest.socket(host, guest).outgoing.extend(&up);
    let (mut written, mut read) = (0, Vec::new());
    while written < total || read.len() < total {
        written += write_available(client, &down[written..]);
        let before = (
            written,
            read.len(),
            world.guest.socket(host, guest).received_count,
        );
        world.settle();
        read_available(client, &mut read);
        let after = (
            written,
            read.len(),
            world.guest.socket(host, guest).received_count,
        );
        assert!(
            before != after || written < total,
            "the stream is stuck at {after:?}"
        );
    }
    world.settle();
    assert!(read == up, "what the host read is what the guest sent");
    assert!(
        world.guest.socket(host, guest).received == down,
        "and the other way round"
    );
}

#[test]
fn megabytes_arrive_intact_in_both_directions() {
    let mut world = World::new();
    let (mut client, host) = world.connect_to_guest(1024);
    both_ways(&mut world, &mut client, host, 1024, 6 << 20);
}

#[test]
fn odd_sizes_and_small_buffers_arrive_intact() {
    let mut world = World::new();
    world.guest.buf_alloc = 10_007;
    world.guest.packet_len = 1_009;
    world.guest.driver.rx_buffer_len = 44 + 97;
    let (mut client, host) = world.connect_to_guest(1024);
    both_ways(&mut world, &mut client, host, 1024, 300_001);
}

#[test]
fn large_receive_buffers_take_at_most_a_packet() {
    let mut world = World::new();
    // The buffers that are there already are used up first.
    let (mut client, host) = world.connect_to_guest(1024);
    world.guest.driver.rx_buffer_len = 0x1_1000;
    both_ways(&mut world, &mut client, host, 1024, 3 << 20);
}

#[test]
fn fifty_megabytes_of_output_arrive_intact() {
    let mut world = World::new();
    let mut stream = world.connect_to_host(1);
    let piece = pattern(1 << 20);
    let mut read = Vec::new();
    for round in 0..50 {
        world.guest.socket(HOST_PORT, 1).outgoing.extend(&piece);
        read.clear();
        while read.len() < piece.len() {
            world.settle();
            let count = read_available(&mut stream, &mut read);
            assert!(count > 0, "the stream is stuck in round {round}");
        }
        assert!(read == piece, "round {round} arrived damaged");
    }
}

#[test]
fn connections_take_turns() {
    let mut world = World::new();
    let (mut busy, busy_host) = world.connect_to_guest(1);
    let (mut quiet, quiet_host) = world.connect_to_guest(2);
    world.guest.passive = true;
    world.guest.driver.rx_wanted = 8;
    write_available(&mut busy, &pattern(1 << 20));
    quiet.write_all(b"me too").unwrap();
    world.settle();
    let turns: Vec<u32> = world
        .guest
        .inbox
        .iter()
        .map(|p| p.header.src_port.0)
        .collect();
    let first = turns.iter().position(|port| *port == quiet_host).unwrap();
    assert!(
        first < 2,
        "the quiet one does not wait for the busy one: {turns:?}"
    );
    assert!(turns.iter().filter(|port| **port == busy_host).count() > 10);
}

#[test]
fn the_driver_is_interrupted_for_what_it_waits_for() {
    let mut world = World::new();
    let (mut client, _) = world.connect_to_guest(1);
    let _ = world.interrupt.line().read();
    client.write_all(b"news").unwrap();
    world.device_rounds();
    assert_eq!(world.interrupt.line().read().unwrap(), 1);
}

#[test]
fn a_parked_device_goes_on_where_it_was() {
    let mut world = World::new();
    let (mut client, host) = world.connect_to_guest(1);
    let pending = world.client("CONN");
    let data = pattern(100_000);
    world.guest.driver.rx_wanted = 0;
    let written = write_available(&mut client, &data);
    world.settle();
    world.park_and_unpark();
    world.guest.driver.rx_wanted = 100;
    world.settle();
    assert_eq!(world.guest.socket(host, 1).received, data[..written]);

    world.park_and_unpark();
    (&pending).write_all(b"ECT 1\n").unwrap();
    world.settle();
    read_ok(&mut { pending });
}

#[test]
fn a_device_parked_in_the_middle_of_its_work_finishes_it() {
    let mut world = World::new();
    for guest in 0..100 {
        let packet = header(Op::Rst, HOST_PORT, guest);
        assert!(world.guest.driver.send(&packet, &[]));
    }
    world.one_round();
    world.guest.driver.reclaim();
    assert!(
        !world.guest.driver.tx.has_room(128),
        "one round does not do it all"
    );
    world.park_and_unpark();
    world.settle();
    world.guest.driver.reclaim();
    assert!(world.guest.driver.tx.has_room(128));
}

#[test]
fn a_driver_that_starts_again_finds_the_same_device() {
    let (mut configured, theirs) = UnixStream::pair().unwrap();
    let mut world = World::with_streams(vec![theirs.into()]);
    configured.set_nonblocking(true).unwrap();
    configured.write_all(b"CONNECT ").unwrap();
    let (mut client, _) = world.connect_to_guest(1);
    let mut pending = world.client("CONN");

    let mut world = world.restart_driver();
    assert!(is_at_end(&mut client), "connections end with the driver");
    world.guest.listening.insert(1);
    pending.write_all(b"ECT 1\n").unwrap();
    configured.write_all(b"1\n").unwrap();
    world.settle();
    read_ok(&mut pending);
    read_ok(&mut configured);
    world.connect_to_guest(1);
    world.connect_to_host(2);
}

#[test]
fn a_reset_of_the_transport_ends_connections_and_tells_the_guest() {
    let mut world = World::new();
    let (mut client, _) = world.connect_to_guest(1);
    world.device().transport_reset().unwrap();
    assert!(is_at_end(&mut client));
    // The event waits for a buffer.
    assert!(world.guest.driver.event.take().is_none());
    world.guest.driver.event.offer(&[(0x9000, 8, true)]);
    world.settle();
    assert_eq!(world.guest.driver.event.take().map(|(_, len)| len), Some(4));
    // It is told once, and new connections work.
    world.guest.driver.event.offer(&[(0x9000, 8, true)]);
    world.guest.sockets.clear();
    let (_client, _) = world.connect_to_guest(1);
    assert!(world.guest.driver.event.take().is_none());
}

#[test]
fn a_copy_of_the_device_has_sockets_of_its_own() {
    let mut world = World::new();
    let (mut client, host) = world.connect_to_guest(1);
    let original = client.try_clone().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let (config, acceptor) = configuration(&elsewhere, Vec::new());
    world.guest.driver.event.offer(&[(0x9000, 8, true)]);
    world.device().rewire(config).unwrap();
    world.park_and_unpark();
    world.settle();
    assert!(world.guest.driver.event.take().is_some());
    assert!(
        is_at_end(&mut client),
        "here nobody else holds the other end"
    );
    drop(original);
    assert!(UnixStream::connect(world.directory.path().join("vsock")).is_err());

    world.directory = elsewhere;
    world.acceptor = acceptor;
    world.guest.sockets.clear();
    let (_, new_host) = world.connect_to_guest(1);
    assert_ne!(new_host, host);
    world.connect_to_host(2);
}

#[test]
fn the_configuration_space_holds_the_guest_cid() {
    let directory = tempfile::tempdir().unwrap();
    let (config, _acceptor) = configuration(&directory, Vec::new());
    let device = Vsock::new(config).unwrap();
    for (offset, expected) in [(0, [3, 0]), (1, [0, 0]), (8, [9, 9]), (u64::MAX, [9, 9])] {
        let mut data = [9; 2];
        device.read_config(offset, &mut data);
        assert_eq!(data, expected, "at {offset}");
    }
    let (_active, _driver, _interrupt) = activate(device);
}

#[test]
fn every_packet_to_the_guest_is_addressed_properly() {
    let mut world = World::new();
    world.guest.passive = true;
    let request = header(Op::Request, HOST_PORT, 77);
    world.guest.driver.send(&request, &[]);
    world.settle();
    let response = world.guest.inbox.remove(0).header;
    assert_eq!(response.op, Op::Response);
    assert_eq!((response.src_cid, response.dst_cid), (Cid::HOST, Cid(3)));
    assert_eq!(
        (response.src_port, response.dst_port),
        (Port(HOST_PORT), Port(77))
    );
    assert_eq!(response.buf_alloc, limits::BUF_ALLOC);
}

#[test]
fn reading_to_the_end_works_as_with_any_stream() {
    let mut world = World::new();
    let mut stream = world.connect_to_host(5);
    world
        .guest
        .socket(HOST_PORT, 5)
        .outgoing
        .extend(b"all of it");
    world.settle();
    world.guest.shutdown(HOST_PORT, 5, false, true);
    world.settle();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert_eq!(all, "all of it");
}
