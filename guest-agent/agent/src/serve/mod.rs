//! Serving operations: one thread, one loop, nothing in it ever blocks on a program or on the host.
//!
//! The [`Server`] owns every stream and every running program. It alone reaps children, so no exit
//! status can be taken by somebody else, and orphans of every exec are reaped along the way.

mod exec;
mod farewell;
mod leftovers;
mod poller;
mod requests;
mod stream;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use pyro_agent_protocol::ErrorCode;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use rustix::process::{Signal, WaitOptions, kill_process, wait};

use self::exec::Exec;
pub(crate) use self::farewell::Farewell;
use self::leftovers::Leftovers;
use self::poller::{Interest, OperationId, Poller, Ready, Source, Watched};
use self::requests::failed;
use self::stream::{Received, Stream};
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
    leftovers: Leftovers,
    groups: Groups,
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
    /// The last message is on its way.
    Closing,
    /// It wants the power to go off.
    PowerOff,
}

impl Server {
    /// A server without anything to serve. `signals` comes from [`signals::watch`].
    pub(crate) fn new(signals: OwnedFd, groups: Groups) -> Result<Self, Errno> {
        let poller = Poller::new()?;
        let mut signals = Watched::new(signals, Source::Signals, &poller);
        signals.watch(Interest::READ)?;
        Ok(Self {
            poller,
            signals,
            listener: None,
            rests_until: None,
            operations: BTreeMap::new(),
            leaders: BTreeMap::new(),
            leftovers: Leftovers::default(),
            groups,
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

    /// Serves one operation on this connected socket.
    pub(crate) fn serve(&mut self, socket: OwnedFd) -> Result<(), Errno> {
        rustix::io::ioctl_fionbio(&socket, true)?;
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

    /// Accepts nothing new, and serves what runs until no child of the agent is left, at most for
    /// `limit`. True when none is left. Programs that are told to end may write until then, and
    /// their hosts get to know how they ended.
    pub(crate) fn outlast(&mut self, limit: Duration) -> bool {
        self.ending = true;
        self.listener = None;
        let limit = Instant::now() + limit;
        loop {
            match self.turn(limit.checked_duration_since(Instant::now())) {
                Ok(turn) if turn.alone => return true,
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
        let Some(operation) = self.operations.get_mut(&id) else {
            if let Source::Output(id, output) = source {
                self.leftovers.discard(id, output);
            }
            return;
        };
        match (source, &mut operation.state) {
            (Source::Stream(_), State::Running(_)) if ready.peer_closed => {
                return self.end(id, true);
            }
            (Source::Stream(_), State::Closing) if ready.hung_up => return self.end(id, true),
            (Source::Stream(_), State::Waiting | State::Running(_)) if ready.readable => {
                match operation.stream.receive() {
                    Received::Frames(frames) => self.frames(id, &frames, None),
                    Received::Garbage(frames, error) => self.frames(id, &frames, Some(error)),
                    Received::End => return self.end(id, true),
                }
            }
            (Source::Stdin(_), State::Running(exec)) => exec.input_ready(),
            (Source::Output(_, output), State::Running(exec)) => {
                exec.output_ready(output, &mut operation.stream);
            }
            _ => {}
        }
        self.advance(id);
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
            && exec.advance(&mut operation.stream)
        {
            let state = std::mem::replace(&mut operation.state, State::Closing);
            self.give_up(id, state, false);
            return self.advance(id);
        }
        let watching = match &mut operation.state {
            State::Waiting => operation.stream.watch(Interest::READ),
            State::Running(exec) => exec.watch(&mut operation.stream),
            State::Closing if operation.stream.queued() == 0 => return self.end(id, false),
            State::Closing => operation.stream.watch(Interest::WRITE),
            State::PowerOff => operation.stream.watch(Interest::NONE),
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
        if let State::Running(exec) = state {
            // Once reaped, its number may be another's.
            if self.leaders.get(&exec.pid.as_raw_pid()) == Some(&id) {
                self.leaders.remove(&exec.pid.as_raw_pid());
            }
            self.leftovers.add(id, exec.into_remains(), killed);
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
                    if let Some(Operation {
                        state: State::Running(exec),
                        ..
                    }) = self.operations.get_mut(&id)
                    {
                        exec.reaped(status);
                    }
                    self.advance(id);
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
            .operations
            .iter()
            .filter_map(|(id, operation)| match &operation.state {
                State::Running(exec) => (exec.deadline()? <= now).then_some(*id),
                _ => None,
            })
            .collect();
        for id in due {
            if let Some(Operation {
                state: State::Running(exec),
                ..
            }) = self.operations.get_mut(&id)
            {
                exec.time_is_up(now);
                self.advance(id);
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
        let execs = self
            .operations
            .values()
            .filter_map(|operation| match &operation.state {
                State::Running(exec) => exec.deadline(),
                _ => None,
            });
        let next = execs
            .chain(self.leftovers.deadline())
            .chain(self.rests_until)
            .min()?;
        Some(next.saturating_duration_since(Instant::now()))
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
