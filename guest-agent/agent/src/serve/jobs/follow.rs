//! Streams that are attached to jobs.

use pyro_agent_protocol::{Attach, ErrorCode, Frame, FrameKind, JobEvent, OutputStream};

use super::capture::At;
use super::{HOLD, Job, Progress, failure, unknown};
use crate::serve::poller::{Interest, OperationId, Output};
use crate::serve::stream::{PIECE, Stream};
use crate::serve::{Operation, Server, State};

/// While more than this waits to be sent to a stream for which nobody waits, it is given no more:
/// there may be a thousand of them, and what it misses stays in the job for a while.
const QUEUE_LIMIT: usize = 32 << 10;

/// A stream that is attached to a job.
#[derive(Debug)]
pub(in crate::serve) struct Follower {
    pub(in crate::serve) job: OperationId,
    pub(super) cursors: [u64; 2],
    follow: bool,
    pub(super) hold: bool,
}

impl Job {
    /// Takes a frame from an attached stream. Gives the reason when it makes no sense here.
    pub(in crate::serve) fn frame(&mut self, frame: &Frame) -> Result<(), String> {
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
        let hold = self.hold;
        for output in Output::BOTH {
            let cursor = &mut self.cursors[output as usize];
            loop {
                let room = match hold {
                    true if stream.has_room() => PIECE,
                    true => 0,
                    false => QUEUE_LIMIT.saturating_sub(stream.queued()),
                };
                if room == 0 {
                    break;
                }
                match job.captures[output as usize].at(*cursor) {
                    At::Bytes(bytes) => {
                        let piece = &bytes[..bytes.len().min(room)];
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
    /// Attaches an operation's stream to a job.
    pub(in crate::serve) fn attach(&mut self, id: OperationId, attach: &Attach) {
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
        if attach.hold && job.is_merged {
            let message = HOLD.to_owned();
            let refusal = failure(ErrorCode::InvalidRequest, message);
            operation.stream.say(&refusal);
            operation.state = State::Closing;
            return;
        }
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
    pub(in crate::serve) fn detach(&mut self, id: OperationId, follower: &Follower) {
        if let Some(job) = self.jobs.all.get_mut(&follower.job) {
            job.followers.retain(|other| *other != id);
            self.job_goes_on(follower.job);
        }
    }

    /// Gives an attached stream what it has room for, and watches it.
    pub(in crate::serve) fn follow(&mut self, id: OperationId) {
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
}
