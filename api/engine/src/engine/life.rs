//! Starting and stopping guests.

use std::sync::Arc;
use std::time::Duration;

use pyro_client::types::Workspace;

use super::occupancy::Occupied;
use super::slot::Slot;
use super::{Engine, network, to_the_end};
use crate::error::{Error, Result};
use crate::machine::guest::{self, Guest};
use crate::records::Phase;

/// How long a guest may take to write everything out and power off.
const POWER_OFF_DEADLINE: Duration = Duration::from_secs(60);

impl Engine {
    /// Boots the workspace's disk; answers when the guest is ready, at once when it is already.
    ///
    /// # Errors
    /// Those of a host that cannot run guests change nothing; after all others the workspace is
    /// `failed` and can be started again.
    pub async fn start(self: &Arc<Self>, workspace: &str) -> Result<Workspace> {
        let slot = self.find(workspace)?;
        let engine = Arc::clone(self);
        to_the_end(async move {
            let operation = engine.begin(&slot)?;
            let _alone = slot.alone().await?;
            if slot.guest().is_err() {
                engine.check_host().await?;
                engine.settle(&slot).await?;
                engine.boot(&slot).await?;
            }
            operation.changed();
            Ok(slot.view())
        })
        .await
    }

    /// Lets the guest write everything out and power off; answers when it is gone, at once when
    /// it is already. Commands that run are ended and recorded as lost.
    pub async fn stop(self: &Arc<Self>, workspace: &str) -> Result<Workspace> {
        let slot = self.find(workspace)?;
        let engine = Arc::clone(self);
        to_the_end(async move {
            let operation = engine.begin(&slot)?;
            let _alone = slot.alone().await?;
            if let Ok(guest) = slot.guest() {
                engine.set_phase(&slot, Phase::Stopping).await?;
                power_off(&guest).await;
            }
            engine.settle(&slot).await?;
            engine.set_phase(&slot, Phase::Stopped).await?;
            operation.changed();
            Ok(slot.view())
        })
        .await
    }

    /// Boots the workspace, which has no guest. The caller has it alone.
    pub(super) async fn boot(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<()> {
        let record = slot.record();
        let created = matches!(record.phase, Phase::Creating);
        if !created {
            self.set_phase(slot, Phase::Starting).await?;
        }
        // A daemon must not end between the guest's start and our taking it in.
        let occupied = self.occupancy.enter();
        match self.launch(&record, &slot.vm_folder()).await {
            Ok(guest) => {
                let guest = Arc::new(guest);
                guest.redact(slot.living.redactor());
                if let Err(error) = self.materialise(slot, &guest).await {
                    guest.kill().await;
                    self.settle(slot).await?;
                    return self.not_booted(slot, created, error).await;
                }
                slot.commit(&self.state, |record| {
                    record.phase = Phase::Running;
                    // It was booted with the layer that is the top by now.
                    record.disk.freezing = false;
                    Ok(())
                })
                .await?;
                self.take_in(slot, guest, occupied);
                Ok(())
            }
            Err(error) => self.not_booted(slot, created, error).await,
        }
    }

    async fn not_booted(&self, slot: &Arc<Slot>, created: bool, error: Error) -> Result<()> {
        // It may have the end of the guest's console.
        let error = slot.living.redactor().ours(error);
        if !created {
            let failure = error.to_api();
            self.set_phase(slot, Phase::Failed { failure }).await?;
        }
        Err(error)
    }

    /// Lets a guest that runs be used, and watches for its end.
    pub(super) fn take_in(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        guest: Arc<Guest>,
        occupied: Occupied,
    ) {
        guest.redact(slot.living.redactor());
        slot.set_guest(Some((Arc::clone(&guest), occupied)));
        network::watch(slot, &guest);
        let (engine, slot) = (Arc::clone(self), Arc::clone(slot));
        tokio::spawn(async move {
            let ended = guest.ended().await;
            // Whoever ends a guest on purpose has the workspace alone, and sees to all of this.
            let _alone = slot.life.write().await;
            if !slot.has_guest(&guest) {
                return;
            }
            let _occupied = engine.occupancy.enter();
            // It has the end of the guest's console.
            let failure = slot.living.redactor().ours(guest::failure(&ended));
            tracing::warn!(workspace = %slot.id(), error = %failure.sentence(), "the guest ended");
            let failure = failure.to_api();
            let settled = engine.settle(&slot).await;
            let noted = engine.set_phase(&slot, Phase::Failed { failure }).await;
            if let Err(error) = settled.and(noted) {
                tracing::error!(workspace = %slot.id(), %error, "cannot note the end of a guest");
            }
        });
    }

    /// Ends the guest if there still is one, and takes away what it left. The caller has the
    /// workspace alone.
    pub(super) async fn settle(&self, slot: &Arc<Slot>) -> Result<()> {
        let folder = slot.vm_folder();
        let trace = super::blocking({
            let folder = folder.clone();
            move || Ok(guest::trace(&folder))
        })
        .await?;
        if let guest::Trace::Alive(process) = trace {
            process.kill();
            process.ended().await;
        }
        guest::end_net(&folder).await;
        slot.set_guest(None);
        self.end_living(slot).await;
        super::blocking(move || guest::forget(&folder)).await
    }

    pub(super) async fn set_phase(&self, slot: &Arc<Slot>, phase: Phase) -> Result<()> {
        let phase = match phase {
            // What is read of the last guest when we start has the end of its console, too.
            Phase::Failed { failure } => Phase::Failed {
                failure: slot.living.redactor().error(failure),
            },
            phase => phase,
        };
        slot.commit(&self.state, |record| {
            record.phase = phase;
            Ok(())
        })
        .await
    }
}

/// Asks the guest to power off, and ends it when it does not.
async fn power_off(guest: &Guest) {
    let ended = async {
        // Whatever it answers, what counts is that it ends.
        let _ = crate::agent::power_off(guest).await;
        guest.ended().await;
    };
    if tokio::time::timeout(POWER_OFF_DEADLINE, ended)
        .await
        .is_err()
    {
        guest.kill().await;
    }
}
