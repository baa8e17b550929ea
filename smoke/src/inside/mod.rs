//! What runs inside the emulated host: process 1, and the server of operations.
//!
//! The same binary is used inside as outside, so both ends always speak the same protocol. It is
//! `/init` of the initramfs and then stays in memory; the Debian root has no part in it.

pub mod exec;
pub mod init;
pub mod serve;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where the initramfs holds its [`Config`].
pub const CONFIG_PATH: &str = "/config.json";
/// Name of the virtio port on which a host without network serves its one operation.
pub const CHANNEL: &str = "pyro.channel";
/// What process 1 prints on the console when operations are served.
pub const READY_LINE: &str = "pyro-host: ready";
/// What process 1 prints on the console before a sentence about its failure.
pub const FAILED_LINE: &str = "pyro-host: failed: ";

/// What the host is told at its boot, in the initramfs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    /// What a client must present.
    pub token: String,
    /// Folders of the machine, each mounted read-only under the same path. The folder at position
    /// `n` has the virtio-fs tag `share<n>`.
    pub shares: Vec<PathBuf>,
    /// Files of the initramfs to put elsewhere: from, to. `to` is on a tmpfs.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// Serves operations on the network; otherwise one operation on [`CHANNEL`], then power-off.
    pub network: bool,
}

/// The virtio-fs tag of a share.
#[must_use]
pub fn share_tag(position: usize) -> String {
    format!("share{position}")
}
