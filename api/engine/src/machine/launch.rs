//! What every monitor is started with: its configuration, and the descriptors that it names.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::{Command, Stdio};

use pyro_agent_protocol::READY_PORT;
use pyro_vmm::config;
use tokio::net::UnixStream;

use super::net::{self, Cable};
use super::sockets::{Acceptor, memory_file, stream_pair};
use super::{Artefacts, initramfs};
use crate::error::{Code, Error, Result};
use crate::limits::Limits;

/// Most inodes that one guest may make. Each costs the monitor half a kilobyte of memory.
const QUOTA_INODES: u64 = 1_000_000;
/// Context id of the guest; each monitor has a vsock of its own, so all may be the same.
const GUEST_CID: u32 = 3;

/// What a VM is made of.
pub(super) struct Parts<'a> {
    pub(super) limits: Limits,
    pub(super) kvm: File,
    pub(super) agent: &'a Path,
    pub(super) artefacts: Artefacts,
    /// Directories of the frozen layers, lowest first.
    pub(super) frozen: Vec<OwnedFd>,
    /// The directory of the writable layer.
    pub(super) writable: OwnedFd,
    pub(super) quota_bytes: u64,
    /// Gives the guest a network device, and what it needs for it.
    pub(super) network_modules: Option<File>,
    pub(super) ephemeral: bool,
    pub(super) debug_console: bool,
}

/// A monitor that is about to be started. More may be added to its configuration.
pub(super) struct Launch {
    pub(super) config: config::Config,
    pub(super) inherited: Inherited,
    /// For the network's process, when there is a device.
    pub(super) cable: Option<Cable>,
    control: UnixStream,
    acceptor: Acceptor,
}

/// Our ends, and what must stay open until the monitor is started.
pub(super) struct Sockets {
    pub(super) control: UnixStream,
    /// Where the guest's agent greets.
    pub(super) acceptor: Acceptor,
    pub(super) inherited: Inherited,
}

impl Launch {
    /// The configuration that all monitors have.
    pub(super) fn new(parts: Parts<'_>) -> Result<Self> {
        let agent_archive = initramfs::agent_archive(parts.agent)?;
        let mut inherited = Inherited::default();
        let (control, control_theirs) = stream_pair().map_err(resources)?;
        let (acceptor, acceptor_theirs) = Acceptor::pair(READY_PORT).map_err(resources)?;
        let Artefacts {
            kernel,
            modules,
            layers,
            network_modules: _,
        } = parts.artefacts;
        let mut initramfs_fds = vec![inherited.add(modules)];
        let mut cable = None;
        let mut device = None;
        if let Some(modules) = parts.network_modules {
            initramfs_fds.push(inherited.add(modules));
            let (net, ours) = net::cable(&mut inherited)?;
            (device, cable) = (Some(net), Some(ours));
        }
        initramfs_fds.push(inherited.add(agent_archive));
        let config = config::Config {
            generation: config::GENERATION,
            vcpu_count: parts.limits.vcpu_count(),
            memory_mib: parts.limits.memory_mib(),
            kvm_fd: inherited.add(parts.kvm),
            kernel_fd: inherited.add(kernel),
            initramfs_fds,
            root: config::Root {
                layers: layers
                    .into_iter()
                    .map(|(index, data)| config::PackedLayer {
                        index_fd: inherited.add(index),
                        data_fd: inherited.add(data),
                    })
                    .collect(),
                frozen_fds: parts
                    .frozen
                    .into_iter()
                    .map(|directory| inherited.add(directory))
                    .collect(),
                writable_fd: inherited.add(parts.writable),
                quota_bytes: Some(parts.quota_bytes),
                quota_inodes: Some(QUOTA_INODES),
                ephemeral: parts.ephemeral,
            },
            vsock: config::Vsock {
                guest_cid: GUEST_CID,
                listener_fd: None,
                stream_fds: Vec::new(),
                host_ports: vec![config::HostPort {
                    port: READY_PORT,
                    acceptor_fd: inherited.add(acceptor_theirs),
                }],
            },
            net: device,
            control_fd: inherited.add(control_theirs),
            control_listener_fd: None,
            outlive_control: false,
            debug_console: parts.debug_console,
        };
        Ok(Self {
            config,
            inherited,
            cable,
            control,
            acceptor,
        })
    }

    /// The command that starts the monitor, but for who it belongs to and its standard error.
    pub(super) fn command(mut self, monitor: &Path) -> Result<(Command, Sockets)> {
        let text = serde_json::to_vec(&self.config).expect("a configuration is plain data");
        let file = memory_file("pyro-config", &text).map_err(resources)?;
        let number = self.inherited.add(file);
        let mut command = Command::new(monitor);
        command
            .args(["--config-fd", &number.to_string()])
            .current_dir("/")
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let sockets = Sockets {
            control: self.control,
            acceptor: self.acceptor,
            inherited: self.inherited,
        };
        Ok((command, sockets))
    }
}

/// Descriptors that the monitor inherits under the numbers that they have here.
#[derive(Debug, Default)]
pub(super) struct Inherited(Vec<OwnedFd>);

impl Inherited {
    pub(super) fn add(&mut self, descriptor: impl Into<OwnedFd>) -> RawFd {
        let descriptor = descriptor.into();
        let number = descriptor.as_raw_fd();
        self.0.push(descriptor);
        number
    }

    pub(super) fn numbers(&self) -> Vec<RawFd> {
        self.0.iter().map(AsRawFd::as_raw_fd).collect()
    }
}

/// The error for descriptors that cannot be had.
pub(super) fn resources(error: io::Error) -> Error {
    Error::new(
        Code::MonitorStart,
        "cannot set up the monitor's descriptors",
        "check the limits on open files (`ulimit -n`) and free memory",
    )
    .caused_by(error)
}

/// The error for a monitor that cannot be executed.
pub(super) fn not_started(monitor: &Path, error: io::Error) -> Error {
    Error::new(
        Code::MonitorStart,
        format!("cannot start the monitor {}", monitor.display()),
        "check that it is this version's pyro-vmm and can be executed",
    )
    .caused_by(error)
}
