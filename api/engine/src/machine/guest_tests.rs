//! A real monitor that outlives us, with a guest of one instruction.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use pyro_rootfs::pack::{PackLimits, PackedWriter};
use pyro_vmm::control::ExitReason;

use super::guest::{self, Guest, GuestSpec, Trace};
use super::*;
use crate::limits::{Host, Wanted};

/// `jmp $` in an ELF file with a PVH note.
fn kernel() -> File {
    const BASE: u64 = 0x10_0000;
    let code = [0xeb, 0xfe];
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
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&image).expect("written");
    file.write_all(&code).expect("written");
    file
}

fn artefacts() -> Artefacts {
    let file = || tempfile::tempfile().expect("a file");
    let (index, data) = (file(), file());
    let packed = PackedWriter::new(&index, &data, PackLimits::default());
    packed.expect("begun").finish().expect("packed");
    let mut modules = file();
    modules.write_all(b"not looked at").expect("written");
    Artefacts {
        network_modules: None,
        kernel: kernel(),
        modules,
        layers: vec![(index, data)],
    }
}

/// The monitor beside this test, and a KVM.
fn host() -> (PathBuf, File) {
    let test = std::env::current_exe().expect("a path");
    let monitor = test.ancestors().nth(2).expect("a folder").join("pyro-vmm");
    assert!(monitor.is_file(), "build it first: cargo build -p pyro-vmm");
    let kvm = File::options().read(true).write(true).open("/dev/kvm");
    (
        monitor,
        kvm.expect("/dev/kvm was usable when this was built"),
    )
}

/// Ends what a test that fails leaves running.
struct End(PathBuf);

impl Drop for End {
    fn drop(&mut self) {
        if let Trace::Alive(process) = guest::trace(&self.0) {
            process.kill_and_wait();
        }
    }
}

fn layer(folder: &Path, name: &str) -> std::os::fd::OwnedFd {
    let path = folder.join(name);
    std::fs::create_dir(&path).expect("made");
    File::open(path).expect("opened").into()
}

fn start(folder: &Path, monitor: &Path, kvm: File) -> Guest {
    let host = Host {
        cpus: 1,
        memory_mib: 4096,
    };
    let wanted = Wanted {
        memory_mib: 128,
        ..Wanted::default()
    };
    let spec = GuestSpec {
        limits: Limits::check(&wanted, &host).expect("in range"),
        kvm,
        monitor,
        agent: Path::new("/bin/true"),
        artefacts: artefacts(),
        net: None,
        frozen: vec![layer(folder, "frozen")],
        top: layer(folder, "top"),
        quota_bytes: 1 << 30,
        hostname: "pyro".into(),
        debug_console: false,
        folder: folder.join("vm"),
    };
    Guest::spawn(spec).expect("started").0
}

#[tokio::test]
#[cfg_attr(not(kvm), ignore = "/dev/kvm is not usable here")]
async fn a_monitor_goes_on_without_us_and_can_be_adopted_frozen_and_ended() {
    let (monitor, kvm) = host();
    let folder = tempfile::tempdir().expect("temporary folder");
    let vm = folder.path().join("vm");
    let _end = End(vm.clone());
    let first = start(folder.path(), &monitor, kvm);
    assert_eq!(first.console().await, "");
    let pid = first.pid();
    // What a daemon that is gone has closed.
    drop(first);

    let Trace::Alive(process) = guest::trace(&vm) else {
        panic!("it does not run");
    };
    let second = Guest::adopt(&vm, process).await.expect("adopted");
    assert_eq!(second.pid(), pid);
    // The descriptor arrives with the request; this guest has no root that could be frozen.
    let above = layer(folder.path(), "above");
    let refused = second.freeze(above).await.expect_err("no root");
    match refused {
        guest::Frozen::No(error) => assert!(error.message().contains("mounted"), "{error}"),
        other => panic!("{other:?}"),
    }

    second.kill().await;
    assert_eq!(second.ended().await, Ended::Silently);
    assert!(matches!(guest::trace(&vm), Trace::Ended(Ended::Silently)));
    guest::forget(&vm).expect("removed");
    assert!(matches!(guest::trace(&vm), Trace::None));
}

#[tokio::test]
#[cfg_attr(not(kvm), ignore = "/dev/kvm is not usable here")]
async fn a_monitor_that_is_asked_to_stop_says_so_as_its_last_word() {
    let (monitor, kvm) = host();
    let folder = tempfile::tempdir().expect("temporary folder");
    let _end = End(folder.path().join("vm"));
    let guest = start(folder.path(), &monitor, kvm);

    guest.ask(&Request::Stop, ANSWER_DEADLINE).await;

    match guest.ended().await {
        Ended::Reported { reason, .. } => assert_eq!(reason, ExitReason::Stopped),
        other => panic!("{other:?}"),
    }
}
