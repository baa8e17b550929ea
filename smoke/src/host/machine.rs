//! The command lines of QEMU and of the file servers.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::Path;
use std::process::Command;

use super::system::System;
use crate::inside::{CHANNEL, share_tag};
use crate::spawn;
use crate::wire;

/// The file server that comes with QEMU 7.2.
pub const VIRTIOFSD: &str = "/usr/lib/qemu/virtiofsd";
/// The emulator.
pub const QEMU: &str = "qemu-system-x86_64";

/// How operations reach the host.
#[derive(Debug, Clone, Copy)]
pub enum Channel<'a> {
    /// Over the network: this port of the loopback address.
    Network(u16),
    /// Over a virtio port that is this socket.
    Port(&'a Path),
}

/// How time passes in the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// As here.
    Real,
    /// One nanosecond an instruction, whatever the machine does: the same run takes the same time.
    Deterministic,
}

/// A machine to be emulated.
#[derive(Debug)]
pub struct Machine<'a> {
    /// What it boots.
    pub system: &'a System,
    /// Its initramfs.
    pub initramfs: &'a Path,
    /// Its memory in MiB; allocated as it is used.
    pub memory_mib: u64,
    /// How many processors; one in deterministic time.
    pub cpus: u32,
    /// How its time passes.
    pub time: Time,
    /// How it is reached.
    pub channel: Channel<'a>,
    /// Sockets of the file servers, in the order of the shares.
    pub shares: &'a [String],
}

/// An option value with its commas doubled, as QEMU wants them.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

impl Machine<'_> {
    /// The command that runs it, with the console on standard output.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut qemu = Command::new(QEMU);
        let mut append = String::from(
            "console=ttyS0 quiet panic=-1 rdinit=/init mitigations=off cryptomgr.notests random.trust_cpu=on",
        );
        let memory = self.memory_mib;
        qemu.args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-monitor",
            "none",
            "-no-reboot",
        ]);
        qemu.args(["-serial", "stdio", "-cpu", "max", "-m"])
            .arg(format!("{memory}M"));
        qemu.arg("-object").arg(format!(
            "memory-backend-memfd,id=memory,size={memory}M,share=on"
        ));
        qemu.args(["-machine", "q35,memory-backend=memory,vmport=off"]);
        match self.time {
            Time::Real => {
                qemu.args([
                    "-accel",
                    "tcg,thread=multi,tb-size=512",
                    "-smp",
                    &self.cpus.to_string(),
                ]);
            }
            Time::Deterministic => {
                append.push_str(" nokaslr norandmaps");
                qemu.args([
                    "-accel",
                    "tcg,thread=single",
                    "-icount",
                    "shift=0,sleep=off",
                    "-smp",
                    "1",
                ]);
                qemu.args(["-seed", "1", "-rtc", "base=2026-01-01,clock=vm"]);
            }
        }
        qemu.arg("-kernel")
            .arg(self.system.kernel())
            .arg("-initrd")
            .arg(self.initramfs);
        qemu.args(["-append", &append]);
        let image = escaped(&self.system.image());
        // Writes go to a nameless temporary file that ends with QEMU.
        qemu.arg("-drive").arg(format!(
            "file={image},format=raw,if=none,id=root,snapshot=on,cache=unsafe"
        ));
        qemu.args(["-device", "virtio-blk-pci,drive=root"]);
        match self.channel {
            Channel::Network(port) => {
                let inside = wire::PORT;
                qemu.arg("-netdev").arg(format!(
                    "user,id=net,ipv6=off,hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:{inside}"
                ));
                qemu.args(["-device", "virtio-net-pci,netdev=net,romfile="]);
                qemu.args(["-device", "virtio-rng-pci"]);
            }
            Channel::Port(socket) => {
                qemu.arg("-chardev")
                    .arg(format!("socket,id=channel,path={}", escaped(socket)));
                qemu.args(["-device", "virtio-serial-pci", "-device"]);
                qemu.arg(format!("virtserialport,chardev=channel,name={CHANNEL}"));
            }
        }
        for (position, socket) in self.shares.iter().enumerate() {
            let tag = share_tag(position);
            qemu.arg("-chardev")
                .arg(format!("socket,id={tag},path={socket}"));
            qemu.arg("-device")
                .arg(format!("vhost-user-fs-pci,chardev={tag},tag={tag}"));
        }
        qemu
    }
}

/// The command that serves `folder`, read-only, on the listening socket `listener`, which the
/// child must inherit.
///
/// The folder is mounted read-only over itself in a mount namespace of the server, so that it is
/// the kernel that keeps the emulated host from writing. What was read may stay cached inside, but
/// every look-up asks again (`timeout=0`): a program that is built anew is never run from a cache.
#[must_use]
pub fn file_server(folder: &Path, listener: RawFd) -> Command {
    let script = format!(
        "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && exec setpriv --pdeathsig KILL \
         {VIRTIOFSD} --fd={listener} -o \"source=$2\" -o sandbox=chroot -o cache=always -o timeout=0 -o log_level=err"
    );
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    // A comma would start another option; a backslash keeps it one.
    let source: OsString = folder
        .display()
        .to_string()
        .replace('\\', "\\\\")
        .replace(',', "\\,")
        .into();
    command
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            &script,
            "sh",
        ])
        .arg(folder)
        .arg(source);
    spawn::die_with_parent(&mut command);
    command
}
