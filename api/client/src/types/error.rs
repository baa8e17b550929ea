//! What is told when something fails.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The body of every response that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ApiError,
}

/// Why something failed, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApiError {
    /// Stable, in snake case: what a program decides on. `docs/troubleshooting.md` lists them.
    pub code: String,
    /// One sentence: what happened, with its causes.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// Lines that help to find the reason, such as the end of the guest's console.
    pub detail: Option<String>,
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}
