//! From inherited descriptors to a machine.

use std::io;

use pyro_rootfs::fuse::Server;
use pyro_rootfs::tree::{Durability, OpenError, PackedFiles, Quota, StackFiles, Tree};

use super::inherit::Resources;
use super::validate::{HostLimits, ValidationError, validate};
use crate::config::Config;
use crate::console::Console;
use crate::machine::{Devices, Machine, MachineError, Parts};
use crate::virtio::device::VirtioDevice;
use crate::virtio::fs::{Fs, ROOT_TAG};
use crate::virtio::net::{Net, NetError};
use crate::virtio::rng::Rng;
use crate::virtio::vsock::{Cid, ConfigError, Port, Vsock, VsockConfig};

/// Why the VM of a configuration could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum BuildError {
    /// Its numbers.
    #[error(transparent)]
    Invalid(#[from] ValidationError),
    /// The process could not be confined.
    #[error("the process cannot give up its privileges")]
    Sandbox(#[source] rustix::io::Errno),
    /// Its root.
    #[error("cannot open the root")]
    Root(#[from] OpenError),
    /// Its sockets.
    #[error("cannot make the vsock device")]
    Vsock(#[from] ConfigError),
    /// Its frames' socket.
    #[error("cannot make the network device")]
    Net(#[from] NetError),
    /// The machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// Its threads.
    #[error("cannot start the vm's threads")]
    Threads(#[source] io::Error),
}

/// What this host can give.
fn host_limits(resources: &Resources) -> HostLimits {
    let info = rustix::system::sysinfo();
    let bytes = u64::from(info.mem_unit).saturating_mul(info.totalram);
    HostLimits {
        memory_mib: bytes >> 20,
        vcpus: resources.kvm.get_max_vcpus(),
    }
}

/// Makes the VM, ready to start.
///
/// # Errors
/// When the configuration or the host does not allow it.
pub(super) fn build(
    config: &Config,
    resources: Resources,
    console: Console,
) -> Result<Machine, BuildError> {
    validate(config, host_limits(&resources))?;
    super::sandbox::enter().map_err(BuildError::Sandbox)?;
    let layers = resources
        .layers
        .into_iter()
        .map(|(index, data)| PackedFiles { index, data })
        .collect();
    let mut stack = StackFiles::new(layers, resources.writable);
    stack.frozen = resources.frozen;
    stack.quota = Quota {
        bytes: config.root.quota_bytes.unwrap_or(Quota::UNLIMITED.bytes),
        inodes: config.root.quota_inodes.unwrap_or(Quota::UNLIMITED.inodes),
    };
    if config.root.ephemeral {
        stack.durability = Durability::Process;
    }
    let root = Fs::new(ROOT_TAG, Server::new(Tree::open(stack)?));
    let vsock = Vsock::new(VsockConfig {
        guest_cid: Cid(config.vsock.guest_cid.into()),
        listener: resources.vsock_listener,
        streams: resources.vsock_streams,
        host_ports: resources
            .vsock_ports
            .into_iter()
            .map(|(port, acceptor)| (Port(port), acceptor))
            .collect(),
    })?;
    let net = match (&config.net, resources.net_backend) {
        (Some(net), Some(backend)) => Some(Net::new(net.mac, net.mtu, backend)?),
        _ => None,
    };
    let devices = Devices {
        root: Box::new(root),
        vsock: Box::new(vsock),
        rng: Box::new(Rng),
        net: net.map(|net| Box::new(net) as Box<dyn VirtioDevice>),
    };
    Ok(Machine::new(Parts {
        kvm: &resources.kvm,
        vcpus: config.vcpu_count,
        memory_mib: config.memory_mib,
        kernel: resources.kernel,
        initramfs: resources.initramfs,
        devices,
        console,
        debug_console: config.debug_console,
    })?)
}
