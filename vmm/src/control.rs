//! The control socket's messages: 4-byte little-endian length, then that many bytes of JSON.
//!
//! The peer sends [`Request`]s and gets one [`Message::Reply`] for each, in order;
//! [`Message::Event`]s come between them at any time. The last message of a VM is always
//! [`Event::Exited`], after which the process ends and the socket closes.

use serde::{Deserialize, Serialize};

/// Longest message either side accepts, in bytes.
pub const MAX_MESSAGE: usize = 1 << 20;

/// What the peer may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Parks every thread; answered when all are parked.
    Pause,
    /// Lets parked threads go on.
    Resume,
    /// Counters since the start.
    Stats,
    /// The tail of the guest's console, at most 64 KiB.
    Console,
    /// Ends the VM at once, without the guest's help.
    Stop,
    /// Makes durable what the root's file server holds. What the guest's kernel has not sent yet
    /// is not in it: let the agent sync first. Answered when it is done.
    Sync,
    /// Freezes the root's writable layer and goes on in an empty one above it, whose directory
    /// (empty, opened `O_DIRECTORY`) comes as the one `SCM_RIGHTS` descriptor of the `sendmsg`
    /// that this request is sent with. All that the file server holds is made durable before.
    /// Asking again with the same directory changes nothing. After [`Reply::Error`] the VM goes
    /// on as before.
    Freeze,
}

/// What the monitor sends.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Message {
    /// The answer to a request.
    Reply(Reply),
    /// Something happened.
    Event(Event),
}

/// The answer to one request.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// Done; nothing to tell.
    Ok,
    /// The answer to [`Request::Stats`].
    Stats(Stats),
    /// The answer to [`Request::Console`].
    Console {
        /// The last bytes, invalid UTF-8 replaced.
        text: String,
        /// Bytes that the ring has dropped before these.
        dropped: u64,
    },
    /// The request was refused.
    Error {
        /// A stable code.
        code: String,
        /// One sentence.
        message: String,
    },
}

/// Counters of one VM since its start.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Port I/O exits.
    pub pio_exits: u64,
    /// MMIO exits.
    pub mmio_exits: u64,
    /// Microseconds from process start to the first entry into the guest.
    pub start_to_guest_us: u64,
}

/// Something that happened to the VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The first vCPU is about to enter the guest.
    Started,
    /// The VM has ended.
    Exited {
        /// Why.
        reason: ExitReason,
        /// The last console bytes, at most 4 KiB, invalid UTF-8 replaced.
        console_tail: String,
    },
}

/// Why a VM ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ExitReason {
    /// The guest powered itself off through ACPI.
    PowerOff,
    /// The guest asked for a reset.
    Reset,
    /// The guest's processor shut down (triple fault).
    TripleFault,
    /// The peer asked for [`Request::Stop`] or closed the control socket.
    Stopped,
    /// KVM could not go on.
    InternalError {
        /// KVM's sub-error (1: emulation failure).
        suberror: u32,
        /// Instruction pointer.
        rip: u64,
        /// Bytes of the instruction, as far as known, in hexadecimal.
        instruction: String,
        /// What a person can do about it.
        remedy: String,
    },
    /// KVM refused to enter the guest with this hardware reason.
    FailedEntry {
        /// The hardware's reason code.
        hardware_reason: u64,
    },
    /// The monitor itself failed.
    Failed {
        /// One sentence.
        message: String,
    },
}
