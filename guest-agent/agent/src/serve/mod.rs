//! Serving operations: one thread, one loop, nothing in it ever blocks on a program or on the host.
//!
//! The [`Server`] owns every stream and every running program. It alone reaps children, so no exit
//! status can be taken by somebody else, and orphans of every exec are reaped along the way. What
//! may block, work on files, is done by other threads in bounded steps (`workers`).

mod capture;
mod exec;
mod farewell;
mod jobs;
mod leftovers;
mod poller;
mod requests;
mod stream;
mod transfers;
mod workers;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pyro_agent_protocol::{ErrorCode, Event};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use rustix::process::{Signal, WaitOptions, kill_process, wait};

use self::exec::Exec;
pub(crate) use self::farewell::Farewell;
use self::jobs::{Follower, Jobs, Progress};
use self::leftovers::Leftovers;
use self::poller::{Interest, OperationId, Poller, Ready, Source, Watched};
use self::requests::failed;
use self::stream::{Received, Stream};
use self::transfers::Transfer;
use self::workers::Workers;
use crate::files::apply::StagingArea;
use crate::procfs;
use crate::program::group::Groups;
use crate::sys::{signals, vsock};

/// Most operations at a time. More are refused, with the reason.
const OPERATIONS_MAX: usize = 1024;
/// How long no new operation is accepted when descriptors have run out.
const REST: Duration = Duration::from_millis(100);
/// Whom operations are accepted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peers {
    /// Streams of vsock, from the host alone.
    VsockHost,
    /// Whoever reaches the Unix socket; its directory decides that.
    Unix,
}

/// Why [`Server::run`] returned.
#[derive(Debug)]
pub(crate) enum Finished {
    /// The power is to go off; the asker waits on this stream.
    PowerOff(Farewell),
    /// A signal asked for it, or the only stream to serve has ended.
    Ended,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Server {
    poller: Poller,
    signals: Watched,
    listener: Option<(Watched, Peers)>,
    rests_until: Option<Instant>,
    operations: BTreeMap<OperationId, Operation>,
    /// By process id, until it is reaped.
    leaders: BTreeMap<i32, OperationId>,
    jobs: Jobs,
    leftovers: Leftovers,
    groups: Groups,
    workers: Workers,
    /// Where transactions stage.
    staging: Arc<StagingArea>,
    next: u64,
    /// Nothing new may begin.
    ending: bool,
}

/// What a turn of the loop came upon.
struct Turn {
    /// A signal asks the agent to end.
    terminate: bool,
    /// The agent has no children.
    alone: bool,
}

#[derive(Debug)]
struct Operation {
    stream: Stream,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Its request has not come yet.
    Waiting,
    /// A program runs for it.
    Running(Box<Exec>),
    /// It is attached to a job.
    Following(Follower),
    /// It works on files.
    Transfer(Transfer),
    /// The last message is on its way.
    Closing,
    /// The last message is on its way to a host that is still sending, and would lose it if the
    /// stream were closed before that.
    Parting,
    /// It wants the power to go off.
    PowerOff,
}

impl Server {
    /// A server without anything to serve. `signals` comes from [`signals::watch`].
    pub(crate) fn new(
        signals: OwnedFd,
        groups: Groups,
        staging: Arc<StagingArea>,
    ) -> Result<Self, Errno> {
        let poller = Poller::new()?;
        let workers = Workers::new(&poller)?;
        let mut signals = Watched::new(signals, Source::Signals, &poller);
        signals.watch(Interest::READ)?;
        Ok(Self {
            poller,
            signals,
            listener: None,
            rests_until: None,
            operations: BTreeMap::new(),
            leaders: BTreeMap::new(),
            jobs: Jobs::default(),
            leftovers: Leftovers::default(),
            groups,
            workers,
            staging,
            next: 1,
            ending: false,
        })
    }

    /// Accepts operations from this listening, non-blocking socket.
    pub(crate) fn listen(&mut self, socket: OwnedFd, peers: Peers) -> Result<(), Errno> {
        let mut listener = Watched::new(socket, Source::Listener, &self.poller);
        listener.watch(Interest::READ)?;
        self.listener = Some((listener, peers));
        Ok(())
    }

