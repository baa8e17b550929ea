//! Guests that send anything at all: the process lives, answers and stays small.

use std::os::fd::OwnedFd;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::lab::{Process, spawn, spawn_with_log, wait_for};

const GATEWAY: [u8; 6] = [0x02, 0x70, 0x79, 0x72, 0x6f, 0x02];
const GUEST: [u8; 6] = [0x02, 0x70, 0x79, 0x72, 0x6f, 0x0f];

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An IPv4 frame of the guest with a proper header.
fn ip_frame(protocol: u8, to: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut frame = [&GATEWAY[..], &GUEST, &[8, 0]].concat();
    let length = u16::try_from(20 + body.len()).unwrap().to_be_bytes();
    let mut header = vec![
        0x45, 0, length[0], length[1], 0, 1, 0x40, 0, 64, protocol, 0, 0,
    ];
    header.extend([10, 0, 2, 15]);
    header.extend(to);
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    frame.extend(header);
    frame.extend(body);
    frame
}

fn tcp(from: u16, to: u16, flags: u8, extra: &[u8]) -> Vec<u8> {
    let mut segment = [&from.to_be_bytes()[..], &to.to_be_bytes()].concat();
    segment.extend([
        0,
        0,
        0,
        9,
        0,
        0,
        0,
        9,
        5 << 4,
        flags,
        0xff,
        0xff,
        0,
        0,
        0,
        0,
    ]);
    segment.extend(extra);
    segment
}

fn echo_request() -> Vec<u8> {
    let mut message = vec![8, 0, 0, 0, 0, 7, 0, 1, 1, 2, 3, 4];
    let sum = checksum(&message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    message
}

fn frames_of(process: &Process) -> &OwnedFd {
    process.guest.as_ref().unwrap()
}

/// Frames to the guest that are there now.
fn drain(process: &Process) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut buffer = vec![0; 70_000];
    while let Ok((length, _)) = recv(frames_of(process), &mut buffer[..], RecvFlags::DONTWAIT) {
        frames.push(buffer[..length].to_vec());
    }
    frames
}

fn put(process: &Process, frame: &[u8]) {
    wait_for(|| {
        drain(process);
        send(
            frames_of(process),
            frame,
            SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
        )
        .ok()
    });
}

/// It still answers an echo request.
fn answers(process: &Process) {
    drain(process);
    let asked = ip_frame(1, [10, 0, 2, 2], &echo_request());
    put(process, &asked);
    wait_for(|| {
        let replies = drain(process);
        replies
            .iter()
            .any(|frame| frame.get(34) == Some(&0) && frame[23] == 1)
            .then_some(())
    });
}

#[test]
fn the_gateway_and_the_resolver_answer_and_nobody_else_does() {
    let process = Process::start(|_| ());
    answers(&process);
    for (to, kind) in [
        ([10, 0, 2, 3], 0),
        ([203, 0, 113, 1], 3),
        ([10, 0, 2, 9], 3),
    ] {
        drain(&process);
        put(&process, &ip_frame(1, to, &echo_request()));
        let reply = wait_for(|| drain(&process).pop());
        assert_eq!((reply[23], reply[34]), (1, kind), "{to:?}");
        assert_eq!(checksum(&reply[34..]), 0);
        assert_eq!(checksum(&reply[14..34]), 0);
    }
}

#[test]
fn the_gateway_answers_for_every_address_but_the_guest_s() {
    let process = Process::start(|_| ());
    let arp = |target: [u8; 4]| {
        let mut frame = [
            &[0xff; 6][..],
            &GUEST,
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
            &GUEST,
        ]
        .concat();
        frame.extend([10, 0, 2, 15, 0, 0, 0, 0, 0, 0]);
        frame.extend(target);
        frame
    };
    put(&process, &arp([10, 0, 2, 15]));
    put(&process, &arp([10, 0, 2, 2]));
    let reply = wait_for(|| drain(&process).pop());
    assert_eq!(reply[20..22], [0, 2]);
    assert_eq!(reply[22..28], GATEWAY);
    assert_eq!(reply[28..32], [10, 0, 2, 2]);
}

