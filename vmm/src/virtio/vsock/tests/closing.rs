//! How connections end.

use std::io::{self, Read, Write};
use std::net::Shutdown as Side;
use std::time::Duration;

use super::world::{HOST_PORT, World, is_at_end, pattern, read_available, write_available};
use crate::virtio::device::ActiveDevice;
use crate::virtio::vsock::limits;
use crate::virtio::vsock::packet::{Op, Shutdown};

const SEND: Shutdown = Shutdown {
    receive: false,
    send: true,
};

#[test]
fn the_guests_end_of_output_leaves_its_input_open() {
    let mut world = World::new();
    let mut stream = world.connect_to_host(1);
    world
        .guest
        .socket(HOST_PORT, 1)
        .outgoing
        .extend(b"last words");
    world.settle();
    world.guest.shutdown(HOST_PORT, 1, false, true);
    world.settle();
    let mut said = [0; 10];
    stream.read_exact(&mut said).unwrap();
    assert!(is_at_end(&mut stream));

    stream.write_all(b"heard").unwrap();
    world.settle();
    assert_eq!(world.guest.socket(HOST_PORT, 1).received, b"heard");
    assert!(!world.guest.socket(HOST_PORT, 1).was_reset);
}

#[test]
fn the_hosts_end_of_output_leaves_its_input_open() {
    // `cat` in the guest: it answers until its input ends.
    let mut world = World::new();
    let (mut client, host) = world.connect_to_guest(1);
    let sent = pattern(150_000);
    assert_eq!(write_available(&mut client, &sent), sent.len());
    client.shutdown(Side::Write).unwrap();
    world.settle();
    let socket = world.guest.socket(host, 1);
    assert_eq!(socket.peer_shutdown, SEND);
    assert_eq!(socket.received, sent);
    socket.outgoing.extend(&sent);
    world.settle();
    world.guest.shutdown(host, 1, true, true);
    let mut answer = Vec::new();
    while !answer.ends_with(&sent) {
        world.settle();
        assert!(read_available(&mut client, &mut answer) > 0);
    }
    world.settle();
    assert!(is_at_end(&mut client));
    assert!(
        world.guest.socket(host, 1).was_reset,
        "a full shutdown is answered by a reset"
    );
    assert_eq!(world.device().muxer.connections(), 0);
}

#[test]
fn a_guest_that_stops_reading_breaks_the_hosts_pipe() {
    let mut world = World::new();
    let (mut client, host) = world.connect_to_guest(1);
    world.guest.shutdown(host, 1, true, false);
    world.settle();
    let error = client.write_all(b"anyone?").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    world.guest.socket(host, 1).outgoing.extend(b"still here");
    world.settle();
    let mut said = Vec::new();
    read_available(&mut client, &mut said);
    assert_eq!(said, b"still here");
}

#[test]
fn a_host_that_stops_reading_is_told_to_the_guest() {
    let mut world = World::new();
    let (mut client, host) = world.connect_to_guest(1);
    client.shutdown(Side::Read).unwrap();
    world
        .guest
        .socket(host, 1)
        .outgoing
        .extend(pattern(300_000));
    world.settle();
    let socket = world.guest.socket(host, 1);
    assert!(socket.peer_shutdown.receive && !socket.peer_shutdown.send);
    assert!(
        socket.outgoing.is_empty(),
        "what is dropped still gives its credit back"
    );
    client.write_all(b"on").unwrap();
    world.settle();
    assert_eq!(world.guest.socket(host, 1).received, b"on");
}

