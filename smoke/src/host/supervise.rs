//! The supervisor: one process that owns QEMU and the file servers of a host.
//!
//! It tells its starter over standard output how it gets on, a line each: `failed SENTENCE` (more
//! lines may follow) or `ready`. It ends when asked to, when QEMU or a file server ends, when
//! nobody has used the host for a while, or when its folder is gone. Its children are killed by
//! the kernel when it dies, however it dies.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::dirs::{self, CONSOLE, CONTROL, Lock, STATE, State};
use super::machine::{Channel, Machine, Time, file_server};
use super::system::System;
use super::{HostDir, Shares, initramfs};
use crate::inside::{Config, FAILED_LINE, READY_LINE};
use crate::wire;

/// What the starter decides.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// Folders to make visible.
    pub shares: Shares,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Processors.
    pub cpus: u32,
    /// How long the host may be unused before it is stopped.
    pub idle: Duration,
}

/// How long a boot may take on a machine that is busy with other things.
const BOOT_TIME: Duration = Duration::from_secs(240);
/// How often the slow conditions are looked at.
const TICK: Duration = Duration::from_secs(2);
/// The console's log starts anew when it is this long.
const CONSOLE_LIMIT: u64 = 1 << 20;
/// Attempts to find a free port that QEMU gets in time.
const PORT_ATTEMPTS: u32 = 5;

enum Happening {
    Ready,
    Failed(String),
    /// The console of this attempt ended, and so did its QEMU.
    ConsoleEnded(u32),
    Stop(UnixStream),
}

/// Runs the supervisor with its settings on standard input. Call it from the main thread.
///
/// # Errors
/// When the host cannot be started; the starter has been told then.
pub fn run(host: &HostDir) -> Result<()> {
    let mut settings = String::new();
    io::stdin().read_to_string(&mut settings)?;
    let settings: Settings = serde_json::from_str(&settings)?;
    let alive = host.lock_file(Lock::Alive)?;
    alive.lock()?;
    // The children's sockets are named relative to it: such a name has room for 107 bytes only.
    std::env::set_current_dir(host.run())?;
    let result = supervise(host, &settings, &alive);
    if let Err(error) = &result {
        tell(&format!("failed {error:#}"));
    }
    for name in [STATE, CONTROL, "initramfs"] {
        let _ = fs::remove_file(host.file(name));
    }
    result
}

fn tell(line: &str) {
    // The starter may have gone.
    let _ = writeln!(io::stdout(), "{line}");
}

/// Kills and reaps when dropped.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn supervise(host: &HostDir, settings: &Settings, alive: &File) -> Result<()> {
    let system = System::ensure(host, &mut |_| {})?;
    let token = token()?;
    let config = Config {
        token: token.clone(),
        shares: settings.shares.paths().to_vec(),
        files: Vec::new(),
        network: true,
    };
    initramfs::write(Path::new("initramfs"), &system, &config, &[])?;
    let (happenings, happened) = mpsc::channel();
    let _ = fs::remove_file(CONTROL);
    listen(UnixListener::bind(CONTROL)?, happenings.clone())?;

    let started = Instant::now();
    for attempt in 1.. {
        let port = free_port()?;
        let mut children = Children::start(settings, &system, port, attempt, &happenings)?;
        match wait_for_ready(&happened, &mut children, started) {
            Ok(Boot::Ready) => {
                let state = State {
                    generation: wire::GENERATION,
                    pid: std::process::id(),
                    port,
                    token,
                    shares: settings.shares.clone(),
                    since: SystemTime::now(),
                };
                return serve(host, settings, alive, &happened, children, &state);
            }
            Ok(Boot::Stopped(asker)) => {
                drop(children);
                drop(asker);
                bail!("stopped before it was ready");
            }
            Err(_) if attempt < PORT_ATTEMPTS && port_was_taken(host) => {}
            Err(error) => return Err(error),
        }
    }
    unreachable!("the loop ends by returning")
}

