//! Programs that survive the stream that started them.
//!
//! [`Start`] runs a program under a name, a [`JobId`] of the host's choice, and attaches its stream
//! to it as [`Attach`] does. When that stream ends, the program goes on. Any number of streams may
//! be attached at a time, also of hosts that come later. It is ended by its timeout, by
//! [`Request::SignalJob`](crate::Request::SignalJob) or by
//! [`Request::CancelJob`](crate::Request::CancelJob), and its end and output are kept until
//! [`Request::Forget`](crate::Request::Forget).
//!
//! **Output.** A cursor is a number of bytes from an output's beginning. What is kept is said by
//! [`Keep`]; to a stream that comes to bytes which are not kept any more, a [`JobEvent::Gap`] says
//! how much it missed.
//! - [`Keep::HeadTail`]: of each of the two outputs the first half of so many bytes and the last
//!   half. What lies between is gone, unless a stream that *holds* the program has yet to get it: the
//!   program waits for such a stream to take its output, as it waits for that of an exec. How the
//!   two outputs were mixed is known only to streams that keep up.
//! - [`Keep::Tail`]: both outputs are one, in the order in which they were written; it is called
//!   standard output, and there is no other. Its last bytes are kept. Nobody can hold the program.
//!
//! While all jobs together hold more than [`JOBS_OUTPUT_MAX`] bytes, no job's last part grows,
//! except that every [`Keep::Tail`] has [`TAIL_MIN`] bytes of its own.
//!
//! **Input.** When the program was started with `stdin`, `Stdin` frames of every attached stream go
//! to it, and an empty one closes it. The end of a stream does not close it, and takes back nothing.
//! So do those of [`Request::WriteJob`](crate::Request::WriteJob), which says when the program's
//! pipe or terminal has taken them. Frames of several streams are mixed as they come, each whole. A
//! program that does not read holds up nobody but the streams that write to it.
//!
//! **Terminals.** With [`Start::terminal`] the program has a terminal of its own: it leads a session
//! whose controlling terminal that is, with job control, UTF-8, and `TERM=xterm-256color` unless its
//! environment says otherwise. Input, output and errors are the terminal; there is always input, and
//! an empty frame does not close it: write what the terminal takes for its end (^D, byte 4). Of a line
//! longer than 4095 bytes the kernel drops the rest, unless the program has set the terminal
//! otherwise, as shells and editors do. Output is raw, with all control sequences. The job ends when
//! the program does, not when the last process lets go of the terminal; what those that go on write
//! then is thrown away.

use serde::{Deserialize, Serialize};

use crate::{ErrorCode, Exec, ExitStatus, TerminalSize};

/// Most jobs at a time, ended ones that nobody has asked to forget as well.
pub const JOBS_MAX: usize = 512;
/// Most bytes of output kept of one output of one job.
pub const CAPTURE_MAX: u64 = 16 << 20;
/// See the module's words on output.
pub const JOBS_OUTPUT_MAX: usize = 64 << 20;
/// What a [`Keep::Tail`] of at least so many bytes keeps in any case.
pub const TAIL_MIN: usize = 64 << 10;

/// A job's name: 1 to 64 characters of `A-Z a-z 0-9 . _ -`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct JobId(String);

impl JobId {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for JobId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if (1..=64).contains(&text.len()) && text.bytes().all(fits) {
            Ok(Self(text))
        } else {
            Err("a job's name is 1 to 64 letters, digits, dots, dashes and underscores")
        }
    }
}

impl std::str::FromStr for JobId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.to_owned().try_into()
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> Self {
        id.0
    }
}

impl std::fmt::Display for JobId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Starts a program that survives its stream; answered as [`Attach`] with `follow` is.
///
/// A name that is in use is refused with [`ErrorCode::AlreadyExists`]; [`JOBS_MAX`] and a guest that
/// has run out of something with [`ErrorCode::OutOfResources`]; `hold` with a [`Keep::Tail`] and a
/// terminal without one with [`ErrorCode::InvalidRequest`]. What may be wrong with `exec` is told as
/// for [`Request::Exec`](crate::Request::Exec).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Its name from now on.
    pub job: JobId,
    /// What to run.
    pub exec: Exec,
    /// How the output is kept.
    pub output: Keep,
    /// Runs the program on a terminal of this size. Needs [`Keep::Tail`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<TerminalSize>,
    /// Whether the program waits for this stream to take its output.
    #[serde(default)]
    pub hold: bool,
}

