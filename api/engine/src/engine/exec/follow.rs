//! Following one command to its end.
//!
//! Whatever happens (the guest ends, its agent breaks the protocol, nobody takes the events, the
//! time is up and the agent does not notice), the command's entry in the journal gets its last
//! form and everybody who waits is told.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use pyro_agent_protocol::{
    Attach, ErrorCode, Exec, ExitStatus, FrameKind, JobEvent, JobState, Keep, OutputStream,
    Request, Start,
};
use pyro_client::types::{CAPTURE_BYTES, ExecEvent, ExecRecord, ExecState};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::running::Running;
use crate::agent::{AgentError, Conversation, refused};
use crate::engine::slot::{Operation, Slot};
use crate::engine::{blocking, milliseconds};
use crate::error::{Code, Error};
use crate::machine::guest::Guest;
use crate::records::Phase;
use crate::redact::{self, Redactor};

/// What the agent gets on top of a command's time to kill it and say so.
const GRACE: Duration = Duration::from_secs(10);
/// Longest that a command of an earlier daemon is followed: none may run longer than a day.
const LONGEST: Duration = Duration::from_secs(25 * 60 * 60);
/// How long the agent may take to answer a question about jobs.
const ANSWER: Duration = Duration::from_secs(10);

/// What follows one command.
pub(super) struct Follower {
    pub(super) slot: Arc<Slot>,
    pub(super) operation: Operation,
    pub(super) guest: Arc<Guest>,
    pub(super) running: Arc<Running>,
    pub(super) redaction: Redaction,
    pub(super) listener: Option<Listener>,
    pub(super) how: How,
}

/// What takes secrets out of all that the command prints.
pub(super) struct Redaction {
    redactor: Redactor,
    stdout: redact::Stream,
    stderr: redact::Stream,
}

impl Redaction {
    pub(super) fn new(redactor: &Redactor) -> Self {
        Self {
            redactor: redactor.clone(),
            stdout: redactor.stream(),
            stderr: redactor.stream(),
        }
    }

    fn of(&mut self, stream: OutputStream) -> &mut redact::Stream {
        match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        }
    }
}

/// How the command begins for us.
pub(super) enum How {
    /// It is started.
    Start {
        exec: Exec,
        /// What the agent is told, too.
        timeout: Duration,
        /// The connection for it.
        connecting: JoinHandle<io::Result<UnixStream>>,
    },
    /// It runs already.
    Attach,
}

/// Whoever takes the events.
pub(super) struct Listener {
    pub(super) sender: mpsc::Sender<ExecEvent>,
    /// Wants to know that it runs, and no more.
    pub(super) detached: bool,
}

/// How a command ended.
struct End {
    state: ExecState,
    exit_code: Option<u8>,
    signal: Option<u8>,
    duration: Option<Duration>,
    error: Option<Error>,
}

impl Follower {
    pub(super) async fn run(mut self) {
        let sequence = self.running.sequence();
        self.tell(ExecEvent::Started { sequence }).await;
        let end = match self.follow().await {
            Ok(end) => end,
            Err(error) => self.lost(error).await,
        };
        self.let_out().await;
        let Self {
            slot,
            operation,
            guest,
            running,
            redaction,
            listener,
            ..
        } = self;
        let mut record = end.of(running.record());
        record.error = record.error.map(|error| redaction.redactor.error(error));
        let written = finish(&slot, &running, record.clone()).await;
        operation.changed();
        let forget = Request::Forget {
            job: running.job.clone(),
        };
        tokio::spawn(async move {
            let _ = tokio::time::timeout(ANSWER, ask(&guest, &forget)).await;
        });
        drop(operation);
        if let Some(listener) = listener {
            let event = match written {
                Ok(()) => ExecEvent::Ended {
                    record: Box::new(record),
                },
                Err(error) => ExecEvent::Failed {
                    error: error.to_api(),
                },
            };
            // Whenever it is taken; nobody may be there any more.
            let _ = listener.sender.send(event).await;
        }
    }

