//! What crosses the socket.

mod disk;
mod error;
mod exec;
mod files;
mod run;
mod secrets;
mod server;
mod services;
mod shells;
mod snapshots;
mod transfer;
mod workspace;

pub use disk::*;
pub use error::*;
pub use exec::*;
pub use files::*;
pub use run::*;
pub use secrets::*;
pub use server::*;
pub use services::*;
pub use shells::*;
pub use snapshots::*;
pub use transfer::*;
pub use workspace::*;

/// Where a workspace's files are, in the guest.
pub const WORKSPACE_ROOT: &str = "/workspace";
/// The snapshot that every workspace has from its creation on; it cannot be deleted or shadowed.
pub const BASELINE: &str = "baseline";
/// Virtual CPUs when not asked for otherwise.
pub const DEFAULT_VCPU_COUNT: u64 = 1;
/// MiB of memory when not asked for otherwise.
pub const DEFAULT_MEM_MIB: u64 = 1024;
/// Seconds that a workspace lives after its last activity when not asked for otherwise.
pub const DEFAULT_TTL_SECONDS: u64 = 600;
/// Seconds that a command may take when not asked for otherwise.
pub const DEFAULT_TIMEOUT_SECONDS: u64 = 30;
/// Most bytes that a file read returns when not asked for otherwise.
pub const DEFAULT_MAX_BYTES: u64 = 65536;
/// Most bytes that any file read returns.
pub const MAX_READ_BYTES: u64 = 16 << 20;
/// Bytes of each of a command's streams that are kept: the first half and the last half of it.
pub const CAPTURE_BYTES: u64 = 1 << 20;

const fn pull() -> bool {
    true
}
const fn vcpu_count() -> u64 {
    DEFAULT_VCPU_COUNT
}
const fn mem_mib() -> u64 {
    DEFAULT_MEM_MIB
}
const fn ttl_seconds() -> u64 {
    DEFAULT_TTL_SECONDS
}
const fn timeout_seconds() -> u64 {
    DEFAULT_TIMEOUT_SECONDS
}
const fn max_bytes() -> u64 {
    DEFAULT_MAX_BYTES
}
fn workspace_root() -> String {
    WORKSPACE_ROOT.to_string()
}
fn baseline() -> String {
    BASELINE.to_string()
}
