//! The one error of this crate: what a person, a script and a model are told.
//!
//! Each error has a [`Code`] that never changes its meaning, one sentence, and a remedy: what to
//! do about it. The cause, where there is one, is in [`std::error::Error::source`].

use std::error::Error as StdError;
use std::fmt;

/// A result with the engine's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something failed, with what to do about it.
#[derive(Debug)]
pub struct Error {
    code: Code,
    message: String,
    remedy: String,
    detail: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error with its sentence and remedy.
    pub fn new(code: Code, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            remedy: remedy.into(),
            detail: None,
            source: None,
        }
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds lines that help to find the reason, such as the end of the guest's console.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        if !detail.trim().is_empty() {
            self.detail = Some(detail);
        }
        self
    }

    /// The stable code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// One sentence: what happened, without the cause.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it.
    pub fn remedy(&self) -> &str {
        &self.remedy
    }

    /// Lines that help to find the reason; may be several, may hold what the guest wrote.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// The error as it crosses the socket and is kept in records.
    pub fn to_api(&self) -> pyro_client::types::ApiError {
        pyro_client::types::ApiError {
            code: self.code.as_str().to_string(),
            message: self.sentence(),
            remedy: self.remedy.clone(),
            detail: self.detail.clone(),
        }
    }

    /// The sentence followed by its causes, each after a colon.
    pub fn sentence(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            let line = error.to_string();
            if !text.contains(&line) {
                text.push_str(": ");
                text.push_str(&line);
            }
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What kind of failure, stable across versions.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $name,)*
            /// A failure of the image store, with the store's own code.
            Store(&'static str),
        }

        impl Code {
            /// All but the store's.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The code as it is printed: snake case.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Store(code) => code,
                }
            }
        }
    };
}

codes! {
    /// `--vcpu-count` is zero or more than the monitor or the host can give.
    VcpuCountOutOfRange = "vcpu_count_out_of_range",
    /// `--mem-mib` is below what a guest needs or above what the host has.
    MemoryOutOfRange = "memory_out_of_range",
    /// A time limit is zero or longer than a day.
    TimeOutOfRange = "time_out_of_range",
    /// The command is empty or has a NUL byte.
    InvalidCommand = "invalid_command",
    /// The network policy exists and is not available yet.
    NetworkUnavailable = "network_unavailable",
    /// Not Linux on x86-64.
    PlatformUnsupported = "platform_unsupported",
    /// There is no `/dev/kvm`.
    KvmMissing = "kvm_missing",
    /// `/dev/kvm` may not be opened by this user.
    KvmPermission = "kvm_permission",
    /// `/dev/kvm` exists and cannot be used.
    KvmUnavailable = "kvm_unavailable",
    /// This KVM cannot run a stock guest kernel.
    KvmCannotRunGuest = "kvm_cannot_run_guest",
    /// A program of the product is not beside `pyro`.
    HelperMissing = "helper_missing",
    /// The state directory cannot be made or written.
    StateUnwritable = "state_unwritable",
    /// The file system of the state directory is full.
    NoSpace = "no_space",
    /// The monitor process could not be started.
    MonitorStart = "monitor_start",
    /// The monitor process ended or spoke out of turn.
    MonitorFailed = "monitor_failed",
    /// The guest did not get as far as its agent.
    BootFailed = "boot_failed",
    /// The guest's kernel crashed.
    GuestCrashed = "guest_crashed",
    /// The guest powered itself off or rebooted while something was still to do.
    GuestEnded = "guest_ended",
    /// The agent broke its protocol or went away.
    AgentFailed = "agent_failed",
    /// The agent could not do what it was asked.
    ExecFailed = "exec_failed",
    /// The VM's time to live was over.
    TtlExpired = "ttl_expired",
    /// A signal asked the product to stop.
    Interrupted = "interrupted",
    /// Reading or writing the caller's streams failed.
    Io = "io",
    /// A name that is empty, too long, or has characters that it may not have.
    InvalidName = "invalid_name",
    /// A label whose key or value is not allowed, or too many labels.
    InvalidLabel = "invalid_label",
    /// A variable of the environment that no guest could have.
    InvalidEnvironment = "invalid_environment",
    /// A path of the host that is not absolute, or one of the guest that cannot be one.
    InvalidPath = "invalid_path",
    /// A request whose parts contradict each other or are out of range.
    InvalidRequest = "invalid_request",
    /// Another daemon holds the state directory.
    StateLocked = "state_locked",
    /// A record on disk that cannot be read.
    RecordUnreadable = "record_unreadable",
    /// No workspace has this id or name.
    WorkspaceNotFound = "workspace_not_found",
    /// Several workspaces have this name.
    WorkspaceAmbiguous = "workspace_ambiguous",
    /// There are as many workspaces as this daemon holds.
    TooManyWorkspaces = "too_many_workspaces",
    /// The workspace has no running guest.
    WorkspaceNotRunning = "workspace_not_running",
    /// The workspace has a running guest.
    WorkspaceNotStopped = "workspace_not_stopped",
    /// The workspace is being deleted.
    WorkspaceDeleting = "workspace_deleting",
    /// The environment that the workspace was made from is gone or damaged.
    EnvironmentGone = "environment_gone",
    /// The journal has no such command.
    ExecNotFound = "exec_not_found",
    /// The guest, its monitor or the daemon ended before the command did.
    CommandLost = "command_lost",
    /// There is no such program in the guest.
    CommandNotFound = "command_not_found",
    /// The program in the guest cannot be executed.
    CommandNotExecutable = "command_not_executable",
    /// Nothing is at this path in the guest.
    FileNotFound = "file_not_found",
    /// What is at this path is not of the kind that was asked for.
    FileKind = "file_kind",
    /// The path leaves the directory that it must stay in.
    PathEscapes = "path_escapes",
    /// The file is not UTF-8 and text was asked for.
    NotUtf8 = "not_utf8",
    /// The file's content is another than expected.
    ContentChanged = "content_changed",
    /// A secret that cannot be declared.
    InvalidSecret = "invalid_secret",
    /// The workspace has no secret of this name.
    SecretNotFound = "secret_not_found",
    /// The workspace has no service of this name.
    ServiceNotFound = "service_not_found",
    /// A service of this name runs already.
    ServiceRunning = "service_running",
    /// A service cannot be started, or there are too many.
    ServiceNotStarted = "service_not_started",
    /// A service was not ready in time, or ended before.
    ServiceNotReady = "service_not_ready",
    /// The workspace has no shell with this id.
    ShellNotFound = "shell_not_found",
    /// The shell's program has ended.
    ShellClosed = "shell_closed",
    /// There are as many shells as a workspace may have, or one cannot be opened.
    ShellNotOpened = "shell_not_opened",
    /// What runs in the shell does not take what is typed.
    ShellBusy = "shell_busy",
    /// The port of the host is taken or may not be used.
    PortUnavailable = "port_unavailable",
    /// The patch cannot be read, or is not for what is there.
    PatchRefused = "patch_refused",
    /// A hunk of the patch does not match its file.
    PatchMismatch = "patch_mismatch",
    /// What changed has so many or so long paths that they cannot be listed.
    DiffTooLarge = "diff_too_large",
    /// The seed or the source of a push holds what a workspace does not take.
    SourceRefused = "source_refused",
    /// Something exists where the output is to be made.
    OutputExists = "output_exists",
    /// The output on the host cannot be made.
    OutputUnwritable = "output_unwritable",
    /// The workspace has no such snapshot.
    SnapshotNotFound = "snapshot_not_found",
    /// The workspace has a snapshot of this name.
    SnapshotExists = "snapshot_exists",
    /// The workspace has as many snapshots as it may.
    TooManySnapshots = "too_many_snapshots",
    /// `baseline` can be neither made nor deleted.
    SnapshotReserved = "snapshot_reserved",
    /// The workspace's disk is damaged.
    DiskDamaged = "disk_damaged",
}