/// Writes the state, tells the starter, and stays until the end.
fn serve(
    host: &HostDir,
    settings: &Settings,
    alive: &File,
    happened: &Receiver<Happening>,
    mut children: Children,
    state: &State,
) -> Result<()> {
    let new = host.file("state.new");
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(&serde_json::to_vec(state)?)?;
    fs::rename(&new, host.file(STATE))?;
    tell("ready");
    // The starter waits for the end of this stream; nothing of ours goes there any more.
    let null = File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;

    let users = host.lock_file(Lock::Users)?;
    users.set_modified(SystemTime::now())?;
    loop {
        match happened.recv_timeout(TICK) {
            Ok(Happening::Stop(asker)) => {
                eprintln!("stopping: asked to");
                drop(children);
                let _ = fs::remove_file(host.file(STATE));
                drop(asker); // its end of stream says that all is over
                return Ok(());
            }
            Ok(Happening::Failed(why)) => bail!("the emulated host failed: {why}"),
            Ok(Happening::ConsoleEnded(of)) if of == children.attempt => {
                return Err(children.why_ended());
            }
            Ok(Happening::Ready | Happening::ConsoleEnded(_)) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("the supervisor's threads ended"),
        }
        if let Some(error) = children.ended()? {
            return Err(error);
        }
        if !dirs::is_still(alive, &host.lock_path(Lock::Alive)) {
            bail!("its folder is gone");
        }
        // From here to the end of the process no client can believe that it uses this host.
        if users.try_lock().is_ok() {
            let unused = users.metadata()?.modified()?.elapsed().unwrap_or_default();
            if unused >= settings.idle {
                eprintln!("stopping: unused for {} s", unused.as_secs());
                drop(children);
                let _ = fs::remove_file(host.file(STATE));
                return Ok(());
            }
            users.unlock()?;
        } else {
            users.set_modified(SystemTime::now())?;
        }
    }
}

enum Boot {
    Ready,
    Stopped(UnixStream),
}

fn wait_for_ready(
    happened: &Receiver<Happening>,
    children: &mut Children,
    started: Instant,
) -> Result<Boot> {
    while started.elapsed() < BOOT_TIME {
        match happened.recv_timeout(TICK) {
            Ok(Happening::Ready) => return Ok(Boot::Ready),
            Ok(Happening::Stop(asker)) => return Ok(Boot::Stopped(asker)),
            Ok(Happening::Failed(why)) => bail!("the emulated host cannot boot: {why}"),
            Ok(Happening::ConsoleEnded(of)) if of == children.attempt => {
                return Err(children.why_ended());
            }
            Ok(Happening::ConsoleEnded(_)) | Err(RecvTimeoutError::Timeout) => {
                if let Some(error) = children.ended()? {
                    return Err(error);
                }
            }
            Err(RecvTimeoutError::Disconnected) => bail!("the supervisor's threads ended"),
        }
    }
    let tail = dirs::tail(Path::new(CONSOLE), 10);
    bail!(
        "the emulated host does not get ready in {} s; its console says:\n{tail}",
        BOOT_TIME.as_secs()
    )
}

/// QEMU and the file servers.
struct Children {
    attempt: u32,
    qemu: Owned,
    servers: Vec<Owned>,
}

