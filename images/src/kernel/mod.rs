//! A distribution's kernel package, taken apart into what our monitor boots.
//!
//! The monitor maps an uncompressed ELF kernel and enters it at its PVH note, so the compressed
//! payload of the package's `bzImage` is unpacked once, here, and checked for everything that the
//! boot relies on ([`bzimage`], [`vmlinux`]). The few modules that a guest needs are chosen by
//! what the modules themselves say they depend on ([`modules`]).
//!
//! A package comes signed through apt, and is still read as hostile: sizes are bounded, offsets
//! are checked, nothing of it is run.

pub mod bzimage;
pub mod modules;
pub mod package;
pub mod vmlinux;

use std::io;

/// Why a kernel package is not usable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// Not a bzImage, or one that lies about itself.
    #[error("not a usable bzImage: {0}")]
    BzImage(&'static str),
    /// The payload's compression is not one that we know.
    #[error("the kernel's payload is compressed in an unknown way (it starts with {0:02x?})")]
    Compression([u8; 4]),
    /// The payload does not unpack.
    #[error("the kernel's payload cannot be unpacked")]
    Payload(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The payload is not a kernel that our monitor can boot.
    #[error("not a bootable ELF kernel: {0}")]
    Vmlinux(&'static str),
    /// A module that is needed is neither in the package nor built in.
    #[error("the kernel package has no module {0}")]
    MissingModule(String),
    /// A module that cannot be read as one.
    #[error("module {0} is not a kernel module")]
    BadModule(String),
    /// The package is not as expected.
    #[error("unexpected kernel package: {0}")]
    Package(String),
    /// Reading or writing failed.
    #[error("cannot unpack the kernel package")]
    Io(#[from] io::Error),
}
