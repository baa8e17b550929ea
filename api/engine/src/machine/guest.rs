//! A VM that outlives us: its monitor has a session of its own and listening sockets in a folder.
//!
//! [`Guest::launch`] starts one, [`Guest::adopt`] takes over one that an earlier process of ours
//! started. What is needed for that is in the folder:
//!
//! ```text
//! boot_id        the boot of the host in which it was started
//! monitor.stat   which process it is, written by that process before it became the monitor
//! control.sock   where a new control peer connects
//! agent.sock     where connections to the guest's agent begin, with the vsock handshake
//! monitor.log    the monitor's standard error
//! net.stat       which process is the guest's network, if it has one
//! net.sock       where that is asked
//! net.log        its standard error
//! ```
//!
//! A VM has ended when its monitor's process has; the control socket only says why.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use pyro_agent_protocol::AGENT_PORT;
use pyro_net::egress::Cidr;
use pyro_vmm::control::{Event, Message, Reply, Request};
use rustix::fs::{Mode, OFlags};
use tokio::net::UnixStream;
use tokio::sync::{Mutex, watch};

use super::control::{Control, Ended};
use super::launch::{self, Launch, Parts, Sockets};
use super::net::{self, Cable, NetSpec};
use super::process::{Identity, Process};
use super::{ANSWER_DEADLINE, Artefacts, Ready, end, greet, sockets, spawn};
use crate::error::{Code, Error, Result};
use crate::limits::Limits;
use crate::redact::Redactor;
use crate::run_dir::{private_folder, unwritable};

/// How long a monitor may take to answer a new daemon, which ends it otherwise. A host that is busy
/// must not cost a guest its life.
const ADOPTION_DEADLINE: Duration = Duration::from_secs(10);
/// How long the last word of a monitor that has ended may take to be read.
const LAST_WORD: Duration = Duration::from_secs(1);
/// How long the host's disk may take to take all that a guest wrote.
const DISK_DEADLINE: Duration = Duration::from_secs(120);
/// Where the network's process is asked.
const NET_SOCKET: &str = "net.sock";
/// Most bytes of a monitor's log that are looked at: the last ones.
const LOG_TAIL: u64 = 64 << 10;

/// What a guest is made of.
#[derive(Debug)]
pub(crate) struct GuestSpec<'a> {
    pub(crate) limits: Limits,
    pub(crate) kvm: File,
    pub(crate) monitor: &'a Path,
    pub(crate) agent: &'a Path,
    pub(crate) artefacts: Artefacts,
    /// Its network, if it has one.
    pub(crate) net: Option<NetSpec<'a>>,
    /// Directories of the frozen layers, lowest first.
    pub(crate) frozen: Vec<OwnedFd>,
    /// Directory of the layer that takes the writes.
    pub(crate) top: OwnedFd,
    pub(crate) quota_bytes: u64,
    pub(crate) hostname: String,
    pub(crate) debug_console: bool,
    /// Where its sockets and files go.
    pub(crate) folder: PathBuf,
}

/// A running VM. Dropping it leaves it running.
#[derive(Debug)]
pub(crate) struct Guest {
    process: Arc<Process>,
    control: Option<Mutex<Control>>,
    agent: AgentSocket,
    ended: watch::Receiver<Option<Ended>>,
    /// What its console may not show.
    redactor: OnceLock<Redactor>,
    /// The agent's greeting; it stays open while we live.
    _ready: Option<UnixStream>,
}

/// Where the agent is reached.
#[derive(Debug)]
enum AgentSocket {
    /// Through the monitor.
    Vsock(OwnedFd),
    /// An agent on this host, which tests use.
    #[cfg(test)]
    Plain(OwnedFd),
}

/// What a folder says of a guest.
#[derive(Debug)]
pub(crate) enum Trace {
    /// None was started.
    None,
    /// It was started before the host booted last.
    OfAnotherBoot,
    /// It has ended; with its last word when that was left.
    Ended(Ended),
    /// Its monitor runs.
    Alive(Process),
}

