//! The workspace API: its types, and the SDK that speaks it.
//!
//! [`types`] is the one definition of what crosses the Unix socket: requests, records, results and
//! [`types::ApiError`]. The engine fills them in, the server sends them, the CLI and the MCP adapter
//! show them, and every JSON schema is generated from them. So a field that one surface has, all
//! have.
//!
//! Times are RFC 3339 in UTC. Sizes are bytes unless a name says otherwise. Fields that may be
//! absent are `null`, never left out, so that scripts see the same members always.

pub mod types;