#[test]
fn mangled_frames_neither_end_it_nor_make_it_grow() {
    let mut process = Process::start(|_| ());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner =
        proptest::test_runner::TestRunner::new_with_rng(ProptestConfig::default(), rng);
    let samples = [
        ip_frame(6, [203, 0, 113, 1], &tcp(4000, 80, 2, b"")),
        ip_frame(6, [10, 0, 2, 2], &tcp(4001, 80, 16, b"data")),
        ip_frame(6, [10, 0, 2, 3], &tcp(4002, 53, 2, b"")),
        ip_frame(
            17,
            [10, 0, 2, 3],
            &[0, 9, 0, 53, 0, 30, 0, 0, 1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0],
        ),
        ip_frame(17, [127, 0, 0, 1], &[0, 9, 0, 53, 0, 8, 0, 0]),
        ip_frame(1, [10, 0, 2, 2], &echo_request()),
        [&[0xff; 6][..], &GUEST, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat(),
        [&GATEWAY[..], &GUEST, &[0x86, 0xdd, 0x60]].concat(),
    ];
    let change = (
        0..samples.len(),
        0usize..80,
        any::<u8>(),
        0usize..90,
        any::<bool>(),
    );
    answers(&process);
    let before = process.resident_kib();
    for _ in 0..6000 {
        let tree = change.new_tree(&mut runner).unwrap();
        let (sample, at, byte, length, fix) = tree.current();
        let mut frame = samples[sample].clone();
        let index = at % frame.len();
        frame[index] = byte;
        frame.resize(length.max(1), byte);
        if fix && frame.len() >= 34 {
            // So that what lies behind the header's checksum is reached.
            frame[24..26].fill(0);
            let header = usize::from(frame[14] & 15) * 4;
            if let Some(header) = frame.get(14..14 + header) {
                let sum = checksum(header).to_be_bytes();
                frame[24..26].copy_from_slice(&sum);
            }
        }
        put(&process, &frame);
    }
    answers(&process);
    assert!(process.is_alive());
    let grown = process.resident_kib().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB");
}

#[test]
fn segments_of_no_connection_are_reset_once_each() {
    let process = Process::start(|_| ());
    for number in 0..2000u16 {
        put(
            &process,
            &ip_frame(6, [203, 0, 113, 1], &tcp(1000 + number, 80, 16, b"x")),
        );
    }
    // Never an answer to an answer.
    drain(&process);
    answers(&process);
    put(
        &process,
        &ip_frame(6, [203, 0, 113, 1], &tcp(9, 80, 4, b"")),
    );
    answers(&process);
}

#[test]
fn a_guest_that_takes_nothing_is_not_read_from_and_costs_nothing() {
    let mut process = Process::start(|_| ());
    answers(&process);
    let before = process.resident_kib();
    let asked = ip_frame(1, [10, 0, 2, 2], &echo_request());
    let mut sent = 0;
    // Until the socket is full both ways.
    while sent < 100_000 && send(frames_of(&process), &asked, SendFlags::DONTWAIT).is_ok() {
        sent += 1;
        if sent % 64 == 0 {
            std::thread::yield_now();
        }
    }
    process.stats();
    let grown = process.resident_kib().saturating_sub(before);
    assert!(grown < 4 << 10, "{grown} KiB for {sent} frames");
    answers(&process);
}

#[test]
fn configurations_that_make_no_sense_are_refused() {
    type Change = fn(&mut pyro_net::config::Config);
    let changes: [Change; 6] = [
        |config| config.generation = 0,
        |config| config.addresses.mtu = 100,
        |config| config.addresses.guest_mac[0] = 1,
        |config| config.addresses.gateway = config.addresses.guest,
        |config| config.control_listener_fd = config.frames_fd,
        |config| config.frames_fd = 2,
    ];
    for change in changes {
        let mut process = Process::start(change);
        assert_eq!(process.child.wait().unwrap().code(), Some(1));
    }
    let mut child = spawn(&"no configuration", &[]);
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn a_network_that_cannot_go_on_says_why_in_its_log() {
    use std::os::fd::AsRawFd;
    let mut log = tempfile::tempfile().unwrap();
    let (frames, _guest) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    // A file is nothing that can be listened on, which shows behind the sandbox.
    let fds = [frames, tempfile::tempfile().unwrap().into()];
    let config = pyro_net::config::Config {
        generation: pyro_net::config::GENERATION,
        frames_fd: fds[0].as_raw_fd(),
        control_listener_fd: fds[1].as_raw_fd(),
        vsock_fd: None,
        addresses: pyro_net::config::Addresses::default(),
        egress_allow: Vec::new(),
        limits: pyro_net::config::Limits::default(),
    };
    let mut child = spawn_with_log(&config, &fds, log.try_clone().unwrap().into());
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let mut text = String::new();
    std::io::Seek::rewind(&mut log).unwrap();
    std::io::Read::read_to_string(&mut log, &mut text).unwrap();
    assert!(text.starts_with("pyro-net: "), "{text:?}");
}
