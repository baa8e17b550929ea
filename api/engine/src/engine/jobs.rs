//! Questions to the agent about jobs that are services or shells.

use std::time::Duration;

use pyro_agent_protocol::{
    Attach, ErrorCode, Event, ExitStatus, FrameKind, JobEvent, JobId, JobInfo, MAX_FRAME, Request,
    SignalGroup, Start, encode,
};
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::agent::{self, AgentError, Conversation, refused};
use crate::machine::guest::Guest;

/// How long the agent may take to answer a question.
pub(super) const ANSWER: Duration = Duration::from_secs(10);

/// What comes from a job that is followed.
#[derive(Debug)]
pub(super) enum Next {
    /// It wrote this.
    Output(Vec<u8>),
    /// So many bytes are missing.
    Gap(u64),
    /// All that is kept was sent, and it goes on.
    Running,
    /// It ended.
    Exited(ExitStatus),
}

/// A job that is attached to. Its outputs are one.
#[derive(Debug)]
pub(super) struct Attached {
    conversation: Conversation,
    pub(super) info: JobInfo,
}

impl Attached {
    pub(super) async fn start(guest: &Guest, start: Start) -> Result<Self, AgentError> {
        within(ANSWER, Self::begin(guest, Request::Start(start))).await
    }

    pub(super) async fn to(
        guest: &Guest,
        job: &JobId,
        from: u64,
        follow: bool,
    ) -> Result<Self, AgentError> {
        let attach = Attach {
            job: job.clone(),
            stdout_from: from,
            stderr_from: 0,
            follow,
            hold: false,
        };
        within(ANSWER, Self::begin(guest, Request::Attach(attach))).await
    }

    async fn begin(guest: &Guest, request: Request) -> Result<Self, AgentError> {
        let mut conversation = Conversation::begin(guest, &request).await?;
        let frame = conversation.frame().await?;
        match frame.message().map_err(AgentError::Protocol)? {
            JobEvent::Attached { info } => Ok(Self { conversation, info }),
            JobEvent::Failed { code, message } => Err(refused(code, &message)),
            _ => Err(OUT_OF_TURN),
        }
    }

    /// The next thing. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Next, AgentError> {
        let frame = self.conversation.frame().await?;
        match frame.kind {
            FrameKind::Stdout => Ok(Next::Output(frame.payload)),
            FrameKind::Message => match frame.message().map_err(AgentError::Protocol)? {
                JobEvent::Gap { bytes, .. } => Ok(Next::Gap(bytes)),
                JobEvent::Running => Ok(Next::Running),
                JobEvent::Exited { status, .. } => Ok(Next::Exited(status)),
                JobEvent::Failed { code, message } => Err(refused(code, &message)),
                _ => Err(OUT_OF_TURN),
            },
            _ => Err(AgentError::OutOfTurn("an output that there is not")),
        }
    }
}

const OUT_OF_TURN: AgentError = AgentError::OutOfTurn("the answer to another request");

/// A question that is answered with [`JobEvent::Done`].
pub(super) async fn ask(guest: &Guest, request: &Request) -> Result<(), AgentError> {
    match question(guest, request).await? {
        JobEvent::Done => Ok(()),
        JobEvent::Failed { code, message } => Err(refused(code, &message)),
        _ => Err(OUT_OF_TURN),
    }
}

/// All jobs.
pub(super) async fn all(guest: &Guest) -> Result<Vec<JobInfo>, AgentError> {
    match question(guest, &Request::Jobs).await? {
        JobEvent::Jobs { jobs } => Ok(jobs),
        JobEvent::Failed { code, message } => Err(refused(code, &message)),
        _ => Err(OUT_OF_TURN),
    }
}

async fn question<E: for<'a> Deserialize<'a>>(
    guest: &Guest,
    request: &Request,
) -> Result<E, AgentError> {
    within(ANSWER, async {
        let mut conversation = Conversation::begin(guest, request).await?;
        let frame = conversation.frame().await?;
        frame.message().map_err(AgentError::Protocol)
    })
    .await
}

pub(super) async fn signal(
    guest: &Guest,
    job: &JobId,
    signal: u8,
    group: SignalGroup,
) -> Result<(), AgentError> {
    let job = job.clone();
    ask(guest, &Request::SignalJob { job, signal, group }).await
}

/// Kills a job with all that it started.
pub(super) async fn cancel(guest: &Guest, job: &JobId) -> Result<(), AgentError> {
    ask(guest, &Request::CancelJob { job: job.clone() }).await
}

/// Lets the agent drop a job that has ended.
pub(super) async fn forget(guest: &Guest, job: &JobId) -> Result<(), AgentError> {
    ask(guest, &Request::Forget { job: job.clone() }).await
}

/// Types into a job; waits until it has taken all, at most `patience`.
///
/// # Errors
/// [`AgentError::Lost`] with `TimedOut` when it does not.
pub(super) async fn write(
    guest: &Guest,
    job: &JobId,
    bytes: &[u8],
    patience: Duration,
) -> Result<(), AgentError> {
    let frames: Vec<_> = bytes
        .chunks(MAX_FRAME)
        .chain([&[][..]])
        .map(|piece| encode(FrameKind::Stdin, piece).expect("cut into frames"))
        .collect();
    let (sender, receiver) = mpsc::channel(frames.len());
    for frame in frames {
        sender
            .try_send(frame)
            .expect("there is room for all of them");
    }
    drop(sender);
    let request = Request::WriteJob { job: job.clone() };
    match within(patience, agent::exchange(guest, &request, receiver)).await? {
        JobEvent::Done => Ok(()),
        JobEvent::Failed { code, message } => Err(refused(code, &message)),
        _ => Err(OUT_OF_TURN),
    }
}

/// Runs a program to its end, without its output.
pub(super) async fn run(
    guest: &Guest,
    exec: pyro_agent_protocol::Exec,
) -> Result<ExitStatus, AgentError> {
    let mut conversation = Conversation::begin(guest, &Request::Exec(exec)).await?;
    loop {
        let frame = conversation.frame().await?;
        if frame.kind != FrameKind::Message {
            continue;
        }
        match frame.message().map_err(AgentError::Protocol)? {
            Event::Exited { status, .. } => return Ok(status),
            Event::Failed { code, message } => return Err(refused(code, &message)),
            Event::Started { .. } => {}
            Event::Done => return Err(OUT_OF_TURN),
        }
    }
}

pub(super) async fn within<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, AgentError>>,
) -> Result<T, AgentError> {
    match tokio::time::timeout(patience, work).await {
        Ok(done) => done,
        Err(_) => Err(AgentError::Lost(std::io::ErrorKind::TimedOut.into())),
    }
}

pub(super) fn is_code(error: &AgentError, wanted: ErrorCode) -> bool {
    matches!(error, AgentError::Refused { code, .. } if *code == wanted)
}

/// What a shell would give, and the signal.
pub(super) fn exit(status: ExitStatus) -> (u8, Option<u8>) {
    match status {
        ExitStatus::Code { code } => (code, None),
        ExitStatus::Signal { signal } => (128u8.saturating_add(signal), Some(signal)),
        ExitStatus::TimedOut => (124, None),
    }
}
