//! Programs that survive their streams, and the streams that are attached to them.
//!
//! A [`Job`] has a number like an operation and none of its stream: its output goes into two
//! [`Capture`]s, from which every [`Follower`] takes at its own pace.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use pyro_agent_protocol::{
    Attach, ErrorCode, Frame, FrameKind, JOBS_MAX, JOBS_OUTPUT_MAX, JobEvent, JobId, JobInfo,
    JobState, Keep, OutputStream, Start,
};
use rustix::io::Errno;

use super::capture::{At, Capture};
use super::exec::{End, Exec, Sink, named};
use super::poller::{Interest, OperationId, Output};
use super::stream::{Gone, PIECE, Stream};
use super::{Operation, Server, State};

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
    captures: [Capture; 2],
    followers: Vec<OperationId>,
    pub(super) progress: Progress,
}

#[derive(Debug)]
pub(super) enum Progress {
    Running(Box<Exec>),
    Ended(End),
}

/// A stream that is attached to a job.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) job: OperationId,
    cursors: [u64; 2],
    follow: bool,
    hold: bool,
}

/// Where a job's output goes.
struct Captures<'a> {
    captures: &'a mut [Capture; 2],
    held: [Option<u64>; 2],
    may_grow: bool,
    /// What the pipes hold at the program's end is taken in any case.
    ending: bool,
}

impl Sink for Captures<'_> {
    fn has_room(&self, output: Output) -> bool {
        self.ending || self.captures[output as usize].has_room()
    }

    fn relay(&mut self, pipe: BorrowedFd<'_>, output: Output, most: usize) -> Result<usize, Errno> {
        let mut piece = [const { MaybeUninit::<u8>::uninit() }; PIECE];
        let (bytes, _) = rustix::io::read(pipe, &mut piece[..most.min(PIECE)])?;
        let held = self.held[output as usize];
        self.captures[output as usize].push(bytes, self.may_grow, held);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Gone> {
        Ok(())
    }
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
            terminal: None,
        }
    }

    /// Takes a frame from an attached stream. Gives the reason when it makes no sense here.
    pub(super) fn frame(&mut self, frame: &Frame) -> Result<(), String> {
        match self.exec() {
            Some(exec) => exec.frame(frame),
            // It came too late to matter.
            None if matches!(frame.kind, FrameKind::Stdin | FrameKind::Signal) => Ok(()),
            None => Err("only input and signals make sense here".to_owned()),
        }
    }
}

impl Follower {
    /// Gives the stream what it has not had. True when it has had all, and the last message.
    fn pump(&mut self, job: &Job, stream: &mut Stream) -> bool {
        for output in Output::BOTH {
            let cursor = &mut self.cursors[output as usize];
            while stream.has_room() {
                match job.captures[output as usize].at(*cursor) {
                    At::Bytes(bytes) => {
                        let piece = &bytes[..bytes.len().min(PIECE)];
                        stream.put(output.kind(), piece);
                        *cursor += piece.len() as u64;
                    }
                    At::Gap(bytes) => {
                        let stream_of = match output {
                            Output::Stdout => OutputStream::Stdout,
                            Output::Stderr => OutputStream::Stderr,
                        };
                        stream.say(&JobEvent::Gap {
                            stream: stream_of,
                            bytes,
                        });
                        *cursor += bytes;
                    }
                    At::End => break,
                }
                if stream.flush().is_err() {
                    return false; // The stream's own event tells.
                }
            }
        }
        let had = |output| self.cursors[output as usize] >= job.captures[output as usize].written();
        if !Output::BOTH.into_iter().all(had) {
            return false;
        }
        match &job.progress {
            Progress::Ended(end) => stream.say(&JobEvent::Exited {
                status: end.status,
                duration_ns: end.duration_ns,
                cancelled: job.cancelled,
            }),
            Progress::Running(_) if self.follow => return false,
            Progress::Running(_) => stream.say(&JobEvent::Running),
        }
        true
    }
}

impl Server {
    /// Why no job of this name can be started, if so.
    pub(super) fn refuses_job(&self, name: &JobId) -> Option<JobEvent> {
        if self.jobs.names.contains_key(name) {
            let message = format!("there is a job {name} already");
            return Some(failure(ErrorCode::AlreadyExists, message));
        }
        if self.jobs.all.len() >= JOBS_MAX {
            let message = format!("the guest holds {JOBS_MAX} jobs already; forget ended ones");
            return Some(failure(ErrorCode::OutOfResources, message));
        }
        None
    }

    /// Keeps a program that has just been started for an operation.
    pub(super) fn keep(&mut self, number: OperationId, exec: Exec, start: &Start) {
        let pid = exec.pid.as_raw_pid();
        self.leaders.insert(pid, number);
        let (Keep::HeadTail { bytes } | Keep::Tail { bytes }) = start.output;
        let capture = || Capture::new(bytes);
        let job = Job {
            name: start.job.clone(),
            pid: pid.cast_unsigned(),
            cancelled: false,
            captures: [capture(), capture()],
            followers: Vec::new(),
            progress: Progress::Running(Box::new(exec)),
        };
        self.jobs.names.insert(start.job.clone(), number);
        self.jobs.all.insert(number, job);
    }