impl Guest {
    /// Starts a monitor and waits until its guest is ready, at most `deadline`. When that fails,
    /// nothing of it is left.
    pub(crate) async fn launch(spec: GuestSpec<'_>, deadline: Duration) -> Result<(Self, Ready)> {
        let folder = spec.folder.clone();
        let network = spec.net.is_some().then(net::welcome);
        let started = Self::spawn(spec)?;
        let (guest, acceptor, hostname, began) = started;
        let greeted = tokio::time::timeout(deadline, greet(&acceptor, &hostname, network));
        let error = tokio::select! {
            biased;
            greeted = greeted => match greeted {
                Ok(Ok((stream, hello))) => {
                    let ready = Ready {
                        kernel_release: hello.kernel_release,
                        boot: began.elapsed(),
                    };
                    return Ok((Self { _ready: Some(stream), ..guest }, ready));
                }
                Ok(Err(error)) => match tokio::time::timeout(ANSWER_DEADLINE, guest.ended()).await {
                    Ok(ended) => end::before_ready(&ended),
                    Err(_) => end::bad_greeting(error).with_detail(guest.console().await),
                },
                Err(_) => end::not_ready(deadline).with_detail(guest.console().await),
            },
            ended = guest.ended() => end::before_ready(&ended),
        };
        guest.kill().await;
        let error = match error.detail() {
            None => error.with_detail(log_tail(&folder)),
            Some(_) => error,
        };
        forget(&folder)?;
        Err(error)
    }

    pub(super) fn spawn(spec: GuestSpec<'_>) -> Result<(Self, sockets::Acceptor, String, Instant)> {
        let folder = prepare(&spec.folder).map_err(|e| unwritable(&spec.folder, e))?;
        let mut network_modules = None;
        let network = spec.net.map(|net| {
            network_modules = Some(net.modules);
            (net.program, net.egress_allow, net.publishes)
        });
        let mut launch = Launch::new(Parts {
            limits: spec.limits,
            kvm: spec.kvm,
            agent: spec.agent,
            artefacts: spec.artefacts,
            frozen: spec.frozen,
            writable: spec.top,
            quota_bytes: spec.quota_bytes,
            network_modules,
            ephemeral: false,
            debug_console: spec.debug_console,
        })?;
        let control_listener = listen(&folder, "control.sock").map_err(launch::resources)?;
        let agent_listener = listen(&folder, "agent.sock").map_err(launch::resources)?;
        launch.config.outlive_control = true;
        launch.config.control_listener_fd = Some(launch.inherited.add(control_listener));
        launch.config.vsock.listener_fd = Some(launch.inherited.add(agent_listener));
        let mut cable = launch.cable.take();
        let log = create(&spec.folder.join("monitor.log")).map_err(launch::resources)?;
        let identity = create(&spec.folder.join("monitor.stat")).map_err(launch::resources)?;
        let (mut command, sockets) = launch.command(spec.monitor)?;
        command.stderr(log);
        spawn::outlive_us(&mut command, &sockets.inherited.numbers(), identity);
        let began = Instant::now();
        let child = command
            .spawn()
            .map_err(|e| launch::not_started(spec.monitor, e))?;
        // It is waited for by its pidfd.
        drop(child);
        let Sockets {
            control,
            acceptor,
            inherited,
        } = sockets;
        let process = match trace(&spec.folder) {
            Trace::Alive(process) => process,
            _ => {
                return Err(launch::not_started(
                    spec.monitor,
                    io::Error::other("it ended at once"),
                )
                .with_detail(log_tail(&spec.folder)));
            }
        };
        // Our copy of the monitor's end goes first: the network ends when the monitor's does.
        drop(inherited);
        if let Some(((program, allow, publishes), cable)) = network.zip(cable.take()) {
            let started = start_net(&spec.folder, &folder, program, cable, allow, publishes);
            if let Err(error) = started {
                process.kill();
                return Err(error);
            }
        }
        let guest = Self::new(
            process,
            Some(Control::start(control)),
            AgentSocket::Vsock(folder),
            spec.folder,
        );
        Ok((guest, acceptor, spec.hostname, began))
    }

    /// Takes over the guest of a folder whose monitor runs.
    ///
    /// # Errors
    /// When its control socket does not answer. The process is then for the caller to end.
    pub(crate) async fn adopt(
        folder: &Path,
        process: Process,
    ) -> std::result::Result<Self, Process> {
        let connect = async {
            let descriptor = open_folder(folder)?;
            let control = connect(&descriptor, "control.sock").await?;
            let mut control = Control::start(control);
            match control.ask(&Request::Stats).await {
                Some(Reply::Stats(_)) => Ok((control, descriptor)),
                _ => Err(io::Error::other("the monitor does not answer")),
            }
        };
        match tokio::time::timeout(ADOPTION_DEADLINE, connect).await {
            Ok(Ok((control, descriptor))) => Ok(Self::new(
                process,
                Some(control),
                AgentSocket::Vsock(descriptor),
                folder.to_path_buf(),
            )),
            _ => Err(process),
        }
    }

