//! What a new daemon does with what it finds.
//!
//! Records say what the last daemon was about to do; the monitors' folders say what came of it.
//! What ran goes on, what was half done is finished or undone, and what nobody names is removed.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pyro_client::types::UnreadableRecord;
use tokio::task::JoinSet;

use super::delete::erase;
use super::slot::Slot;
use super::{Engine, blocking};
use crate::error::{Code, Error, Result};
use crate::machine::guest::{self, Trace};
use crate::machine::process::Process;
use crate::records::Phase;

/// How long a monitor whose sockets are closed already may take to be gone.
const DYING: Duration = Duration::from_secs(2);

impl Engine {
    pub(super) async fn reconcile(self: &Arc<Self>) -> Result<()> {
        let mut tasks = JoinSet::new();
        for slot in self.slots() {
            let engine = Arc::clone(self);
            tasks.spawn(async move {
                let result = engine.reconcile_one(&slot).await;
                (slot, result)
            });
        }
        while let Some(joined) = tasks.join_next().await {
            let (slot, result) = joined.map_err(|error| {
                Error::new(
                    Code::Interrupted,
                    "a workspace could not be looked at",
                    "start the daemon again; when it happens again, report it",
                )
                .caused_by(error)
            })?;
            if let Err(error) = result {
                tracing::error!(workspace = %slot.id(), error = %error.sentence(), "cannot reconcile");
                let mut index = self.index_mut();
                index.slots.remove(slot.id());
                index.unreadable.push(UnreadableRecord {
                    workspace_id: slot.id().to_string(),
                    path: slot.folder().display().to_string(),
                    error: error.to_api(),
                });
            }
        }
        self.collect().await
    }

    async fn reconcile_one(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<()> {
        let _alone = slot.life.write().await;
        let record = slot.record();
        if matches!(record.phase, Phase::Creating | Phase::Deleting) {
            self.settle(slot).await?;
            let state = self.state.clone();
            blocking(move || erase(&state, &record)).await?;
            self.index_mut().slots.remove(slot.id());
            return Ok(());
        }
        self.load_secrets(slot).await?;
        self.load_living(slot).await?;
        let folder = slot.vm_folder();
        let trace = blocking(move || Ok(guest::trace(&folder))).await?;
        let phase = match (&record.phase, trace) {
            (Phase::Running, Trace::Alive(process)) => {
                match self.adopt(&slot.vm_folder(), process).await {
                    Ok(guest) => {
                        tracing::info!(workspace = %slot.id(), monitor = guest.pid(), "adopted");
                        self.take_in(slot, Arc::clone(&guest), self.occupancy.enter());
                        if let Err(error) = self.finish_freeze(slot, &guest).await {
                            // The next snapshot tries again.
                            tracing::warn!(workspace = %slot.id(), %error, "cannot freeze");
                        }
                        self.reattach_living(slot, &guest).await;
                        return self.reattach(slot).await;
                    }
                    Err(process) => Phase::Failed {
                        failure: unadopted(&slot.vm_folder(), &process).await.to_api(),
                    },
                }
            }
            (Phase::Running, Trace::Ended(ended)) => Phase::Failed {
                failure: guest::failure(&ended).to_api(),
            },
            (Phase::Failed { failure }, _) => Phase::Failed {
                failure: failure.clone(),
            },
            _ => Phase::Stopped,
        };
        self.settle(slot).await?;
        if phase != record.phase {
            self.set_phase(slot, phase).await?;
        }
        self.reattach(slot).await
    }

    /// Removes layers that no record names, and what runs and pushes of killed daemons left.
    async fn collect(&self) -> Result<()> {
        let slots = self.slots();
        let records: Vec<_> = slots.iter().map(|slot| slot.record()).collect();
        let unreadable = !self.index().unreadable.is_empty();
        let (layers, paths) = (self.state.layers().clone(), self.paths.clone());
        blocking(move || {
            super::push::collect(&paths.state);
            // Which layers an unreadable record needs is not known: all stay.
            if !unreadable {
                let keep: BTreeSet<_> = records
                    .iter()
                    .flat_map(|record| record.disk.layers().cloned())
                    .collect();
                let removed = layers.keep_only(&keep)?;
                if removed > 0 {
                    tracing::info!(removed, "removed layers that nothing refers to");
                }
            }
            if let Err(error) = crate::run_dir::collect(&paths.runs()) {
                tracing::warn!(%error, "cannot collect the folders of dead runs");
            }
            Ok(())
        })
        .await
    }
}

/// Why a monitor that was alive a moment ago was not taken over: it went away meanwhile, or it
/// does not answer. Settling ends it then.
async fn unadopted(folder: &Path, process: &Process) -> Error {
    if tokio::time::timeout(DYING, process.ended()).await.is_ok()
        && let Trace::Ended(ended) = guest::trace(folder)
    {
        return guest::failure(&ended);
    }
    Error::new(
        Code::MonitorFailed,
        "the VM's monitor did not answer a new daemon, which ended it",
        "start the workspace again; what its guest had synced is there",
    )
}
