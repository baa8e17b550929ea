//! Runs one command in a guest with a network, put together by hand:
//! `guest IMAGES ENVIRONMENT PROGRAMS COMMAND`, where PROGRAMS is the folder of `pyro-vmm`,
//! `pyro-net` and `pyro-agent`. With `PUBLISH=PORT`, a client on the host reads what that port of the
//! guest says, while the command runs.
#![allow(clippy::unwrap_used, reason = "an example that fails has failed")]

use std::fs::File;
use std::io::{IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use pyro_agent_protocol::{
    AGENT_PORT, Decoder, Event, Exec, Frame, FrameKind, GENERATION, Hello, Network, READY_PORT,
    Request, Welcome, encode_message,
};
use pyro_images::initramfs::Archive;
use pyro_images::{Catalogue, Store};
use pyro_net::config::Addresses;
use pyro_net::control;
use pyro_vmm::config as vmm;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
    recvmsg, socketpair,
};

fn pair(kind: SocketType) -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap()
}

/// Descriptors for a child, and the file with its configuration.
#[derive(Default)]
struct Inherited(Vec<OwnedFd>);

impl Inherited {
    fn add(&mut self, fd: impl Into<OwnedFd>) -> RawFd {
        let fd = fd.into();
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty()).unwrap();
        let number = fd.as_raw_fd();
        self.0.push(fd);
        number
    }

    /// Starts a program with them, and closes our copies.
    fn start(mut self, program: &Path, config: &impl serde::Serialize) -> Child {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&serde_json::to_vec(config).unwrap())
            .unwrap();
        file.rewind().unwrap();
        let number = self.add(file);
        let mut command = Command::new(program);
        command.args(["--config-fd", &number.to_string()]);
        command.spawn().unwrap()
    }
}

fn next_frame(stream: &mut UnixStream, decoder: &mut Decoder, rest: &mut Vec<u8>) -> Frame {
    loop {
        let mut input = &rest[..];
        let frame = decoder.decode(&mut input).unwrap();
        *rest = input.to_vec();
        if let Some(frame) = frame {
            return frame;
        }
        let mut piece = [0; 65536];
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "the guest has gone");
        rest.extend_from_slice(&piece[..count]);
    }
}

/// The stream that the guest's agent opens.
fn accept(acceptor: &OwnedFd) -> UnixStream {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut port = [0; 4];
    let mut room = [IoSliceMut::new(&mut port)];
    recvmsg(acceptor, &mut room, &mut ancillary, RecvFlags::CMSG_CLOEXEC).unwrap();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message {
            return fds.next().unwrap().into();
        }
    }
    panic!("the monitor has gone")
}