    fn new(
        process: Process,
        control: Option<Control>,
        agent: AgentSocket,
        folder: PathBuf,
    ) -> Self {
        let process = Arc::new(process);
        let (sender, ended) = watch::channel(None);
        let watched = Arc::clone(&process);
        let said = control.as_ref().map(Control::ended);
        tokio::spawn(async move {
            watched.ended().await;
            let word = match said {
                Some(said) => tokio::time::timeout(LAST_WORD, said).await.ok(),
                None => None,
            };
            let word = match word {
                Some(Ended::Reported { .. }) => word,
                _ => last_word(&folder),
            };
            sender.send_replace(Some(word.unwrap_or(Ended::Silently)));
        });
        Self {
            process,
            control: control.map(Mutex::new),
            agent,
            ended,
            redactor: OnceLock::new(),
            _ready: None,
        }
    }

    /// A new connection to the agent.
    pub(crate) async fn connect(&self) -> io::Result<UnixStream> {
        match &self.agent {
            AgentSocket::Vsock(folder) => {
                let mut stream = connect(folder, "agent.sock").await?;
                sockets::connect(&mut stream, AGENT_PORT).await?;
                Ok(stream)
            }
            #[cfg(test)]
            AgentSocket::Plain(folder) => connect(folder, "agent.sock").await,
        }
    }

    /// A new connection to the process that is the guest's network.
    pub(crate) async fn connect_net(&self) -> io::Result<UnixStream> {
        match &self.agent {
            AgentSocket::Vsock(folder) => connect(folder, NET_SOCKET).await,
            #[cfg(test)]
            AgentSocket::Plain(folder) => connect(folder, NET_SOCKET).await,
        }
    }

    /// Waits until the VM has ended, and says how.
    pub(crate) fn ended(&self) -> impl Future<Output = Ended> + use<> {
        let mut ended = self.ended.clone();
        async move {
            let end = match ended.wait_for(Option::is_some).await {
                Ok(end) => end.clone(),
                Err(_) => None,
            };
            end.unwrap_or(Ended::Silently)
        }
    }

    /// How it has ended, if it has.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Asks the monitor something. `None` when it does not answer.
    pub(crate) async fn ask(&self, request: &Request, patience: Duration) -> Option<Reply> {
        let mut control = self.control.as_ref()?.lock().await;
        tokio::time::timeout(patience, control.ask(request))
            .await
            .ok()?
    }

    /// Makes durable what the file server of the guest's root holds.
    pub(crate) async fn sync_root(&self) -> Result<()> {
        if self.control.is_none() {
            return Ok(());
        }
        done(
            self.ask(&Request::Sync, DISK_DEADLINE).await,
            "write the disk out",
        )
    }

    /// Freezes the layer that takes the writes, and goes on in the empty one of `directory`.
    ///
    /// # Errors
    /// [`Frozen::No`] when all is as before; [`Frozen::Unknown`] when the monitor did not say.
    pub(crate) async fn freeze(&self, directory: OwnedFd) -> std::result::Result<(), Frozen> {
        let Some(control) = &self.control else {
            return Ok(());
        };
        let mut control = control.lock().await;
        let asked = control.ask_with(&Request::Freeze, directory);
        match tokio::time::timeout(DISK_DEADLINE, asked).await {
            Ok(Some(Reply::Ok)) => Ok(()),
            Ok(reply @ Some(_)) => match done(reply, "freeze the disk") {
                Ok(()) => Ok(()),
                Err(error) => Err(Frozen::No(error)),
            },
            Ok(None) | Err(_) => Err(Frozen::Unknown(unanswered("freeze the disk"))),
        }
    }

    /// The end of the guest's console, as far as the monitor still answers.
    pub(crate) async fn console(&self) -> String {
        match self.ask(&Request::Console, ANSWER_DEADLINE).await {
            Some(Reply::Console { text, .. }) => self.redactor().text(&end::printable_lines(&text)),
            _ => String::new(),
        }
    }

