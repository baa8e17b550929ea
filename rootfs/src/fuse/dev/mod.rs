//! `/dev/fuse`: the same server on the host's own kernel.
//!
//! For tests and measurements, and for looking into a stack without a guest. [`Mount::new`] mounts,
//! [`Mount::serve`] hands over requests until the file system is unmounted. As root it mounts itself;
//! otherwise it asks `fusermount3`, as every FUSE file system does.

mod fusermount;
mod mount;
mod serve;

pub use mount::{Mount, MountError, unmount};
pub use serve::{ServeError, Served};
