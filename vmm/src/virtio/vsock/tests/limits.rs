//! What neither side can exceed.

use std::io::Write;

use std::os::unix::net::UnixStream;

use super::guest::header;
use super::world::{HOST_PORT, World, is_at_end, pattern, read_available, write_available};
use crate::virtio::vsock::limits::{
    BUF_ALLOC, MAX_CONNECTIONS, MAX_HANDSHAKES, MAX_PENDING_RESETS,
};
use crate::virtio::vsock::packet::Op;

#[test]
fn the_guest_gets_no_more_than_its_credit_and_is_asked_once() {
    let mut world = World::new();
    let (mut client, host) = world.connect_to_guest(1);
    world.guest.passive = true;
    world.guest.buf_alloc = 10_000;
    world.guest.send(Op::CreditUpdate, host, 1, 0, &[]);
    world.settle();
    write_available(&mut client, &pattern(100_000));
    world.settle();
    let sent: usize = world
        .guest
        .inbox
        .iter()
        .map(|packet| packet.data.len())
        .sum();
    assert_eq!(sent, 10_000);
    let asked = |world: &World| {
        let asks = |p: &&super::driver::Packet| p.header.op == Op::CreditRequest;
        world.guest.inbox.iter().filter(asks).count()
    };
    assert_eq!(asked(&world), 1);

    // An answer without room changes nothing, but the next time it is asked again.
    world.guest.send(Op::CreditUpdate, host, 1, 0, &[]);
    world.settle();
    assert_eq!(asked(&world), 1);
    world.guest.buf_alloc = 10_001;
    world.guest.send(Op::CreditUpdate, host, 1, 0, &[]);
    world.settle();
    let sent: usize = world
        .guest
        .inbox
        .iter()
        .map(|packet| packet.data.len())
        .sum();
    assert_eq!(sent, 10_001);
    assert_eq!(asked(&world), 2);
}

#[test]
fn a_slow_reader_holds_the_guest_back_and_nobody_else() {
    let mut world = World::new();
    let mut slow = world.connect_to_host(1);
    let mut quick = world.connect_to_host(2);
    let sent = pattern(2 << 20);
    world.guest.socket(HOST_PORT, 1).outgoing.extend(&sent);
    world.settle();
    assert!(!world.guest.socket(HOST_PORT, 1).outgoing.is_empty());
    assert!(world.device().muxer.memory() <= BUF_ALLOC as usize + 64 * 1024);

    world
        .guest
        .socket(HOST_PORT, 2)
        .outgoing
        .extend(b"not held back");
    world.settle();
    let mut said = Vec::new();
    read_available(&mut quick, &mut said);
    assert_eq!(said, b"not held back");

    let mut read = Vec::new();
    while read.len() < sent.len() {
        assert!(
            read_available(&mut slow, &mut read) > 0,
            "stuck at {}",
            read.len()
        );
        world.settle();
    }
    assert!(read == sent);
    assert!(
        world.device().muxer.memory() < 64 * 1024,
        "an empty backlog holds no memory"
    );
}

#[test]
fn a_guest_that_overruns_its_credit_is_reset() {
    let mut world = World::new();
    let mut stream = world.connect_to_host(1);
    let data = vec![1; 64 * 1024];
    for _ in 0..32 {
        world.guest.send(Op::Rw, HOST_PORT, 1, 0, &data);
        world.settle();
        assert!(world.device().muxer.memory() <= BUF_ALLOC as usize + 64 * 1024);
    }
    assert!(world.guest.socket(HOST_PORT, 1).was_reset);
    assert_eq!(world.device().muxer.connections(), 0);
    let mut read = Vec::new();
    read_available(&mut stream, &mut read);
    assert!(is_at_end(&mut stream));
}