    /// From here on nothing that it tells of the guest has these values.
    pub(crate) fn redact(&self, redactor: Redactor) {
        let _ = self.redactor.set(redactor);
    }

    fn redactor(&self) -> Redactor {
        self.redactor.get().cloned().unwrap_or_default()
    }

    /// The error for a connection to the agent that broke: how the VM ended, when it did.
    pub(crate) async fn lost(
        &self,
        cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        match tokio::time::timeout(ANSWER_DEADLINE, self.ended()).await {
            Ok(ended) => self.redactor().ours(end::before_done(&ended)),
            Err(_) => Error::new(
                Code::AgentFailed,
                "the guest's agent does not answer as it should",
                "stop and start the workspace; when it happens again, report it with the detail below",
            )
            .caused_by(cause)
            .with_detail(self.console().await),
        }
    }

    /// Ends the VM at once and waits until its process is gone.
    pub(crate) async fn kill(&self) {
        self.process.kill();
        self.ended().await;
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// Why a freeze is not known to have happened.
#[derive(Debug)]
pub(crate) enum Frozen {
    /// It has not.
    No(Error),
    /// It may have.
    Unknown(Error),
}

fn done(reply: Option<Reply>, what: &str) -> Result<()> {
    match reply {
        Some(Reply::Ok) => Ok(()),
        Some(Reply::Error { message, .. }) => Err(Error::new(
            Code::MonitorFailed,
            format!(
                "the VM's monitor could not {what}: {}",
                crate::exec::printable(&message)
            ),
            "check the space and the health of the state directory's disk, then try again",
        )),
        _ => Err(unanswered(what)),
    }
}

fn unanswered(what: &str) -> Error {
    Error::new(
        Code::MonitorFailed,
        format!("the VM's monitor did not answer when it was to {what}"),
        "try again; when it happens again, stop and start the workspace",
    )
}

/// The reason for a workspace whose guest ended by itself.
pub(crate) fn failure(ended: &Ended) -> Error {
    end::by_itself(ended)
}

/// Starts the guest's network.
fn start_net(
    path: &Path,
    folder: &OwnedFd,
    program: &Path,
    cable: Cable,
    egress_allow: Vec<Cidr>,
    publishes: bool,
) -> Result<()> {
    let listener = listen(folder, NET_SOCKET).map_err(launch::resources)?;
    let vsock = publishes
        .then(|| {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            rustix::fs::openat(folder, "agent.sock", flags, Mode::empty())
        })
        .transpose()
        .map_err(|error| launch::resources(error.into()))?;
    let log = create(&path.join("net.log")).map_err(launch::resources)?;
    let identity = create(&path.join("net.stat")).map_err(launch::resources)?;
    let (mut command, inherited) = net::command(program, cable, listener, vsock, egress_allow)?;
    command.stderr(log);
    spawn::outlive_us(&mut command, &inherited.numbers(), identity);
    let child = command
        .spawn()
        .map_err(|error| net::not_started(program, error))?;
    // It is waited for by its pidfd.
    drop(child);
    reap_net(path);
    Ok(())
}

/// Waits in a task of its own for the end of a guest's network that runs.
fn reap_net(folder: &Path) {
    if let Some(network) = net_trace(folder) {
        tokio::spawn(async move { network.ended().await });
    }
}

/// The process that is the network of a folder's guest, while it runs.
fn net_trace(folder: &Path) -> Option<Process> {
    let line = fs::read_to_string(folder.join("net.stat")).ok()?;
    Process::find(Identity::parse(&line)?).ok().flatten()
}

/// Waits until the network that was started for a folder's guest has ended, and gives what it said
/// last. `None` when none was started, or it cannot be told.
pub(crate) fn network_ended(folder: &Path) -> Option<impl Future<Output = String> + use<>> {
    let line = fs::read_to_string(folder.join("net.stat")).ok()?;
    let network = Process::find(Identity::parse(&line)?).ok()?;
    let folder = folder.to_path_buf();
    Some(async move {
        if let Some(network) = network {
            network.ended().await;
        }
        tail(&folder.join("net.log"))
    })
}

/// Ends the network of a guest that has ended, if it still goes on.
pub(crate) async fn end_net(folder: &Path) {
    if boot_id()
        != fs::read_to_string(folder.join("boot_id"))
            .ok()
            .map(|id| id.trim().to_string())
    {
        return;
    }
    if let Some(network) = net_trace(folder) {
        network.kill();
        network.ended().await;
    }
}

/// What a folder says of the guest that was started in it.
pub(crate) fn trace(folder: &Path) -> Trace {
    let Ok(boot) = fs::read_to_string(folder.join("boot_id")) else {
        return Trace::None;
    };
    if Some(boot.trim()) != boot_id().as_deref() {
        return Trace::OfAnotherBoot;
    }
    let identity = fs::read_to_string(folder.join("monitor.stat"))
        .ok()
        .and_then(|line| Identity::parse(&line));
    let Some(identity) = identity else {
        return Trace::None;
    };
    match Process::find(identity) {
        Ok(Some(process)) => Trace::Alive(process),
        _ => Trace::Ended(last_word(folder).unwrap_or(Ended::Silently)),
    }
}

/// Takes away what a guest that has ended left in its folder.
pub(crate) fn forget(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(|e| unwritable(folder, e)),
    }
}

/// What a monitor without a control peer wrote as its last word.
fn last_word(folder: &Path) -> Option<Ended> {
    let text = log_tail(folder);
    let message = text
        .lines()
        .rev()
        .find_map(|line| serde_json::from_str(line).ok())?;
    match message {
        Message::Event(Event::Exited {
            reason,
            console_tail,
        }) => Some(Ended::Reported {
            reason,
            console_tail,
        }),
        _ => None,
    }
}

fn log_tail(folder: &Path) -> String {
    tail(&folder.join("monitor.log"))
}

/// The end of a log.
fn tail(log: &Path) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let read = || {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL).read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_string())
}

