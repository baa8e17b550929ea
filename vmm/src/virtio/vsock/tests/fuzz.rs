//! Random guests and hosts: whatever they do, the device comes to rest, holds little and lives.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use proptest::prelude::*;

use super::driver::Piece;
use super::guest::GUEST;
use super::world::{HOST_PORT, World};
use crate::virtio::vsock::limits::{BUF_ALLOC, FIRST_HOST_PORT};
use crate::virtio::vsock::packet::{Cid, Header, Op, Port};

const BUFFER: u64 = 0x100_0000;
/// Ports of each side that take part, so that connections meet.
const PORTS: u32 = 3;

#[derive(Debug, Clone)]
enum Action {
    /// The guest sends a packet, cut into these lengths.
    Packet { header: Header, cuts: Vec<u32> },
    /// The guest offers a receive buffer, cut into these lengths.
    Buffer { cuts: Vec<u32> },
    /// The guest takes what it was given.
    Take,
    /// A client connects and says this.
    Client(String),
    /// A host program does something with one of its streams.
    Host { which: usize, what: HostAction },
    /// The device is parked and goes on.
    Park,
    /// All connections are dropped, as by a restore.
    TransportReset,
}

#[derive(Debug, Clone)]
enum HostAction {
    Write(usize),
    Read(usize),
    Close,
    ShutdownRead,
    ShutdownWrite,
}

fn any_header() -> impl Strategy<Value = Header> {
    let cid = |usual: Cid| prop_oneof![19 => Just(usual), 1 => any::<u64>().prop_map(Cid)];
    let op = prop_oneof![
        3 => Just(1), 3 => Just(2), 1 => Just(3), 2 => Just(4), 8 => Just(5), 2 => Just(6),
        1 => Just(7), 1 => any::<u16>(),
    ];
    let host = prop_oneof![
        4 => (0..PORTS).prop_map(|n| FIRST_HOST_PORT + n),
        4 => Just(HOST_PORT),
        1 => any::<u32>(),
    ];
    let len = prop_oneof![6 => 0..5000_u32, 2 => Just(65_536), 1 => any::<u32>()];
    let credit = prop_oneof![4 => Just(256 * 1024), 1 => 0..100_u32, 1 => any::<u32>()];
    let fwd_cnt = prop_oneof![3 => Just(0), 1 => any::<u32>()];
    let socket_type = prop_oneof![30 => Just(1), 1 => any::<u16>()];
    let addresses = (cid(GUEST), cid(Cid::HOST), host, 0..PORTS);
    (addresses, op, len, 0..8_u32, credit, fwd_cnt, socket_type).prop_map(
        |((src_cid, dst_cid, host, guest), op, len, flags, buf_alloc, fwd_cnt, socket_type)| {
            Header {
                src_cid,
                dst_cid,
                src_port: Port(guest),
                dst_port: Port(host),
                len,
                socket_type,
                op: Op::from(op),
                flags,
                buf_alloc,
                fwd_cnt,
            }
        },
    )
}

fn any_action() -> impl Strategy<Value = Action> {
    let cuts = || prop::collection::vec(prop_oneof![0..100_u32, 4000..70_000_u32], 1..6);
    let usual = || prop_oneof![3 => Just(vec![44, 65_536]), 1 => cuts()];
    let line = prop_oneof![
        4 => (0..PORTS).prop_map(|port| format!("CONNECT {port}\n")),
        1 => "[A-Z0-9 \n]{0,40}",
    ];
    let what = prop_oneof![
        4 => (0..100_000_usize).prop_map(HostAction::Write),
        4 => (0..100_000_usize).prop_map(HostAction::Read),
        1 => Just(HostAction::Close),
        1 => Just(HostAction::ShutdownRead),
        1 => Just(HostAction::ShutdownWrite),
    ];
    prop_oneof![
        30 => (any_header(), usual()).prop_map(|(header, cuts)| Action::Packet { header, cuts }),
        15 => prop_oneof![Just(vec![4096]), cuts()].prop_map(|cuts| Action::Buffer { cuts }),
        5 => Just(Action::Take),
        4 => line.prop_map(Action::Client),
        15 => (any::<usize>(), what).prop_map(|(which, what)| Action::Host { which, what }),
        1 => Just(Action::Park),
        1 => Just(Action::TransportReset),
    ]
}

/// Lays buffers of these lengths one after the other.
fn pieces(start: u64, cuts: &[u32], writable: bool) -> Vec<Piece> {
    let mut at = start;
    cuts.iter()
        .map(|len| {
            let piece = (at, *len, writable);
            at += u64::from(*len);
            piece
        })
        .collect()
}

fn on_host(streams: &mut Vec<UnixStream>, which: usize, what: &HostAction) {
    if streams.is_empty() {
        return;
    }
    let which = which % streams.len();
    let stream = &mut streams[which];
    // Streams may have ended in any way; only the device is on trial.
    let _ = match what {
        HostAction::Write(count) => stream.write(&vec![5; *count]).map(drop),
        HostAction::Read(count) => stream.read(&mut vec![0; *count]).map(drop),
        HostAction::ShutdownRead => stream.shutdown(std::net::Shutdown::Read),
        HostAction::ShutdownWrite => stream.shutdown(std::net::Shutdown::Write),
        HostAction::Close => {
            streams.remove(which);
            Ok(())
        }
    };
}

fn perform(world: &mut World, streams: &mut Vec<UnixStream>, action: &Action) {
    let driver = &mut world.guest.driver;
    match action {
        Action::Packet { header, cuts } => {
            driver.reclaim();
            let bytes = vm_memory::GuestAddress(BUFFER);
            vm_memory::Bytes::write_slice(&*driver.memory, &header.to_bytes(), bytes).unwrap();
            if driver.tx.has_room(cuts.len()) {
                driver.tx.offer(&pieces(BUFFER, cuts, false));
            }
        }
        Action::Buffer { cuts } => {
            if driver.rx.has_room(cuts.len()) {
                driver.rx.offer(&pieces(BUFFER + 0x10_0000, cuts, true));
            }
        }
        Action::Take => while driver.rx.take().is_some() {},
        Action::Client(line) => {
            let path = world.directory.path().join("vsock");
            let mut client = UnixStream::connect(path).unwrap();
            client.set_nonblocking(true).unwrap();
            client.write_all(line.as_bytes()).unwrap();
            streams.push(client);
        }
        Action::Host { which, what } => on_host(streams, *which, what),
        Action::Park => world.park_and_unpark(),
        Action::TransportReset => world.device().transport_reset().unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn nothing_a_guest_or_a_host_does_hurts(
        actions in prop::collection::vec(any_action(), 1..150)
    ) {
        let mut world = World::new();
        world.guest.driver.rx_wanted = 0;
        let mut streams = Vec::new();
        for action in &actions {
            perform(&mut world, &mut streams, action);
            world.device_rounds();
            while let Some((_, stream)) = world.accept() {
                streams.push(stream);
            }
            prop_assert!(world.hosted().error.is_none(), "{:?}", world.hosted().error);
            let connections = world.device().muxer.connections();
            prop_assert!(connections <= streams.len() + actions.len());
            let memory = world.device().muxer.memory();
            let most = connections * BUF_ALLOC as usize + 64 * 1024;
            prop_assert!(memory <= most, "{memory} bytes for {connections} connections");
        }
    }
}