    /// Starts it, or attaches to it, and stays with it until it has ended.
    async fn follow(&mut self) -> Result<End, AgentError> {
        let job = self.running.job.clone();
        let mut connecting = None;
        let (request, timeout) = match &mut self.how {
            How::Start {
                exec,
                timeout,
                connecting: begun,
            } => {
                connecting = Some(begun);
                let hold = self
                    .listener
                    .as_ref()
                    .is_some_and(|listener| !listener.detached);
                let start = Start {
                    job: job.clone(),
                    exec: exec.clone(),
                    output: Keep::HeadTail {
                        bytes: CAPTURE_BYTES,
                    },
                    terminal: None,
                    hold,
                };
                (Request::Start(start), *timeout)
            }
            How::Attach => {
                let attach = Attach {
                    job: job.clone(),
                    stdout_from: 0,
                    stderr_from: 0,
                    follow: true,
                    hold: false,
                };
                (Request::Attach(attach), LONGEST)
            }
        };
        // What the agent should have done by itself; after that we wait for its word alone.
        let overdue = Instant::now() + timeout + GRACE;
        let mut limit = overdue;
        let mut ending: Option<Ending> = None;
        let guest = Arc::clone(&self.guest);
        let begin = async {
            let Some(connecting) = connecting else {
                return Conversation::begin(&guest, &request).await;
            };
            let stream = connecting.await.map_err(io::Error::other);
            let stream = stream.flatten().map_err(AgentError::Lost)?;
            Conversation::begin_on(stream, &request).await
        };
        let mut conversation = tokio::select! {
            begun = begin => begun?,
            () = tokio::time::sleep_until(overdue) => return Ok(End::of_ours(Ending::Overdue, timeout)),
        };
        loop {
            let running = Arc::clone(&self.running);
            let gone = self.gone();
            let next = tokio::select! {
                frame = conversation.frame() => Ok(frame?),
                () = running.cancel.notified(), if ending.is_none() => Err(Ending::Cancelled),
                () = gone, if ending.is_none() => Err(Ending::Cancelled),
                () = tokio::time::sleep_until(limit) => match ending {
                    Some(ending) => return Ok(End::of_ours(ending, timeout)),
                    None => Err(Ending::Overdue),
                },
            };
            let frame = match next {
                Ok(frame) => frame,
                Err(why) => {
                    // From here on nobody is waited for but the agent.
                    self.listener = self.listener.take().filter(|l| !l.sender.is_closed());
                    ending = Some(why);
                    limit = Instant::now() + GRACE;
                    let cancel = Request::CancelJob { job: job.clone() };
                    let asked = tokio::time::timeout(ANSWER, ask(&guest, &cancel)).await;
                    tracing::debug!(answered = matches!(asked, Ok(Ok(_))), job = %job, "cancelled");
                    continue;
                }
            };
            let quiet = ending.is_some();
            match frame.kind {
                FrameKind::Stdout => {
                    self.output(OutputStream::Stdout, &frame.payload, quiet, overdue)
                        .await
                }
                FrameKind::Stderr => {
                    self.output(OutputStream::Stderr, &frame.payload, quiet, overdue)
                        .await
                }
                FrameKind::Message => {
                    let event = frame.message::<JobEvent>().map_err(AgentError::Protocol)?;
                    if let Some(end) = self.event(event, ending).await? {
                        return Ok(end);
                    }
                }
                FrameKind::Stdin | FrameKind::Signal => {
                    return Err(AgentError::OutOfTurn("a frame that only the host sends"));
                }
            }
        }
    }

    async fn event(
        &mut self,
        event: JobEvent,
        ending: Option<Ending>,
    ) -> Result<Option<End>, AgentError> {
        match event {
            JobEvent::Attached { .. } => {
                self.let_go().await;
                Ok(None)
            }
            JobEvent::Gap { stream, bytes } => {
                let before = self.redaction.of(stream).gap();
                let overdue = Instant::now() + GRACE;
                self.give(stream, &before, ending.is_some(), overdue).await;
                let mut output = self.running.output();
                match stream {
                    OutputStream::Stdout => output.0.skip(bytes),
                    OutputStream::Stderr => output.1.skip(bytes),
                }
                Ok(None)
            }
            JobEvent::Exited {
                status,
                duration_ns,
                cancelled,
            } => {
                let duration = Duration::from_nanos(duration_ns);
                Ok(Some(End::of_status(status, duration, cancelled, ending)))
            }
            JobEvent::Failed { code, message } => match End::of_refusal(code, &message) {
                Some(end) => Ok(Some(end)),
                None => Err(refused(code, &message)),
            },
            JobEvent::Running | JobEvent::Jobs { .. } | JobEvent::Done => {
                Err(AgentError::OutOfTurn("the answer to another request"))
            }
        }
    }

