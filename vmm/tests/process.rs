//! The process as its parent sees it: descriptors in, messages out, an exit code, and nothing left.

#![allow(clippy::unwrap_used, reason = "a failing step fails the test")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pyro_rootfs::pack::{PackLimits, PackedWriter};
use pyro_vmm::config::{Config, GENERATION, PackedLayer, Root, Vsock};
use pyro_vmm::control::{Event, ExitReason, Message, Reply, Request};
use tempfile::TempDir;

/// How long a process may take for anything before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// `mov dx, 0x600; mov al, 0x34; out dx, al`: power-off.
const POWER_OFF: &[u8] = &[0x66, 0xba, 0x00, 0x06, 0xb0, 0x34, 0xee];
/// `jmp $`
const SPIN: &[u8] = &[0xeb, 0xfe];

fn kvm() -> File {
    let kvm = File::options().read(true).write(true).open("/dev/kvm");
    kvm.expect("/dev/kvm was usable when this was built")
}

/// An ELF file with a PVH note whose one segment, at 1 MiB, is `code`.
fn kernel(code: &[u8]) -> File {
    const BASE: u64 = 0x10_0000;
    let mut image = vec![0; 4096];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01");
    put(18, &62u16.to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(54, &56u16.to_le_bytes());
    put(56, &2u16.to_le_bytes());
    let len = code.len() as u64;
    for (at, header) in [(64, [1, 4096, BASE, len, len]), (120, [4, 512, 0, 20, 0])] {
        for (field, value) in [0, 8, 24, 32, 40].into_iter().zip(header) {
            put(at + field, &u64::to_le_bytes(value));
        }
    }
    let note = [4, 4, 18, u32::from_le_bytes(*b"Xen\0"), BASE as u32];
    for (at, word) in (512..).step_by(4).zip(note) {
        put(at, &u32::to_le_bytes(word));
    }
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&image).unwrap();
    file.write_all(code).unwrap();
    file
}

/// A fault in a configuration.
type Change = fn(&mut Config);

/// A monitor with everything it was given.
struct Vm {
    child: Child,
    control: UnixStream,
    _writable: TempDir,
}

impl Vm {
    fn start(kvm: File, code: &[u8], change: impl FnOnce(&mut Config)) -> Self {
        Self::start_with(kvm, code, Vec::new(), change)
    }

    /// The same with further descriptors.
    fn start_with(
        kvm: File,
        code: &[u8],
        more: Vec<OwnedFd>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let (index, data) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        PackedWriter::new(&index, &data, PackLimits::default())
            .unwrap()
            .finish()
            .unwrap();
        let writable = tempfile::tempdir().unwrap();
        let (control, theirs) = UnixStream::pair().unwrap();
        control.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut archive = tempfile::tempfile().unwrap();
        archive.write_all(b"not looked at").unwrap();
        let mut fds: Vec<OwnedFd> = vec![
            kvm.into(),
            kernel(code).into(),
            archive.into(),
            index.into(),
            data.into(),
            File::open(writable.path()).unwrap().into(),
            theirs.into(),
        ];
        fds.extend(more);
        let number = |at: usize| fds[at].as_raw_fd();
        let mut config = Config {
            generation: GENERATION,
            vcpu_count: 1,
            memory_mib: 128,
            kvm_fd: number(0),
            kernel_fd: number(1),
            initramfs_fds: vec![number(2)],
            root: Root {
                layers: vec![PackedLayer {
                    index_fd: number(3),
                    data_fd: number(4),
                }],
                frozen_fds: vec![],
                writable_fd: number(5),
                quota_bytes: None,
                quota_inodes: None,
                ephemeral: true,
            },
            vsock: Vsock {
                guest_cid: 3,
                listener_fd: None,
                stream_fds: vec![],
                host_ports: vec![],
            },
            net: None,
            control_fd: number(6),
            control_listener_fd: None,
            outlive_control: false,
            debug_console: false,
        };
        change(&mut config);
        let child = spawn(&serde_json::to_vec(&config).unwrap(), &fds);
        Self {
            child,
            control,
            _writable: writable,
        }
    }

