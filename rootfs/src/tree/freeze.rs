//! Freezing: the writable layer becomes immutable and an empty one is put above it.
//!
//! Nothing is copied and nothing is walked: the state in memory moves from one place to another,
//! and on the disk a new journal begins that says what it lies upon. What it costs is what
//! syncing costs, so it depends on how much is dirty and not on how much there is.
//!
//! Whoever keeps the description of the stack writes it down *before* the freeze, with the new
//! directory on top. Whenever a process is killed, that description opens: a new directory without
//! a journal is an empty layer over all that the old one's journal says.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::writable::Writable;
use super::{FreezeError, Tree};

impl Tree {
    /// Freezes the writable layer and goes on with an empty one in `dir`, an empty directory.
    ///
    /// Inode numbers, references and cookies of listings stay what they are, also those of
    /// inodes without a name that are in use. With [`Durability::Host`](super::Durability::Host)
    /// all that changed is durable before the freeze counts; this waits for the disk as
    /// [`Tree::sync`] does. With [`Durability::Process`](super::Durability::Process) it waits for
    /// nothing. A second freeze into the same directory does nothing, so asking again after an
    /// answer was lost is fine.
    ///
    /// # Errors
    /// See [`FreezeError`]; the tree then goes on in its old writable layer.
    pub fn freeze(&mut self, dir: OwnedFd) -> Result<(), FreezeError> {
        if self.writable.is_at(&dir).map_err(FreezeError::Sync)? {
            return Ok(());
        }
        let id = self.writable.prepare_freeze().map_err(FreezeError::Sync)?;
        let next_ino = self.writable.delta().next_ino();
        let new = Writable::open(dir, id, next_ino, self.writable.durability())
            .map_err(FreezeError::Begin)?;
        if !new.is_new() {
            return Err(FreezeError::NotEmpty);
        }
        let old = std::mem::replace(&mut self.writable, new);
        self.frozen_counts = self.frozen_counts.plus(old.delta().counts());
        self.frozen.push(Arc::new(old.freeze(id)));
        Ok(())
    }
}
