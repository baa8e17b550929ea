//! What the host says, and what is done about it.

use std::time::Duration;

use pyro_agent_protocol::{
    self as protocol, Attach, ErrorCode, Event, Frame, FrameError, FrameKind, Request, Start,
};
use serde::Serialize;

use super::exec::{Exec, named};
use super::poller::OperationId;
use super::transfers::Transfer;
use super::{Server, State};
use crate::files::Task;
use crate::program::{self, Wiring};

impl Server {
    /// Frames from the host, perhaps followed by bytes that are none.
    pub(super) fn frames(
        &mut self,
        id: OperationId,
        frames: Vec<Frame>,
        garbage: Option<FrameError>,
    ) {
        for frame in frames {
            let Some(operation) = self.operations.get_mut(&id) else {
                return;
            };
            let taken = match &mut operation.state {
                State::Waiting => {
                    self.request(id, &frame);
                    Ok(())
                }
                State::Running(exec) => exec.frame(&frame),
                State::Following(follower) => match self.jobs.all.get_mut(&follower.job) {
                    Some(job) => job.frame(&frame),
                    None => Ok(()),
                },
                State::Writing(_) => self.written(id, &frame),
                State::Connecting(_) => Err("nothing may follow before the answer".to_owned()),
                State::Transfer(transfer) => transfer.frame(frame),
                State::Parting => Ok(()),
                State::Closing | State::PowerOff => return,
            };
            if let Err(reason) = taken {
                return self.refuse(id, reason);
            }
        }
        if let Some(error) = garbage {
            self.refuse(id, error.to_string());
        }
    }

    /// An operation begins.
    fn request(&mut self, id: OperationId, frame: &Frame) {
        if frame.kind != FrameKind::Message {
            let reason = format!(
                "a stream begins with a request, not a frame of {:?}",
                frame.kind
            );
            return self.refuse(id, reason);
        }
        let request = match frame.message::<Request>() {
            Ok(request) => request,
            Err(error) => return self.refuse(id, crate::log::chain(&error)),
        };
        let harmless = matches!(
            request,
            Request::Ping | Request::PowerOff | Request::Signal { .. } | Request::Jobs
        );
        if self.ending && !harmless {
            let reason = "the guest is about to power off".to_owned();
            return self.answer(id, &failed(ErrorCode::Internal, reason));
        }
        let state = match request {
            Request::Ping => return self.answer(id, &Event::Done),
            Request::Signal { pid, signal } => {
                let answer = self.signal(pid, signal);
                return self.answer(id, &answer);
            }
            Request::Exec(exec) => return self.exec(id, &exec),
            Request::Start(start) => return self.start(id, start),
            Request::Attach(attach) => return self.attach(id, &attach),
            Request::Jobs => {
                let answer = self.list_jobs();
                return self.answer(id, &answer);
            }
            Request::SignalJob { job, signal, group } => {
                let answer = self.signal_job(&job, signal, group);
                return self.answer(id, &answer);
            }
            Request::ResizeJob { job, size } => {
                let answer = self.resize_job(&job, size);
                return self.answer(id, &answer);
            }
            Request::WriteJob { job } => return self.write_job(id, &job),
            Request::Connect(connect) => return self.connect(id, &connect),
            Request::CancelJob { job } => {
                let answer = self.cancel_job(&job);
                return self.answer(id, &answer);
            }
            Request::Forget { job } => {
                let answer = self.forget_job(&job);
                return self.answer(id, &answer);
            }
            Request::Sync => self.begin_task(id, Task::Sync),
            Request::Stat(stat) => self.begin_task(id, Task::Stat(stat)),
            Request::List(list) => self.begin_task(id, Task::List(list)),
            Request::Read(read) => self.begin_task(id, Task::Read(read)),
            Request::Apply(apply) => self.begin_apply(apply),
            Request::Secrets(secrets) => self.begin_secrets(id, secrets),
            Request::PowerOff => State::PowerOff,
        };
        if let Some(operation) = self.operations.get_mut(&id) {
            operation.state = state;
        }
    }

    /// Runs a program for a stream.
    fn exec(&mut self, id: OperationId, request: &protocol::Exec) {
        let exec = match self.launch(id, request, Wiring::Separate) {
            Ok(exec) => exec,
            Err(event) => return self.answer(id, &event),
        };
        let pid = exec.pid.as_raw_pid();
        self.leaders.insert(pid, id);
        if let Some(operation) = self.operations.get_mut(&id) {
            let pid = pid.cast_unsigned();
            operation.stream.say(&Event::Started { pid });
            operation.state = State::Running(Box::new(exec));
        }
    }

    /// Runs a program that survives its stream.
    fn start(&mut self, id: OperationId, start: Start) {
        let wiring = match self.wiring(&start) {
            Ok(wiring) => wiring,
            Err(event) => return self.answer(id, &event),
        };
        let number = OperationId(self.next);
        self.next += 1;
        match self.launch(number, &start.exec, wiring) {
            Ok(exec) => self.keep(number, exec, &start),
            Err(event) => return self.answer(id, &event),
        }
        let attach = Attach {
            job: start.job,
            stdout_from: 0,
            stderr_from: 0,
            follow: true,
            hold: start.hold,
        };
        self.attach(id, &attach);
    }

    fn launch(
        &mut self,
        id: OperationId,
        request: &protocol::Exec,
        wiring: Wiring,
    ) -> Result<Exec, Event> {
        let program = program::start(request, wiring, &mut self.groups)
            .map_err(|error| failed(error.code(), crate::log::chain(&error)))?;
        let timeout = request.timeout_ms.map(Duration::from_millis);
        Ok(Exec::new(program, timeout, id, &self.poller))
    }

    /// Says the only message of an operation.
    pub(super) fn answer<T: Serialize>(&mut self, id: OperationId, answer: &T) {
        if let Some(operation) = self.operations.get_mut(&id) {
            operation.stream.say(answer);
            operation.state = State::Closing;
        }
    }

    /// Sends a signal to the program of another operation.
    fn signal(&mut self, pid: u32, signal: u8) -> Event {
        if named(signal).is_none() {
            return failed(ErrorCode::InvalidRequest, format!("{signal} is no signal"));
        }
        let leader = i32::try_from(pid).ok();
        if let Some(id) = leader.and_then(|leader| self.leaders.get(&leader).copied())
            && let Some(exec) = self.program(id)
        {
            exec.signal(signal);
        }
        Event::Done
    }

    /// Ends an operation whose host does not keep to the protocol, and says why.
    fn refuse(&mut self, id: OperationId, reason: String) {
        let Some(operation) = self.operations.get_mut(&id) else {
            return;
        };
        operation
            .stream
            .say(&failed(ErrorCode::InvalidRequest, reason));
        let parting = matches!(
            operation.state,
            State::Writing(_)
                | State::Transfer(Transfer::Receiving { .. } | Transfer::Collecting(_))
        );
        let next = if parting {
            State::Parting
        } else {
            State::Closing
        };
        let state = std::mem::replace(&mut operation.state, next);
        self.give_up(id, state, true);
    }
}

/// The last message of an operation that cannot be done.
pub(super) fn failed(code: ErrorCode, message: String) -> Event {
    Event::Failed { code, message }
}
