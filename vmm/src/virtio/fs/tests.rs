//! FUSE messages through the device, against a real tree.

use std::os::fd::OwnedFd;

use pyro_rootfs::pack::{Metadata, PackLimits, PackedWriter};
use pyro_rootfs::tree::{PackedFiles, StackFiles, Tree};
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::virtio::device::GuestMemory;
use crate::virtio::test_driver::{BUFFERS, Driver, MEMORY_SIZE, Ring, memory, wait_for};

// FUSE opcodes (Linux `include/uapi/linux/fuse.h`).
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const READ: u32 = 15;
const WRITE: u32 = 16;
const INIT: u32 = 26;

const REQUEST: u64 = BUFFERS;
const DATA: u64 = BUFFERS + 0x1_0000;
const REPLY: u64 = BUFFERS + 0x2_0000;
const CONTENT: &[u8] = b"what the layer holds";

/// A device over one layer with the file `hello`.
fn device() -> (Fs, tempfile::TempDir) {
    let (index, data) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let mut writer = PackedWriter::new(&index, &data, PackLimits::default()).unwrap();
    let metadata = Metadata {
        mode: 0o644,
        ..Metadata::default()
    };
    writer
        .add_file(b"hello", metadata, &mut &CONTENT[..], CONTENT.len() as u64)
        .unwrap();
    writer.finish().unwrap();
    let writable = tempfile::tempdir().unwrap();
    let directory = OwnedFd::from(std::fs::File::open(writable.path()).unwrap());
    let stack = StackFiles::new(vec![PackedFiles { index, data }], directory);
    (
        Fs::new("root", Server::new(Tree::open(stack).unwrap())),
        writable,
    )
}

/// A guest with the device's two queues.
struct Guest<'a> {
    memory: &'a GuestMemory,
    driver: Driver,
    hiprio: Ring<'a>,
    requests: Ring<'a>,
    _writable: tempfile::TempDir,
}

impl<'a> Guest<'a> {
    fn new(memory: &'a GuestMemory) -> Self {
        let (device, writable) = device();
        let mut driver = Driver::new(Box::new(device), memory);
        let (hiprio, requests) = (Ring::new(memory, 0, 128), Ring::new(memory, 1, 256));
        driver.start(&[&hiprio, &requests]);
        Self {
            memory,
            driver,
            hiprio,
            requests,
            _writable: writable,
        }
    }

    fn write_request(&self, opcode: u32, node: u64, arguments: &[u8], data: usize) -> u32 {
        let len = u32::try_from(40 + arguments.len()).unwrap();
        let mut message = Vec::new();
        message.extend((len + data as u32).to_le_bytes());
        message.extend(opcode.to_le_bytes());
        message.extend(77u64.to_le_bytes());
        message.extend(node.to_le_bytes());
        message.extend([0; 16]);
        message.extend(arguments);
        self.memory
            .write_slice(&message, GuestAddress(REQUEST))
            .unwrap();
        len
    }

    /// Sends a request and returns error and body of its reply.
    fn ask(&mut self, opcode: u32, node: u64, arguments: &[u8], data: &[u8]) -> (i32, Vec<u8>) {
        let len = self.write_request(opcode, node, arguments, data.len());
        self.memory.write_slice(data, GuestAddress(DATA)).unwrap();
        // The header apart, the data in two pieces, the reply in three.
        let half = data.len() as u32 / 2;
        let rest = data.len() as u32 - half;
        let mut chain = vec![(REQUEST, 40, false), (REQUEST + 40, len - 40, false)];
        chain.extend([(DATA, half, false), (DATA + u64::from(half), rest, false)]);
        chain.extend([
            (REPLY, 16, true),
            (REPLY + 16, 7, true),
            (REPLY + 23, 4096, true),
        ]);
        self.requests.add(&chain);
        self.driver.kick(1);
        let (_, used) = self.requests.wait_used();
        let reply = self.requests.read(REPLY, used as usize);
        assert_eq!(reply[..4], used.to_le_bytes());
        assert_eq!(reply[8..16], 77u64.to_le_bytes());
        (
            i32::from_le_bytes(reply[4..8].try_into().unwrap()),
            reply[16..].to_vec(),
        )
    }

    fn init(&mut self) {
        let mut arguments = Vec::new();
        for word in [7u32, 38, 0, 0] {
            arguments.extend(word.to_le_bytes());
        }
        arguments.extend([0; 48]);
        let (error, body) = self.ask(INIT, 0, &arguments, &[]);
        assert_eq!((error, &body[..4]), (0, &7u32.to_le_bytes()[..]));
    }

    fn lookup(&mut self, name: &[u8]) -> Result<u64, i32> {
        match self.ask(LOOKUP, 1, name, &[]) {
            (0, body) => Ok(u64::from_le_bytes(body[..8].try_into().unwrap())),
            (error, _) => Err(error),
        }
    }

    fn read(&mut self, node: u64, offset: u64, size: u32) -> (i32, Vec<u8>) {
        let mut arguments = Vec::new();
        arguments.extend(0u64.to_le_bytes());
        arguments.extend(offset.to_le_bytes());
        arguments.extend(size.to_le_bytes());
        arguments.extend([0; 20]);
        self.ask(READ, node, &arguments, &[])
    }

    fn write(&mut self, node: u64, offset: u64, data: &[u8]) -> (i32, Vec<u8>) {
        let mut arguments = Vec::new();
        arguments.extend(0u64.to_le_bytes());
        arguments.extend(offset.to_le_bytes());
        arguments.extend((data.len() as u32).to_le_bytes());
        arguments.extend([0; 20]);
        self.ask(WRITE, node, &arguments, data)
    }
}