    /// Serves one operation on this connected, non-blocking socket.
    pub(crate) fn serve(&mut self, socket: OwnedFd) -> Result<(), Errno> {
        let id = OperationId(self.next);
        self.next += 1;
        let mut stream = Stream::new(socket, id, &self.poller);
        if self.operations.len() >= OPERATIONS_MAX {
            stream.say(&failed(
                ErrorCode::OutOfResources,
                format!("the guest runs {OPERATIONS_MAX} operations already"),
            ));
            let _ = stream.flush();
            return Ok(());
        }
        stream.watch(Interest::READ)?;
        self.operations.insert(
            id,
            Operation {
                stream,
                state: State::Waiting,
            },
        );
        Ok(())
    }

    /// Serves until there is a reason not to.
    ///
    /// # Errors
    /// Only what leaves the loop blind: a failing epoll instance.
    pub(crate) fn run(&mut self) -> Result<Finished, Errno> {
        loop {
            if self.listener.is_none() && self.operations.is_empty() {
                return Ok(Finished::Ended);
            }
            let turn = self.turn(None)?;
            if turn.terminate && !rustix::process::getpid().is_init() {
                return Ok(Finished::Ended);
            }
            if let Some(farewell) = self.take_farewell() {
                return Ok(Finished::PowerOff(farewell));
            }
        }
    }

    /// Accepts nothing new, and serves what runs until no child of the agent is left and no file is
    /// worked on, at most for `limit`. True when that is so. Programs that are told to end may write until then, and
    /// their hosts get to know how they ended.
    pub(crate) fn outlast(&mut self, limit: Duration) -> bool {
        self.ending = true;
        self.listener = None;
        let limit = Instant::now() + limit;
        loop {
            match self.turn(limit.checked_duration_since(Instant::now())) {
                Ok(turn) if turn.alone && !self.workers.are_busy() => return true,
                Ok(_) if Instant::now() < limit => {}
                _ => return false,
            }
        }
    }

    /// Waits until something happens, at most for `limit`, and deals with it.
    fn turn(&mut self, limit: Option<Duration>) -> Result<Turn, Errno> {
        let mut terminate = false;
        let limit = self.time_left().into_iter().chain(limit).min();
        for ready in self.poller.wait(limit)? {
            match ready.source {
                Source::Listener => self.accept(),
                Source::Signals => terminate |= signals::arrived(&self.signals).terminate,
                Source::Work => self.take_results(),
                source => self.happened(source, ready),
            }
        }
        // Cheap when nobody has ended, and no signal can be missed this way.
        let alone = self.reap();
        self.check_time();
        Ok(Turn { terminate, alone })
    }

    /// Kills everything that any operation has started and waits until it is gone, for a while.
    /// For agents that are not PID 1.
    pub(crate) fn kill_all(&mut self) {
        let ids: Vec<_> = self.operations.keys().copied().collect();
        for id in ids {
            self.end(id, true);
        }
        let jobs = std::mem::take(&mut self.jobs);
        for (number, job) in jobs.all {
            if let Progress::Running(exec) = job.progress {
                self.part_with(number, *exec, true);
            }
        }
        self.leftovers.kill_all();
        let limit = Instant::now() + Duration::from_secs(2);
        // Orphans became ours, so what an earlier exec left in the background is found as well.
        loop {
            let left = procfs::descendants(rustix::process::getpid());
            if left.is_empty() || Instant::now() >= limit {
                break;
            }
            for pid in left {
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(2));
            self.reap();
        }
        self.leftovers.tidy();
    }

    fn accept(&mut self) {
        let Some((listener, peers)) = &mut self.listener else {
            return;
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match accept_with(&*listener, flags) {
            Ok(socket) => {
                let trusted = match peers {
                    Peers::VsockHost => vsock::peer_cid(&socket) == Ok(vsock::HOST_CID),
                    Peers::Unix => true,
                };
                // A program in the guest can reach the port as well; it gets no answer.
                if trusted && let Err(errno) = self.serve(socket) {
                    crate::log::warning(format_args!("cannot serve a stream: {errno}"));
                }
            }
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                let _ = listener.watch(Interest::NONE);
                self.rests_until = Some(Instant::now() + REST);
            }
            // It was closed before we came, or there was none.
            Err(_) => {}
        }
    }

