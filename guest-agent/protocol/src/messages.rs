//! The messages, as data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Apply, Attach, Connect, JobId, List, Network, Read, Secrets, SignalGroup, Start, Stat,
    TerminalSize,
};

/// Agent to host, first on the ready stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::GENERATION`] of the agent.
    pub generation: u32,
    /// The agent's package version.
    pub agent_version: String,
    /// `uname -r` of the guest.
    pub kernel_release: String,
    /// Nanoseconds on the guest's monotonic clock when this was sent.
    pub boot_ns: u64,
}

/// Host to agent, the answer to [`Hello`]. The agent applies it before it accepts operations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`crate::GENERATION`] of the host.
    pub generation: u32,
    /// The host's wall clock, nanoseconds since 1970.
    pub realtime_ns: u64,
    /// The guest's host name.
    pub hostname: String,
    /// Fresh random bytes, mixed into the kernel's generator. At most 256.
    pub entropy: Vec<u8>,
    /// The guest's network, if it has one. Otherwise there is loopback alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
}

/// Host to agent, first on an operation's stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Request {
    /// Runs one program.
    Exec(Exec),
    /// Runs one program that survives this stream.
    Start(Start),
    /// Gives the output and the end of a job.
    Attach(Attach),
    /// Lists all jobs; answered with [`JobEvent::Jobs`](crate::JobEvent::Jobs).
    Jobs,
    /// Sends a signal to a process group of a job; answered with
    /// [`JobEvent::Done`](crate::JobEvent::Done), also when the program or the group has ended.
    SignalJob {
        /// The job.
        job: JobId,
        /// The signal's number, 1 to 31; otherwise [`ErrorCode::InvalidRequest`].
        signal: u8,
        /// Whom it is for.
        #[serde(default)]
        group: SignalGroup,
    },
    /// Gives a job's terminal another size, of which its foreground process group is told with
    /// SIGWINCH. Answered with [`JobEvent::Done`](crate::JobEvent::Done), also when the program has
    /// ended; [`ErrorCode::InvalidRequest`] for a job without a terminal.
    ResizeJob {
        /// The job.
        job: JobId,
        /// The new size.
        size: TerminalSize,
    },
    /// Writes to a job's input. `Stdin` frames follow, and an empty one ends the request, not the
    /// input. Answered once with [`JobEvent::Done`](crate::JobEvent::Done) when the program's pipe
    /// or terminal has taken all. That may be never, when the program does not read: close the stream
    /// then, and nothing more of what it sent is written. [`ErrorCode::Ended`] when the program has
    /// ended, or has closed its input, before it took all; [`ErrorCode::InvalidRequest`] for a job
    /// that was started without input.
    WriteJob {
        /// The job.
        job: JobId,
    },
    /// Kills a job's program and everything that it started, also what it left running when it
    /// ended. Answered with [`JobEvent::Done`](crate::JobEvent::Done) at once; that all are gone
    /// is told by the job's [`JobEvent::Exited`](crate::JobEvent::Exited).
    CancelJob {
        /// The job.
        job: JobId,
    },
    /// Drops an ended job with its output; what it left running goes on. Answered with
    /// [`JobEvent::Done`](crate::JobEvent::Done). Refused with [`ErrorCode::Busy`] while it runs.
    Forget {
        /// The job.
        job: JobId,
    },
    /// Tells what a path is.
    Stat(Stat),
    /// Lists a directory.
    List(List),
    /// Reads a file.
    Read(Read),
    /// Changes files, all of them or none.
    Apply(Apply),
    /// Replaces the secrets.
    Secrets(Secrets),
    /// Connects to a port in the guest.
    Connect(Connect),
    /// Writes everything out to the host, as sync(1) does; answered with [`Event::Done`] then.
    /// What programs write meanwhile may be written out or not.
    Sync,
    /// Answers at once with [`Event::Done`].
    Ping,
    /// Sends a signal to the process group of a program that an exec started; answered with
    /// [`Event::Done`], also when it has ended meanwhile.
    Signal {
        /// The program's process id, from [`Event::Started`].
        pid: u32,
        /// The signal's number, 1 to 31.
        signal: u8,
    },
    /// Ends all processes, writes everything out, and powers off. Answered with
    /// [`Event::Done`] just before the power goes.
    PowerOff,
}

/// A program to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments; the program is looked up in the guest's `PATH`. Not empty.
    pub argv: Vec<String>,
    /// Added to (and overriding) the agent's default environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory; `/` when absent.
    #[serde(default)]
    pub cwd: Option<String>,
    /// User name or number from the guest's `/etc/passwd`; root when absent.
    #[serde(default)]
    pub user: Option<String>,
    /// Whole group and its cgroup are killed after this many milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Whether the host will send standard input; `/dev/null` otherwise.
    #[serde(default)]
    pub stdin: bool,
}

/// Host to agent, the payload of a frame of kind `Signal` on an exec's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// The signal's number, 1 to 31. Goes to the program's whole process group.
    pub signal: u8,
}

/// Agent to host, on an operation's stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The program runs. Output frames may follow.
    Started {
        /// Its process id in the guest.
        pid: u32,
    },
    /// The program ended; the last message of an exec. All its output has been sent.
    Exited {
        /// How.
        status: ExitStatus,
        /// Nanoseconds it ran, on the guest's monotonic clock.
        duration_ns: u64,
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

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ExitStatus {
    /// It called exit.
    Code {
        /// 0 to 255.
        code: u8,
    },
    /// A signal ended it.
    Signal {
        /// The signal's number.
        signal: u8,
    },
    /// It was killed because its time was up.
    TimedOut,
}

/// Kinds of failure, stable across versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The request made no sense.
    InvalidRequest,
    /// The program does not exist (a shell would exit 127).
    CommandNotFound,
    /// The program exists and cannot be executed (a shell would exit 126).
    CommandNotExecutable,
    /// The working directory does not exist or is no directory.
    BadCwd,
    /// No such user.
    UnknownUser,
    /// The guest ran out of something.
    OutOfResources,
    /// There is no such file, directory or job.
    NotFound,
    /// There is something already: another job of this name, or something where a file is to go.
    AlreadyExists,
    /// A regular file is needed, and there is something else.
    NotAFile,
    /// A directory is needed, and there is something else.
    NotADirectory,
    /// A directory that is to be deleted is not empty.
    NotEmpty,
    /// The path leads out of the directory that it may not leave.
    Outside,
    /// What is there is not what was expected, or has changed meanwhile.
    Conflict,
    /// The disk is full.
    NoSpace,
    /// More changes, or longer paths, than are allowed.
    TooMuch,
    /// The job runs.
    Busy,
    /// The job has ended, or takes no more input.
    Ended,
    /// Nobody listens at the port.
    ConnectionRefused,
    /// The address cannot be reached.
    Unreachable,
    /// It has taken too long.
    TimedOut,
    /// Anything else, also a kind that this side does not know yet.
    #[serde(other)]
    Internal,
}
