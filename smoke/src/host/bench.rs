//! A host in deterministic time, for one command.
//!
//! Virtual time advances one nanosecond per instruction, and jumps to the next timer when the
//! processor idles. So what a command measures on the host's own clock is the same on every run
//! and every machine, as long as it touches memory only: disks and file servers answer in real
//! time, which is outside this. Files are therefore given in the initramfs and copied to a tmpfs
//! at boot, and output is collected in memory and sent after the end.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::client::{self, Ending};
use super::machine::{Channel, Machine, Time};
use super::system::System;
use super::{HostDir, dirs, initramfs, supervise, system};
use crate::flow::Outbox;
use crate::inside::{Config, FAILED_LINE};
use crate::spawn;
use crate::wire::{Exec, GENERATION, Hello, Request};

/// Folders of the host that are a tmpfs.
const IN_MEMORY: &[&str] = &["/tmp", "/run", "/dev/shm"];

/// Boots a fresh host, runs `exec` in it, and powers it off. Call it from the main thread.
///
/// # Errors
/// When the host cannot boot or ends before the command.
pub fn run(
    host: &HostDir,
    files: &[(PathBuf, PathBuf)],
    memory_mib: u64,
    mut exec: Exec,
    say: &mut dyn FnMut(&str),
) -> Result<Ending> {
    for (_, to) in files {
        let in_memory = IN_MEMORY.iter().any(|folder| to.starts_with(folder));
        ensure!(
            in_memory,
            "{} is not in memory there: use a path in {}",
            to.display(),
            IN_MEMORY.join(", ")
        );
    }
    system::require_tools()?;
    let system = System::ensure(host, say)?;
    let work = Work::new(host)?;
    let token = supervise::token()?;
    let inside = |position: usize| PathBuf::from(format!("/files/{position}"));
    let config = Config {
        token: token.clone(),
        shares: Vec::new(),
        files: files
            .iter()
            .enumerate()
            .map(|(position, (_, to))| (inside(position), to.clone()))
            .collect(),
        network: false,
    };
    let sources: Vec<PathBuf> = files.iter().map(|(from, _)| from.clone()).collect();
    let image = work.0.join("initramfs");
    initramfs::write(&image, &system, &config, &sources)?;
    let socket = work.0.join("channel.sock");
    let listener = UnixListener::bind(&socket).context("the channel's socket cannot be made")?;
    let machine = Machine {
        system: &system,
        initramfs: &image,
        memory_mib,
        cpus: 1,
        time: Time::Deterministic,
        channel: Channel::Port(&socket),
        shares: &[],
    };
    let mut command = machine.command();
    spawn::die_with_parent(&mut command);
    let console = work.0.join(dirs::CONSOLE);
    command
        .stdin(Stdio::null())
        .stdout(fs::File::create(&console)?);
    let mut qemu = command.spawn().context("QEMU cannot be started")?;
    let channel = connected(&listener, &mut qemu)?;
    exec.deferred = true;
    let hello = Hello {
        generation: GENERATION,
        token,
        request: Request::Exec(exec),
    };
    let outbox = Outbox::new(Box::new(channel.try_clone()?));
    let ending = client::attend(Box::new(channel), &outbox, &hello);
    let _ = qemu.kill();
    let _ = qemu.wait();
    let said = dirs::tail(&console, 10);
    if let Some(at) = said.find(FAILED_LINE) {
        bail!(
            "the emulated host cannot boot: {}",
            &said[at + FAILED_LINE.len()..]
        );
    }
    ending.with_context(|| format!("the emulated host ended while the command ran\n{said}"))
}

/// The connection that QEMU makes when it starts.
fn connected(listener: &UnixListener, qemu: &mut Child) -> Result<UnixStream> {
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((channel, _)) => {
                channel.set_nonblocking(false)?;
                return Ok(channel);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(status) = qemu.try_wait()? {
            bail!("QEMU ended at its start: {status}");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A folder of this run, removed at its end.
struct Work(PathBuf);

impl Work {
    fn new(host: &HostDir) -> Result<Self> {
        let runs = host.run();
        let path = runs.with_file_name(format!("bench-{}", std::process::id()));
        remove_stale(runs.parent().unwrap_or(&runs));
        dirs::make_private(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes what killed runs left.
fn remove_stale(runs: &Path) {
    let Ok(entries) = fs::read_dir(runs) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix("bench-"));
        if let Some(pid) = pid
            && !Path::new("/proc").join(pid).exists()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
