//! Streams to the ports of a guest.

use serde::{Deserialize, Serialize};

use crate::ErrorCode;

/// Most connections at a time, those that are being made as well.
pub const CONNECTIONS_MAX: usize = 256;
/// How long a connection may take to be made when the request does not say, in milliseconds.
pub const CONNECT_TIMEOUT_MS: u64 = 10_000;

/// Makes a TCP connection in the guest.
///
/// Answered with [`ConnectEvent`], before which the host may send nothing. After
/// [`ConnectEvent::Connected`] the stream carries no frames any more: bytes go both ways as they
/// are. When one side ends its direction (shutdown(2)), so is it ended for the other, and the other
/// direction goes on. When both have ended, or one side breaks the connection, both streams are
/// closed; the guest's end is then reset unless all has been said. A side that does not read holds
/// up the other, and nobody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// An address of IPv4 or IPv6, or `localhost`, which is 127.0.0.1 or, where nobody listens
    /// there, `::1`. No other names.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
    /// How long to try; [`CONNECT_TIMEOUT_MS`] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// Agent to host, on the stream of a [`Connect`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum ConnectEvent {
    /// There is a connection; what follows is no frame.
    Connected,
    /// There is none; the last message of the stream.
    Failed {
        /// [`ErrorCode::ConnectionRefused`], [`ErrorCode::Unreachable`], [`ErrorCode::TimedOut`],
        /// [`ErrorCode::OutOfResources`] for more than [`CONNECTIONS_MAX`],
        /// [`ErrorCode::InvalidRequest`] for what is no address or no port.
        code: ErrorCode,
        /// One sentence.
        message: String,
    },
}
