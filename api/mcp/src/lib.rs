//! The MCP adapter: workspaces as tools that a model calls.
//!
//! [`tools`] is the one table of tools: name, smallest profile that has it, words, hints, input and
//! output types, handler. A handler speaks to the daemon through `pyro-client` and nothing else, so a
//! tool can do what the CLI and the SDK can, and means the same. What is listed, what is checked, what
//! is called and `docs/mcp-tools.md` all come from that table.
//!
//! What the adapter adds is what a chat needs. A [`Profile`] narrows tools and their schemas. Arguments are
//! checked against the very schema that the model was shown, and what is wrong is told by the field's
//! name. Every result is an object that stands alone, of a bounded size, and says in `next` how to
//! get the rest. No call outlives a host's patience: what takes longer goes on, and is asked
//! for again. A failure is a tool error with code, sentence and remedy; only an unknown tool is an
//! error of the protocol. A call that is cancelled stops what it began in the guest.
//!
//! [`stdio`] and [`http`] serve it; [`hosts`] writes it into the configuration of programs that speak
//! MCP.

mod arguments;
mod call;
mod calls;
mod cut;
mod daemon;
mod error;
pub mod hosts;
pub mod http;
mod profile;
mod schema;
mod server;
pub mod stdio;
pub mod tools;
mod undo;

pub use daemon::Daemon;
pub use error::Error;
pub use profile::{Profile, UnknownProfile};
pub use server::Server;

/// The skill file for hosts that would rather use the command line.
pub const SKILL: &str = include_str!("../../../docs/skill/SKILL.md");
