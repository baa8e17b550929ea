//! The control socket's messages: 4-byte little-endian length, then that many bytes of JSON.
//!
//! A peer connects to the listener, sends [`Request`]s and gets one [`Reply`] for each, in order.
//! There are no events. Several peers may be connected; the one that has been there longest goes
//! when there are too many. What one published stays published when it goes.

use serde::{Deserialize, Serialize};

/// Longest message either side accepts, in bytes.
pub const MAX_MESSAGE: usize = 64 << 10;

/// What a peer may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Listens on a port of 127.0.0.1 and passes every connection on to the guest's loopback.
    /// Answered with [`Reply::Published`] when the port accepts.
    Publish {
        /// The port on the host; a free one when absent or 0.
        #[serde(default)]
        host_port: Option<u16>,
        /// The port in the guest, not 0. Whether anything listens there is seen at each
        /// connection.
        guest_port: u16,
    },
    /// Closes a published port and its connections; answered with [`Reply::Ok`].
    Withdraw {
        /// The port on the host.
        host_port: u16,
    },
    /// All published ports, in the order of their numbers.
    List,
    /// Counters since the start.
    Stats,
}

/// The answer to one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// Done; nothing to tell.
    Ok,
    /// The answer to [`Request::Publish`].
    Published(Published),
    /// The answer to [`Request::List`].
    List {
        /// The ports.
        published: Vec<Published>,
    },
    /// The answer to [`Request::Stats`].
    Stats(Stats),
    /// The request was refused.
    Error {
        /// What kind of failure.
        code: ErrorCode,
        /// One sentence.
        message: String,
    },
}

/// A published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The port of 127.0.0.1 on the host.
    pub host_port: u16,
    /// The port in the guest.
    pub guest_port: u16,
}

/// Kinds of failure, stable across versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request is not understood, or makes no sense.
    InvalidRequest,
    /// Somebody listens on the host's port already.
    PortTaken,
    /// Ports below 1024 need a privilege that this process does not have.
    PortReserved,
    /// No such port is published.
    NotPublished,
    /// The policy does not publish ports.
    NotAllowed,
    /// As many ports are published as can be.
    TooMany,
    /// The host refused it for another reason; also what this side does not know yet.
    #[serde(other)]
    Internal,
}

/// Counters since the start; those of connections and flows that exist now say so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Frames from the guest.
    pub frames_from_guest: u64,
    /// Their bytes.
    pub bytes_from_guest: u64,
    /// Frames to the guest.
    pub frames_to_guest: u64,
    /// Their bytes.
    pub bytes_to_guest: u64,
    /// Frames that were malformed, or of a kind that is not served, and were dropped.
    pub frames_dropped: u64,
    /// TCP connections that were made.
    pub tcp_connected: u64,
    /// TCP connections that the other side refused, or that could not be made.
    pub tcp_failed: u64,
    /// TCP connections that exist now, those being made included.
    pub tcp_open: u64,
    /// UDP flows that exist now.
    pub udp_open: u64,
    /// UDP flows that were made.
    pub udp_flows: u64,
    /// DNS queries that were forwarded.
    pub dns_queries: u64,
    /// TCP connections, UDP flows and echo requests to addresses that a guest may not reach.
    pub egress_refused: u64,
    /// TCP connections and published connections that were beyond a limit.
    pub over_limit: u64,
    /// Connections to published ports that exist now.
    pub published_open: u64,
    /// Connections to published ports that reached the guest.
    pub published_connected: u64,
    /// Connections to published ports that the guest did not take.
    pub published_failed: u64,
}
