//! The layered root: a guest's `/` as a stack of layers, served over FUSE.
//!
//! A guest sees one file system. Behind it are immutable layers, which all guests of an
//! environment share in the host's page cache, and one writable layer, which holds exactly what
//! this guest changed. Whoever runs the monitor owns every file of it on the host; owners, modes,
//! device nodes and extended attributes of the guest are metadata that nothing on the host acts
//! on.
//!
//! - [`pack`] builds immutable layers, from a tar stream or member by member.
//! - [`tree`] is the storage: [`tree::Tree`] over a stack of layers, with POSIX semantics and
//!   the guest's error numbers.
//! - [`import`] puts a directory or an archive into a tree, [`export`] takes files, archives and disk
//!   images out of one; no guest takes part.
//! - [`store`] keeps layers on the disk, and says what freezing, resetting and branching a stack are.
//! - [`fuse`] speaks the FUSE protocol for a tree, over any transport: virtio-fs in the monitor,
//!   `/dev/fuse` in tests.
//!
//! What it may not do: let a name that a guest chose become a path of the host, follow a
//! symbolic link, open a device; believe a length, an offset or an index without a check; panic,
//! spin or grow without bound because of what a guest, an archive or a damaged file says.

pub mod export;
pub mod fuse;
pub mod import;
pub mod pack;
pub mod store;
pub mod tree;

#[cfg(test)]
mod testing;
