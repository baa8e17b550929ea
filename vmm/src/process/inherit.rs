//! Descriptors that the parent gave us, taken over exactly once.
#![allow(unsafe_code)] // makes owned descriptors out of the numbers in the configuration

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use kvm_ioctls::Kvm;

use crate::config::{Config, FdNumber};

/// Why a descriptor number of the configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// It is one of the standard streams, or negative.
    #[error("descriptor {0} is reserved")]
    Reserved(FdNumber),
    /// It is not open.
    #[error("descriptor {0} is not open")]
    NotOpen(FdNumber),
    /// It is named twice.
    #[error("descriptor {0} is named twice")]
    NamedTwice(FdNumber),
}

/// All that a VM is made of.
pub(super) struct Resources {
    /// `/dev/kvm`.
    pub(super) kvm: Kvm,
    /// The kernel.
    pub(super) kernel: File,
    /// Archives of the initial RAM file system.
    pub(super) initramfs: Vec<File>,
    /// Index and data of each immutable layer.
    pub(super) layers: Vec<(File, File)>,
    /// Directories of frozen layers.
    pub(super) frozen: Vec<OwnedFd>,
    /// Directory of the writable layer.
    pub(super) writable: OwnedFd,
    /// Listener of the vsock device.
    pub(super) vsock_listener: Option<OwnedFd>,
    /// Connected streams of the vsock device.
    pub(super) vsock_streams: Vec<OwnedFd>,
    /// Ports that the guest may connect to.
    pub(super) vsock_ports: Vec<(u32, OwnedFd)>,
    /// Where the network device's frames go.
    pub(super) net_backend: Option<OwnedFd>,
}

/// The sockets to whoever is in command.
pub(super) struct ControlSockets {
    /// The first peer.
    pub(super) peer: UnixStream,
    /// Where further ones connect.
    pub(super) listener: Option<UnixListener>,
}

/// Takes over one descriptor. Call it at most once for a number.
///
/// # Errors
/// When it is reserved or not open.
pub(super) fn adopt(number: FdNumber) -> Result<OwnedFd, InheritError> {
    if number <= libc::STDERR_FILENO {
        return Err(InheritError::Reserved(number));
    }
    // SAFETY: F_GETFD on any number is harmless; it tells whether it is open.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
        return Err(InheritError::NotOpen(number));
    }
    // SAFETY: it is open, and the process has just started: nobody else owns it. Callers take
    // each number once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// An open `/dev/kvm` as such.
pub(super) fn kvm(fd: OwnedFd) -> Kvm {
    // SAFETY: the descriptor is owned and given up here.
    unsafe { Kvm::from_raw_fd(fd.into_raw_fd()) }
}

/// Takes over everything that the configuration names, and closes all other descriptors but the
/// standard streams. Call it before anything else is opened.
///
/// # Errors
/// When a number is not usable or named twice. Some descriptors are then lost; the process is to
/// end.
pub(super) fn take(config: &Config) -> Result<(Resources, ControlSockets), InheritError> {
    let mut numbers = BTreeSet::new();
    for number in all_numbers(config) {
        if !numbers.insert(number) {
            return Err(InheritError::NamedTwice(number));
        }
    }
    close_all_but(&numbers);
    let adopt_all = |numbers: &[FdNumber]| -> Result<Vec<OwnedFd>, InheritError> {
        numbers.iter().map(|number| adopt(*number)).collect()
    };
    let control = ControlSockets {
        peer: adopt(config.control_fd)?.into(),
        listener: config
            .control_listener_fd
            .map(|number| adopt(number).map(UnixListener::from))
            .transpose()?,
    };
    let resources = Resources {
        kvm: kvm(adopt(config.kvm_fd)?),
        kernel: adopt(config.kernel_fd)?.into(),
        initramfs: adopt_all(&config.initramfs_fds)?
            .into_iter()
            .map(File::from)
            .collect(),
        layers: config
            .root
            .layers
            .iter()
            .map(|layer| Ok((adopt(layer.index_fd)?.into(), adopt(layer.data_fd)?.into())))
            .collect::<Result<_, InheritError>>()?,
        frozen: adopt_all(&config.root.frozen_fds)?,
        writable: adopt(config.root.writable_fd)?,
        vsock_listener: config.vsock.listener_fd.map(adopt).transpose()?,
        vsock_streams: adopt_all(&config.vsock.stream_fds)?,
        vsock_ports: config
            .vsock
            .host_ports
            .iter()
            .map(|port| Ok((port.port, adopt(port.acceptor_fd)?)))
            .collect::<Result<_, InheritError>>()?,
        net_backend: config
            .net
            .as_ref()
            .map(|net| adopt(net.backend_fd))
            .transpose()?,
    };
    Ok((resources, control))
}

fn all_numbers(config: &Config) -> Vec<FdNumber> {
    let mut numbers = vec![
        config.kvm_fd,
        config.kernel_fd,
        config.root.writable_fd,
        config.control_fd,
    ];
    numbers.extend(&config.initramfs_fds);
    numbers.extend(
        config
            .root
            .layers
            .iter()
            .flat_map(|layer| [layer.index_fd, layer.data_fd]),
    );
    numbers.extend(&config.root.frozen_fds);
    numbers.extend(config.control_listener_fd);
    numbers.extend(config.vsock.listener_fd);
    numbers.extend(&config.vsock.stream_fds);
    numbers.extend(config.vsock.host_ports.iter().map(|port| port.acceptor_fd));
    numbers.extend(config.net.iter().map(|net| net.backend_fd));
    numbers
}

/// Closes every descriptor above the standard streams that is not in `keep`.
fn close_all_but(keep: &BTreeSet<RawFd>) {
    let mut from = 3;
    for number in keep.iter().copied().filter(|number| *number >= 3) {
        close_range(from, number - 1);
        from = number.saturating_add(1);
    }
    close_range(from, RawFd::MAX);
}

fn close_range(first: RawFd, last: RawFd) {
    if let (Ok(first), Ok(last)) = (u32::try_from(first), u32::try_from(last))
        && first <= last
    {
        // SAFETY: the process has just started; nothing in it owns a descriptor that the
        // configuration does not name.
        if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == -1 {
            let error = io::Error::last_os_error();
            eprintln!("pyro-vmm: cannot close inherited descriptors: {error}");
        }
    }
}
