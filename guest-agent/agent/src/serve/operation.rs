//! One operation from its request to its end.

use pyro_agent_protocol::Event;

use super::Server;
use super::connections::Attempt;
use super::exec::Exec;
use super::jobs::{Follower, Writer};
use super::poller::{Interest, OperationId};
use super::stream::Stream;
use super::transfers::Transfer;

/// What one stream is for.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) stream: Stream,
    pub(super) state: State,
}

/// How far an operation is.
#[derive(Debug)]
pub(super) enum State {
    /// Its request has not come yet.
    Waiting,
    /// A program runs for it.
    Running(Box<Exec>),
    /// It is attached to a job.
    Following(Follower),
    /// It writes to a job.
    Writing(Writer),
    /// It connects to a port.
    Connecting(Attempt),
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
    /// Sends, drains and watches: whatever an operation's state allows now.
    pub(super) fn advance(&mut self, id: OperationId) {
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
        if let State::Writing(writer) = &operation.state {
            let job = writer.job;
            self.write_on(id);
            return self.watch_job(job);
        }
        if matches!(operation.state, State::Connecting(_)) {
            return self.attempt(id);
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
            State::Following(_) | State::Writing(_) | State::Connecting(_) => Ok(()),
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
    pub(super) fn end(&mut self, id: OperationId, killed: bool) {
        if let Some(operation) = self.operations.remove(&id) {
            self.give_up(id, operation.state, killed);
        }
    }

    /// Parts with what an operation was doing.
    pub(super) fn give_up(&mut self, id: OperationId, state: State, killed: bool) {
        match state {
            State::Running(exec) => self.part_with(id, *exec, killed),
            State::Following(follower) => self.detach(id, &follower),
            State::Writing(writer) => self.withdraw(id, &writer),
            State::Transfer(transfer) => {
                if let Some(discard) = transfer.into_discard() {
                    self.workers.submit(id, discard);
                }
            }
            State::Waiting
            | State::Connecting(_)
            | State::Closing
            | State::Parting
            | State::PowerOff => {}
        }
    }

    /// Parts with a program.
    pub(super) fn part_with(&mut self, id: OperationId, exec: Exec, killed: bool) {
        // Once reaped, its number may be another's.
        if self.leaders.get(&exec.pid.as_raw_pid()) == Some(&id) {
            self.leaders.remove(&exec.pid.as_raw_pid());
        }
        self.leftovers.add(id, exec.into_remains(), killed);
    }

    /// The running program of an operation or a job.
    pub(super) fn program(&mut self, id: OperationId) -> Option<&mut Exec> {
        match self.operations.get_mut(&id) {
            Some(Operation {
                state: State::Running(exec),
                ..
            }) => Some(exec),
            _ => self.jobs.all.get_mut(&id)?.exec(),
        }
    }

    pub(super) fn job_runs(&mut self, number: OperationId) -> bool {
        let job = self.jobs.all.get_mut(&number);
        job.is_some_and(|job| job.exec().is_some())
    }

    /// Lets an operation or a job go on.
    pub(super) fn move_on(&mut self, id: OperationId) {
        if self.jobs.all.contains_key(&id) {
            self.job_goes_on(id);
        } else {
            self.advance(id);
        }
    }
}
