//! Programs that survive their streams.
//!
//! A [`Job`] has a number like an operation and none of its stream: its output goes into two
//! [`Capture`]s (`output`), from which every [`Follower`] takes at its own pace (`follow`). Its input
//! comes from followers and from [`Writer`]s (`write`).

mod capture;
mod follow;
mod output;
mod write;

use std::collections::BTreeMap;
use std::time::Instant;

use pyro_agent_protocol::{
    ErrorCode, JOBS_MAX, JobEvent, JobId, JobInfo, JobState, Keep, SignalGroup, Start, TerminalSize,
};

use self::capture::Capture;
pub(super) use self::follow::Follower;
pub(super) use self::write::Writer;
use super::exec::{End, Exec, named};
use super::poller::OperationId;
use super::{Server, State};
use crate::program::Wiring;

/// All jobs, by number: the order of their start.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    pub(super) all: BTreeMap<OperationId, Job>,
    names: BTreeMap<JobId, OperationId>,
}

#[derive(Debug)]
pub(super) struct Job {
    name: JobId,
    pid: u32,
    cancelled: bool,
    /// Of standard output and standard error. The second stays empty where they are one.
    captures: [Capture; 2],
    is_merged: bool,
    takes_input: bool,
    terminal: Option<TerminalSize>,
    followers: Vec<OperationId>,
    writers: Vec<OperationId>,
    pub(super) progress: Progress,
}

#[derive(Debug)]
pub(super) enum Progress {
    Running(Box<Exec>),
    Ended(End),
}

impl Job {
    pub(super) fn exec(&mut self) -> Option<&mut Exec> {
        match &mut self.progress {
            Progress::Running(exec) => Some(exec),
            Progress::Ended(_) => None,
        }
    }

    fn info(&self) -> JobInfo {
        let [stdout, stderr] = &self.captures;
        JobInfo {
            job: self.name.clone(),
            pid: self.pid,
            state: match &self.progress {
                Progress::Running(_) => JobState::Running,
                Progress::Ended(end) => JobState::Ended {
                    status: end.status,
                    duration_ns: end.duration_ns,
                },
            },
            cancelled: self.cancelled,
            stdout: stdout.captured(),
            stderr: stderr.captured(),
            terminal: self.terminal,
        }
    }
}

impl Server {
    /// How the standard streams of a job are to be laid, or why it cannot be started.
    pub(super) fn wiring(&self, start: &Start) -> Result<Wiring, JobEvent> {
        let name = &start.job;
        if self.jobs.names.contains_key(name) {
            let message = format!("there is a job {name} already");
            return Err(failure(ErrorCode::AlreadyExists, message));
        }
        if self.jobs.all.len() >= JOBS_MAX {
            let message = format!("the guest holds {JOBS_MAX} jobs already; forget ended ones");
            return Err(failure(ErrorCode::OutOfResources, message));
        }
        let invalid = |message: &str| Err(failure(ErrorCode::InvalidRequest, message.to_owned()));
        match (start.output, start.terminal) {
            (Keep::HeadTail { .. }, None) => Ok(Wiring::Separate),
            (Keep::HeadTail { .. }, Some(_)) => invalid("of a terminal only the tail can be kept"),
            (Keep::Tail { .. }, _) if start.hold => invalid(HOLD),
            (Keep::Tail { .. }, None) => Ok(Wiring::Merged),
            (Keep::Tail { .. }, Some(size)) => Ok(Wiring::Terminal(size)),
        }
    }

    /// Keeps a program that has just been started for an operation.
    pub(super) fn keep(&mut self, number: OperationId, exec: Exec, start: &Start) {
        let pid = exec.pid.as_raw_pid();
        self.leaders.insert(pid, number);
        let capture = || Capture::new(start.output);
        let job = Job {
            name: start.job.clone(),
            pid: pid.cast_unsigned(),
            cancelled: false,
            captures: [capture(), capture()],
            is_merged: matches!(start.output, Keep::Tail { .. }),
            takes_input: start.exec.stdin || start.terminal.is_some(),
            terminal: start.terminal,
            followers: Vec::new(),
            writers: Vec::new(),
            progress: Progress::Running(Box::new(exec)),
        };
        self.jobs.names.insert(start.job.clone(), number);
        self.jobs.all.insert(number, job);
    }

    pub(super) fn list_jobs(&self) -> JobEvent {
        let jobs = self.jobs.all.values().map(Job::info).collect();
        JobEvent::Jobs { jobs }
    }

    pub(super) fn signal_job(&mut self, name: &JobId, signal: u8, group: SignalGroup) -> JobEvent {
        if named(signal).is_none() {
            let message = format!("{signal} is no signal");
            return failure(ErrorCode::InvalidRequest, message);
        }
        let Some((_, job)) = self.job(name) else {
            return unknown(name);
        };
        if group == SignalGroup::Foreground && job.terminal.is_none() {
            return no_terminal(name);
        }
        match (job.exec(), group) {
            (Some(exec), SignalGroup::Program) => exec.signal(signal),
            (Some(exec), SignalGroup::Foreground) => exec.signal_foreground(signal),
            (None, _) => {}
        }
        JobEvent::Done
    }

    pub(super) fn resize_job(&mut self, name: &JobId, size: TerminalSize) -> JobEvent {
        let Some((_, job)) = self.job(name) else {
            return unknown(name);
        };
        if job.terminal.is_none() {
            return no_terminal(name);
        }
        let resized = job.exec().map_or(Ok(()), |exec| exec.resize(size));
        match resized {
            Ok(()) => {
                job.terminal = Some(size);
                JobEvent::Done
            }
            Err(errno) => {
                let message = format!("cannot resize the terminal of {name}: {errno}");
                failure(ErrorCode::Internal, message)
            }
        }
    }

    pub(super) fn cancel_job(&mut self, name: &JobId) -> JobEvent {
        let Some((number, job)) = self.job(name) else {
            return unknown(name);
        };
        match &mut job.progress {
            Progress::Running(exec) => {
                if exec.cancel(Instant::now()) {
                    job.cancelled = true;
                }
                self.job_goes_on(number);
            }
            Progress::Ended(_) => self.leftovers.kill(number),
        }
        JobEvent::Done
    }

    pub(super) fn forget_job(&mut self, name: &JobId) -> JobEvent {
        let Some((number, job)) = self.job(name) else {
            return unknown(name);
        };
        if job.exec().is_some() {
            return failure(ErrorCode::Busy, format!("the job {name} runs"));
        }
        let followers = std::mem::take(&mut job.followers);
        self.jobs.all.remove(&number);
        self.jobs.names.remove(name);
        for id in followers {
            if let Some(operation) = self.operations.get_mut(&id) {
                let message = format!("the job {name} was forgotten");
                operation.stream.say(&failure(ErrorCode::NotFound, message));
                operation.state = State::Closing;
                self.advance(id);
            }
        }
        JobEvent::Done
    }

    fn job(&mut self, name: &JobId) -> Option<(OperationId, &mut Job)> {
        let number = *self.jobs.names.get(name)?;
        Some((number, self.jobs.all.get_mut(&number)?))
    }
}

/// Why a stream cannot hold some programs.
const HOLD: &str = "nobody can hold a program of whose output only the tail is kept";

fn failure(code: ErrorCode, message: String) -> JobEvent {
    JobEvent::Failed { code, message }
}

fn unknown(name: &JobId) -> JobEvent {
    failure(ErrorCode::NotFound, format!("there is no job {name}"))
}

fn no_terminal(name: &JobId) -> JobEvent {
    let message = format!("the job {name} has no terminal");
    failure(ErrorCode::InvalidRequest, message)
}