#[test]
fn connections_are_capped_from_both_sides() {
    let mut world = World::new();
    let mut streams = Vec::new();
    for guest in 0..u32::try_from(MAX_CONNECTIONS).unwrap() {
        streams.push(world.connect_to_host(guest));
    }
    world.guest.connect(HOST_PORT, 10_000);
    world.settle();
    assert!(world.guest.socket(HOST_PORT, 10_000).was_reset);
    world.guest.listening.insert(1);
    let mut client = world.client("CONNECT 1\n");
    assert!(is_at_end(&mut client));

    // One less, and there is room for one more.
    world.guest.shutdown(HOST_PORT, 0, true, true);
    world.settle();
    world.connect_to_guest(1);
    assert_eq!(world.device().muxer.connections(), MAX_CONNECTIONS);
}

#[test]
fn those_that_only_drain_give_way_to_new_connections() {
    let mut world = World::new();
    let mut streams = Vec::new();
    let count = u32::try_from(MAX_CONNECTIONS).unwrap();
    for guest in 0..count {
        let stream = world.connect_to_host(guest);
        if guest < 2 {
            world
                .guest
                .socket(HOST_PORT, guest)
                .outgoing
                .extend(pattern(400_000));
            world.settle();
            world.guest.shutdown(HOST_PORT, guest, true, true);
            world.settle();
        }
        streams.push(stream);
    }
    assert_eq!(world.device().muxer.connections(), MAX_CONNECTIONS);
    streams.push(world.connect_to_host(count));
    assert_eq!(world.device().muxer.connections(), MAX_CONNECTIONS);
    let complete = |world: &mut World, stream: &mut UnixStream| {
        let mut read = Vec::new();
        while read_available(stream, &mut read) > 0 {
            world.settle();
        }
        read.len() == 400_000
    };
    assert!(
        !complete(&mut world, &mut streams[0]),
        "the oldest gave way"
    );
    assert!(
        complete(&mut world, &mut streams[1]),
        "the next did not have to"
    );
}

#[test]
fn clients_that_say_nothing_do_not_keep_others_out() {
    let mut world = World::new();
    let silent: Vec<_> = (0..MAX_HANDSHAKES).map(|_| world.client("")).collect();
    world.guest.listening.insert(1);
    let mut late = world.client("CONNECT 1\n");
    assert_eq!(late.write(b"").unwrap(), 0);
    assert!(!is_at_end(&mut late), "it waits in the backlog");
    let before = world.wakeups();
    world.settle();
    assert_eq!(world.wakeups(), before, "and wakes nobody there");
    drop(silent);
    world.settle();
    super::world::read_ok(&mut late);
}

#[test]
fn resets_owed_to_a_guest_that_takes_none_are_bounded() {
    let mut world = World::new();
    world.guest.driver.rx_wanted = 0;
    world.settle();
    // The buffers that were there take the first ones.
    for guest in 0..4_000 {
        assert!(world.guest.driver.send(&header(Op::Rw, 9, guest), &[]));
        world.device_rounds();
    }
    assert!(world.device().muxer.memory() < 64 * 1024);
    world.guest.driver.rx_wanted = 128;
    world.guest.passive = true;
    world.settle();
    assert!(world.guest.inbox.len() <= MAX_PENDING_RESETS + 128);
}

#[test]
fn connections_that_come_and_go_leave_nothing_behind() {
    let mut world = World::new();
    world.guest.driver.rx_wanted = 0;
    world.guest.passive = true;
    // Use up the buffers that are there.
    while !world.guest.driver.rx.has_room(128) {
        assert!(world.guest.driver.send(&header(Op::Rw, 9, 9), &[]));
        world.settle();
    }
    for round in 0..2_000_u32 {
        assert!(
            world
                .guest
                .driver
                .send(&header(Op::Request, HOST_PORT, round % 7), &[])
        );
        assert!(
            world
                .guest
                .driver
                .send(&header(Op::Rst, HOST_PORT, round % 7), &[])
        );
        world.device_rounds();
        world.accept();
    }
    assert_eq!(world.device().muxer.connections(), 0);
    assert!(world.device().muxer.memory() < 4 * 1024);
}