#[test]
fn the_configuration_holds_tag_and_one_request_queue() {
    let memory = memory();
    let mut guest = Guest::new(&memory);
    assert_eq!(guest.driver.read(0x100), u32::from_le_bytes(*b"root"));
    assert_eq!(guest.driver.read(0x104), 0);
    assert_eq!(guest.driver.read(0x100 + 36), 1);
}

#[test]
fn contents_go_to_and_from_guest_memory_across_segments() {
    let memory = memory();
    let mut guest = Guest::new(&memory);
    guest.init();
    let node = guest.lookup(b"hello\0").unwrap();
    assert_eq!(guest.read(node, 0, 4096), (0, CONTENT.to_vec()));
    assert_eq!(guest.read(node, 5, 3), (0, CONTENT[5..8].to_vec()));
    let (error, body) = guest.write(node, 5, b"THE GUEST SAYS THIS INSTEAD");
    assert_eq!((error, &body[..4]), (0, &27u32.to_le_bytes()[..]));
    assert_eq!(
        guest.read(node, 0, 4096).1,
        b"what THE GUEST SAYS THIS INSTEAD"
    );
    // A miss that the guest may remember: node 0.
    assert_eq!(guest.lookup(b"missing\0"), Ok(0));
}

#[test]
fn a_device_that_was_reset_serves_the_same_tree() {
    let memory = memory();
    let mut guest = Guest::new(&memory);
    guest.init();
    let node = guest.lookup(b"hello\0").unwrap();
    guest.write(node, 0, b"kept");
    guest.driver.write(0x070, 0);
    guest.hiprio = Ring::new(&memory, 0, 128);
    guest.requests = Ring::new(&memory, 1, 256);
    let rings = [&guest.hiprio, &guest.requests];
    guest.driver.start(&rings);
    guest.init();
    let node = guest.lookup(b"hello\0").unwrap();
    assert_eq!(guest.read(node, 0, 4).1, b"kept");
}

#[test]
fn a_guest_goes_on_over_a_freeze_and_a_sync() {
    let memory = memory();
    let mut guest = Guest::new(&memory);
    guest.init();
    let node = guest.lookup(b"hello\0").unwrap();
    guest.write(node, 0, b"1111");
    let top = tempfile::tempdir().unwrap();
    let directory = || OwnedFd::from(std::fs::File::open(top.path()).unwrap());
    guest.driver.while_parked(|root| {
        assert_eq!(root.slot(), crate::layout::Slot::Root);
        root.flush().unwrap();
        root.freeze(directory()).unwrap();
        // The answer was lost: asking again changes nothing.
        root.freeze(directory()).unwrap();
    });
    guest.write(node, 4, b"2222");
    assert_eq!(guest.read(node, 0, 8).1, b"11112222");
    assert_eq!(top.path().join("content").read_dir().unwrap().count(), 1);
    // A directory that is no good is refused, and the guest goes on.
    guest.driver.while_parked(|root| {
        let file = OwnedFd::from(tempfile::tempfile().unwrap());
        root.freeze(file).unwrap_err();
    });
    guest.write(node, 8, b"3333");
    assert_eq!(guest.read(node, 0, 12).1, b"111122223333");
}

#[test]
fn requests_without_reply_are_used_with_length_zero() {
    let memory = memory();
    let mut guest = Guest::new(&memory);
    guest.init();
    let node = guest.lookup(b"hello\0").unwrap();
    let len = guest.write_request(FORGET, node, &1u64.to_le_bytes(), 0);
    guest.hiprio.add(&[(REQUEST, len, false)]);
    guest.driver.kick(0);
    assert_eq!(guest.hiprio.wait_used(), (0, 0));
}

#[test]
fn one_kick_is_enough_for_a_full_queue() {
    let memory = memory();
    let mut guest = Guest::new(&memory);
    guest.init();
    let len = guest.write_request(LOOKUP, 1, b"hello\0", 0);
    for _ in 0..256 {
        guest
            .requests
            .add(&[(REQUEST, len, false), (REPLY, 256, true)]);
    }
    guest.driver.kick(1);
    for _ in 0..256 {
        assert_eq!(guest.requests.wait_used(), (0, 16 + 128));
    }
}

#[test]
fn cut_and_lying_requests_are_answered_or_dropped_and_the_next_served() {
    let memory = memory();
    let mut guest = Guest::new(&memory);
    guest.init();
    for len in [0, 1, 39] {
        guest.write_request(LOOKUP, 1, b"hello\0", 0);
        guest
            .requests
            .add(&[(REQUEST, len, false), (REPLY, 256, true)]);
        guest.driver.kick(1);
        guest.requests.wait_used();
    }
    // No room for a reply, or for a part of its header.
    for room in [0, 15] {
        let len = guest.write_request(LOOKUP, 1, b"hello\0", 0);
        guest
            .requests
            .add(&[(REQUEST, len, false), (REPLY, room, true)]);
        guest.driver.kick(1);
        assert_eq!(guest.requests.wait_used(), (0, 0));
    }
    // A read of more than there is room for.
    let node = guest.lookup(b"hello\0").unwrap();
    guest.read(node, 0, u32::MAX);
    assert!(guest.lookup(b"hello\0").is_ok());
}

#[test]
fn a_chain_outside_memory_stops_the_device() {
    let memory = memory();
    let mut guest = Guest::new(&memory);
    guest.requests.add(&[(MEMORY_SIZE - 8, 40, false)]);
    guest.driver.kick(1);
    wait_for(|| guest.driver.needs_reset().then_some(()));
}
