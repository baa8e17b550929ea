//! Many changes as one: taken in, checked, then done by renames that can be undone.
//!
//! - `staging`: where contents wait, and what is replaced is put until the end.
//! - `check`: what every change means for the tree as the changes before it leave it.
//! - `commit`: doing that, and undoing it.

mod check;
mod commit;
mod staging;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use pyro_agent_protocol::{
    Apply, CHANGES_MAX, CHANGES_TEXT_MAX, Change, FileEvent, Frame, FrameKind, GuestPath,
};
use rustix::io::Errno;

use self::staging::Staging;
pub(crate) use self::staging::StagingArea;
use super::FileError;
use super::resolve::Base;

/// A transaction that is being taken in. To be ended with [`Transaction::discard`].
#[derive(Debug)]
pub(crate) struct Transaction {
    area: Arc<StagingArea>,
    beneath: GuestPath,
    staging: Option<Staging>,
    changes: Vec<Change>,
    /// Bytes of all paths and targets.
    text: usize,
    /// The content that is being taken in, and how much of it is to come.
    receiving: Option<(OwnedFd, u64)>,
    bytes: u64,
}

/// What is to come after some frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Staged {
    /// More frames.
    More,
    /// Nothing: all is to be done.
    Commit {
        /// Or rather only checked.
        dry_run: bool,
    },
}

impl Transaction {
    /// Begins; blocks on nothing and looks at nothing yet.
    pub(crate) fn new(request: Apply, area: Arc<StagingArea>) -> Self {
        Self {
            area,
            beneath: request.beneath,
            staging: None,
            changes: Vec::new(),
            text: 0,
            receiving: None,
            bytes: 0,
        }
    }

    /// Takes frames of the host. What comes after a commit is not looked at.
    pub(super) fn take(&mut self, frames: Vec<Frame>) -> Result<Staged, FileError> {
        for frame in frames {
            match (frame.kind, &mut self.receiving) {
                (FrameKind::Stdin, Some(_)) => self.content(&frame.payload)?,
                (FrameKind::Message, None) => {
                    let change: Change = frame.message().map_err(|_| FileError::OutOfTurn {
                        what: "a message during a transaction is no change",
                    })?;
                    if let Change::Commit { dry_run } = change {
                        return Ok(Staged::Commit { dry_run });
                    }
                    self.change(change)?;
                }
                (FrameKind::Message, Some(_)) => {
                    return Err(FileError::OutOfTurn {
                        what: "a change came before all of the last file's content",
                    });
                }
                _ => {
                    return Err(FileError::OutOfTurn {
                        what: "content came that no change has announced",
                    });
                }
            }
        }
        Ok(Staged::More)
    }

    fn change(&mut self, change: Change) -> Result<(), FileError> {
        self.text += match &change {
            Change::Write(write) => write.path.as_bytes().len(),
            Change::Mkdir { path, .. }
            | Change::Delete { path, .. }
            | Change::SetMode { path, .. } => path.as_bytes().len(),
            Change::Symlink { path, target, .. } => path.as_bytes().len() + target.as_bytes().len(),
            Change::Rename { from, to, .. } => from.as_bytes().len() + to.as_bytes().len(),
            Change::Commit { .. } => 0,
        };
        if self.changes.len() >= CHANGES_MAX {
            return Err(FileError::TooMuch {
                what: "a transaction of more than 250000 changes",
            });
        }
        if self.text > CHANGES_TEXT_MAX {
            return Err(FileError::TooMuch {
                what: "a transaction with more than 32 MiB of paths",
            });
        }
        if let Change::Write(write) = &change {
            let number = self.changes.len();
            let file = self.staging()?.create(number).map_err(|errno| {
                FileError::system(write.path.as_bytes(), "its content cannot be staged", errno)
            })?;
            self.receiving = (write.size > 0).then_some((file, write.size));
        }
        self.changes.push(change);
        Ok(())
    }

    fn content(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        let Some((file, left)) = &mut self.receiving else {
            return Ok(());
        };
        if bytes.len() as u64 > *left {
            return Err(FileError::OutOfTurn {
                what: "more content came than the change has announced",
            });
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            match rustix::io::write(&*file, rest) {
                Ok(length) => rest = &rest[length..],
                Err(Errno::INTR) => {}
                Err(errno) => {
                    let path = match self.changes.last() {
                        Some(Change::Write(write)) => write.path.as_bytes(),
                        _ => b"",
                    };
                    return Err(FileError::system(
                        path,
                        "its content cannot be staged",
                        errno,
                    ));
                }
            }
        }
        *left -= bytes.len() as u64;
        self.bytes += bytes.len() as u64;
        if *left == 0 {
            self.receiving = None;
        }
        Ok(())
    }

    fn staging(&mut self) -> Result<&Staging, FileError> {
        let staging = match self.staging.take() {
            Some(staging) => staging,
            None => self.area.make()?,
        };
        Ok(self.staging.insert(staging))
    }

    /// Checks everything and then, unless it is only a trial, does it. On an error nothing is
    /// changed.
    pub(super) fn commit(&mut self, dry_run: bool) -> Result<FileEvent, FileError> {
        let base = Base::open(&self.beneath)?;
        let plan = check::check(&base, &self.changes)?;
        if !dry_run && !plan.acts.is_empty() {
            self.staging()?;
            if let Some(staging) = &self.staging {
                commit::commit(&base, staging, &self.changes, &plan.acts)?;
            }
        }
        let totals = plan.totals;
        Ok(FileEvent::Applied {
            created: totals.created,
            modified: totals.modified,
            deleted: totals.deleted,
            renamed: totals.renamed,
            directories: totals.directories,
            bytes: self.bytes,
        })
    }

    /// Deletes what is staged, and what a commit has replaced.
    pub(super) fn discard(&mut self) {
        if let Some(staging) = self.staging.take() {
            staging.discard();
        }
    }
}