    /// Keeps what it wrote, and passes it on unless nobody is to be waited for.
    async fn output(&mut self, stream: OutputStream, bytes: &[u8], quiet: bool, overdue: Instant) {
        let bytes = self.redaction.of(stream).push(bytes);
        self.give(stream, &bytes, quiet, overdue).await;
    }

    /// Gives what was held back because it might have begun a secret.
    async fn let_out(&mut self) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let bytes = self.redaction.of(stream).finish();
            let overdue = Instant::now() + GRACE;
            self.give(stream, &bytes, false, overdue).await;
        }
    }

    async fn give(&mut self, stream: OutputStream, bytes: &[u8], quiet: bool, overdue: Instant) {
        if bytes.is_empty() {
            return;
        }
        {
            let mut output = self.running.output();
            match stream {
                OutputStream::Stdout => output.0.push(bytes),
                OutputStream::Stderr => output.1.push(bytes),
            }
        }
        let Some(listener) = self.listener.as_ref().filter(|_| !quiet) else {
            return;
        };
        for piece in bytes.chunks(64 << 10) {
            let data = BASE64.encode(piece);
            let event = match stream {
                OutputStream::Stdout => ExecEvent::Stdout { data },
                OutputStream::Stderr => ExecEvent::Stderr { data },
            };
            let mut cancelled = pin!(self.running.cancel.notified());
            tokio::select! {
                _ = listener.sender.send(event) => {}
                () = &mut cancelled => {
                    // For the loop, which comes next.
                    self.running.cancel.notify_one();
                    return;
                }
                () = tokio::time::sleep_until(overdue) => return,
            }
        }
    }

    /// Lets a listener go that only wanted to know that the command runs.
    async fn let_go(&mut self) {
        if self
            .listener
            .as_ref()
            .is_some_and(|listener| listener.detached)
        {
            let record = Box::new(self.running.record());
            self.tell(ExecEvent::Ended { record }).await;
            self.listener = None;
        }
    }

    async fn tell(&self, event: ExecEvent) {
        if let Some(listener) = &self.listener {
            let _ = listener.sender.send(event).await;
        }
    }

    /// Waits until nobody listens any more who should.
    fn gone(&self) -> impl Future<Output = ()> + use<> {
        let sender = self
            .listener
            .as_ref()
            .filter(|listener| !listener.detached)
            .map(|listener| listener.sender.clone());
        async move {
            match sender {
                Some(sender) => sender.closed().await,
                None => std::future::pending().await,
            }
        }
    }

    /// The end of a command whose connection broke.
    async fn lost(&self, error: AgentError) -> End {
        let error = match error {
            AgentError::TooLong(_) => Error::new(
                Code::InvalidCommand,
                "the command is too long",
                "send long input as a file",
            ),
            // The guest has no such job: it was never started, or the agent is another.
            AgentError::Refused {
                code: ErrorCode::NotFound,
                ..
            } => super::orphaned(),
            AgentError::Refused { .. } => Error::new(
                Code::ExecFailed,
                error.to_string(),
                "give the guest more memory, or run less at once",
            ),
            error => {
                let error = self.guest.lost(error).await;
                match self.slot.record().phase {
                    Phase::Stopping | Phase::Deleting => Error::new(
                        Code::CommandLost,
                        "the workspace was stopped before the command had ended",
                        "start the workspace and run it again",
                    ),
                    _ => error,
                }
            }
        };
        End::of_loss(error)
    }
}

/// Why we end a command before its agent does.
#[derive(Debug, Clone, Copy)]
enum Ending {
    /// Somebody wants it, or nobody waits for it any more.
    Cancelled,
    /// Its time is up, and the agent has not noticed.
    Overdue,
}

impl End {
    fn of_status(
        status: ExitStatus,
        duration: Duration,
        cancelled: bool,
        ending: Option<Ending>,
    ) -> Self {
        let (state, exit_code, signal) = match (status, ending) {
            (ExitStatus::TimedOut, _) | (_, Some(Ending::Overdue)) => {
                (ExecState::TimedOut, Some(124), None)
            }
            _ if cancelled => (ExecState::Cancelled, None, None),
            (ExitStatus::Code { code }, _) => (ExecState::Exited, Some(code), None),
            (ExitStatus::Signal { signal }, _) => (
                ExecState::Signalled,
                Some(128u8.saturating_add(signal)),
                Some(signal),
            ),
        };
        Self {
            state,
            exit_code,
            signal,
            duration: Some(duration),
            error: None,
        }
    }