/// How the output of a job is kept. More than [`CAPTURE_MAX`] bytes are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "keep", rename_all = "kebab-case")]
pub enum Keep {
    /// The first and the last bytes of both outputs.
    HeadTail {
        /// Of each output.
        bytes: u64,
    },
    /// The last bytes of both outputs as one.
    Tail {
        /// Of both together.
        bytes: u64,
    },
}

/// Which processes of a job a signal is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignalGroup {
    /// The process group of the program.
    #[default]
    Program,
    /// The foreground process group of the job's terminal: what runs in a shell just now, or the
    /// shell. [`ErrorCode::InvalidRequest`] for a job without a terminal.
    Foreground,
}

/// Asks for a job's output and end.
///
/// Answered with [`JobEvent::Attached`], then `Stdout` and `Stderr` frames and [`JobEvent::Gap`]s,
/// and last [`JobEvent::Exited`], or [`JobEvent::Running`] when it is not to be followed.
///
/// Any number of streams may be attached, and those that are slow hold up neither the program nor
/// each other. A job that is not there is [`ErrorCode::NotFound`], also for all other requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// The job.
    pub job: JobId,
    /// Cursor from which standard output is wanted, or both outputs where they are one. One beyond
    /// what was written means only what comes from now on.
    #[serde(default)]
    pub stdout_from: u64,
    /// The same for standard error.
    #[serde(default)]
    pub stderr_from: u64,
    /// Whether to go on until the program ends.
    #[serde(default)]
    pub follow: bool,
    /// Whether the program waits for this stream to take its output. Not with [`Keep::Tail`].
    #[serde(default)]
    pub hold: bool,
}

/// Which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What is kept of one output: the bytes `0..head` and `tail..written`. With [`Keep::Tail`] `head`
/// is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Captured {
    /// Bytes that the program wrote, as far as the agent has read them.
    pub written: u64,
    /// End of the first part.
    pub head: u64,
    /// Begin of the last part. Equal to `head` when nothing is missing.
    pub tail: u64,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum JobState {
    /// It runs, or is being killed.
    Running,
    /// It has ended.
    Ended {
        /// How.
        status: ExitStatus,
        /// Nanoseconds it ran, on the guest's monotonic clock.
        duration_ns: u64,
    },
}

/// One job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobInfo {
    /// Its name.
    pub job: JobId,
    /// Its program's process id in the guest; another's, perhaps, once it has ended.
    pub pid: u32,
    /// How far it is.
    pub state: JobState,
    /// Whether somebody cancelled it before it had ended.
    pub cancelled: bool,
    /// Its standard output, or both outputs where they are one.
    pub stdout: Captured,
    /// Its standard error.
    pub stderr: Captured,
    /// The size of its terminal, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<TerminalSize>,
}

/// Agent to host, on the streams of [`Start`], [`Attach`] and the other requests about jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum JobEvent {
    /// First answer to [`Start`] and [`Attach`].
    Attached {
        /// The job as it is now.
        info: JobInfo,
    },
    /// Bytes of an output are missing here: the next frame of it starts that much later.
    Gap {
        /// Which output.
        stream: OutputStream,
        /// How many, not 0.
        bytes: u64,
    },
    /// The program ended, and all its output that is kept has been sent; the last message.
    Exited {
        /// How. Killed by [`Request::CancelJob`](crate::Request::CancelJob) it is a signal, 9.
        status: ExitStatus,
        /// Nanoseconds it ran, on the guest's monotonic clock.
        duration_ns: u64,
        /// Whether it was cancelled before it had ended.
        cancelled: bool,
    },
    /// All that is kept has been sent, and the program runs; the last message of an [`Attach`]
    /// without `follow`.
    Running,
    /// The answer to [`Request::Jobs`](crate::Request::Jobs), in the order of their start.
    Jobs {
        /// All of them.
        jobs: Vec<JobInfo>,
    },
    /// The operation is done.
    Done,
    /// The operation failed; the last message of its stream.
    Failed {
        /// What kind of failure.
        code: ErrorCode,
        /// One sentence.
        message: String,
    },
}
