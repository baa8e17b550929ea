//! Starting, finding and stopping the host.

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal};

use super::dirs::{self, CONTROL, LOG, Lock, State};
use super::supervise::Settings;
use super::system::System;
use super::{HostDir, Shares, system};
use crate::spawn;
use crate::wire::GENERATION;

/// Standard settings of a host with these shares, as far as the environment does not say
/// otherwise: `PYRO_HOST_MEMORY_MIB`, `PYRO_HOST_CPUS`, `PYRO_HOST_IDLE_SECONDS`.
///
/// One processor: with two, QEMU 7.2 now and then leaves its guest's kernel with the GS base of the
/// nested guest after an exit, and that kernel dies of recursive page faults.
///
/// # Errors
/// When one of them is no number, or absurd.
pub fn settings(shares: Shares) -> Result<Settings> {
    Ok(Settings {
        shares,
        memory_mib: number("PYRO_HOST_MEMORY_MIB", default_memory_mib(), 512, 1 << 20)?,
        cpus: u32::try_from(number("PYRO_HOST_CPUS", 1, 1, 64)?)?,
        idle: Duration::from_secs(number("PYRO_HOST_IDLE_SECONDS", 15 * 60, 1, 7 * 24 * 3600)?),
    })
}

/// 6 GiB where that leaves the machine half of its own. QEMU takes it as it is used.
fn default_memory_mib() -> u64 {
    let info = rustix::system::sysinfo();
    let machine = (info.totalram as u64).saturating_mul(u64::from(info.mem_unit)) >> 20;
    (machine / 2).clamp(1024, 6144)
}

fn number(name: &str, default: u64, least: u64, most: u64) -> Result<u64> {
    let Some(value) = std::env::var_os(name) else {
        return Ok(default);
    };
    let number: Option<u64> = value.to_str().and_then(|text| text.parse().ok());
    match number {
        Some(number) if (least..=most).contains(&number) => Ok(number),
        _ => bail!("{name} must be a number from {least} to {most}"),
    }
}

/// A host that is running, and kept for as long as this value lives.
#[derive(Debug)]
pub struct Lease {
    /// How to reach it.
    pub state: State,
    users: File,
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The last use; the supervisor counts the idle time from here.
        let _ = self.users.set_modified(std::time::SystemTime::now());
    }
}

/// Finds the running host, or starts one. `say` gets a line per step of a start.
///
/// # Errors
/// When it cannot be started, or a running one lacks a share and has other users.
pub fn lease(host: &HostDir, settings: &Settings, say: &mut dyn FnMut(&str)) -> Result<Lease> {
    host.make_run()?;
    let users = host.lock_file(Lock::Users)?;
    let starting = host.lock_file(Lock::Starting)?;
    starting.lock()?;
    // In this order: whoever waits for the start of a host does not count as its user.
    users.lock_shared()?;
    let mut settings = settings.clone();
    if let Some(state) = running(host)? {
        let compatible = state.generation == GENERATION;
        if compatible && state.shares.cover_all(&settings.shares) {
            return Ok(Lease { state, users });
        }
        let why = if compatible {
            "does not share all of the folders that are needed"
        } else {
            "is of another version"
        };
        users.unlock()?;
        if !nobody_uses(&users)? {
            bail!(
                "the running emulated host {why}, and others use it\n  \
                 fix: wait for them, or stop it (`make host-stop`)"
            );
        }
        say(&format!(
            "the running emulated host {why}: starting it anew"
        ));
        stop_running(host)?;
        settings.shares = settings.shares.union(&state.shares);
        settings.shares.forget_missing();
    }
    start(host, &settings, say)?;
    users.lock_shared()?; // a lock for us alone becomes a shared one
    let state = host
        .state()
        .context("the emulated host ended just after its start")?;
    Ok(Lease { state, users })
}

/// Takes the users' lock for us alone, if that can be had. The supervisor takes it for a moment
/// now and then, so one refusal says little.
fn nobody_uses(users: &File) -> Result<bool> {
    for _ in 0..20 {
        match users.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(10)),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
    Ok(false)
}

/// The state of the running host, waited for when it is still booting for a starter that has
/// gone; `None` when there is none. The caller holds [`Lock::Starting`].
fn running(host: &HostDir) -> Result<Option<State>> {
    let since = Instant::now();
    while host.is_alive()? {
        if let Some(state) = host.state() {
            return Ok(Some(state));
        }
        ensure!(
            since.elapsed() < Duration::from_secs(300),
            "the emulated host hangs in its start; stop it (`make host-stop`)"
        );
        thread::sleep(Duration::from_millis(100));
    }
    Ok(None)
}

fn start(host: &HostDir, settings: &Settings, say: &mut dyn FnMut(&str)) -> Result<()> {
    system::require_tools()?;
    System::ensure(host, say)?;
    say("starting the emulated host");
    let log = File::options()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(host.file(LOG))?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["host", "supervise"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log);
    spawn::own_session(&mut command);
    let mut supervisor = command
        .spawn()
        .context("the supervisor cannot be started")?;
    if let Some(mut stdin) = supervisor.stdin.take() {
        stdin.write_all(&serde_json::to_vec(settings)?)?;
    }
    let mut said = String::new();
    if let Some(mut stdout) = supervisor.stdout.take() {
        stdout.read_to_string(&mut said)?;
    }
    if said.lines().any(|line| line == "ready") {
        return Ok(());
    }
    let _ = supervisor.wait();
    let why = said
        .trim()
        .strip_prefix("failed ")
        .unwrap_or("its supervisor ended without a word")
        .to_owned();
    let log = dirs::tail(&host.file(LOG), 10);
    bail!(
        "the emulated host cannot be started: {why}\n{log}\n(log: {})",
        host.file(LOG).display()
    )
}

/// Stops the host; returns when all its processes have ended. False when there was none.
///
/// # Errors
/// When it does not end.
pub fn stop(host: &HostDir) -> Result<bool> {
    if !host.is_alive()? {
        return Ok(false);
    }
    stop_running(host)?;
    Ok(true)
}

fn stop_running(host: &HostDir) -> Result<()> {
    let asked = ask_to_stop(host);
    if asked.is_err()
        && let Some(pid) = host
            .state()
            .and_then(|state| Pid::from_raw(i32::try_from(state.pid).ok()?))
        && host.is_alive()?
    {
        // It holds its lock, so the number in its state is still its own. Its children die with it.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
    let since = Instant::now();
    while host.is_alive()? {
        ensure!(
            since.elapsed() < Duration::from_secs(20),
            "the emulated host does not end"
        );
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn ask_to_stop(host: &HostDir) -> Result<()> {
    // A path of any length: the socket is named relative to an open folder.
    let folder = File::open(host.run())?;
    let path = format!(
        "/proc/self/fd/{}/{CONTROL}",
        std::os::fd::AsRawFd::as_raw_fd(&folder)
    );
    let mut control = UnixStream::connect(path)?;
    control.set_read_timeout(Some(Duration::from_secs(15)))?;
    let mut end = Vec::new();
    control.read_to_end(&mut end)?;
    Ok(())
}