fn ask(path: &Path, request: &control::Request) -> control::Reply {
    let mut stream = UnixStream::connect(path).unwrap();
    let body = serde_json::to_vec(request).unwrap();
    let length = u32::try_from(body.len()).unwrap().to_le_bytes();
    stream.write_all(&[&length, &body[..]].concat()).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut body = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut body).unwrap();
    serde_json::from_slice(&body).unwrap()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [images, environment, programs, command] = &arguments[..] else {
        panic!("guest IMAGES ENVIRONMENT PROGRAMS COMMAND");
    };
    let programs = Path::new(programs);
    let recipe = Catalogue::builtin().recipe(environment).unwrap();
    let installed = Store::new(images).open(recipe).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);

    let agent = File::open(programs.join("pyro-agent")).unwrap();
    let size = u32::try_from(agent.metadata().unwrap().len()).unwrap();
    let mut archive = Archive::new(tempfile::tempfile().unwrap());
    archive.file_from("init", 0o755, size, agent).unwrap();
    let mut archive = archive.finish().unwrap();
    archive.rewind().unwrap();

    let (monitors, nets) = pair(SocketType::SEQPACKET);
    let (acceptor, acceptor_theirs) = pair(SocketType::SEQPACKET);
    let (control, control_theirs) = pair(SocketType::STREAM);
    let vsock = UnixListener::bind(path("vsock.sock")).unwrap();
    let net_control = UnixListener::bind(path("net.sock")).unwrap();
    let vsock_name = {
        use rustix::fs::{Mode, OFlags, open};
        open(
            path("vsock.sock"),
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .unwrap()
    };
    std::fs::create_dir(path("writable")).unwrap();
    let addresses = Addresses::default();

    let mut inherited = Inherited::default();
    let config = pyro_net::config::Config {
        generation: pyro_net::config::GENERATION,
        frames_fd: inherited.add(nets),
        control_listener_fd: inherited.add(net_control),
        vsock_fd: Some(inherited.add(vsock_name)),
        addresses,
        egress_allow: Vec::new(),
        limits: pyro_net::config::Limits::default(),
    };
    let mut net = inherited.start(&programs.join("pyro-net"), &config);

    let mut inherited = Inherited::default();
    let kvm = File::options().read(true).write(true).open("/dev/kvm");
    let config = vmm::Config {
        generation: vmm::GENERATION,
        vcpu_count: 1,
        memory_mib: 1024,
        kvm_fd: inherited.add(kvm.unwrap()),
        kernel_fd: inherited.add(installed.kernel),
        initramfs_fds: vec![
            inherited.add(installed.modules),
            inherited.add(installed.network_modules.unwrap()),
            inherited.add(archive),
        ],
        root: vmm::Root {
            layers: installed
                .layers
                .into_iter()
                .map(|layer| vmm::PackedLayer {
                    index_fd: inherited.add(layer.index),
                    data_fd: inherited.add(layer.data),
                })
                .collect(),
            frozen_fds: Vec::new(),
            writable_fd: inherited.add(File::open(path("writable")).unwrap()),
            quota_bytes: None,
            quota_inodes: None,
            ephemeral: true,
        },
        vsock: vmm::Vsock {
            guest_cid: 3,
            listener_fd: Some(inherited.add(vsock)),
            stream_fds: Vec::new(),
            host_ports: vec![vmm::HostPort {
                port: READY_PORT,
                acceptor_fd: inherited.add(acceptor_theirs),
            }],
        },
        net: Some(vmm::Net {
            mac: addresses.guest_mac,
            mtu: addresses.mtu,
            backend_fd: inherited.add(monitors),
        }),
        control_fd: inherited.add(control_theirs),
        control_listener_fd: None,
        outlive_control: false,
        debug_console: std::env::var_os("DEBUG_CONSOLE").is_some(),
    };
    let mut monitor = inherited.start(&programs.join("pyro-vmm"), &config);

    let mut ready = accept(&acceptor);
    let (mut decoder, mut rest) = (Decoder::new(), Vec::new());
    let hello: Hello = next_frame(&mut ready, &mut decoder, &mut rest)
        .message()
        .unwrap();
    eprintln!(
        "guest: {} after {} ms",
        hello.kernel_release,
        hello.boot_ns / 1_000_000
    );
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let welcome = Welcome {
        generation: GENERATION,
        realtime_ns: u64::try_from(now.unwrap().as_nanos()).unwrap(),
        hostname: "guest".to_owned(),
        entropy: vec![7; 32],
        network: Some(Network {
            address: addresses.guest,
            prefix: addresses.prefix,
            gateway: addresses.gateway,
            dns: vec![addresses.dns],
            mtu: addresses.mtu,
        }),
    };
    ready.write_all(&encode_message(&welcome).unwrap()).unwrap();

    if let Ok(port) = std::env::var("PUBLISH") {
        let request = control::Request::Publish {
            host_port: None,
            guest_port: port.parse().unwrap(),
        };
        let control::Reply::Published(published) = ask(&path("net.sock"), &request) else {
            panic!("the port cannot be published");
        };
        std::thread::spawn(move || {
            loop {
                let mut said = Vec::new();
                let read = TcpStream::connect(("127.0.0.1", published.host_port)).and_then(
                    |mut stream| {
                        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
                        stream.read_to_end(&mut said)
                    },
                );
                if read.is_ok_and(|count| count > 0) {
                    let said = String::from_utf8_lossy(&said).into_owned();
                    eprintln!("published: {:?}", said.lines().next());
                    return;
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        });
    }

    let mut stream = UnixStream::connect(path("vsock.sock")).unwrap();
    stream
        .write_all(format!("CONNECT {AGENT_PORT}\n").as_bytes())
        .unwrap();
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte).unwrap();
    }
    let request = Request::Exec(Exec {
        argv: vec!["sh".into(), "-c".into(), command.clone()],
        env: Default::default(),
        cwd: None,
        user: None,
        timeout_ms: None,
        stdin: false,
    });
    stream
        .write_all(&encode_message(&request).unwrap())
        .unwrap();
    let (mut decoder, mut rest) = (Decoder::new(), Vec::new());
    let status = loop {
        let frame = next_frame(&mut stream, &mut decoder, &mut rest);
        match frame.kind {
            FrameKind::Stdout => std::io::stdout().write_all(&frame.payload).unwrap(),
            FrameKind::Stderr => std::io::stderr().write_all(&frame.payload).unwrap(),
            _ => match frame.message::<Event>().unwrap() {
                Event::Started { .. } => {}
                last => break last,
            },
        }
    };
    eprintln!("{status:?}");
    eprintln!("{:?}", ask(&path("net.sock"), &control::Request::Stats));
    drop(control);
    eprintln!("monitor: {}", monitor.wait().unwrap());
    eprintln!("net: {}", net.wait().unwrap());
}