    /// Something happened to an operation's stream or to its program's pipes.
    fn happened(&mut self, source: Source, ready: Ready) {
        let (Source::Stream(id) | Source::Stdin(id) | Source::Output(id, _)) = source else {
            return;
        };
        if self.jobs.all.contains_key(&id) {
            return self.job_happened(id, source);
        }
        let Some(operation) = self.operations.get_mut(&id) else {
            if let Source::Output(id, output) = source {
                self.leftovers.discard(id, output);
            }
            return;
        };
        match (source, &mut operation.state) {
            (Source::Stream(_), State::Running(_) | State::Following(_) | State::Transfer(_))
                if ready.peer_closed =>
            {
                return self.end(id, true);
            }
            (Source::Stream(_), State::Closing) if ready.hung_up => return self.end(id, true),
            (
                Source::Stream(_),
                State::Waiting
                | State::Running(_)
                | State::Following(_)
                | State::Transfer(_)
                | State::Parting,
            ) if ready.readable => match operation.stream.receive() {
                Received::Frames(frames) => self.frames(id, frames, None),
                Received::Garbage(frames, error) => self.frames(id, frames, Some(error)),
                Received::End => return self.end(id, true),
            },
            (Source::Stdin(_), State::Running(exec)) => exec.input_ready(),
            (Source::Output(_, output), State::Running(exec)) => {
                exec.output_ready(output, &mut operation.stream);
            }
            _ => {}
        }
        self.advance(id);
    }

    /// Something happened to the pipes of a job.
    fn job_happened(&mut self, number: OperationId, source: Source) {
        match source {
            Source::Output(_, output) if self.job_runs(number) => {
                self.job_output(number, output);
            }
            Source::Output(_, output) => self.leftovers.discard(number, output),
            Source::Stdin(_) => {
                if let Some(exec) = self.jobs.all.get_mut(&number).and_then(|job| job.exec()) {
                    exec.input_ready();
                }
                self.job_goes_on(number);
            }
            _ => {}
        }
    }

    /// Sends, drains and watches: whatever an operation's state allows now.
    fn advance(&mut self, id: OperationId) {
        let Some(operation) = self.operations.get_mut(&id) else {
            return;
        };
        if operation.stream.flush().is_err() {
            return self.end(id, true);
        }
        if let State::Running(exec) = &mut operation.state
            && let Some(end) = exec.advance(&mut operation.stream)
        {
            operation.stream.say(&Event::Exited {
                status: end.status,
                duration_ns: end.duration_ns,
            });
            // The host first: parting with the program's cgroup takes longer than all before it.
            let sent = operation.stream.flush();
            let state = std::mem::replace(&mut operation.state, State::Closing);
            self.give_up(id, state, false);
            return match sent {
                Ok(()) => self.advance(id),
                Err(_) => self.end(id, true),
            };
        }
        if let State::Following(follower) = &operation.state {
            let job = follower.job;
            self.follow(id);
            return self.watch_job(job);
        }
        self.go_on(id);
        let Some(operation) = self.operations.get_mut(&id) else {
            return;
        };
        let stream = &mut operation.stream;
        let watching = match &mut operation.state {
            State::Waiting => stream.watch(Interest::READ),
            State::Running(exec) => {
                let interest = Interest {
                    readable: exec.takes_input(),
                    writable: stream.queued() > 0,
                    peer_closed: true,
                };
                stream.watch(interest).and_then(|()| exec.watch(stream))
            }
            State::Following(_) => Ok(()),
            State::Transfer(transfer) => transfer.watch(stream),
            State::Parting if stream.queued() == 0 => {
                stream.finish();
                stream.watch(Interest::READ)
            }
            State::Parting => stream.watch(Interest {
                writable: true,
                ..Interest::READ
            }),
            State::Closing if stream.queued() == 0 => return self.end(id, false),
            State::Closing => stream.watch(Interest::WRITE),
            State::PowerOff => stream.watch(Interest::NONE),
        };
        if let Err(errno) = watching {
            crate::log::warning(format_args!("cannot watch a stream: {errno}"));
            self.end(id, true);
        }
    }

