//! A laboratory: the real process between a guest and a world, each a network namespace.
//!
//! ```text
//! guest  ── TAP ── frames ── pyro-net in the host ── veth ──  world
//! 10.0.2.15                  203.0.113.2                      203.0.113.1 and others
//! ```
#![allow(unsafe_code, reason = "namespaces and TAP devices are for tests alone")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use pyro_net::config::{Config, GENERATION};
use pyro_net::control::{Published, Reply, Request, Stats};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// How long anything may take before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Where the world's servers listen.
pub(crate) const WORLD: &str = "203.0.113.1";
/// More of the world's addresses: a private one, a metadata service, resolvers.
pub(crate) const PRIVATE: &str = "10.9.0.1";
pub(crate) const METADATA: &str = "169.254.169.254";
pub(crate) const RESOLVERS: [&str; 2] = ["10.255.255.53", "10.255.255.54"];
/// The host's own address.
pub(crate) const HOST: &str = "203.0.113.2";

/// A network namespace, and the mounts that were made with it.
pub(crate) struct Space {
    net: OwnedFd,
    mounts: OwnedFd,
}

impl Space {
    fn new() -> Self {
        let made = thread::spawn(|| {
            let flags = UnshareFlags::NEWNET | UnshareFlags::NEWNS;
            // SAFETY: neither namespace touches memory or descriptors.
            unsafe { rustix::thread::unshare_unsafe(flags) }.unwrap();
            shell("mount --make-rprivate / && ip link set lo up");
            let open = |name: &str| File::open(format!("/proc/thread-self/ns/{name}")).unwrap();
            (open("net").into(), open("mnt").into())
        });
        let (net, mounts) = made.join().unwrap();
        Self { net, mounts }
    }

    /// Does something in it, on a thread of its own.
    pub(crate) fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let done = scope.spawn(|| {
                self.enter();
                act()
            });
            done.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn enter(&self) {
        // Mounts belong to a thread only when it shares its directory with no other.
        // SAFETY: this touches neither memory nor descriptors.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }.unwrap();
        let enter = |fd: &OwnedFd, kind| move_into_link_name_space(fd.as_fd(), Some(kind));
        enter(&self.mounts, LinkNameSpaceType::Mount).unwrap();
        enter(&self.net, LinkNameSpaceType::Network).unwrap();
    }
}

pub(crate) fn shell(script: &str) {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {errors}");
}

/// All of it.
pub(crate) struct Lab {
    pub(crate) guest: Space,
    pub(crate) host: Space,
    pub(crate) world: Space,
    pub(crate) process: Process,
}

impl Lab {
    pub(crate) fn new(change: impl FnOnce(&mut Config) + Send) -> Self {
        let (guest, host, world) = (Space::new(), Space::new(), Space::new());
        let process = host.run(|| {
            let resolvers = RESOLVERS.map(|address| format!("nameserver {address}\n"));
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("resolv.conf");
            std::fs::write(&file, resolvers.concat()).unwrap();
            let target = std::fs::canonicalize("/etc/resolv.conf").unwrap();
            let there = inheritable(&world.net);
            shell(&format!(
                "ip link add h0 type veth peer name w0
                 ip link set w0 netns /proc/self/fd/{}
                 ip address add {HOST}/24 dev h0
                 ip link set h0 up mtu 1500
                 ip route add default via {WORLD}
                 mount --bind {} {}",
                there.as_raw_fd(),
                file.display(),
                target.display(),
            ));
            Process::start(change)
        });
        world.run(|| {
            shell(&format!(
                "ip address add {WORLD}/24 dev w0
                 for address in {PRIVATE} {METADATA} {} {}; do
                     ip address add $address/32 dev lo
                 done
                 ip link set w0 up",
                RESOLVERS[0], RESOLVERS[1],
            ));
        });
        let addresses = process.config.addresses;
        let frames = process.guest.as_ref().unwrap().try_clone().unwrap();
        guest.run(|| {
            let tap = tap();
            let mac = addresses
                .guest_mac
                .map(|byte| format!("{byte:02x}"))
                .join(":");
            shell(&format!(
                "ip link set eth0 address {mac} mtu {} up
                 ip address add {}/{} dev eth0
                 ip route add default via {}",
                addresses.mtu, addresses.guest, addresses.prefix, addresses.gateway
            ));
            pump(tap, frames);
        });
        Self {
            guest,
            host,
            world,
            process,
        }
    }
}

/// A copy that children get.
fn inheritable(fd: &OwnedFd) -> OwnedFd {
    let copy = fd.try_clone().unwrap();
    rustix::io::fcntl_setfd(&copy, rustix::io::FdFlags::empty()).unwrap();
    copy
}

/// A TAP device `eth0`.
fn tap() -> File {
    const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
    let tap = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .unwrap();
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"eth0") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes an ifreq.
    let done = unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETIFF, &raw mut request) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    tap
}

