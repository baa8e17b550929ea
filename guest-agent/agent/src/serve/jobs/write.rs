//! Streams that write to the input of a job and want to know when it is written.

use pyro_agent_protocol::{ErrorCode, Frame, FrameKind, JobEvent, JobId};

use super::{failure, unknown};
use crate::serve::poller::{Interest, OperationId};
use crate::serve::{Operation, Server, State};

/// See the [module](self).
#[derive(Debug)]
pub(in crate::serve) struct Writer {
    pub(in crate::serve) job: OperationId,
    /// The host has sent all.
    complete: bool,
    /// Something came that the program's input does not take any more.
    lost: bool,
}

/// How far a writer is.
enum Written {
    /// The program has yet to take something, or the host to send it.
    Waits,
    All,
    /// It never will be.
    Lost,
}

impl Server {
    /// Begins to write to a job's input.
    pub(in crate::serve) fn write_job(&mut self, id: OperationId, name: &JobId) {
        let Some(operation) = self.operations.get_mut(&id) else {
            return;
        };
        let found = self.jobs.names.get(name);
        let found = found.and_then(|number| Some((*number, self.jobs.all.get_mut(number)?)));
        let refusal = match found {
            Some((number, job)) if job.takes_input => {
                job.writers.push(id);
                operation.state = State::Writing(Writer {
                    job: number,
                    complete: false,
                    lost: false,
                });
                return;
            }
            Some(_) => {
                let message = format!("the job {name} was started without input");
                failure(ErrorCode::InvalidRequest, message)
            }
            None => unknown(name),
        };
        operation.stream.say(&refusal);
        // Input may be on its way.
        operation.state = State::Parting;
    }

    /// Takes a frame of a writer. Gives the reason when it makes no sense here.
    pub(in crate::serve) fn written(
        &mut self,
        id: OperationId,
        frame: &Frame,
    ) -> Result<(), String> {
        let Some(Operation {
            state: State::Writing(writer),
            ..
        }) = self.operations.get_mut(&id)
        else {
            return Ok(());
        };
        if frame.kind != FrameKind::Stdin || writer.complete {
            return Err("only input makes sense here, up to an empty frame".to_owned());
        }
        let job = self.jobs.all.get_mut(&writer.job);
        match job.and_then(|job| job.exec()) {
            _ if frame.payload.is_empty() => writer.complete = true,
            Some(exec) if exec.input_is_open() => exec.take_input(id, &frame.payload),
            _ => writer.lost = true,
        }
        Ok(())
    }

    /// Tells a writer that all is written, or never will be, or watches its stream.
    pub(in crate::serve) fn write_on(&mut self, id: OperationId) {
        let Some(Operation {
            stream,
            state: state @ State::Writing(_),
        }) = self.operations.get_mut(&id)
        else {
            return;
        };
        let State::Writing(writer) = &*state else {
            return;
        };
        let mut job = self.jobs.all.get_mut(&writer.job);
        let exec = job.as_mut().and_then(|job| job.exec());
        let takes = exec.as_ref().is_some_and(|exec| exec.takes_input());
        let written = match exec {
            None => Written::Lost,
            Some(_) if writer.lost => Written::Lost,
            Some(exec) if exec.owes_input(id) && exec.input_is_gone() => Written::Lost,
            Some(exec) if exec.owes_input(id) => Written::Waits,
            Some(_) if writer.complete => Written::All,
            Some(exec) if exec.input_is_open() => Written::Waits,
            Some(_) => Written::Lost,
        };
        let (answer, next) = match written {
            Written::All => (JobEvent::Done, State::Closing),
            Written::Lost => {
                let message = "the program has ended or closed its input".to_owned();
                (failure(ErrorCode::Ended, message), State::Parting)
            }
            Written::Waits => {
                let interest = Interest {
                    readable: takes && !writer.complete,
                    writable: false,
                    peer_closed: true,
                };
                if let Err(errno) = stream.watch(interest) {
                    crate::log::warning(format_args!("cannot watch a stream: {errno}"));
                    self.end(id, true);
                }
                return;
            }
        };
        if let Some(job) = job {
            job.writers.retain(|other| *other != id);
            if let Some(exec) = job.exec() {
                exec.withdraw_input(id);
            }
        }
        stream.say(&answer);
        *state = next;
        self.advance(id);
    }

    /// A writer is gone: what it sent and the program has not taken is not written.
    pub(in crate::serve) fn withdraw(&mut self, id: OperationId, writer: &Writer) {
        if let Some(job) = self.jobs.all.get_mut(&writer.job) {
            job.writers.retain(|other| *other != id);
            if let Some(exec) = job.exec() {
                exec.withdraw_input(id);
            }
            self.job_goes_on(writer.job);
        }
    }
}
