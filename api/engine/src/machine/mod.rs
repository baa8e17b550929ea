//! One VM's life: a monitor process, its guest's agent, and the directory they write into.
//!
//! [`Machine::spawn`] starts the monitor with nothing but the descriptors that its configuration
//! names. [`Machine::wait_ready`] waits for the agent's greeting and answers it. Then
//! [`Machine::connect`] opens connections to the agent, one for each operation, out of the number
//! that was asked for at the start. [`Machine::finish`] ends the VM and removes all of it; it must be
//! called, also after an error and after an interrupt. When it could not be (a panic), dropping the
//! machine kills the monitor and removes the directory as well as it can.

mod control;
mod end;
pub(crate) mod guest;
mod initramfs;
mod launch;
pub(crate) mod net;
pub(crate) mod process;
mod sockets;
pub(crate) mod spawn;

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

use pyro_agent_protocol::{AGENT_PORT, Decoder, GENERATION, Hello, Welcome};
use pyro_vmm::control::{Reply, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

pub use control::{Control, Ended};
use launch::{Launch, Parts};
use net::NetSpec;
use pyro_net::egress::Cidr;
use sockets::{Acceptor, stream_pair};

use crate::error::{Code, Error, Result};
use crate::limits::Limits;
use crate::run_dir::RunDir;

/// How long a monitor may take to end after it was asked to.
const STOP_DEADLINE: Duration = Duration::from_secs(3);
/// How long a monitor may take to answer a question.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
/// Most bytes of the monitor's standard error that are kept: the last ones.
const STDERR_TAIL: usize = 8 * 1024;

/// The files of an environment that a VM boots from, opened for reading.
#[derive(Debug)]
pub struct Artefacts {
    /// The unpacked kernel.
    pub kernel: File,
    /// The archive with the kernel's modules.
    pub modules: File,
    /// The root's packed layers as index and data, lowest first.
    pub layers: Vec<(File, File)>,
    /// The archive with the modules that a guest with a network needs; installs from before there
    /// were networks have none.
    pub network_modules: Option<File>,
}

/// What a VM is made of.
#[derive(Debug)]
pub struct Spec<'a> {
    /// Its size.
    pub limits: Limits,
    /// The KVM device.
    pub kvm: File,
    /// The monitor's program.
    pub monitor: &'a Path,
    /// The agent's program.
    pub agent: &'a Path,
    /// What it boots.
    pub artefacts: Artefacts,
    /// Its network, if it has one.
    pub(crate) net: Option<NetSpec<'a>>,
    /// Where it writes.
    pub run: RunDir,
    /// The guest's host name.
    pub hostname: String,
    /// How many operations it will be asked for.
    pub operations: usize,
    /// Copies the guest's console to our standard error. Slow.
    pub debug_console: bool,
}

/// What the agent said of itself, with the time it took.
#[derive(Debug, Clone)]
pub struct Ready {
    /// `uname -r` of the guest.
    pub kernel_release: String,
    /// From the start of the monitor to the agent's greeting.
    pub boot: Duration,
}

/// A VM.
#[derive(Debug)]
pub struct Machine {
    // Dropped in this order: the monitor is killed before its directory is removed.
    child: Child,
    control: Control,
    acceptor: Acceptor,
    ready: Option<UnixStream>,
    streams: Vec<UnixStream>,
    stderr: JoinHandle<Vec<u8>>,
    /// Its network, if it has one.
    net: Option<Child>,
    hostname: String,
    started: Instant,
    run: RunDir,
}

/// What is left of a VM: a report.
#[derive(Debug)]
pub struct Finished {
    /// How the VM ended.
    pub ended: Ended,
    /// How the monitor's process ended.
    pub monitor: Option<ExitStatus>,
    /// The last of what the monitor wrote to its standard error.
    pub stderr: String,
    /// Whether the run directory is gone.
    pub removed: Result<()>,
}