/// Makes the folder anew; whatever was there is of a guest that has ended.
fn prepare(folder: &Path) -> io::Result<OwnedFd> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed?,
    }
    private_folder(folder)?;
    let boot = boot_id().ok_or_else(|| io::Error::other("the host has no boot id"))?;
    fs::write(folder.join("boot_id"), boot)?;
    open_folder(folder)
}

fn open_folder(folder: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::open(folder, flags, Mode::empty())?)
}

fn create(path: &Path) -> io::Result<File> {
    File::options()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

/// A socket's path may be 107 bytes long, a state directory's longer: so by its descriptor.
fn socket_path(folder: &OwnedFd, name: &str) -> PathBuf {
    PathBuf::from(format!(
        "/proc/self/fd/{}/{name}",
        folder.as_fd().as_raw_fd()
    ))
}

fn listen(folder: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    Ok(UnixListener::bind(socket_path(folder, name))?.into())
}

async fn connect(folder: &OwnedFd, name: &str) -> io::Result<UnixStream> {
    UnixStream::connect(socket_path(folder, name)).await
}

#[cfg(test)]
pub(crate) mod testing {
    //! Guests without a VM: the real agent as a process of this host.

    use std::process::{Command, Stdio};

    use super::*;

    impl Guest {
        /// Starts an agent in the place of a monitor.
        pub(crate) async fn launch_agent(agent: &Path, folder: &Path) -> Result<Self> {
            let descriptor = prepare(folder).expect("prepared");
            let identity = create(&folder.join("monitor.stat")).expect("created");
            let mut command = Command::new(agent);
            command
                .arg("--listen-unix")
                .arg(folder.join("agent.sock"))
                .arg("--staging")
                .arg(folder)
                .arg("--secrets")
                .arg(folder.join("secrets"))
                .stdin(Stdio::null())
                .stdout(Stdio::null());
            spawn::outlive_us(&mut command, &[], identity);
            #[allow(clippy::zombie_processes, reason = "its pidfd reaps it")]
            drop(command.spawn().expect("started"));
            let Trace::Alive(process) = trace(folder) else {
                panic!("the agent does not run");
            };
            let guest = Self::new(process, None, AgentSocket::Plain(descriptor), folder.into());
            while guest.connect().await.is_err() {
                assert!(!guest.has_ended(), "the agent ended");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(guest)
        }

        /// Takes over an agent.
        pub(crate) async fn adopt_agent(folder: &Path, process: Process) -> Self {
            let descriptor = open_folder(folder).expect("opened");
            Self::new(process, None, AgentSocket::Plain(descriptor), folder.into())
        }
    }
}