/// Carries frames until the socket closes.
fn pump(tap: File, frames: OwnedFd) {
    let (mut to_tap, from_frames) = (tap.try_clone().unwrap(), frames.try_clone().unwrap());
    thread::spawn(move || {
        let mut buffer = vec![0; 70_000];
        while let Ok((length @ 1.., _)) =
            rustix::net::recv(&from_frames, &mut buffer[..], RecvFlags::empty())
        {
            // A device that is down takes none.
            let _ = to_tap.write(&buffer[..length]);
        }
    });
    let mut from_tap = tap;
    thread::spawn(move || {
        let mut buffer = vec![0; 70_000];
        while let Ok(length) = from_tap.read(&mut buffer) {
            if rustix::net::send(&frames, &buffer[..length], SendFlags::NOSIGNAL).is_err() {
                return;
            }
        }
    });
}

/// The process, and our ends of what it holds.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) config: Config,
    /// The guest's end of the frames.
    pub(crate) guest: Option<OwnedFd>,
    pub(crate) control: UnixStream,
    pub(crate) vsock: UnixListener,
    pub(crate) directory: tempfile::TempDir,
}

impl Process {
    pub(crate) fn start(change: impl FnOnce(&mut Config)) -> Self {
        let flags = SocketFlags::CLOEXEC;
        let (guest, frames) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| -> PathBuf { directory.path().join(name) };
        let listener = UnixListener::bind(path("net.sock")).unwrap();
        let vsock = UnixListener::bind(path("vsock.sock")).unwrap();
        let vsock_path = {
            use rustix::fs::{Mode, OFlags, open};
            open(
                path("vsock.sock"),
                OFlags::PATH | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .unwrap()
        };
        let control = UnixStream::connect(path("net.sock")).unwrap();
        control.set_read_timeout(Some(PATIENCE)).unwrap();
        let fds: [OwnedFd; 3] = [frames, listener.into(), vsock_path];
        let mut config = Config {
            generation: GENERATION,
            frames_fd: fds[0].as_raw_fd(),
            control_listener_fd: fds[1].as_raw_fd(),
            vsock_fd: Some(fds[2].as_raw_fd()),
            addresses: pyro_net::config::Addresses::default(),
            egress_allow: Vec::new(),
            limits: pyro_net::config::Limits::default(),
        };
        change(&mut config);
        let child = spawn(&config, &fds);
        Self {
            child,
            config,
            guest: Some(guest),
            control,
            vsock,
            directory,
        }
    }

    pub(crate) fn ask(&mut self, request: &Request) -> Reply {
        let body = serde_json::to_vec(request).unwrap();
        let length = u32::try_from(body.len()).unwrap().to_le_bytes();
        self.control
            .write_all(&[&length, &body[..]].concat())
            .unwrap();
        let mut length = [0; 4];
        self.control.read_exact(&mut length).unwrap();
        let mut body = vec![0; u32::from_le_bytes(length) as usize];
        self.control.read_exact(&mut body).unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    pub(crate) fn stats(&mut self) -> Stats {
        match self.ask(&Request::Stats) {
            Reply::Stats(stats) => stats,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn publish(&mut self, host_port: Option<u16>, guest_port: u16) -> Published {
        match self.ask(&Request::Publish {
            host_port,
            guest_port,
        }) {
            Reply::Published(published) => published,
            other => panic!("{other:?}"),
        }
    }

    /// Resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        line.unwrap()
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap()
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the process with these descriptors and no others of ours.
pub(crate) fn spawn(config: &impl serde::Serialize, fds: &[OwnedFd]) -> Child {
    spawn_with_log(config, fds, Stdio::inherit())
}

/// The same with its standard error there.
pub(crate) fn spawn_with_log(config: &impl serde::Serialize, fds: &[OwnedFd], log: Stdio) -> Child {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&serde_json::to_vec(config).unwrap())
        .unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    let mut numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    numbers.push(file.as_raw_fd());
    let mut command = Command::new(env!("CARGO_BIN_EXE_pyro-net"));
    command
        .args(["--config-fd", &file.as_raw_fd().to_string()])
        .stdin(Stdio::null())
        .stderr(log);
    // SAFETY: fcntl is all that happens between fork and exec.
    unsafe {
        command.pre_exec(move || {
            for number in &numbers {
                if libc::fcntl(*number, libc::F_SETFD, 0) == -1 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    command.spawn().unwrap()
}

/// Waits until `get` has something.
pub(crate) fn wait_for<T>(mut get: impl FnMut() -> Option<T>) -> T {
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        if let Some(value) = get() {
            return value;
        }
        assert!(std::time::Instant::now() < end, "it never came");
        thread::sleep(Duration::from_millis(2));
    }
}
