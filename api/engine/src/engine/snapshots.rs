//! Snapshots of the whole disk, and going back to them.
//!
//! A snapshot is a list of frozen layers. Making one freezes the layer that takes the writes and
//! puts an empty one above it; going back puts an empty one above the snapshot's. Nothing is copied.
//!
//! The record describes the new stack *before* the monitor is told to freeze. A stack whose top is
//! still empty means the same as the one before, so either moment may be the last of a daemon; the
//! next one tells the monitor again ([`Disk::freezing`](crate::records::Disk)).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pyro_client::types::{
    BASELINE, CreateSnapshot, DeletedSnapshot, Reset, Snapshot, SnapshotList, Workspace,
};

use super::slot::Slot;
use super::{Engine, blocking, to_the_end};
use crate::agent;
use crate::error::{Code, Error, Result};
use crate::machine::guest::{Frozen, Guest};
use crate::records::journal::Journal;
use crate::records::layers::LayerId;
use crate::records::{Disk, Phase, SnapshotRecord, names};

/// Most named snapshots of one workspace.
const MAX_SNAPSHOTS: usize = 100;
/// How long a guest may take to write everything out.
const SYNC_DEADLINE: Duration = Duration::from_secs(120);

impl Engine {
    /// Makes a snapshot of the whole disk, of a running or a stopped workspace.
    ///
    /// # Errors
    /// [`Code::InvalidName`], [`Code::SnapshotReserved`], [`Code::SnapshotExists`],
    /// [`Code::TooManySnapshots`].
    pub async fn snapshot_create(
        self: &Arc<Self>,
        workspace: &str,
        request: CreateSnapshot,
    ) -> Result<Snapshot> {
        names::check_snapshot_name(&request.name)?;
        let slot = self.find(workspace)?;
        let engine = Arc::clone(self);
        to_the_end(async move {
            let operation = engine.begin(&slot)?;
            check_room(&slot.record().disk, &request.name)?;
            if let Ok(guest) = slot.steady_guest().await {
                // One that ends meanwhile takes along what it held: no snapshot then.
                sync(&guest).await?;
            }
            let _alone = slot.alone().await?;
            check_room(&slot.record().disk, &request.name)?;
            engine.freeze(&slot).await?;
            let created_at = Timestamp::now();
            let name = request.name.clone();
            slot.commit(&engine.state, |record| {
                let disk = &mut record.disk;
                disk.snapshots.push(SnapshotRecord {
                    name,
                    created_at,
                    layers: disk.frozen.clone(),
                });
                Ok(())
            })
            .await?;
            operation.changed();
            Ok(Snapshot {
                name: request.name,
                created_at,
                baseline: false,
            })
        })
        .await
    }

    /// The snapshots: the baseline first, then oldest first.
    pub async fn snapshot_list(&self, workspace: &str) -> Result<SnapshotList> {
        let record = self.find(workspace)?.record();
        let baseline = Snapshot {
            name: BASELINE.to_string(),
            created_at: record.created_at,
            baseline: true,
        };
        let named = record.disk.snapshots.iter().map(|snapshot| Snapshot {
            name: snapshot.name.clone(),
            created_at: snapshot.created_at,
            baseline: false,
        });
        let snapshots: Vec<_> = std::iter::once(baseline).chain(named).collect();
        Ok(SnapshotList {
            workspace_id: record.workspace_id.to_string(),
            count: snapshots.len() as u64,
            snapshots,
        })
    }

    /// Deletes a named snapshot.
    ///
    /// # Errors
    /// [`Code::SnapshotReserved`] for the baseline, [`Code::SnapshotNotFound`].
    pub async fn snapshot_delete(
        self: &Arc<Self>,
        workspace: &str,
        name: &str,
    ) -> Result<DeletedSnapshot> {
        if name == BASELINE {
            names::check_snapshot_name(name)?;
        }
        let slot = self.find(workspace)?;
        let (engine, name) = (Arc::clone(self), name.to_string());
        to_the_end(async move {
            let operation = engine.begin(&slot)?;
            let _alone = slot.alone().await?;
            let before = slot.record().disk.clone();
            find(&before, &name)?;
            slot.commit(&engine.state, |record| {
                record
                    .disk
                    .snapshots
                    .retain(|snapshot| snapshot.name != name);
                Ok(())
            })
            .await?;
            engine.drop_layers(&slot, &before).await;
            operation.changed();
            Ok(DeletedSnapshot {
                workspace_id: slot.id().to_string(),
                name,
                deleted: true,
            })
        })
        .await
    }

    /// Ends the guest at once, sets the disk back to a snapshot, forgets the journal, and boots.
    ///
    /// # Errors
    /// Those of a host that cannot run guests change nothing. When the guest does not boot, the
    /// disk is set back and the workspace is `failed`.
    pub async fn reset(self: &Arc<Self>, workspace: &str, request: Reset) -> Result<Workspace> {
        let slot = self.find(workspace)?;
        let engine = Arc::clone(self);
        to_the_end(async move {
            let operation = engine.begin(&slot)?;
            let _alone = slot.alone().await?;
            let before = slot.record().disk.clone();
            let layers = find(&before, &request.snapshot)?;
            engine.check_host().await?;
            engine.set_phase(&slot, Phase::Stopping).await?;
            engine.settle(&slot).await?;
            let state = engine.state.clone();
            let top = blocking(move || state.layers().create()).await?;
            slot.commit(&engine.state, |record| {
                record.disk.frozen = layers;
                record.disk.top = Some(top);
                record.disk.freezing = false;
                record.reset_count += 1;
                record.last_reset_at = Some(Timestamp::now());
                record.phase = Phase::Stopped;
                Ok(())
            })
            .await?;
            let journal = Journal::new(slot.folder(), slot.record().reset_count);
            slot.execs.begin_anew(journal.clone());
            blocking(move || {
                journal.open()?;
                journal.forget_others();
                Ok(())
            })
            .await?;
            engine.forget_living(&slot).await?;
            engine.drop_layers(&slot, &before).await;
            engine.boot(&slot).await?;
            operation.changed();
            Ok(slot.view())
        })
        .await
    }

