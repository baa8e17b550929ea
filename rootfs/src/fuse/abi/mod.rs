//! The kernel's FUSE protocol as data: Linux `include/uapi/linux/fuse.h`, version 7.38.
//!
//! Every structure has the layout of its namesake there (fixed-width integers in the machine's
//! byte order, padded to 8 bytes), and every constant its value. Nothing here decides anything.

mod flags;
mod opcode;
mod replies;
mod requests;

pub use flags::*;
pub use opcode::Opcode;
pub use replies::*;
pub use requests::*;

/// Major version of the protocol (`FUSE_KERNEL_VERSION`).
pub const MAJOR: u32 = 7;

/// Minor version this server speaks (`FUSE_KERNEL_MINOR_VERSION`). A newer kernel steps down to
/// it.
pub const MINOR: u32 = 38;

/// The oldest minor version it talks to: that of Linux 5.4, the first with virtio-fs.
pub const MINOR_MIN: u32 = 31;
