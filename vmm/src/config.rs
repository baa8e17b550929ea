//! What a monitor process is told when it starts.
//!
//! The configuration is one JSON document, read from the descriptor named by `--config-fd`. All
//! resources are descriptors inherited from the parent; there are no paths. Numbers are
//! descriptor numbers in the new process. [`Config::generation`] must equal [`GENERATION`].

use serde::{Deserialize, Serialize};

/// The protocol generation of configuration and control socket, spoken by exactly one monitor.
pub const GENERATION: u32 = 2;

/// A descriptor number inherited by the monitor process.
pub type FdNumber = i32;

/// The whole configuration of one VM.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Always [`GENERATION`]; anything else is refused.
    pub generation: u32,
    /// Virtual CPUs, 1 to [`MAX_VCPUS`].
    pub vcpu_count: u8,
    /// Guest memory in MiB, at least [`MIN_MEMORY_MIB`].
    pub memory_mib: u32,
    /// `/dev/kvm`, opened for reading and writing.
    pub kvm_fd: FdNumber,
    /// The unpacked `vmlinux` (ELF with a PVH note), opened for reading.
    pub kernel_fd: FdNumber,
    /// Newc archives, opened for reading, laid one after the other (4-byte aligned) as the
    /// initial RAM file system.
    pub initramfs_fds: Vec<FdNumber>,
    /// The guest's root file system, served as virtio-fs with the tag `root`.
    pub root: Root,
    /// The guest's vsock device.
    pub vsock: Vsock,
    /// The guest's network device; without one, the guest has none.
    #[serde(default)]
    pub net: Option<Net>,
    /// A connected Unix stream socket: control requests in, replies and events out
    /// (see [`crate::control`]). The VM ends when its peer closes it and
    /// [`Config::outlive_control`] is false.
    pub control_fd: FdNumber,
    /// A listening Unix stream socket: whoever connects becomes the control peer in the place of
    /// the one before, whose connection is closed. So a VM that outlives its parent can be taken
    /// over by the next.
    #[serde(default)]
    pub control_listener_fd: Option<FdNumber>,
    /// Go on running when the control peer goes away.
    #[serde(default)]
    pub outlive_control: bool,
    /// Adds a serial console to the guest's kernel and copies it to standard error. Slow.
    #[serde(default)]
    pub debug_console: bool,
}

/// Fewest MiB of guest memory.
pub const MIN_MEMORY_MIB: u32 = 128;
/// Most virtual CPUs.
pub const MAX_VCPUS: u8 = 32;

/// The layered root, from the bottom up.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// Immutable packed layers, lowest first.
    pub layers: Vec<PackedLayer>,
    /// Directories of frozen layers above those, lowest first, opened `O_DIRECTORY`.
    #[serde(default)]
    pub frozen_fds: Vec<FdNumber>,
    /// Directory of the writable layer, opened `O_DIRECTORY`.
    pub writable_fd: FdNumber,
    /// Most bytes of file contents that frozen layers and the writable one may hold together;
    /// further writes get ENOSPC.
    pub quota_bytes: Option<u64>,
    /// Most inodes that they may hold together.
    pub quota_inodes: Option<u64>,
    /// The writable layer is thrown away when the VM ends: what the guest syncs survives the
    /// monitor, but is not forced to the host's disk.
    #[serde(default)]
    pub ephemeral: bool,
}

/// One immutable packed layer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackedLayer {
    /// The layer's `index`, opened for reading.
    pub index_fd: FdNumber,
    /// The layer's `data`, opened for reading.
    pub data_fd: FdNumber,
}

/// The vsock device, backed by Unix sockets as Firecracker made customary.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vsock {
    /// The guest's context id, at least 3.
    pub guest_cid: u32,
    /// Listening Unix stream socket. A client connects, writes `CONNECT <port>\n`, is answered
    /// `OK <host port>\n` when a guest program accepted, and then owns a byte stream to it.
    pub listener_fd: Option<FdNumber>,
    /// Already connected Unix stream sockets that speak the same handshake, one connection each,
    /// so that a parent needs no socket file.
    #[serde(default)]
    pub stream_fds: Vec<FdNumber>,
    /// What guest programs can connect to: host ports, and for each a connected
    /// `SOCK_SEQPACKET` Unix socket on which the monitor sends one message for each connection,
    /// the port as 4 little-endian bytes with the stream's descriptor as `SCM_RIGHTS`.
    /// Connections to any other port are reset.
    #[serde(default)]
    pub host_ports: Vec<HostPort>,
}

/// The network device.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Net {
    /// The guest's Ethernet address: unicast, not zero.
    pub mac: [u8; 6],
    /// Longest IP packet in either direction, [`MIN_MTU`] to [`MAX_MTU`].
    pub mtu: u16,
    /// A connected Unix `SOCK_SEQPACKET` socket, one Ethernet frame a message, the longest
    /// [`Net::mtu`] and 14 bytes. Frames from the guest need not have their TCP and UDP checksums
    /// filled in, and nobody checks those of frames to it: nothing on the way damages them.
    /// Whoever has the other end holds the guest up by not reading. When it closes the device
    /// goes on without: the guest's frames are dropped.
    pub backend_fd: FdNumber,
}

/// Smallest MTU (RFC 791: what every host must take).
pub const MIN_MTU: u16 = 576;
/// Largest MTU: IP's longest packet, less what Linux keeps for alignment.
pub const MAX_MTU: u16 = 65520;

/// A host port that the guest may connect to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostPort {
    /// The port number.
    pub port: u32,
    /// The `SOCK_SEQPACKET` socket that receives the streams.
    pub acceptor_fd: FdNumber,
}
