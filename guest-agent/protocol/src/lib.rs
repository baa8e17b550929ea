//! What the host and the agent in a guest say to each other.
//!
//! Transport is a byte stream (vsock), one stream per operation. Both sides speak in frames: a
//! 4-byte little-endian payload length, one byte of [`FrameKind`], then the payload, at most
//! [`MAX_FRAME`] bytes. Frames of kind `Message` carry JSON; the others carry raw bytes.
//!
//! At boot the agent connects to [`READY_PORT`] of the host, says [`Hello`], gets [`Welcome`] and
//! then keeps that stream open for the life of the VM. For every operation the host connects to
//! [`AGENT_PORT`] of the guest and sends one [`Request`].
//!
//! What the answers are depends on the request: [`Event`]s to an [`Exec`], [`Request::Ping`],
//! [`Request::Signal`], [`Request::Sync`], [`Request::PowerOff`] and [`Secrets`]; [`FileEvent`]s to
//! [`Stat`], [`List`], [`Read`] and [`Apply`]; [`JobEvent`]s to [`Start`], [`Attach`] and all else
//! about jobs; [`ConnectEvent`]s to [`Connect`], whose stream then carries raw bytes. Failures look
//! alike in all four.
//!
//! An operation's stream belongs to it: when the host closes or half-closes its end before the last
//! message, the operation is given up, and a program that runs is killed with all that it started,
//! unless it is a job ([`Start`]). A connection that is made ([`Connect`]) ends as it says. So standard input ends with an empty `Stdin` frame, not with the
//! stream. The agent stops reading a stream whose program does not read its input; a
//! [`Request::Signal`] on a stream of its own passes such a queue, a `Signal` frame waits in it.
//!
//! The ready stream is no more than a greeting and a sign of life: when the host's end of it goes
//! away, as with a daemon that ends, the agent serves on.
//!
//! A message field that the reader does not know is ignored; an operation or a frame kind that the
//! agent does not know is answered with [`ErrorCode::InvalidRequest`].
//!
//! Neither side trusts the other: every length is bounded before it is allocated, and nothing
//! that the peer sends can make a decoder panic.

pub mod apply;
pub mod connect;
pub mod files;
pub mod frame;
pub mod jobs;
pub mod messages;
pub mod network;
pub mod path;
pub mod secrets;
pub mod terminal;

pub use apply::{Apply, CHANGES_MAX, CHANGES_TEXT_MAX, Change, Expect, Mode, Write};
pub use connect::{CONNECT_TIMEOUT_MS, CONNECTIONS_MAX, Connect, ConnectEvent};
pub use files::{ENTRIES_MAX, Entry, FileEvent, FileKind, List, PATH_MAX, Read, Stat};
pub use frame::{
    Decoder, Frame, FrameError, FrameHeader, encode, encode_into, encode_json, encode_message,
    parse,
};
pub use jobs::{
    Attach, CAPTURE_MAX, Captured, JOBS_MAX, JOBS_OUTPUT_MAX, JobEvent, JobId, JobInfo, JobState,
    Keep, OutputStream, SignalGroup, Start, TAIL_MIN,
};
pub use messages::*;
pub use network::{Network, RESOLVERS_MAX};
pub use path::{GuestPath, Sha256};
pub use secrets::{SECRET_MAX, SECRETS_DIRECTORY, SECRETS_MAX, Secret, SecretName, Secrets};
pub use terminal::{TERMINAL_MAX, TerminalSize};

/// The protocol's generation. A host speaks to every agent of the same generation.
pub const GENERATION: u32 = 3;
/// The guest port on which the agent listens for operations.
pub const AGENT_PORT: u32 = 1024;
/// The host port to which the agent connects when the guest is ready.
pub const READY_PORT: u32 = 1025;
/// Longest payload of a frame in bytes.
pub const MAX_FRAME: usize = 256 * 1024;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// JSON: one of the messages of this crate.
    Message = 1,
    /// Bytes for the program's standard input; an empty payload closes it. In an [`Apply`], bytes
    /// of a file; in [`Secrets`], bytes of values. Host to agent.
    Stdin = 2,
    /// Bytes of the program's standard output, or of the file that is read. Agent to host.
    Stdout = 3,
    /// Bytes of the program's standard error. Agent to host.
    Stderr = 4,
    /// JSON: a signal to send to the program's group. Host to agent.
    Signal = 5,
}
