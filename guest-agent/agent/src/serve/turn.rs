//! A turn of the loop: waiting until something happens, and dealing with it.

use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use rustix::process::{WaitOptions, wait};

use super::jobs::Progress;
use super::poller::{Interest, OperationId, Ready, Source};
use super::stream::Received;
use super::{Peers, Server, State};
use crate::sys::{signals, vsock};

/// How long no new operation is accepted when descriptors have run out.
const REST: Duration = Duration::from_millis(100);

/// What a turn of the loop came upon.
pub(super) struct Turn {
    /// A signal asks the agent to end.
    pub(super) terminate: bool,
    /// The agent has no children.
    pub(super) alone: bool,
}

impl Server {
    /// Waits until something happens, at most for `limit`, and deals with it.
    pub(super) fn turn(&mut self, limit: Option<Duration>) -> Result<Turn, Errno> {
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
        let (Source::Stream(id) | Source::Stdin(id) | Source::Output(id, _) | Source::Peer(id)) =
            source
        else {
            return;
        };
        if self.connections.happened(id) {
            return;
        }
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
            (
                Source::Stream(_),
                State::Running(_)
                | State::Following(_)
                | State::Writing(_)
                | State::Connecting(_)
                | State::Transfer(_),
            ) if ready.peer_closed => return self.end(id, true),
            (Source::Peer(_), State::Connecting(_)) => return self.attempt(id),
            (Source::Stream(_), State::Closing) if ready.hung_up => return self.end(id, true),
            (
                Source::Stream(_),
                State::Waiting
                | State::Running(_)
                | State::Following(_)
                | State::Writing(_)
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

    /// Reaps every child that has ended: programs, and orphans that became ours. True when there is
    /// no child at all.
    pub(super) fn reap(&mut self) -> bool {
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
        let attempts = self.operations.iter().filter_map(|(id, operation)| {
            let State::Connecting(attempt) = &operation.state else {
                return None;
            };
            (attempt.deadline()? <= now).then_some(*id)
        });
        for id in attempts.collect::<Vec<_>>() {
            self.attempt(id);
        }
        self.connections.check_time(now);
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
            .chain(self.operations.values().filter_map(|operation| {
                let State::Connecting(attempt) = &operation.state else {
                    return None;
                };
                attempt.deadline()
            }))
            .chain(self.connections.deadline())
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
}
