//! Secrets: values that programs of a guest may use and that nobody else gets to see.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A secret of a new workspace. In the guest it is the file `/run/pyro-secrets/<name>`.
///
/// Its value is 4 bytes to 64 KiB long, newlines at its end not counted, and is not only blanks. All
/// values of a workspace together have at most 256 KiB. Exactly one of `value` and `path` is given.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeclareSecret {
    /// Its name: `[A-Za-z_][A-Za-z0-9_]{0,63}`, not in use.
    pub name: String,
    /// Its value.
    #[serde(default)]
    pub value: Option<String>,
    /// Absolute path of a file of the host that is its value, read once.
    #[serde(default)]
    pub path: Option<String>,
}

impl DeclareSecret {
    /// A secret with this value.
    pub fn literal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            value: Some(value.into()),
            path: None,
        }
    }

    /// A secret whose value is in a file of the host.
    pub fn file(name: impl Into<String>, path: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            value: None,
            path: Some(path.into()),
        }
    }
}

impl std::fmt::Debug for DeclareSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the value.
        f.debug_struct("DeclareSecret")
            .field("name", &self.name)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// A secret as it is shown: without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Secret {
    /// Its name.
    pub name: String,
    /// Where its value came from.
    pub source: SecretSource,
}

/// Where a secret's value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecretSource {
    /// The request.
    Literal,
    /// A file of the host.
    File,
}