/// What an error means to whoever asked; each has one HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request can never work: 400.
    Invalid,
    /// What it names is not there: 404.
    NotFound,
    /// It does not fit the present state: 409.
    Conflict,
    /// What it carries is refused: 422.
    Refused,
    /// The disk is full: 507.
    NoSpace,
    /// This host or daemon cannot do it now: 503.
    Unavailable,
    /// The product or the guest failed: 500.
    Failed,
}

impl Code {
    /// What the error means to whoever asked.
    pub fn kind(self) -> Kind {
        match self {
            Self::VcpuCountOutOfRange
            | Self::MemoryOutOfRange
            | Self::TimeOutOfRange
            | Self::InvalidCommand
            | Self::InvalidName
            | Self::InvalidLabel
            | Self::InvalidEnvironment
            | Self::InvalidPath
            | Self::InvalidRequest
            | Self::SnapshotReserved
            | Self::InvalidSecret
            | Self::NetworkUnavailable
            | Self::Store("unknown_environment") => Kind::Invalid,
            Self::WorkspaceNotFound
            | Self::ExecNotFound
            | Self::FileNotFound
            | Self::SecretNotFound
            | Self::ServiceNotFound
            | Self::ShellNotFound
            | Self::SnapshotNotFound => Kind::NotFound,
            Self::WorkspaceAmbiguous
            | Self::WorkspaceNotRunning
            | Self::WorkspaceNotStopped
            | Self::WorkspaceDeleting
            | Self::TooManyWorkspaces
            | Self::ContentChanged
            | Self::OutputExists
            | Self::ServiceRunning
            | Self::ShellClosed
            | Self::ShellNotOpened
            | Self::ShellBusy
            | Self::PortUnavailable
            | Self::TooManySnapshots
            | Self::SnapshotExists
            | Self::Store("environment_cold" | "environment_stale") => Kind::Conflict,
            Self::FileKind
            | Self::PathEscapes
            | Self::NotUtf8
            | Self::PatchRefused
            | Self::PatchMismatch
            | Self::ServiceNotStarted
            | Self::ServiceNotReady
            | Self::DiffTooLarge
            | Self::SourceRefused => Kind::Refused,
            Self::NoSpace | Self::Store("no_space") => Kind::NoSpace,
            Self::PlatformUnsupported
            | Self::KvmMissing
            | Self::KvmPermission
            | Self::KvmUnavailable
            | Self::KvmCannotRunGuest
            | Self::HelperMissing
            | Self::StateUnwritable
            | Self::StateLocked
            | Self::Interrupted => Kind::Unavailable,
            _ => Kind::Failed,
        }
    }

    /// Whether the caller asked for something that can never work: a usage error.
    pub fn is_usage(self) -> bool {
        matches!(
            self,
            Self::VcpuCountOutOfRange
                | Self::MemoryOutOfRange
                | Self::TimeOutOfRange
                | Self::InvalidCommand
        )
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentence_names_each_cause_once() {
        let io = std::io::Error::other("disk on fire");
        let error = Error::new(Code::Io, "cannot write", "buy water").caused_by(io);

        assert_eq!(error.sentence(), "cannot write: disk on fire");
        assert_eq!(error.to_string(), "cannot write");
    }

    #[test]
    fn blank_detail_is_no_detail() {
        assert_eq!(
            Error::new(Code::Io, "a", "b").with_detail(" \n").detail(),
            None
        );
    }
}