#[test]
fn a_host_that_closes_is_told_after_its_last_byte() {
    let mut world = World::new();
    let (mut client, host) = world.connect_to_guest(1);
    world.guest.socket(host, 1).lazy = true;
    world.guest.buf_alloc = 10_000;
    world.guest.send(Op::CreditUpdate, host, 1, 0, &[]);
    world.settle();
    let sent = pattern(50_000);
    assert_eq!(write_available(&mut client, &sent), sent.len());
    drop(client);
    world.settle();
    let socket = world.guest.socket(host, 1);
    assert_eq!(socket.received.len(), 10_000);
    assert_eq!(socket.peer_shutdown, Shutdown::default());
    socket.lazy = false;
    socket.read_count = socket.received_count;
    world.guest.send(Op::CreditUpdate, host, 1, 0, &[]);
    world.settle();
    let socket = world.guest.socket(host, 1);
    assert_eq!(socket.received, sent);
    assert!(socket.peer_shutdown.both());
}

#[test]
fn a_guest_that_does_not_answer_a_close_is_reset_in_time() {
    let mut world = World::new();
    let (client, host) = world.connect_to_guest(1);
    drop(client);
    world.settle();
    assert!(world.guest.socket(host, 1).peer_shutdown.both());
    assert!(!world.guest.socket(host, 1).was_reset);
    world
        .device()
        .muxer
        .let_pass(limits::CLOSE_TIMEOUT + Duration::from_secs(1));
    world.settle_for(Duration::from_secs(1), |world| {
        world.guest.socket(host, 1).was_reset
    });
    assert_eq!(world.device().muxer.connections(), 0);
}

#[test]
fn a_guest_that_does_not_answer_a_request_is_given_up() {
    let mut world = World::new();
    world.guest.passive = true;
    let mut client = world.client("CONNECT 1\n");
    assert_eq!(world.guest.inbox.len(), 1);
    assert!(!is_at_end(&mut client));
    world
        .device()
        .muxer
        .let_pass(limits::CONNECT_TIMEOUT + Duration::from_secs(1));
    world.settle_for(Duration::from_secs(1), |world| world.guest.inbox.len() == 2);
    assert_eq!(world.guest.inbox[1].header.op, Op::Rst);
    assert!(is_at_end(&mut client));
}

#[test]
fn a_client_that_dawdles_is_closed_but_a_configured_one_is_not() {
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut world = World::with_streams(vec![theirs.into()]);
    let mut client = world.client("CONN");
    world
        .device()
        .muxer
        .let_pass(limits::HANDSHAKE_TIMEOUT + Duration::from_secs(1));
    world.settle_for(Duration::from_secs(1), |_| is_at_end(&mut client));
    assert!(!is_at_end(&mut ours));
}

#[test]
fn a_guest_that_closes_loses_no_byte_to_a_slow_reader() {
    for answer_with in [Op::Shutdown, Op::Rst] {
        let mut world = World::new();
        let mut stream = world.connect_to_host(1);
        let sent = pattern(400_000);
        world.guest.socket(HOST_PORT, 1).outgoing.extend(&sent);
        world.settle();
        let left = world.guest.socket(HOST_PORT, 1).outgoing.len();
        assert_eq!(left, 0, "the socket and the credit hold it");
        world.guest.send(answer_with, HOST_PORT, 1, 3, &[]);
        world.settle();
        assert_eq!(
            world.guest.socket(HOST_PORT, 1).was_reset,
            answer_with == Op::Shutdown
        );

        // The guest may use the same port again at once.
        let mut again = world.connect_to_host(1);
        world.guest.socket(HOST_PORT, 1).outgoing.extend(b"again");
        world.settle();
        let mut said = Vec::new();
        read_available(&mut again, &mut said);
        assert_eq!(said, b"again");

        let mut read = Vec::new();
        while read.len() < sent.len() {
            assert!(read_available(&mut stream, &mut read) > 0);
            world.settle();
        }
        assert!(read == sent);
        assert!(is_at_end(&mut stream));
        assert_eq!(world.device().muxer.connections(), 1);
    }
}

