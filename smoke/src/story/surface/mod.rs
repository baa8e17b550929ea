//! How a step reaches the product.
//!
//! Steps are written as calls of MCP tools. The command line and the SDK get the same in their own
//! words, and their results, which agree with each other member by member, are held against the same
//! expectations.

mod cli;
mod mcp;
mod sdk;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde_json::{Map, Value};

pub use cli::Cli;
pub use mcp::Mcp;
pub use sdk::Sdk;

/// The error that the product told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its code.
    pub code: String,
    /// Its sentence.
    pub message: String,
}

/// What a call gave: a result, or an error of the product's.
pub type Outcome = std::result::Result<Value, Refusal>;

/// The program, and the state folder that it is to use.
#[derive(Debug, Clone)]
pub struct Product {
    /// `pyro`.
    pub program: PathBuf,
    /// Its state folder.
    pub state: PathBuf,
}

impl Product {
    fn variable(&self) -> (&'static str, &Path) {
        ("PYRO_STATE_DIR", &self.state)
    }
}

/// Which surface a story goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Via {
    /// An MCP client and `pyro mcp serve`.
    Mcp,
    /// The command line.
    Cli,
    /// The Rust SDK.
    Sdk,
}

/// A surface that is open.
#[derive(Debug)]
pub enum Surface {
    /// An MCP client and its server.
    Mcp(Mcp),
    /// The command line.
    Cli(Cli),
    /// The Rust SDK.
    Sdk(Sdk),
}

impl Surface {
    /// Opens it. An MCP server gets the profile, so that a story that needs more of it fails.
    ///
    /// # Errors
    /// When the server or the daemon cannot be started.
    pub async fn open(via: Via, product: &Product, profile: &str) -> Result<Self> {
        Ok(match via {
            Via::Mcp => Self::Mcp(Mcp::open(product, profile).await?),
            Via::Cli => Self::Cli(Cli::new(product.clone())),
            Via::Sdk => Self::Sdk(Sdk::open(product).await?),
        })
    }

    /// Calls a tool.
    ///
    /// # Errors
    /// When there is no such tool here, its arguments make no sense, or the product broke its own
    /// contract. An error that the product tells is an outcome.
    pub async fn call(&mut self, tool: &str, arguments: &Map<String, Value>) -> Result<Outcome> {
        match self {
            Self::Mcp(mcp) => mcp.call(tool, arguments).await,
            Self::Cli(cli) => cli.call(tool, arguments).await,
            Self::Sdk(sdk) => sdk.call(tool, arguments).await,
        }
    }

    /// Closes it.
    ///
    /// # Errors
    /// When its server does not end as it should.
    pub async fn close(self) -> Result<()> {
        match self {
            Self::Mcp(mcp) => mcp.close().await,
            Self::Cli(_) | Self::Sdk(_) => Ok(()),
        }
    }
}

/// The error in a document, when it is one: `{"error": {"code": …}}` and nothing else.
fn refusal(document: &Value) -> Option<Refusal> {
    let object = document.as_object().filter(|object| object.len() == 1)?;
    let error = object.get("error")?;
    Some(Refusal {
        code: error.get("code")?.as_str()?.to_string(),
        message: error.get("message")?.as_str()?.to_string(),
    })
}

/// The program and arguments of a command, which may be a line for bash.
fn words(command: &Value) -> Result<Vec<String>> {
    match command {
        Value::String(line) => Ok(["bash", "-c", line].map(str::to_string).to_vec()),
        Value::Array(_) => Ok(serde_json::from_value(command.clone())?),
        other => bail!("{other} is no command"),
    }
}
