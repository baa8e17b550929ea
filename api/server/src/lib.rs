//! The daemon: the engine's operations as HTTP on a Unix socket.
//!
//! [`daemon()`] is all of `pyro serve`. It takes the state directory, listens, and ends when nobody has
//! wanted anything for a while; guests go on running without it. [`serve()`] is the part that
//! answers requests: who may ask ([`Listener`], peer credentials), what can be asked (`routes`, out of
//! [`pyro_client::operations`]), in which bounds ([`Limits`]), and what is told about it (`observe`,
//! `metrics`, [`openapi()`]).
//!
//! It decides nothing about workspaces: every request is one call of the engine. What it promises is
//! that every answer is JSON with the API's types, an error has a code and a remedy, a client that is
//! slow, silent or gone holds no memory and no guest, and that none of it can be reached by another
//! user.

mod api;
mod body;
mod connection;
mod context;
mod daemon;
mod idle;
mod input;
#[cfg(test)]
mod input_tests;
mod listener;
mod log;
mod metrics;
mod observe;
mod openapi;
mod refusal;
mod routes;
mod serve;
mod stream;
#[cfg(test)]
mod streaming_tests;

pub use context::Limits;
pub use daemon::{DEFAULT_IDLE, Options, Ready, daemon};
pub use listener::Listener;
pub use openapi::openapi;
pub use serve::serve;
