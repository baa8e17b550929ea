//! What an operation's path names.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The parameters of a path.
pub trait PathParameters: Serialize + DeserializeOwned + JsonSchema + Send + 'static {
    /// Their names, in the order of the path.
    const NAMES: &'static [&'static str];
    /// Their values, in the same order, not yet percent-encoded.
    fn values(&self) -> Vec<String>;
}

/// Nothing: the operation is about the daemon or about all workspaces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Top {}

impl PathParameters for Top {
    const NAMES: &'static [&'static str] = &[];
    fn values(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InWorkspace {
    /// The workspace's id or its name, when no other has the same.
    pub w: String,
}

impl PathParameters for InWorkspace {
    const NAMES: &'static [&'static str] = &["w"];
    fn values(&self) -> Vec<String> {
        vec![self.w.clone()]
    }
}

/// A command of a workspace's journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InExec {
    /// The workspace's id or its name, when no other has the same.
    pub w: String,
    /// The command's number in the journal.
    pub seq: u64,
}

impl PathParameters for InExec {
    const NAMES: &'static [&'static str] = &["w", "seq"];
    fn values(&self) -> Vec<String> {
        vec![self.w.clone(), self.seq.to_string()]
    }
}

/// A service of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InService {
    /// The workspace's id or its name, when no other has the same.
    pub w: String,
    /// The service's name.
    pub name: String,
}

impl PathParameters for InService {
    const NAMES: &'static [&'static str] = &["w", "name"];
    fn values(&self) -> Vec<String> {
        vec![self.w.clone(), self.name.clone()]
    }
}

/// A shell of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InShell {
    /// The workspace's id or its name, when no other has the same.
    pub w: String,
    /// The shell's id.
    pub shell: String,
}

impl PathParameters for InShell {
    const NAMES: &'static [&'static str] = &["w", "shell"];
    fn values(&self) -> Vec<String> {
        vec![self.w.clone(), self.shell.clone()]
    }
}

/// A snapshot of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InSnapshot {
    /// The workspace's id or its name, when no other has the same.
    pub w: String,
    /// The snapshot's name.
    pub name: String,
}

impl PathParameters for InSnapshot {
    const NAMES: &'static [&'static str] = &["w", "name"];
    fn values(&self) -> Vec<String> {
        vec![self.w.clone(), self.name.clone()]
    }
}
