//! What the engine remembers on disk, and nothing else does.
//!
//! One folder for each workspace, with its [`Record`] and its journal of commands. A record is
//! written to a file beside it, forced to the disk, and renamed into place, so it is always whole: the old one or
//! the new one. What it says of resources is written *before* they are made ([`Phase`]), so a
//! kill at any moment leaves nothing that nobody knows of. What cannot be read is reported and
//! left alone.

pub(crate) mod activity;
mod id;
pub(crate) mod journal;
pub(crate) mod layers;
pub(crate) mod names;
mod record;
pub(crate) mod secrets;
pub(crate) mod sheets;
pub(crate) mod state;
mod write;

pub(crate) use id::WorkspaceId;
pub(crate) use record::{Disk, FORMAT, Phase, Pinned, Record, SnapshotRecord};