impl Machine {
    /// Starts the monitor. Does not wait for the guest.
    pub fn spawn(spec: Spec<'_>) -> Result<Self> {
        let Spec {
            limits,
            kvm,
            monitor,
            agent,
            artefacts,
            net,
            run,
            hostname,
            operations,
            ..
        } = spec;
        let mut network_modules = None;
        let net = net.map(|net| {
            network_modules = Some(net.modules);
            (net.program, net.egress_allow)
        });
        let mut launch = Launch::new(Parts {
            limits,
            kvm,
            agent,
            artefacts,
            frozen: Vec::new(),
            writable: run.open_writable()?,
            quota_bytes: run.quota_bytes()?,
            network_modules,
            ephemeral: true,
            debug_console: spec.debug_console,
        })?;
        let cable = launch.cable.take();
        let mut streams = Vec::with_capacity(operations);
        for _ in 0..operations {
            let (ours, theirs) = stream_pair().map_err(launch::resources)?;
            streams.push(ours);
            let number = launch.inherited.add(theirs);
            launch.config.vsock.stream_fds.push(number);
        }
        let (command, sockets) = launch.command(monitor)?;
        let mut command = Command::from(command);
        command.stderr(Stdio::piped()).kill_on_drop(true);
        spawn::inherit_only(&mut command, &sockets.inherited.numbers());
        let started = Instant::now();
        let mut child = command
            .spawn()
            .map_err(|e| launch::not_started(monitor, e))?;
        let launch::Sockets {
            control,
            acceptor,
            inherited,
        } = sockets;
        // Our copy of the monitor's end goes first: the network ends when the monitor's does.
        drop(inherited);
        let net = match net.zip(cable) {
            None => None,
            Some(((program, allow), cable)) => Some(spawn_net(program, cable, allow)?),
        };
        let stderr = child.stderr.take();
        let stderr = tokio::spawn(keep_tail(stderr, spec.debug_console));
        let control = Control::start(control);
        Ok(Self {
            child,
            control,
            acceptor,
            ready: None,
            streams,
            stderr,
            net,
            hostname,
            started,
            run,
        })
    }

    /// Waits for the agent's greeting, at most `deadline`, and answers it.
    ///
    /// Cancel safe only in the sense that [`Machine::finish`] may be called afterwards.
    pub async fn wait_ready(&mut self, deadline: Duration) -> Result<Ready> {
        let ended = self.control.ended();
        let network = self.net.is_some().then(net::welcome);
        let greeted =
            tokio::time::timeout(deadline, greet(&self.acceptor, &self.hostname, network));
        let result = tokio::select! {
            biased;
            greeted = greeted => greeted,
            ended = ended => return Err(end::before_ready(&ended)),
        };
        match result {
            Ok(Ok((stream, hello))) => {
                self.ready = Some(stream);
                Ok(Ready {
                    kernel_release: hello.kernel_release,
                    boot: self.started.elapsed(),
                })
            }
            Ok(Err(error)) => {
                // The usual reason is a monitor that just ended; its last word says more.
                if let Ok(ended) = tokio::time::timeout(ANSWER_DEADLINE, self.control.ended()).await
                {
                    return Err(end::before_ready(&ended));
                }
                Err(end::bad_greeting(error).with_detail(self.console().await))
            }
            Err(_) => Err(end::not_ready(deadline).with_detail(self.console().await)),
        }
    }

    /// A new connection to the agent.
    pub async fn connect(&mut self) -> Result<UnixStream> {
        let mut stream = self.streams.pop().ok_or_else(|| {
            Error::new(
                Code::AgentFailed,
                "this VM has no connection left",
                "report this as a bug",
            )
        })?;
        match sockets::connect(&mut stream, AGENT_PORT).await {
            Ok(()) => Ok(stream),
            Err(error) => Err(self.lost(error).await),
        }
    }

    /// Waits until the VM has ended, and says how.
    pub fn ended(&self) -> impl Future<Output = Ended> + use<> {
        self.control.ended()
    }

    /// The error for a VM that ended while something was still to do.
    pub fn ended_early(&self, ended: &Ended) -> Error {
        end::before_done(ended)
    }

    /// The error for a connection that broke: how the VM ended, when it did.
    pub async fn lost(
        &mut self,
        cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        match tokio::time::timeout(ANSWER_DEADLINE, self.control.ended()).await {
            Ok(ended) => end::before_done(&ended),
            Err(_) => Error::new(
                Code::AgentFailed,
                "the guest's agent does not answer as it should",
                "run it again; when it happens again, report it with the detail below",
            )
            .caused_by(cause)
            .with_detail(self.console().await),
        }
    }