    /// Puts an empty layer above the one that takes the writes. The caller has the workspace
    /// alone, and has let the guest write out what it held.
    async fn freeze(&self, slot: &Arc<Slot>) -> Result<()> {
        let guest = slot.guest().ok();
        if let Some(guest) = &guest {
            self.finish_freeze(slot, guest).await?;
        }
        let state = self.state.clone();
        let (id, directory) = blocking(move || {
            let id = state.layers().create()?;
            let directory = state.layers().open(&id)?;
            Ok((id, directory))
        })
        .await?;
        let before = slot.record().disk.clone();
        slot.commit(&self.state, |record| {
            let disk = &mut record.disk;
            disk.frozen.extend(disk.top.replace(id));
            disk.freezing = guest.is_some();
            Ok(())
        })
        .await?;
        let Some(guest) = guest else {
            return Ok(());
        };
        match guest.freeze(directory).await {
            Ok(()) => self.frozen(slot).await,
            Err(Frozen::Unknown(error)) => Err(error),
            Err(Frozen::No(error)) => {
                let after = slot.record().disk.clone();
                slot.commit(&self.state, |record| {
                    record.disk = before;
                    Ok(())
                })
                .await?;
                self.drop_layers(slot, &after).await;
                Err(error)
            }
        }
    }

    /// Tells a guest again to freeze when it is not known whether it has.
    pub(super) async fn finish_freeze(&self, slot: &Arc<Slot>, guest: &Guest) -> Result<()> {
        let record = slot.record();
        let Some(top) = record.disk.top.as_ref().filter(|_| record.disk.freezing) else {
            return Ok(());
        };
        let directory = self.state.layers().open(top)?;
        match guest.freeze(directory).await {
            Ok(()) => self.frozen(slot).await,
            Err(Frozen::No(error) | Frozen::Unknown(error)) => Err(error),
        }
    }

    async fn frozen(&self, slot: &Arc<Slot>) -> Result<()> {
        slot.commit(&self.state, |record| {
            record.disk.freezing = false;
            Ok(())
        })
        .await
    }

    /// Removes the layers of `before` that the record does not name any more. What cannot be
    /// removed now is collected by the next daemon.
    async fn drop_layers(&self, slot: &Arc<Slot>, before: &Disk) {
        let record = slot.record();
        let keep: BTreeSet<&LayerId> = record.disk.layers().collect();
        let gone: BTreeSet<LayerId> = before
            .layers()
            .filter(|layer| !keep.contains(layer))
            .cloned()
            .collect();
        let layers = self.state.layers().clone();
        let removed = blocking(move || gone.iter().try_for_each(|layer| layers.remove(layer)));
        if let Err(error) = removed.await {
            tracing::warn!(workspace = %slot.id(), %error, "cannot remove layers");
        }
    }
}

/// Lets a guest write everything out.
pub(super) async fn sync(guest: &Guest) -> Result<()> {
    let synced = tokio::time::timeout(SYNC_DEADLINE, agent::sync(guest)).await;
    let error = match synced {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(agent::AgentError::Refused { message, .. })) => {
            return Err(Error::new(
                Code::AgentFailed,
                format!("the guest cannot write everything out: {message}"),
                "the host's disk lost a write, being full or failing: see to it, then write the \
                 files that were changed last again, or stop and start the workspace",
            ));
        }
        Ok(Err(error)) => error,
        Err(_) => agent::AgentError::Lost(std::io::ErrorKind::TimedOut.into()),
    };
    Err(guest.lost(error).await)
}

fn check_room(disk: &Disk, name: &str) -> Result<()> {
    if disk.snapshots.iter().any(|snapshot| snapshot.name == name) {
        return Err(Error::new(
            Code::SnapshotExists,
            format!("there is a snapshot {name} already"),
            "choose another name, or delete that one first",
        ));
    }
    if disk.snapshots.len() >= MAX_SNAPSHOTS {
        return Err(Error::new(
            Code::TooManySnapshots,
            format!("the workspace has {MAX_SNAPSHOTS} snapshots already, which is the most"),
            "delete some with `pyro workspace snapshot delete`",
        ));
    }
    Ok(())
}

/// The layers of a snapshot.
fn find(disk: &Disk, name: &str) -> Result<Vec<LayerId>> {
    if name == BASELINE {
        return Ok(disk.baseline.clone());
    }
    let found = disk.snapshots.iter().find(|snapshot| snapshot.name == name);
    found
        .map(|snapshot| snapshot.layers.clone())
        .ok_or_else(|| {
            Error::new(
                Code::SnapshotNotFound,
                format!("the workspace has no snapshot {name:?}"),
                "see `pyro workspace snapshot list`",
            )
        })
}
