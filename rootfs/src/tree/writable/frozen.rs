//! A frozen layer: the files of a writable layer that nobody writes any more.
//!
//! Several stacks may have it beneath them, in one process or in several. Nothing here changes a
//! file: a torn end of the journal stays and does not count, files that nothing needs stay too.

use std::fs::File;
use std::os::fd::OwnedFd;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::change;
use super::contents;
use super::delta::Delta;
use super::journal::{Journal, JournalId};
use crate::tree::{Ino, OpenError};

/// How a frozen layer is kept from being written while it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// A shared lock: opening fails while somebody writes it, and the other way round.
    Locked,
    /// None: the layer may be the top of a running stack; what its journal says now counts.
    None,
}

/// A layer between the packed ones and the writable one.
#[derive(Debug)]
pub(crate) struct FrozenLayer {
    /// Keeps the lock.
    _dir: OwnedFd,
    /// The directory of content files, when there is one.
    contents: Option<OwnedFd>,
    delta: Delta,
    id: JournalId,
}

impl FrozenLayer {
    /// From its parts.
    pub(super) fn new(
        dir: OwnedFd,
        contents: Option<OwnedFd>,
        delta: Delta,
        id: JournalId,
    ) -> Self {
        Self {
            _dir: dir,
            contents,
            delta,
            id,
        }
    }

    /// Opens the layer in `dir` above layers that are called `stack_id` and gave numbers below
    /// `first_ino`. A directory that nothing was written to yet is a layer that changes nothing.
    pub(crate) fn open(
        dir: OwnedFd,
        stack_id: JournalId,
        first_ino: Ino,
        guard: Guard,
    ) -> Result<Self, OpenError> {
        if guard == Guard::Locked {
            match flock(&dir, FlockOperation::NonBlockingLockShared) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(OpenError::InUse),
                Err(error) => {
                    return Err(OpenError::Io {
                        action: "lock a frozen layer",
                        source: error.into(),
                    });
                }
            }
        }
        let mut delta = Delta::new(first_ino);
        let journal = Journal::read(&dir, &stack_id, &mut |mut changes| {
            while !changes.is_empty() {
                delta.apply(change::next(&mut changes)?)?;
            }
            Ok(())
        })?;
        for ino in delta.orphans() {
            delta.remove_node(ino);
        }
        let id = journal.as_ref().map_or(stack_id, Journal::id);
        if guard == Guard::Locked
            && let Some(journal) = &journal
        {
            // What is written above is of no use without it.
            journal.settle().map_err(|source| OpenError::Io {
                action: "sync the journal of a frozen layer",
                source,
            })?;
        }
        let contents = contents::open_dir(&dir)?;
        Ok(Self::new(dir, contents, delta, id))
    }

    /// What it says.
    pub(crate) fn delta(&self) -> &Delta {
        &self.delta
    }

    /// What the layer above calls this one and all beneath it.
    pub(crate) fn id(&self) -> JournalId {
        self.id
    }

    /// The content file of `ino`, which has one; `NOENT` when it is not there.
    pub(crate) fn open_content(&self, ino: Ino) -> Result<File, Errno> {
        contents::open_file(self.contents.as_ref().ok_or(Errno::NOENT)?, ino)
    }

    /// The directory of content files.
    pub(crate) fn contents(&self) -> Option<&OwnedFd> {
        self.contents.as_ref()
    }
}
