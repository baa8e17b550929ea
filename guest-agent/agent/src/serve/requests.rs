//! What the host says, and what is done about it.

use std::time::Duration;

use pyro_agent_protocol::{ErrorCode, Event, Frame, FrameError, FrameKind, Request};

use super::exec::{Exec, named};
use super::poller::OperationId;
use super::{Operation, Server, State};
use crate::program;

impl Server {
    /// Frames from the host, perhaps followed by bytes that are none.
    pub(super) fn frames(
        &mut self,
        id: OperationId,
        frames: &[Frame],
        garbage: Option<FrameError>,
    ) {
        for frame in frames {
            let Some(operation) = self.operations.get_mut(&id) else {
                return;
            };
            match &mut operation.state {
                State::Waiting => self.request(id, frame),
                State::Running(exec) => {
                    if let Err(reason) = exec.frame(frame) {
                        return self.refuse(id, reason);
                    }
                }
                State::Closing | State::PowerOff => return,
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
        let (answer, state) = match frame.message::<Request>() {
            Ok(Request::Ping) => (Event::Done, State::Closing),
            Ok(Request::Signal { pid, signal }) => (self.signal(pid, signal), State::Closing),
            Ok(Request::PowerOff) => {
                if let Some(operation) = self.operations.get_mut(&id) {
                    operation.state = State::PowerOff;
                }
                return;
            }
            Ok(Request::Exec(_)) if self.ending => {
                let reason = "the guest is about to power off".to_owned();
                (failed(ErrorCode::Internal, reason), State::Closing)
            }
            Ok(Request::Exec(exec)) => match program::start(&exec, &mut self.groups) {
                Ok(program) => {
                    let pid = program.pid;
                    self.leaders.insert(pid.as_raw_pid(), id);
                    let timeout = exec.timeout_ms.map(Duration::from_millis);
                    let exec = Exec::new(program, timeout, id, &self.poller);
                    let pid = pid.as_raw_pid().cast_unsigned();
                    (Event::Started { pid }, State::Running(Box::new(exec)))
                }
                Err(error) => {
                    let code = error.code();
                    (failed(code, crate::log::chain(&error)), State::Closing)
                }
            },
            Ok(_) => {
                let reason = "this agent cannot do that yet".to_owned();
                (failed(ErrorCode::InvalidRequest, reason), State::Closing)
            }
            Err(error) => {
                let reason = crate::log::chain(&error);
                (failed(ErrorCode::InvalidRequest, reason), State::Closing)
            }
        };
        if let Some(operation) = self.operations.get_mut(&id) {
            operation.stream.say(&answer);
            operation.state = state;
        }
    }

    /// Sends a signal to the program of another operation.
    fn signal(&mut self, pid: u32, signal: u8) -> Event {
        if named(signal).is_none() {
            return failed(ErrorCode::InvalidRequest, format!("{signal} is no signal"));
        }
        let operation = i32::try_from(pid)
            .ok()
            .and_then(|leader| self.leaders.get(&leader))
            .and_then(|id| self.operations.get(id));
        if let Some(Operation {
            state: State::Running(exec),
            ..
        }) = operation
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
        let state = std::mem::replace(&mut operation.state, State::Closing);
        self.give_up(id, state, true);
    }
}

/// The last message of an operation that cannot be done.
pub(super) fn failed(code: ErrorCode, message: String) -> Event {
    Event::Failed { code, message }
}
