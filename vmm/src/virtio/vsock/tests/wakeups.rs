//! The device sleeps while there is nothing it could do.

use std::io::{Read, Write};

use super::world::{HOST_PORT, World, pattern, read_available, write_available};
use crate::virtio::vsock::packet::Op;

/// Wakeups that `action` causes.
fn cost(world: &mut World, action: impl FnOnce(&mut World)) -> usize {
    let before = world.wakeups();
    action(world);
    world.settle();
    world.wakeups() - before
}

#[test]
fn an_idle_device_is_not_woken() {
    let mut world = World::new();
    let (_client, _) = world.connect_to_guest(1);
    let _stream = world.connect_to_host(2);
    for _ in 0..10 {
        assert_eq!(cost(&mut world, |_| {}), 0);
    }
}

#[test]
fn a_full_ring_lets_the_device_sleep_however_much_the_host_writes() {
    let mut world = World::new();
    let (mut client, host) = world.connect_to_guest(1);
    world.guest.driver.rx_wanted = 0;
    // Use up the buffers that are there, one for each byte, so that the socket stays empty.
    while !world.guest.driver.rx.has_room(128) {
        assert_eq!(write_available(&mut client, b"1"), 1);
        world.settle();
    }
    assert!(world.guest.driver.rx.has_room(128));
    let received = world.guest.socket(host, 1).received_count;
    let woken = cost(&mut world, |world| {
        for _ in 0..200 {
            assert_eq!(write_available(&mut client, b"more"), 4);
            world.device_rounds();
        }
    });
    assert!(woken <= 2, "{woken} wakeups for nothing");
    assert_eq!(world.guest.socket(host, 1).received_count, received);
    world.guest.driver.rx_wanted = 128;
    world.settle();
    assert_eq!(write_available(&mut client, b"end"), 3);
    world.settle();
    assert!(world.guest.socket(host, 1).received.ends_with(b"end"));
}

#[test]
fn a_guest_without_room_lets_the_device_sleep_however_much_the_host_writes() {
    let mut world = World::new();
    let (mut client, host) = world.connect_to_guest(1);
    world.guest.socket(host, 1).lazy = true;
    world.guest.buf_alloc = 1000;
    world.guest.send(Op::CreditUpdate, host, 1, 0, &[]);
    world.settle();
    write_available(&mut client, &pattern(1001));
    world.settle();
    let woken = cost(&mut world, |world| {
        for _ in 0..200 {
            write_available(&mut client, b"more");
            world.settle();
        }
    });
    assert!(woken <= 3, "{woken} wakeups for nothing");
    assert_eq!(world.guest.socket(host, 1).received.len(), 1000);
    world.guest.socket(host, 1).lazy = false;
    world.guest.socket(host, 1).read_count = 1000;
    world.guest.send(Op::CreditUpdate, host, 1, 0, &[]);
    world.settle();
    assert_eq!(world.guest.socket(host, 1).received.len(), 1801);
}

#[test]
fn a_host_that_reads_wakes_nobody_while_nothing_waits_for_it() {
    let mut world = World::new();
    let mut stream = world.connect_to_host(1);
    world
        .guest
        .socket(HOST_PORT, 1)
        .outgoing
        .extend(pattern(50_000));
    world.settle();
    let woken = cost(&mut world, |_| {
        let mut piece = [0; 1_000];
        for _ in 0..50 {
            stream.read_exact(&mut piece).unwrap();
        }
    });
    assert_eq!(woken, 0);
}

#[test]
fn a_host_that_closes_without_a_driver_buffer_wakes_the_device_once_or_twice() {
    let mut world = World::new();
    let (client, _) = world.connect_to_guest(1);
    world.guest.driver.rx_wanted = 0;
    world.guest.passive = true;
    world.settle();
    while world.guest.driver.rx.take().is_some() {}
    let woken = cost(&mut world, |_| drop(client));
    assert!((1..=2).contains(&woken), "{woken} wakeups");
}

#[test]
fn a_message_costs_few_wakeups_and_kicks() {
    let mut world = World::new();
    let (mut client, host) = world.connect_to_guest(1);
    let kicks = world.guest.driver.rx.kicks;
    for _ in 0..100 {
        let woken = cost(&mut world, |world| {
            client.write_all(b"question").unwrap();
            world.settle();
            world.guest.socket(host, 1).outgoing.extend(b"answer");
        });
        assert!(woken <= 2, "{woken} wakeups");
        let mut answer = Vec::new();
        read_available(&mut client, &mut answer);
        assert_eq!(answer, b"answer");
    }
    let kicks = world.guest.driver.rx.kicks - kicks;
    assert!(
        kicks <= 1,
        "{kicks} kicks for receive buffers nobody waits for"
    );
}