#[test]
fn a_slow_reader_still_sees_the_guests_end_of_output() {
    let mut world = World::new();
    let mut stream = world.connect_to_host(1);
    let sent = pattern(400_000);
    world.guest.socket(HOST_PORT, 1).outgoing.extend(&sent);
    world.settle();
    world.guest.shutdown(HOST_PORT, 1, false, true);
    world.settle();
    let mut read = Vec::new();
    while read.len() < sent.len() {
        assert!(read_available(&mut stream, &mut read) > 0);
        world.settle();
    }
    assert!(is_at_end(&mut stream));
    stream.write_all(b"thanks").unwrap();
    world.settle();
    assert_eq!(world.guest.socket(HOST_PORT, 1).received, b"thanks");
}

#[test]
fn a_host_that_gives_up_with_output_waiting_frees_the_guests_credit() {
    let mut world = World::new();
    let stream = world.connect_to_host(1);
    let socket = world.guest.socket(HOST_PORT, 1);
    socket.outgoing.extend(pattern(2 << 20));
    world.settle();
    assert!(!world.guest.socket(HOST_PORT, 1).outgoing.is_empty());
    stream.shutdown(Side::Both).unwrap();
    world.settle();
    let socket = world.guest.socket(HOST_PORT, 1);
    assert!(socket.peer_shutdown.both());
    assert!(socket.outgoing.is_empty(), "the guest is not stuck");
}

#[test]
fn a_host_that_closes_over_unread_output_resets() {
    let mut world = World::new();
    let stream = world.connect_to_host(1);
    let socket = world.guest.socket(HOST_PORT, 1);
    socket.outgoing.extend(b"nobody reads this");
    world.settle();
    drop(stream);
    world.settle();
    assert!(world.guest.socket(HOST_PORT, 1).was_reset);
    assert_eq!(world.device().muxer.connections(), 0);
}

#[test]
fn unread_input_of_the_guest_does_not_spoil_the_hosts_end_of_file() {
    let mut world = World::new();
    let (mut client, host) = world.connect_to_guest(1);
    world.guest.socket(host, 1).lazy = true;
    world
        .guest
        .socket(host, 1)
        .outgoing
        .extend(b"head -1 has enough");
    world.settle();
    write_available(&mut client, &pattern(400_000));
    world.settle();
    world.guest.shutdown(host, 1, true, true);
    world.settle();
    let mut said = Vec::new();
    read_available(&mut client, &mut said);
    assert_eq!(said, b"head -1 has enough");
    assert!(is_at_end(&mut client));
}

#[test]
fn half_closes_of_both_sides_add_up_to_a_close() {
    let mut world = World::new();
    let (client, host) = world.connect_to_guest(1);
    world.guest.shutdown(host, 1, false, true);
    world.settle();
    client.shutdown(Side::Write).unwrap();
    world.settle();
    assert!(world.guest.socket(host, 1).peer_shutdown.send);
    world.guest.shutdown(host, 1, true, true);
    world.settle();
    assert!(world.guest.socket(host, 1).was_reset);
    assert_eq!(world.device().muxer.connections(), 0);
}

#[test]
fn the_end_of_the_vm_waits_for_what_the_guest_sent_last() {
    let mut world = World::new();
    let mut stream = world.connect_to_host(1);
    let sent = pattern(400_000);
    for piece in sent.chunks(50_000) {
        // Nobody looks at the queue before the end.
        world.guest.send(Op::Rw, HOST_PORT, 1, 0, piece);
    }
    world.guest.send(Op::Shutdown, HOST_PORT, 1, 3, &[]);
    stream.set_nonblocking(false).unwrap();
    let reader = std::thread::spawn(move || {
        let mut read = Vec::new();
        stream.read_to_end(&mut read).map(|_| read)
    });
    world.device().flush().unwrap();
    drop(world);
    assert!(reader.join().unwrap().unwrap() == sent);
}

#[test]
fn the_end_of_the_vm_does_not_wait_for_ever() {
    let mut world = World::new();
    let _stream = world.connect_to_host(1);
    world
        .guest
        .socket(HOST_PORT, 1)
        .outgoing
        .extend(pattern(400_000));
    world.settle();
    let error = world.device().flush().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}