impl Children {
    fn start(
        settings: &Settings,
        system: &System,
        port: u16,
        attempt: u32,
        happenings: &Sender<Happening>,
    ) -> Result<Self> {
        let mut servers = Vec::new();
        let mut sockets = Vec::new();
        for (position, folder) in settings.shares.paths().iter().enumerate() {
            let socket = format!("share{position}.sock");
            let _ = fs::remove_file(&socket);
            let listener = UnixListener::bind(&socket)?;
            let mut server = file_server(folder, listener.as_raw_fd());
            rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty())?;
            server.stdin(Stdio::null()).stdout(Stdio::null());
            servers.push(Owned(
                server.spawn().context("a file server cannot be started")?,
            ));
            sockets.push(socket);
        }
        let machine = Machine {
            system,
            initramfs: Path::new("initramfs"),
            memory_mib: settings.memory_mib,
            cpus: settings.cpus,
            time: Time::Real,
            channel: Channel::Network(port),
            shares: &sockets,
        };
        let mut command = machine.command();
        crate::spawn::die_with_parent(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut qemu = command
            .spawn()
            .context("QEMU cannot be started (apt-get install qemu-system-x86)")?;
        let console = qemu.stdout.take().context("QEMU has no console")?;
        let qemu = Owned(qemu);
        let happenings = happenings.clone();
        thread::Builder::new()
            .name("console".into())
            .spawn(move || watch_console(console, attempt, &happenings))?;
        Ok(Self {
            attempt,
            qemu,
            servers,
        })
    }

    /// An error when a child has ended, which none may.
    fn ended(&mut self) -> Result<Option<anyhow::Error>> {
        if self.qemu.0.try_wait()?.is_some() {
            return Ok(Some(self.why_ended()));
        }
        for server in &mut self.servers {
            if let Some(status) = server.0.try_wait()? {
                return Ok(Some(anyhow!(
                    "a file server of the emulated host ended: {status}"
                )));
            }
        }
        Ok(None)
    }

    fn why_ended(&mut self) -> anyhow::Error {
        let status = self
            .qemu
            .0
            .wait()
            .map_or_else(|error| error.to_string(), |status| status.to_string());
        let tail = dirs::tail(Path::new(CONSOLE), 10);
        anyhow!("QEMU ended: {status}; the last lines of its console:\n{tail}")
    }
}

/// Keeps the end of the console's output, and looks for what process 1 says there.
fn watch_console(console: impl Read, attempt: u32, happenings: &Sender<Happening>) {
    let watch = || -> io::Result<()> {
        let mut log = File::create(CONSOLE)?;
        let mut console = io::BufReader::new(console);
        let mut written = 0;
        loop {
            let mut line = Vec::new();
            // A line that never ends is taken in pieces.
            let read = io::BufRead::read_until(&mut (&mut console).take(4096), b'\n', &mut line)?;
            if read == 0 {
                return Ok(());
            }
            written += read as u64;
            if written > CONSOLE_LIMIT {
                log = File::create(CONSOLE)?;
                written = 0;
            }
            log.write_all(&line)?;
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end();
            if text.ends_with(READY_LINE) {
                let _ = happenings.send(Happening::Ready);
            } else if let Some(at) = text.find(FAILED_LINE) {
                let _ =
                    happenings.send(Happening::Failed(text[at + FAILED_LINE.len()..].to_owned()));
            }
        }
    };
    if let Err(error) = watch() {
        eprintln!("the console cannot be read or kept: {error}");
    }
    let _ = happenings.send(Happening::ConsoleEnded(attempt));
}

/// Takes requests to stop. Whoever connects asks for it; the end of the stream is the answer.
fn listen(control: UnixListener, happenings: Sender<Happening>) -> io::Result<()> {
    thread::Builder::new()
        .name("control".into())
        .spawn(move || {
            for asker in control.incoming().flatten() {
                if happenings.send(Happening::Stop(asker)).is_err() {
                    return;
                }
            }
        })?;
    Ok(())
}

/// A port that is free now. QEMU binds it a moment later, so it may be gone by then.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

fn port_was_taken(host: &HostDir) -> bool {
    dirs::tail(&host.file(dirs::LOG), 3).contains("Could not set up host forwarding")
}

/// 256 random bits.
///
/// # Errors
/// When the kernel has none.
pub fn token() -> Result<String> {
    let mut bytes = [0u8; 32];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    if filled < bytes.len() {
        bail!("the kernel gave too few random bytes");
    }
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
