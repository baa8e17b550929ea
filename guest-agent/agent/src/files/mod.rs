//! Work on files: looking at them, reading them, changing many of them as one.
//!
//! All of it may block, so it is done by [`Task`]s on threads of their own, step by step: between
//! two steps a task waits, without a thread, until its stream has room or more has come. Tasks
//! share nothing with each other and nothing with the loop that owns the streams.

pub(crate) mod apply;
mod error;
mod list;
mod read;
mod remove;
mod resolve;
pub(crate) mod secrets;
mod stat;

use std::sync::Arc;

use pyro_agent_protocol::{Event, FileEvent, Frame, encode_message};
use rustix::fs::{Mode, OFlags, open, syncfs};
use serde::Serialize;

pub(crate) use self::apply::{Staged, Transaction};
pub(crate) use self::error::FileError;
pub(crate) use self::list::Lister;
pub(crate) use self::read::Reader;
pub(crate) use self::remove::remove_tree;
use self::secrets::{Delivery, SecretsArea};

/// A piece of work.
#[derive(Debug)]
pub(crate) enum Task {
    /// Writes everything out.
    Sync,
    /// Says what a path is.
    Stat(pyro_agent_protocol::Stat),
    /// Opens what is to be listed.
    List(pyro_agent_protocol::List),
    /// Lists on.
    GoOnListing(Box<Lister>),
    /// Opens what is to be read.
    Read(pyro_agent_protocol::Read),
    /// Reads on.
    GoOnReading(Box<Reader>),
    /// Takes frames of a transaction.
    Stage(Box<Transaction>, Vec<Frame>),
    /// Makes a transaction's changes, or only finds out whether they can be made.
    Commit(Box<Transaction>, bool),
    /// Undoes what a transaction has staged.
    Discard(Box<Transaction>),
    /// Replaces the secrets.
    Secrets(Arc<SecretsArea>, Delivery),
}

/// What one step of a task gave.
#[derive(Debug)]
pub(crate) struct Step {
    /// Whole frames for the host.
    pub(crate) frames: Vec<u8>,
    pub(crate) rest: Rest,
}

/// What is left to do.
#[derive(Debug)]
pub(crate) enum Rest {
    /// Nothing; the last message is among the frames.
    Done,
    /// This, when the frames are on their way.
    Task(Task),
    /// This transaction waits for more frames.
    Transaction(Box<Transaction>),
}

impl Task {
    /// Does a step. May block.
    pub(crate) fn step(self) -> Step {
        let stepped = match self {
            Self::Sync => sync().map(|()| last(&Event::Done)),
            Self::Secrets(area, delivery) => area.replace(&delivery).map(|()| last(&Event::Done)),
            Self::Stat(request) => stat::stat(&request).map(|event| last(&event)),
            Self::List(request) => Lister::open(&request).map(|(lister, event)| Step {
                frames: message(&event),
                rest: Rest::Task(Self::GoOnListing(Box::new(lister))),
            }),
            Self::GoOnListing(mut lister) => lister.step().map(|(frames, done)| Step {
                frames,
                rest: if done {
                    Rest::Done
                } else {
                    Rest::Task(Self::GoOnListing(lister))
                },
            }),
            Self::Read(request) => Reader::open(&request).map(|(reader, event)| Step {
                frames: message(&event),
                rest: Rest::Task(Self::GoOnReading(Box::new(reader))),
            }),
            Self::GoOnReading(mut reader) => reader.step().map(|(frames, done)| Step {
                frames,
                rest: if done {
                    Rest::Done
                } else {
                    Rest::Task(Self::GoOnReading(reader))
                },
            }),
            Self::Stage(mut transaction, frames) => match transaction.take(frames) {
                Ok(Staged::More) => Ok(Step {
                    frames: Vec::new(),
                    rest: Rest::Transaction(transaction),
                }),
                Ok(Staged::Commit { dry_run }) => Ok(Step {
                    frames: Vec::new(),
                    rest: Rest::Task(Self::Commit(transaction, dry_run)),
                }),
                Err(error) => {
                    transaction.discard();
                    Err(error)
                }
            },
            Self::Commit(mut transaction, dry_run) => {
                let done = transaction.commit(dry_run);
                transaction.discard();
                done.map(|event| last(&event))
            }
            Self::Discard(mut transaction) => {
                transaction.discard();
                Ok(Step {
                    frames: Vec::new(),
                    rest: Rest::Done,
                })
            }
        };
        stepped.unwrap_or_else(|error| {
            last(&FileEvent::Failed {
                code: error.code(),
                message: crate::log::chain(&error),
            })
        })
    }
}

/// The bytes of a message that is known to fit.
fn message<T: Serialize>(message: &T) -> Vec<u8> {
    encode_message(message).unwrap_or_else(|_| {
        // Only a path of the request that is repeated can make it this long.
        let failed = FileEvent::Failed {
            code: pyro_agent_protocol::ErrorCode::Internal,
            message: "the answer is too long for a frame".to_owned(),
        };
        encode_message(&failed).expect("a short message fits")
    })
}

fn last<T: Serialize>(event: &T) -> Step {
    Step {
        frames: message(event),
        rest: Rest::Done,
    }
}

fn sync() -> Result<(), FileError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(c"/", flags, Mode::empty())
        .and_then(syncfs)
        .map_err(|errno| FileError::system(b"/", "cannot write everything out", errno))
}
