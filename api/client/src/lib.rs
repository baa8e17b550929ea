//! The workspace API: its types, its operations, and the SDK that speaks it.
//!
//! [`types`] is the one definition of what crosses the Unix socket: requests, records, results and
//! [`types::ApiError`]. The engine fills them in, the server sends them, the CLI and the MCP adapter
//! show them, and every JSON schema is generated from them. So a field that one surface has, all
//! have. [`operations`] is the one list of what can be asked for, and where: the server routes by it,
//! the SDK calls by it, the OpenAPI document is made from it.
//!
//! [`Client`] (feature `sdk`, on by default) has one method for each operation; [`Launcher`] starts
//! the daemon when it is not running.
//!
//! ```no_run
//! use pyro_client::{Launcher, types::{CreateWorkspace, ExecRequest}};
//!
//! # async fn example() -> Result<(), pyro_client::ClientError> {
//! let client = Launcher::from_environment("pyro").ensure_daemon().await?;
//! let workspace = client.create(&CreateWorkspace::new("debian:12")).await?;
//! let record = client
//!     .exec(&workspace.workspace_id, &ExecRequest::new(["uname", "-r"]))
//!     .await?;
//! println!("{}", record.stdout);
//! client.delete(&workspace.workspace_id).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Times are RFC 3339 in UTC. Sizes are bytes unless a name says otherwise. Fields that may be
//! absent are `null`, never left out, so that scripts see the same members always.

pub mod operations;
#[cfg(feature = "sdk")]
mod sdk;
pub mod types;

#[cfg(feature = "sdk")]
pub use sdk::{
    Client, ClientError, EventStream, ExecStream, Launcher, RunStream, ShellStream, socket,
};