    /// The process id of the monitor while it runs.
    pub fn monitor_pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// The end of the guest's console, as far as the monitor still answers.
    async fn console(&mut self) -> String {
        let answer = self.control.ask(&Request::Console);
        match tokio::time::timeout(ANSWER_DEADLINE, answer).await {
            Ok(Some(Reply::Console { text, .. })) => end::printable_lines(&text),
            _ => String::new(),
        }
    }

    /// Ends the VM, waits until its process is gone, and removes what it wrote.
    pub async fn finish(mut self) -> Finished {
        let _ = tokio::time::timeout(ANSWER_DEADLINE, self.control.send(&Request::Stop)).await;
        let monitor = match tokio::time::timeout(STOP_DEADLINE, self.child.wait()).await {
            Ok(status) => status.ok(),
            Err(_) => {
                // Kills and reaps; fails only when the process is already reaped.
                let _ = self.child.kill().await;
                self.child.try_wait().ok().flatten()
            }
        };
        if let Some(net) = &mut self.net {
            // It has nobody to serve any more.
            let _ = net.kill().await;
        }
        let ended = tokio::time::timeout(ANSWER_DEADLINE, self.control.ended())
            .await
            .unwrap_or(Ended::Silently);
        let stderr = tokio::time::timeout(ANSWER_DEADLINE, &mut self.stderr).await;
        let stderr = match stderr {
            Ok(Ok(bytes)) => end::printable_lines(&String::from_utf8_lossy(&bytes)),
            _ => String::new(),
        };
        let Self { run, .. } = self;
        Finished {
            ended,
            monitor,
            stderr,
            removed: run.remove(),
        }
    }
}

/// Starts the network of a VM that goes with us. Nobody asks it anything.
fn spawn_net(program: &Path, cable: net::Cable, egress_allow: Vec<Cidr>) -> Result<Child> {
    let listener = sockets::nameless_listener().map_err(launch::resources)?;
    let (command, inherited) = net::command(program, cable, listener, None, egress_allow)?;
    let mut command = Command::from(command);
    command.stderr(Stdio::null()).kill_on_drop(true);
    spawn::inherit_only(&mut command, &inherited.numbers());
    command
        .spawn()
        .map_err(|error| net::not_started(program, error))
}

/// The agent's greeting and our answer.
async fn greet(
    acceptor: &Acceptor,
    hostname: &str,
    network: Option<pyro_agent_protocol::Network>,
) -> io::Result<(UnixStream, Hello)> {
    let mut stream = acceptor.accept().await?;
    let mut decoder = Decoder::new();
    let mut byte = [0; 1024];
    let hello: Hello = loop {
        let n = stream.read(&mut byte).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(frame) = decoder.decode(&mut &byte[..n]).map_err(io::Error::other)? {
            break frame.message().map_err(io::Error::other)?;
        }
    };
    if hello.generation != GENERATION {
        return Err(io::Error::other(format!(
            "the agent speaks generation {} of the protocol and not {GENERATION}",
            hello.generation
        )));
    }
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let welcome = Welcome {
        generation: GENERATION,
        realtime_ns: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
        hostname: hostname.to_string(),
        entropy: crate::run_dir::random::<64>()?.to_vec(),
        network,
    };
    let bytes = pyro_agent_protocol::encode_message(&welcome).map_err(io::Error::other)?;
    stream.write_all(&bytes).await?;
    let kernel_release = crate::exec::printable(&hello.kernel_release);
    Ok((
        stream,
        Hello {
            kernel_release,
            ..hello
        },
    ))
}

/// Reads to the end and keeps the last bytes; copies all to our standard error when asked to.
async fn keep_tail(stream: Option<tokio::process::ChildStderr>, copy: bool) -> Vec<u8> {
    let mut tail = Vec::new();
    let Some(mut stream) = stream else {
        return tail;
    };
    let mut chunk = [0; 4096];
    while let Ok(n) = stream.read(&mut chunk).await {
        if n == 0 {
            break;
        }
        if copy {
            let _ = tokio::io::stderr().write_all(&chunk[..n]).await;
        }
        tail.extend_from_slice(&chunk[..n]);
        let excess = tail.len().saturating_sub(STDERR_TAIL);
        tail.drain(..excess);
    }
    tail
}

#[cfg(test)]
mod guest_tests;
#[cfg(test)]
mod tests;