    /// Attaches an operation's stream to a job.
    pub(super) fn attach(&mut self, id: OperationId, attach: &Attach) {
        let Some(operation) = self.operations.get_mut(&id) else {
            return;
        };
        let found = self.jobs.names.get(&attach.job);
        let Some((number, job)) =
            found.and_then(|number| Some((*number, self.jobs.all.get_mut(number)?)))
        else {
            operation.stream.say(&unknown(&attach.job));
            operation.state = State::Closing;
            return;
        };
        let [stdout, stderr] = &job.captures;
        let follower = Follower {
            job: number,
            cursors: [
                attach.stdout_from.min(stdout.written()),
                attach.stderr_from.min(stderr.written()),
            ],
            follow: attach.follow,
            hold: attach.hold,
        };
        job.followers.push(id);
        operation
            .stream
            .say(&JobEvent::Attached { info: job.info() });
        operation.state = State::Following(follower);
        // The loop comes to the stream; the pipes of a new job have to be watched.
        self.job_goes_on(number);
    }

    /// An operation is attached no more.
    pub(super) fn detach(&mut self, id: OperationId, follower: &Follower) {
        if let Some(job) = self.jobs.all.get_mut(&follower.job) {
            job.followers.retain(|other| *other != id);
            self.job_goes_on(follower.job);
        }
    }

    pub(super) fn list_jobs(&self) -> JobEvent {
        let jobs = self.jobs.all.values().map(Job::info).collect();
        JobEvent::Jobs { jobs }
    }

    pub(super) fn signal_job(&mut self, name: &JobId, signal: u8) -> JobEvent {
        if named(signal).is_none() {
            let message = format!("{signal} is no signal");
            return failure(ErrorCode::InvalidRequest, message);
        }
        let Some((_, job)) = self.job(name) else {
            return unknown(name);
        };
        if let Some(exec) = job.exec() {
            exec.signal(signal);
        }
        JobEvent::Done
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

    /// There is output of a job.
    pub(super) fn job_output(&mut self, number: OperationId, output: Output) {
        let held = self.held(number);
        let may_grow = self.may_grow();
        if let Some(Job {
            captures,
            progress: Progress::Running(exec),
            ..
        }) = self.jobs.all.get_mut(&number)
        {
            let mut sink = Captures {
                captures,
                held,
                may_grow,
                ending: false,
            };
            exec.output_ready(output, &mut sink);
        }
        self.job_goes_on(number);
    }

    /// Whatever a job's state allows now: its end, its followers' turn, its pipes.
    pub(super) fn job_goes_on(&mut self, number: OperationId) {
        let held = self.held(number);
        let may_grow = self.may_grow();
        let Some(job) = self.jobs.all.get_mut(&number) else {
            return;
        };
        let mut ended = None;
        if let Progress::Running(exec) = &mut job.progress {
            let mut sink = Captures {
                captures: &mut job.captures,
                held,
                may_grow,
                ending: true,
            };
            if let Some(end) = exec.advance(&mut sink) {
                ended = Some(std::mem::replace(&mut job.progress, Progress::Ended(end)));
            }
        }
        for id in job.followers.clone() {
            self.follow(id);
        }
        // Parting with the program's cgroup takes longer than all before it.
        if let Some(Progress::Running(exec)) = ended {
            self.part_with(number, *exec, false);
        }
        self.watch_job(number);
    }

    /// Gives an attached stream what it has room for, and watches it.
    pub(super) fn follow(&mut self, id: OperationId) {
        let Some(Operation {
            stream,
            state: state @ State::Following(_),
        }) = self.operations.get_mut(&id)
        else {
            return;
        };
        let State::Following(follower) = &mut *state else {
            return;
        };
        let Some(job) = self.jobs.all.get_mut(&follower.job) else {
            return;
        };
        if follower.pump(job, stream) {
            job.followers.retain(|other| *other != id);
            *state = State::Closing;
            return self.advance(id);
        }
        let interest = Interest {
            readable: job.exec().is_none_or(|exec| exec.takes_input()),
            writable: stream.queued() > 0,
            peer_closed: true,
        };
        if let Err(errno) = stream.watch(interest) {
            crate::log::warning(format_args!("cannot watch a stream: {errno}"));
            // Nothing would ever be heard of it.
            job.followers.retain(|other| *other != id);
            self.operations.remove(&id);
        }
    }

    /// Watches a job's pipes as its followers allow.
    pub(super) fn watch_job(&mut self, number: OperationId) {
        let held = self.held(number);
        let Some(job) = self.jobs.all.get_mut(&number) else {
            return;
        };
        for (capture, held) in job.captures.iter_mut().zip(held) {
            capture.trim(held);
        }
        if let Progress::Running(exec) = &mut job.progress {
            let sink = Captures {
                captures: &mut job.captures,
                held,
                may_grow: true,
                ending: false,
            };
            if let Err(errno) = exec.watch(&sink) {
                crate::log::warning(format_args!("cannot watch a program: {errno}"));
                exec.cancel(Instant::now());
            }
        }
    }

    /// The cursors of those streams that a job's program waits for, the last ones.
    fn held(&self, number: OperationId) -> [Option<u64>; 2] {
        let mut held = [None, None];
        let Some(job) = self.jobs.all.get(&number) else {
            return held;
        };
        for id in &job.followers {
            if let Some(Operation {
                state: State::Following(follower),
                ..
            }) = self.operations.get(id)
                && follower.hold
            {
                for (held, cursor) in held.iter_mut().zip(follower.cursors) {
                    *held = Some(held.map_or(cursor, |held: u64| held.min(cursor)));
                }
            }
        }
        held
    }

    fn may_grow(&self) -> bool {
        let captures = self.jobs.all.values().flat_map(|job| &job.captures);
        captures.map(Capture::held).sum::<usize>() < JOBS_OUTPUT_MAX
    }
}

fn failure(code: ErrorCode, message: String) -> JobEvent {
    JobEvent::Failed { code, message }
}

fn unknown(name: &JobId) -> JobEvent {
    failure(ErrorCode::NotFound, format!("there is no job {name}"))
}
