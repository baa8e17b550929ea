//! Device, guest and host programs on one thread.

use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use event_manager::{
    EventManager, EventOps, Events, MutEventSubscriber, SubscriberId, SubscriberOps,
};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
};
use vmm_sys_util::eventfd::EventFd;

use super::driver::Driver;
use super::guest::{GUEST, Guest};
use crate::virtio::device::{Activation, ActiveDevice, DeviceError, VirtioDevice};
use crate::virtio::feature;
use crate::virtio::interrupt::Interrupt;
use crate::virtio::vsock::{ActiveVsock, Port, Vsock, VsockConfig};

/// The host port that is offered to the guest.
pub(super) const HOST_PORT: u32 = 500;
/// Rounds after which something that should come to rest counts as spinning.
const MANY_ROUNDS: usize = 200_000;

/// What hosts the device, as the monitor's loop does.
#[derive(Debug)]
pub(super) struct Hosted {
    pub(super) device: ActiveVsock,
    pub(super) wakeups: usize,
    pub(super) error: Option<DeviceError>,
}

impl MutEventSubscriber for Hosted {
    fn process(&mut self, event: Events, ops: &mut EventOps<'_>) {
        self.wakeups += 1;
        if self.error.is_none() {
            self.error = self.device.process(event, ops).err();
        }
        if self.error.is_some() {
            ops.remove(event).unwrap();
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        self.device.register(ops).unwrap();
    }
}

pub(super) struct World {
    manager: EventManager<Hosted>,
    id: SubscriberId,
    pub(super) guest: Guest,
    pub(super) directory: tempfile::TempDir,
    /// The host's end of the acceptor for [`HOST_PORT`].
    pub(super) acceptor: OwnedFd,
    pub(super) interrupt: Interrupt,
}

/// What a device of the tests is given, and the host's ends of it.
pub(super) fn configuration(
    directory: &tempfile::TempDir,
    streams: Vec<OwnedFd>,
) -> (VsockConfig, OwnedFd) {
    let listener = UnixListener::bind(directory.path().join("vsock")).unwrap();
    let (acceptor, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .unwrap();
    let config = VsockConfig {
        guest_cid: GUEST,
        listener: Some(listener.into()),
        streams,
        host_ports: vec![(Port(HOST_PORT), theirs)],
    };
    (config, acceptor)
}

/// Drives a configured device.
pub(super) fn activate(device: Vsock) -> (ActiveVsock, Driver, Interrupt) {
    let (driver, queues) = Driver::new(device.queue_max_sizes());
    let interrupt = Interrupt::new(EventFd::new(libc::EFD_NONBLOCK).unwrap());
    let active = device.start(Activation {
        memory: driver.memory.clone(),
        queues,
        features: feature::VERSION_1 | feature::EVENT_IDX,
        interrupt: interrupt.clone(),
    });
    (active, driver, interrupt)
}

impl World {
    pub(super) fn new() -> World {
        Self::with_streams(Vec::new())
    }

    pub(super) fn with_streams(streams: Vec<OwnedFd>) -> World {
        let directory = tempfile::tempdir().unwrap();
        let (config, acceptor) = configuration(&directory, streams);
        Self::run(Vsock::new(config).unwrap(), directory, acceptor)
    }

    pub(super) fn run(device: Vsock, directory: tempfile::TempDir, acceptor: OwnedFd) -> World {
        let (device, driver, interrupt) = activate(device);
        let mut manager = EventManager::new().unwrap();
        let id = manager.add_subscriber(Hosted {
            device,
            wakeups: 0,
            error: None,
        });
        let mut world = World {
            manager,
            id,
            guest: Guest::new(driver),
            directory,
            acceptor,
            interrupt,
        };
        world.settle();
        world
    }

    pub(super) fn hosted(&mut self) -> &mut Hosted {
        self.manager.subscriber_mut(self.id).unwrap()
    }

    pub(super) fn device(&mut self) -> &mut ActiveVsock {
        &mut self.hosted().device
    }

    pub(super) fn wakeups(&mut self) -> usize {
        self.hosted().wakeups
    }

    /// Takes the device out of its loop and gives it to a new one, as after a pause.
    pub(super) fn park_and_unpark(&mut self) {
        let parked = self.manager.remove_subscriber(self.id).unwrap();
        self.manager = EventManager::new().unwrap();
        self.id = self.manager.add_subscriber(parked);
    }

    /// Stops the device and starts it again with a new driver.
    pub(super) fn restart_driver(mut self) -> World {
        let hosted = self.manager.remove_subscriber(self.id).unwrap();
        Self::run(hosted.device.stop(), self.directory, self.acceptor)
    }

    /// Lets the device handle the events of one moment.
    pub(super) fn one_round(&mut self) {
        self.manager.run_with_timeout(0).unwrap();
    }

    /// Lets the device alone do all that is due.
    pub(super) fn device_rounds(&mut self) -> bool {
        let mut active = false;
        for _ in 0..MANY_ROUNDS {
            if self.manager.run_with_timeout(0).unwrap() == 0 {
                return active;
            }
            active = true;
        }
        panic!("the device does not come to rest");
    }

    /// Lets device and guest do all that is due.
    pub(super) fn settle(&mut self) {
        for _ in 0..MANY_ROUNDS {
            let device = self.device_rounds();
            let guest = self.guest.step();
            if !device && !guest {
                return;
            }
        }
        panic!("device and guest do not come to rest");
    }

    /// Lets things happen until `done`, for what only a timer brings about.
    pub(super) fn settle_for(&mut self, most: Duration, mut done: impl FnMut(&mut World) -> bool) {
        let end = Instant::now() + most;
        loop {
            self.settle();
            if done(self) {
                return;
            }
            assert!(Instant::now() < end, "it did not happen");
            std::thread::yield_now();
        }
    }

    /// A host program connects to the listener and says something.
    pub(super) fn client(&mut self, line: &str) -> UnixStream {
        let mut client = UnixStream::connect(self.directory.path().join("vsock")).unwrap();
        client.set_nonblocking(true).unwrap();
        client.write_all(line.as_bytes()).unwrap();
        self.settle();
        client
    }

    /// A host program connects to a port that the guest listens on. Returns the host port too.
    pub(super) fn connect_to_guest(&mut self, port: u32) -> (UnixStream, u32) {
        self.guest.listening.insert(port);
        let mut client = self.client(&format!("CONNECT {port}\n"));
        let host = read_ok(&mut client);
        (client, host)
    }

    /// The guest connects to [`HOST_PORT`]. Returns the stream that the host's program got.
    pub(super) fn connect_to_host(&mut self, guest: u32) -> UnixStream {
        self.guest.connect(HOST_PORT, guest);
        self.settle();
        assert!(self.guest.socket(HOST_PORT, guest).accepted);
        let (port, stream) = self.accept().expect("the host was sent a stream");
        assert_eq!(port, HOST_PORT);
        stream
    }

    /// Takes a stream from the acceptor.
    pub(super) fn accept(&mut self) -> Option<(u32, UnixStream)> {
        let mut port = [0; 8];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::net::recvmsg(
            &self.acceptor,
            &mut [IoSliceMut::new(&mut port)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
        .ok()?;
        assert_eq!(received.bytes, 4);
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        })?;
        let stream = UnixStream::from(fd);
        stream.set_nonblocking(true).unwrap();
        Some((u32::from_le_bytes(*port.first_chunk().unwrap()), stream))
    }
}

/// Reads the answer to `CONNECT` and nothing behind it.
pub(super) fn read_ok(client: &mut UnixStream) -> u32 {
    let mut line = String::new();
    let mut byte = [0];
    while !line.ends_with('\n') {
        client.read_exact(&mut byte).expect("an answer is there");
        line.push(char::from(byte[0]));
    }
    let port = line
        .strip_prefix("OK ")
        .and_then(|rest| rest.strip_suffix('\n'));
    port.unwrap_or_else(|| panic!("not an answer: {line:?}"))
        .parse()
        .unwrap()
}

/// Whether the stream has ended, in order and with nothing left to read.
pub(super) fn is_at_end(stream: &mut UnixStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(0) => true,
        Ok(_) => panic!("there are bytes before the end"),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
        Err(error) => panic!("not an orderly end: {error}"),
    }
}

/// Reads what is there.
pub(super) fn read_available(stream: &mut UnixStream, into: &mut Vec<u8>) -> usize {
    let mut total = 0;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return total,
            Ok(count) => {
                into.extend_from_slice(&buffer[..count]);
                total += count;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return total,
            Err(error) => panic!("cannot read: {error}"),
        }
    }
}

/// Writes until nothing more is taken; returns how much was.
pub(super) fn write_available(stream: &mut UnixStream, bytes: &[u8]) -> usize {
    let mut total = 0;
    while total < bytes.len() {
        match stream.write(&bytes[total..]) {
            Ok(count) => total += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => panic!("cannot write: {error}"),
        }
    }
    total
}

/// Bytes that tell where they belong.
pub(super) fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
