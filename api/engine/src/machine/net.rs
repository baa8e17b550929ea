//! The process that is a guest's network, beside its monitor.
//!
//! It has one end of a socket pair, the monitor the other; it ends when the monitor's is closed, and
//! with it all that it holds. So nothing needs to end it, and nothing but its identity is kept of it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use pyro_agent_protocol as protocol;
use pyro_net::config::{Addresses, Config, GENERATION, Limits};
use pyro_net::egress::Cidr;
use pyro_vmm::config;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::launch::{Inherited, resources};
use super::sockets::memory_file;
use crate::error::{Code, Error, Result};

/// What a guest's network is made of.
#[derive(Debug)]
pub(crate) struct NetSpec<'a> {
    /// The program.
    pub(crate) program: &'a Path,
    /// The archive with the modules that a guest with a network needs.
    pub(crate) modules: File,
    /// Ranges that it may reach although they would be refused.
    pub(crate) egress_allow: Vec<Cidr>,
    /// Whether ports may be published.
    pub(crate) publishes: bool,
}

/// The pair's other end, until the process is started.
#[derive(Debug)]
pub(super) struct Cable {
    frames: OwnedFd,
    addresses: Addresses,
}

/// Makes the pair: the monitor's device, and what the network gets.
pub(super) fn cable(inherited: &mut Inherited) -> Result<(config::Net, Cable)> {
    let addresses = Addresses::default();
    let flags = SocketFlags::CLOEXEC;
    let (monitors, frames) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .map_err(|error| resources(error.into()))?;
    let net = config::Net {
        mac: addresses.guest_mac,
        mtu: addresses.mtu,
        backend_fd: inherited.add(monitors),
    };
    Ok((net, Cable { frames, addresses }))
}

/// What the guest's agent is told.
pub(super) fn welcome() -> protocol::Network {
    let addresses = Addresses::default();
    protocol::Network {
        address: addresses.guest,
        prefix: addresses.prefix,
        gateway: addresses.gateway,
        dns: vec![addresses.dns],
        mtu: addresses.mtu,
    }
}

/// The command that starts the network, and the descriptors that it is to inherit.
pub(super) fn command(
    program: &Path,
    cable: Cable,
    listener: OwnedFd,
    vsock: Option<OwnedFd>,
    egress_allow: Vec<Cidr>,
) -> Result<(Command, Inherited)> {
    let mut inherited = Inherited::default();
    let config = Config {
        generation: GENERATION,
        frames_fd: inherited.add(cable.frames),
        control_listener_fd: inherited.add(listener),
        vsock_fd: vsock.map(|vsock| inherited.add(vsock)),
        addresses: cable.addresses,
        egress_allow,
        limits: Limits::default(),
    };
    let text = serde_json::to_vec(&config).expect("a configuration is plain data");
    let file = memory_file("pyro-net-config", &text).map_err(resources)?;
    let number = inherited.add(file);
    let mut command = Command::new(program);
    command
        .args(["--config-fd", &number.to_string()])
        .current_dir("/")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    Ok((command, inherited))
}

/// The error for a network that cannot be started.
pub(super) fn not_started(program: &Path, error: io::Error) -> Error {
    Error::new(
        Code::NetworkUnavailable,
        format!("cannot start the network {}", program.display()),
        "check that it is this version's pyro-net and can be executed",
    )
    .caused_by(error)
}

/// The error for an environment that was installed before there were networks.
pub(crate) fn no_modules(environment: &str) -> Error {
    Error::new(
        Code::NetworkUnavailable,
        format!("the environment {environment} was installed before guests could have a network"),
        format!("run `pyro env pull {environment}`, then make a new workspace"),
    )
}
