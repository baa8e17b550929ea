//! Commands as models write them.

use schemars::JsonSchema;
use serde::Deserialize;

/// A command for the guest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Command {
    /// A line for bash.
    Line(String),
    /// Program and arguments.
    Words(#[schemars(length(min = 1))] Vec<String>),
}

impl Command {
    /// Program and arguments.
    pub(super) fn words(self) -> Vec<String> {
        match self {
            Self::Line(line) => vec!["bash".into(), "-c".into(), line],
            Self::Words(words) => words,
        }
    }
}

/// The environment of most work.
pub(super) fn environment() -> String {
    "debian:12".into()
}

/// Where a workspace's files are.
pub(super) fn root() -> String {
    pyro_client::types::WORKSPACE_ROOT.into()
}

pub(super) const fn timeout_seconds() -> u64 {
    pyro_client::types::DEFAULT_TIMEOUT_SECONDS
}

pub(super) const fn vcpu_count() -> u64 {
    pyro_client::types::DEFAULT_VCPU_COUNT
}

pub(super) const fn mem_mib() -> u64 {
    pyro_client::types::DEFAULT_MEM_MIB
}

pub(super) const fn ttl_seconds() -> u64 {
    pyro_client::types::DEFAULT_TTL_SECONDS
}

/// Bytes of a text in a result when not asked for otherwise: some 8,000 tokens.
pub(super) const fn max_bytes() -> u64 {
    32768
}

/// Bytes of each stream of a command in a result when not asked for otherwise.
pub(super) const fn max_output_bytes() -> u64 {
    16384
}

/// Seconds that a call waits for a command: less than hosts have patience.
pub(super) const MAX_WAIT_SECONDS: u64 = 45;

pub(super) const fn wait_seconds() -> u64 {
    MAX_WAIT_SECONDS
}

pub(super) const fn yes() -> bool {
    true
}
