//! What lives in a workspace besides its commands: services, shells, and the secrets they use.
//!
//! Services and shells are jobs of the guest's agent and end with the guest. Services leave their
//! record and log until the next reset; shells leave nothing.

use std::sync::{Arc, PoisonError, RwLock};

use pyro_client::types::StopReason;

use super::secrets::Secrets;
use super::services::Services;
use super::shells::Shells;
use super::slot::Slot;
use super::{Engine, blocking};
use crate::error::Result;
use crate::machine::guest::Guest;
use crate::records::{Phase, sheets};
use crate::redact::Redactor;
use crate::run_dir::unwritable;

/// Of one workspace.
#[derive(Debug, Default)]
pub(super) struct Living {
    secrets: RwLock<Arc<Secrets>>,
    pub(super) services: Services,
    pub(super) shells: Shells,
}

impl Living {
    pub(super) fn set_secrets(&self, secrets: Secrets) {
        *self.secrets.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(secrets);
    }

    pub(super) fn secrets(&self) -> Arc<Secrets> {
        Arc::clone(&self.secrets.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn redactor(&self) -> Redactor {
        self.secrets().redactor().clone()
    }
}

impl Engine {
    /// Takes in what was written down of services and shells.
    pub(super) async fn load_living(&self, slot: &Arc<Slot>) -> Result<()> {
        let slot = Arc::clone(slot);
        blocking(move || {
            slot.living.services.load(&slot);
            slot.living.shells.load(&slot);
            Ok(())
        })
        .await
    }

    /// Goes on with services and shells that run in a guest that was adopted.
    pub(super) async fn reattach_living(self: &Arc<Self>, slot: &Arc<Slot>, guest: &Arc<Guest>) {
        super::services::reattach(self, slot, guest).await;
        super::shells::reattach(slot, guest).await;
    }

    /// Notes that there is no guest any more. The caller has the workspace alone.
    pub(super) async fn end_living(&self, slot: &Arc<Slot>) {
        let reason = match slot.record().phase {
            Phase::Stopping | Phase::Stopped | Phase::Deleting | Phase::Creating => {
                StopReason::WorkspaceStopped
            }
            Phase::Starting | Phase::Running | Phase::Failed { .. } => StopReason::GuestEnded,
        };
        slot.living.services.guest_gone(slot, reason).await;
        slot.living.shells.forget();
        let folder = super::shells::folder(slot);
        let removed = blocking(move || {
            sheets::remove_all(&folder).map_err(|error| unwritable(&folder, error))
        });
        if let Err(error) = removed.await {
            tracing::warn!(workspace = %slot.id(), %error, "cannot forget shells");
        }
    }

    /// Forgets services with their logs, as a reset does.
    pub(super) async fn forget_living(&self, slot: &Arc<Slot>) -> Result<()> {
        slot.living.services.forget();
        let folder = super::services::folder(slot);
        blocking(move || sheets::remove_all(&folder).map_err(|error| unwritable(&folder, error)))
            .await
    }
}