    /// The agent did not say how it ended.
    fn of_ours(ending: Ending, timeout: Duration) -> Self {
        let (state, exit_code, duration) = match ending {
            Ending::Cancelled => (ExecState::Cancelled, None, None),
            Ending::Overdue => (ExecState::TimedOut, Some(124), Some(timeout)),
        };
        let error = Error::new(
            Code::AgentFailed,
            "the guest's agent did not say that the command has ended",
            "it may still run in the guest; stop and start the workspace to be sure",
        );
        Self {
            state,
            exit_code,
            signal: None,
            duration,
            error: Some(error),
        }
    }

    fn of_refusal(code: ErrorCode, message: &str) -> Option<Self> {
        let message = crate::exec::printable(message);
        let (code, exit_code, remedy) = match code {
            ErrorCode::CommandNotFound => (
                Code::CommandNotFound,
                127,
                "check the command's name; `sh -c` runs a line of shell",
            ),
            ErrorCode::CommandNotExecutable => (
                Code::CommandNotExecutable,
                126,
                "make it executable, or run it with its interpreter",
            ),
            ErrorCode::BadCwd => (
                Code::FileNotFound,
                126,
                "pass a working directory that is there",
            ),
            _ => return None,
        };
        Some(Self {
            state: ExecState::NotStarted,
            exit_code: Some(exit_code),
            signal: None,
            duration: None,
            error: Some(Error::new(code, message, remedy)),
        })
    }

    fn of_loss(error: Error) -> Self {
        Self {
            state: ExecState::Lost,
            exit_code: None,
            signal: None,
            duration: None,
            error: Some(error),
        }
    }

    fn of(&self, record: ExecRecord) -> ExecRecord {
        ExecRecord {
            state: self.state,
            exit_code: self.exit_code,
            signal: self.signal,
            duration_ms: self.duration.map(milliseconds),
            error: self.error.as_ref().map(Error::to_api),
            ..record
        }
    }
}

/// Writes a command's last record down and wakes who waits for it.
async fn finish(slot: &Arc<Slot>, running: &Arc<Running>, record: ExecRecord) -> Result<(), Error> {
    let journal = running.journal.clone();
    let written = blocking(move || journal.end(&record)).await;
    slot.execs.end(running, *written.as_ref().unwrap_or(&0));
    match written {
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::warn!(workspace = %slot.id(), %error, "cannot write down how a command ended");
            Err(error)
        }
    }
}

/// Notes that a command is lost.
pub(super) async fn lose(slot: &Arc<Slot>, running: Arc<Running>, error: Error) {
    let record = End::of_loss(error).of(running.record());
    let _ = finish(slot, &running, record).await;
}

/// Lets the agent forget commands that ended while nobody was there to tell it.
pub(super) async fn forget_ended(slot: &Arc<Slot>, guest: &Guest) {
    let jobs = async {
        let mut conversation = Conversation::begin(guest, &Request::Jobs).await?;
        let frame = conversation.frame().await?;
        match frame.message::<JobEvent>().map_err(AgentError::Protocol)? {
            JobEvent::Jobs { jobs } => Ok(jobs),
            _ => Err(AgentError::OutOfTurn("the answer to another request")),
        }
    };
    let Ok(Ok(jobs)) = tokio::time::timeout(ANSWER, jobs).await else {
        return;
    };
    for info in jobs {
        let sequence = info
            .job
            .as_str()
            .strip_prefix("exec-")
            .and_then(|s| s.parse().ok());
        let followed = sequence.is_none_or(|sequence| slot.execs.running(sequence).is_some());
        if !followed && matches!(info.state, JobState::Ended { .. }) {
            let forget = Request::Forget { job: info.job };
            let _ = tokio::time::timeout(ANSWER, ask(guest, &forget)).await;
        }
    }
}

/// A question about jobs that is answered with [`JobEvent::Done`].
async fn ask(guest: &Guest, request: &Request) -> Result<(), AgentError> {
    let mut conversation = Conversation::begin(guest, request).await?;
    let frame = conversation.frame().await?;
    match frame.message::<JobEvent>().map_err(AgentError::Protocol)? {
        JobEvent::Done => Ok(()),
        JobEvent::Failed { code, message } => Err(refused(code, &message)),
        _ => Err(AgentError::OutOfTurn("the answer to another request")),
    }
}
