//! Operations on files, as the loop sees them: who waits for whom.

use std::sync::Arc;

use pyro_agent_protocol::{Apply, Frame, Secrets};

use super::poller::{Interest, OperationId};
use super::requests::failed;
use super::stream::Stream;
use super::{Operation, Server, State};
use crate::files::secrets::Delivery;
use crate::files::{Rest, Step, Task, Transaction};

/// While more bytes than this wait to be staged, the stream is not read.
const STAGE_LIMIT: usize = 1 << 20;

/// What an operation on files is doing.
#[derive(Debug)]
pub(super) enum Transfer {
    /// A thread does a step of it.
    Working,
    /// The stream has no room for what the next step would give.
    Paused(Task),
    /// Secrets come in.
    Collecting(Delivery),
    /// A transaction takes frames.
    Receiving {
        /// Absent while a thread has it.
        transaction: Option<Box<Transaction>>,
        frames: Vec<Frame>,
        /// Of all payloads in `frames`.
        bytes: usize,
    },
}

impl Transfer {
    /// Begins a transaction.
    pub(super) fn receive(transaction: Transaction) -> Self {
        Self::Receiving {
            transaction: Some(Box::new(transaction)),
            frames: Vec::new(),
            bytes: 0,
        }
    }

    /// Takes a frame of the host. Gives the reason when it makes no sense here.
    pub(super) fn frame(&mut self, frame: Frame) -> Result<(), String> {
        match self {
            Self::Receiving { frames, bytes, .. } => {
                *bytes += frame.payload.len();
                frames.push(frame);
                Ok(())
            }
            Self::Collecting(delivery) => delivery.take(&frame),
            Self::Working | Self::Paused(_) => {
                Err("nothing may follow this request on its stream".to_owned())
            }
        }
    }

    pub(super) fn watch(&self, stream: &mut Stream) -> Result<(), rustix::io::Errno> {
        let readable = match self {
            Self::Receiving { bytes, .. } => *bytes < STAGE_LIMIT,
            Self::Collecting(_) => true,
            Self::Working | Self::Paused(_) => false,
        };
        stream.watch(Interest {
            readable,
            writable: stream.queued() > 0,
            peer_closed: true,
        })
    }

    /// What is to be done before it can be forgotten.
    pub(super) fn into_discard(self) -> Option<Task> {
        match self {
            Self::Receiving { transaction, .. } => transaction.map(Task::Discard),
            Self::Collecting(_) | Self::Paused(_) | Self::Working => None,
        }
    }
}

impl Server {
    pub(super) fn begin_apply(&self, request: Apply) -> State {
        let area = Arc::clone(&self.staging);
        State::Transfer(Transfer::receive(Transaction::new(request, area)))
    }

    /// Begins to take secrets.
    pub(super) fn begin_secrets(&mut self, id: OperationId, request: Secrets) -> State {
        match Delivery::new(request) {
            Ok(delivery) => State::Transfer(Transfer::Collecting(delivery)),
            Err(error) => {
                if let Some(operation) = self.operations.get_mut(&id) {
                    let reason = crate::log::chain(&error);
                    operation.stream.say(&failed(error.code(), reason));
                }
                // The values may be on their way.
                State::Parting
            }
        }
    }

    /// Begins an operation on files that needs nothing more from the host.
    pub(super) fn begin_task(&mut self, id: OperationId, task: Task) -> State {
        self.workers.submit(id, task);
        State::Transfer(Transfer::Working)
    }

    /// Hands out what can be done now.
    pub(super) fn go_on(&mut self, id: OperationId) {
        let Some(Operation {
            stream,
            state: State::Transfer(transfer),
        }) = self.operations.get_mut(&id)
        else {
            return;
        };
        match transfer {
            Transfer::Paused(_) if stream.has_room() => {
                if let Transfer::Paused(task) = std::mem::replace(transfer, Transfer::Working) {
                    self.workers.submit(id, task);
                }
            }
            Transfer::Collecting(delivery) if delivery.is_complete() => {
                if let Transfer::Collecting(delivery) =
                    std::mem::replace(transfer, Transfer::Working)
                {
                    let area = Arc::clone(&self.secrets);
                    self.workers.submit(id, Task::Secrets(area, delivery));
                }
            }
            Transfer::Receiving {
                transaction,
                frames,
                bytes,
            } if !frames.is_empty() => {
                if let Some(transaction) = transaction.take() {
                    *bytes = 0;
                    let frames = std::mem::take(frames);
                    self.workers.submit(id, Task::Stage(transaction, frames));
                }
            }
            _ => {}
        }
    }

    /// Takes what the threads have done.
    pub(super) fn take_results(&mut self) {
        for (id, step) in self.workers.collect() {
            self.stepped(id, step);
        }
    }

    fn stepped(&mut self, id: OperationId, step: Step) {
        let Some(Operation {
            stream,
            state: state @ State::Transfer(_),
        }) = self.operations.get_mut(&id)
        else {
            // The host has gone. A commit that nobody has begun is not made either.
            let left = match step.rest {
                Rest::Transaction(transaction) | Rest::Task(Task::Commit(transaction, _)) => {
                    transaction
                }
                Rest::Task(_) | Rest::Done => return,
            };
            return self.workers.submit(id, Task::Discard(left));
        };
        stream.put_frames(&step.frames);
        match (step.rest, &mut *state) {
            (Rest::Done, State::Transfer(Transfer::Receiving { .. })) => *state = State::Parting,
            (Rest::Done, _) => *state = State::Closing,
            // All that the host has to say is said.
            (Rest::Task(task @ Task::Commit(..)), _) => {
                *state = State::Transfer(Transfer::Working);
                self.workers.submit(id, task);
            }
            (Rest::Task(task), _) => *state = State::Transfer(Transfer::Paused(task)),
            (Rest::Transaction(back), State::Transfer(Transfer::Receiving { transaction, .. })) => {
                *transaction = Some(back);
            }
            (Rest::Transaction(back), _) => self.workers.submit(id, Task::Discard(back)),
        }
        self.advance(id);
    }
}
