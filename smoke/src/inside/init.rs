//! Process 1 of the emulated host.
//!
//! Loads the few modules that the root needs, mounts it, becomes it, mounts the shares, and then
//! only reaps. Operations are served by a child, so that reaping orphans here cannot take the
//! status of a command from the thread that waits for it.

use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::{thread, time::Duration};

use anyhow::{Context, Result, bail};
use rustix::mount::{self, MountFlags};
use rustix::process::{self, Resource, Rlimit, WaitOptions};
use rustix::system::{self, RebootCommand};

use super::{CONFIG_PATH, Config, FAILED_LINE, READY_LINE, serve, share_tag};

/// The device of the root's image.
const ROOT_DEVICE: &str = "/dev/vda";
/// Modules loaded from the root once it is mounted.
const MODULES: &[&str] = &["kvm_amd"];
/// And these on a host with network.
const NETWORK_MODULES: &[&str] = &[
    "virtio_net",
    "virtiofs",
    "virtio_rng",
    "overlay",
    "loop",
    "tun",
];
/// And these on a host with nothing but the channel.
const CHANNEL_MODULES: &[&str] = &["virtio_console"];

/// Runs process 1. Ends by powering the machine off.
pub fn run() -> ! {
    if let Err(error) = boot() {
        say(&format!("{FAILED_LINE}{error:#}"));
    }
    power_off()
}

fn boot() -> Result<()> {
    for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        fs::create_dir_all(at)?;
        mount_fs(kind, kind, at, MountFlags::empty(), "")?;
    }
    let config: Config =
        serde_json::from_slice(&fs::read(CONFIG_PATH)?).context("the initramfs's configuration")?;
    load_modules(Path::new("/modules"))?;
    enter_root(&config)?;
    settle(&config)?;

    let mut server = Command::new("/proc/self/exe");
    server.arg(serve::ARGUMENT);
    if !config.network {
        server.arg("--channel");
    }
    server.env("PYRO_HOST_TOKEN", &config.token);
    let server = server.spawn().context("the server cannot be started")?;
    let server = process::Pid::from_child(&server);
    loop {
        match process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == server => {
                if status.exit_status() != Some(0) {
                    bail!("the server ended: {status:?}");
                }
                return Ok(());
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for children"),
        }
    }
}

fn say(line: &str) {
    if let Ok(mut console) = fs::OpenOptions::new().write(true).open("/dev/console") {
        let _ = writeln!(console, "{line}");
    }
}

/// Says on the console that operations are served now.
pub fn announce_ready() {
    say(READY_LINE);
}

fn power_off() -> ! {
    // The root's image is thrown away: nothing needs to be written out.
    let _ = system::reboot(RebootCommand::PowerOff);
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}

fn mount_fs(kind: &str, source: &str, at: &str, flags: MountFlags, data: &str) -> Result<()> {
    let data = CString::new(data)?;
    mount::mount(source, at, kind, flags, Some(data.as_c_str()))
        .with_context(|| format!("{kind} cannot be mounted on {at}"))
}

/// Loads every module of a folder in the order of their names.
fn load_modules(folder: &Path) -> Result<()> {
    let mut files: Vec<_> = fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.sort();
    for file in files {
        system::finit_module(fs::File::open(&file)?, c"", 0)
            .with_context(|| format!("module {} cannot be loaded", file.display()))?;
        fs::remove_file(&file)?;
    }
    Ok(())
}

fn enter_root(config: &Config) -> Result<()> {
    let root = Path::new("/root");
    fs::create_dir_all(root)?;
    wait_for(ROOT_DEVICE)?;
    mount_fs("ext4", ROOT_DEVICE, "/root", MountFlags::NOATIME, "")?;
    for at in ["/proc", "/sys", "/dev"] {
        mount::mount_move(at, format!("/root{at}"))
            .with_context(|| format!("{at} cannot be moved"))?;
    }
    for (at, data) in [
        ("/run", "mode=755"),
        ("/tmp", "mode=1777,size=60%"),
        ("/dev/shm", "mode=1777,size=60%"),
    ] {
        let at = format!("/root{at}");
        fs::create_dir_all(&at)?;
        mount_fs(
            "tmpfs",
            "tmpfs",
            &at,
            MountFlags::NODEV | MountFlags::NOSUID,
            data,
        )?;
    }
    for (from, to) in &config.files {
        let target = root.join(to.strip_prefix("/").unwrap_or(to));
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(from, &target).with_context(|| format!("{} cannot be copied", to.display()))?;
        fs::remove_file(from)?;
    }
    std::env::set_current_dir(root)?;
    mount::mount_move(".", "/").context("the root cannot be moved")?;
    process::chroot(".")?;
    std::env::set_current_dir("/")?;
    Ok(())
}

fn wait_for(device: &str) -> Result<()> {
    for _ in 0..1000 {
        if Path::new(device).exists() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(10));
    }
    bail!("{device} does not appear")
}

fn settle(config: &Config) -> Result<()> {
    fs::create_dir_all("/dev/pts")?;
    mount_fs(
        "devpts",
        "devpts",
        "/dev/pts",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        "gid=5,mode=620,ptmxmode=666",
    )?;
    mount_fs(
        "cgroup2",
        "cgroup2",
        "/sys/fs/cgroup",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        "",
    )?;
    mount_fs(
        "debugfs",
        "debugfs",
        "/sys/kernel/debug",
        MountFlags::empty(),
        "",
    )?;
    for (link, to) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
    ] {
        let link = Path::new("/dev").join(link);
        if !link.is_symlink() {
            std::os::unix::fs::symlink(to, link)?;
        }
    }
    system::sethostname(b"pyro-host")?;
    let many = Rlimit {
        current: Some(65536),
        maximum: Some(1_048_576),
    };
    process::setrlimit(Resource::Nofile, many)
        .context("the limit of open files cannot be raised")?;

    let mut modules = Command::new("/sbin/modprobe");
    modules.arg("--all").args(MODULES);
    modules.args(if config.network {
        NETWORK_MODULES
    } else {
        CHANNEL_MODULES
    });
    let status = modules.status().context("modprobe cannot be run")?;
    if !status.success() {
        bail!("modprobe failed: {status}");
    }
    for (position, path) in config.shares.iter().enumerate() {
        fs::create_dir_all(path).with_context(|| format!("no mount point {}", path.display()))?;
        let path = path.to_str().context("a share's path is not UTF-8")?;
        mount_fs(
            "virtiofs",
            &share_tag(position),
            path,
            MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID,
            "",
        )?;
    }
    let mut commands = String::from("link set lo up\n");
    if config.network {
        commands.push_str("addr add 10.0.2.15/24 dev eth0\nlink set eth0 up\n");
        // The world, as QEMU leads there: workspaces with a network need one.
        commands.push_str("route add default via 10.0.2.2\n");
        fs::write("/etc/resolv.conf", "nameserver 10.0.2.3\n")?;
    }
    fs::write("/run/network", commands)?;
    let status = Command::new("/sbin/ip")
        .args(["-batch", "/run/network"])
        .status()
        .context("ip cannot be run")?;
    if !status.success() {
        bail!("the network cannot be set up: {status}");
    }
    Ok(())
}