    fn send(&mut self, request: &Request) {
        let body = serde_json::to_vec(request).unwrap();
        self.control
            .write_all(&(body.len() as u32).to_le_bytes())
            .unwrap();
        self.control.write_all(&body).unwrap();
    }

    fn receive(&mut self) -> Message {
        let mut length = [0; 4];
        self.control.read_exact(&mut length).unwrap();
        let mut body = vec![0; u32::from_le_bytes(length) as usize];
        self.control.read_exact(&mut body).unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    fn expect_started(&mut self) {
        assert!(matches!(self.receive(), Message::Event(Event::Started)));
    }

    /// The last message's reason; the socket then closes and the process ends with this code.
    fn expect_exit(mut self, code: i32) -> ExitReason {
        let Message::Event(Event::Exited { reason, .. }) = self.receive() else {
            panic!("the last message is not the exit");
        };
        assert_eq!(self.control.read(&mut [0]).unwrap(), 0);
        assert_eq!(self.child.wait().unwrap().code(), Some(code), "{reason:?}");
        reason
    }

    fn expect_ok(&mut self) {
        assert!(matches!(self.receive(), Message::Reply(Reply::Ok)));
    }
}

/// Starts the monitor with these descriptors under their own numbers.
#[allow(unsafe_code)] // what a child inherits is decided between fork and exec
fn spawn(config: &[u8], fds: &[OwnedFd]) -> Child {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.write_all(config).unwrap();
    drop(ours);
    let mut inherit: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    inherit.push(theirs.as_raw_fd());
    let mut command = Command::new(env!("CARGO_BIN_EXE_pyro-vmm"));
    command
        .arg("--config-fd")
        .arg(theirs.as_raw_fd().to_string())
        .stderr(Stdio::piped());
    // SAFETY: fcntl is async-signal-safe, and the vector was made before.
    unsafe {
        command.pre_exec(move || {
            for fd in &inherit {
                if libc::fcntl(*fd, libc::F_SETFD, 0) == -1 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    command.spawn().unwrap()
}

#[test]
#[cfg_attr(not(kvm), ignore = "/dev/kvm is not usable here")]
fn a_guest_that_powers_off_ends_the_process_well() {
    let kvm = kvm();
    let mut vm = Vm::start(kvm, POWER_OFF, |_| {});
    vm.expect_started();
    assert_eq!(vm.expect_exit(0), ExitReason::PowerOff);
}

#[test]
#[cfg_attr(not(kvm), ignore = "/dev/kvm is not usable here")]
fn stop_ends_a_guest_that_does_not_help() {
    let kvm = kvm();
    let mut vm = Vm::start(kvm, SPIN, |_| {});
    vm.expect_started();
    vm.send(&Request::Stop);
    vm.expect_ok();
    assert_eq!(vm.expect_exit(0), ExitReason::Stopped);
}

#[test]
#[cfg_attr(not(kvm), ignore = "/dev/kvm is not usable here")]
fn the_vm_ends_when_its_parent_is_gone() {
    let kvm = kvm();
    let mut vm = Vm::start(kvm, SPIN, |_| {});
    vm.expect_started();
    drop(vm.control);
    assert_eq!(vm.child.wait().unwrap().code(), Some(0));
}

#[test]
#[cfg_attr(not(kvm), ignore = "/dev/kvm is not usable here")]
fn requests_are_answered_in_order_also_while_paused() {
    let kvm = kvm();
    let mut vm = Vm::start(kvm, SPIN, |_| {});
    vm.expect_started();
    vm.send(&Request::Pause);
    vm.send(&Request::Stats);
    vm.send(&Request::Console);
    vm.send(&Request::Resume);
    vm.expect_ok();
    let Message::Reply(Reply::Stats(stats)) = vm.receive() else {
        panic!()
    };
    assert!(stats.start_to_guest_us > 0);
    assert!(matches!(
        vm.receive(),
        Message::Reply(Reply::Console { dropped: 0, .. })
    ));
    vm.expect_ok();
    vm.send(&Request::Stop);
    vm.expect_ok();
    assert_eq!(vm.expect_exit(0), ExitReason::Stopped);
}

#[test]
#[cfg_attr(not(kvm), ignore = "/dev/kvm is not usable here")]
fn impossible_numbers_are_refused_with_a_sentence() {
    let changes: [(Change, &str); 5] = [
        (|config| config.vcpu_count = 0, "0 vCPUs are not possible"),
        (
            |config| config.vcpu_count = 255,
            "255 vCPUs are not possible",
        ),
        (
            |config| config.memory_mib = 0,
            "0 MiB of memory are not possible",
        ),
        (
            |config| config.memory_mib = u32::MAX,
            "4294967295 MiB of memory are not possible",
        ),
        (|config| config.generation = 9, "generation 9"),
    ];
    for (change, expected) in changes {
        let kvm = kvm();
        let vm = Vm::start(kvm, SPIN, change);
        let ExitReason::Failed { message } = vm.expect_exit(1) else {
            panic!("{expected}")
        };
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
#[cfg_attr(not(kvm), ignore = "/dev/kvm is not usable here")]
fn a_file_that_is_no_kernel_is_refused_with_a_sentence() {
    let kvm = kvm();
    let vm = Vm::start(kvm, SPIN, |config| {
        // The archive for a kernel, and the kernel for an archive.
        std::mem::swap(&mut config.kernel_fd, &mut config.initramfs_fds[0]);
    });
    let ExitReason::Failed { message } = vm.expect_exit(1) else {
        panic!()
    };
    assert!(message.contains("the kernel cannot be booted"), "{message}");
}

#[test]
#[cfg_attr(not(kvm), ignore = "/dev/kvm is not usable here")]
fn descriptors_that_are_reserved_closed_or_shared_are_refused() {
    let changes: [(Change, &str); 3] = [
        (|config| config.kernel_fd = 0, "descriptor 0 is reserved"),
        (
            |config| config.kernel_fd = 999,
            "descriptor 999 is not open",
        ),
        (|config| config.kernel_fd = config.kvm_fd, "is named twice"),
    ];
    for (change, expected) in changes {
        let kvm = kvm();
        let mut vm = Vm::start(kvm, SPIN, change);
        let mut message = String::new();
        vm.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut message)
            .unwrap();
        assert!(message.contains(expected), "{message}");
        assert_eq!(vm.child.wait().unwrap().code(), Some(1));
    }
}

#[test]
fn a_wrong_command_line_shows_the_right_one() {
    let output = Command::new(env!("CARGO_BIN_EXE_pyro-vmm"))
        .arg("--nonsense")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("usage: pyro-vmm"));
}

#[test]
#[cfg_attr(not(kvm), ignore = "/dev/kvm is not usable here")]
fn a_new_control_peer_takes_the_place_of_the_one_before() {
    let kvm = kvm();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let number = listener.as_raw_fd();
    let mut vm = Vm::start_with(kvm, SPIN, vec![listener.into()], |config| {
        config.control_listener_fd = Some(number);
        config.outlive_control = true;
    });
    vm.expect_started();
    let connect = || {
        let peer = UnixStream::connect(&path).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer
    };

    // While the first is there.
    let mut first = std::mem::replace(&mut vm.control, connect());
    vm.send(&Request::Stats);
    assert!(matches!(vm.receive(), Message::Reply(Reply::Stats(_))));
    assert_eq!(first.read(&mut [0]).unwrap(), 0);
    // After it has gone.
    vm.control = connect();
    vm.send(&Request::Stats);
    assert!(matches!(vm.receive(), Message::Reply(Reply::Stats(_))));
    drop(std::mem::replace(&mut vm.control, connect()));
    vm.send(&Request::Stop);
    vm.expect_ok();
    assert_eq!(vm.expect_exit(0), ExitReason::Stopped);
}