    /// Forgets an operation.
    fn end(&mut self, id: OperationId, killed: bool) {
        if let Some(operation) = self.operations.remove(&id) {
            self.give_up(id, operation.state, killed);
        }
    }

    /// Parts with what an operation was doing.
    fn give_up(&mut self, id: OperationId, state: State, killed: bool) {
        match state {
            State::Running(exec) => self.part_with(id, *exec, killed),
            State::Following(follower) => self.detach(id, &follower),
            State::Transfer(transfer) => {
                if let Some(discard) = transfer.into_discard() {
                    self.workers.submit(id, discard);
                }
            }
            State::Waiting | State::Closing | State::Parting | State::PowerOff => {}
        }
    }

    /// Parts with a program.
    fn part_with(&mut self, id: OperationId, exec: Exec, killed: bool) {
        // Once reaped, its number may be another's.
        if self.leaders.get(&exec.pid.as_raw_pid()) == Some(&id) {
            self.leaders.remove(&exec.pid.as_raw_pid());
        }
        self.leftovers.add(id, exec.into_remains(), killed);
    }

    /// The running program of an operation or a job.
    fn program(&mut self, id: OperationId) -> Option<&mut Exec> {
        match self.operations.get_mut(&id) {
            Some(Operation {
                state: State::Running(exec),
                ..
            }) => Some(exec),
            _ => self.jobs.all.get_mut(&id)?.exec(),
        }
    }

    fn job_runs(&mut self, number: OperationId) -> bool {
        let job = self.jobs.all.get_mut(&number);
        job.is_some_and(|job| job.exec().is_some())
    }

    /// Lets an operation or a job go on.
    fn move_on(&mut self, id: OperationId) {
        if self.jobs.all.contains_key(&id) {
            self.job_goes_on(id);
        } else {
            self.advance(id);
        }
    }

    /// Reaps every child that has ended: programs, and orphans that became ours. True when there is
    /// no child at all.
    fn reap(&mut self) -> bool {
        let mut any = false;
        let alone = loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    any = true;
                    let Some(id) = self.leaders.remove(&pid.as_raw_pid()) else {
                        continue;
                    };
                    if let Some(exec) = self.program(id) {
                        exec.reaped(status);
                    }
                    self.move_on(id);
                }
                Err(Errno::INTR) => {}
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        if any {
            self.leftovers.tidy();
        }
        alone
    }

    /// Does what is due.
    fn check_time(&mut self) {
        let now = Instant::now();
        let due: Vec<OperationId> = self
            .deadlines()
            .filter_map(|(id, deadline)| (deadline <= now).then_some(id))
            .collect();
        for id in due {
            if let Some(exec) = self.program(id) {
                exec.time_is_up(now);
                self.move_on(id);
            }
        }
        self.leftovers.check_time(now);
        if self.rests_until.is_some_and(|until| until <= now) {
            self.rests_until = None;
            if let Some((listener, _)) = &mut self.listener {
                let _ = listener.watch(Interest::READ);
            }
        }
    }

    /// How long the loop may sleep.
    fn time_left(&self) -> Option<Duration> {
        let next = self
            .deadlines()
            .map(|(_, deadline)| deadline)
            .chain(self.leftovers.deadline())
            .chain(self.rests_until)
            .min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// When something is to be done for which program.
    fn deadlines(&self) -> impl Iterator<Item = (OperationId, Instant)> {
        let execs = self.operations.iter().filter_map(|(id, operation)| {
            let State::Running(exec) = &operation.state else {
                return None;
            };
            Some((*id, exec.deadline()?))
        });
        let jobs = self.jobs.all.iter().filter_map(|(id, job)| {
            let Progress::Running(exec) = &job.progress else {
                return None;
            };
            Some((*id, exec.deadline()?))
        });
        execs.chain(jobs)
    }

    fn take_farewell(&mut self) -> Option<Farewell> {
        let waits = |operation: &Operation| matches!(operation.state, State::PowerOff);
        let id = *self
            .operations
            .iter()
            .find(|(_, operation)| waits(operation))?
            .0;
        let operation = self.operations.remove(&id)?;
        Some(Farewell(operation.stream))
    }
}
