//! Stopping a service: SIGTERM, a time of grace, SIGKILL to all that it started.

use std::sync::Arc;
use std::time::Duration;

use pyro_agent_protocol::SignalGroup;
use pyro_client::types::{STOP_GRACE_SECONDS, Service, ServiceState, StopReason};

use super::Entry;
use super::start::KILLED_WITHIN;
use crate::engine::slot::Slot;
use crate::engine::{Engine, jobs, network, to_the_end};
use crate::error::{Code, Error, Result};
use crate::machine::guest::Guest;

const SIGTERM: u8 = 15;

impl Engine {
    /// Ends a service; answers when it has ended, at once when it has already.
    ///
    /// # Errors
    /// [`Code::ServiceNotFound`].
    pub async fn service_stop(self: &Arc<Self>, workspace: &str, name: &str) -> Result<Service> {
        let slot = self.find(workspace)?;
        let (engine, name) = (Arc::clone(self), name.to_string());
        to_the_end(async move {
            let operation = engine.begin(&slot)?;
            let entry = slot.living.services.find(&slot, &name)?;
            if entry.is_live() {
                let guest = slot.guest()?;
                stop(&slot, &guest, &entry, StopReason::Requested, None).await?;
            }
            operation.changed();
            Ok(entry.service())
        })
        .await
    }
}

/// Ends a service for a reason, which is that of whoever comes first.
pub(super) async fn stop(
    slot: &Arc<Slot>,
    guest: &Arc<Guest>,
    entry: &Arc<Entry>,
    reason: StopReason,
    error: Option<Error>,
) -> Result<()> {
    let mut published = Vec::new();
    let first = entry
        .update(slot, |service| {
            if !matches!(
                service.state,
                ServiceState::Starting | ServiceState::Running
            ) {
                return false;
            }
            // One that became ready meanwhile is not late.
            if reason == StopReason::NotReady && service.state == ServiceState::Running {
                return false;
            }
            published = std::mem::take(&mut service.published);
            service.state = ServiceState::Stopping;
            service.ready = false;
            service.stop_reason = Some(reason);
            service.error = error.as_ref().map(Error::to_api);
            true
        })
        .await;
    let over = |service: &Service| !service.state.is_live();
    let grace = Duration::from_secs(STOP_GRACE_SECONDS);
    if !first {
        if reason == StopReason::Requested {
            let patience = grace + 2 * KILLED_WITHIN;
            let ended = tokio::time::timeout(patience, entry.wait(over)).await;
            return ended.map(drop).map_err(|_| silent());
        }
        return Ok(());
    }
    network::withdraw(guest, &published).await;
    let job = entry.job();
    // Whatever they answer, what counts is that it ends.
    let _ = jobs::signal(guest, &job, SIGTERM, SignalGroup::Program).await;
    let _ = tokio::time::timeout(grace, entry.wait(over)).await;
    let _ = jobs::cancel(guest, &job).await;
    match tokio::time::timeout(KILLED_WITHIN, entry.wait(over)).await {
        Ok(_) => Ok(()),
        Err(_) => Err(silent()),
    }
}

fn silent() -> Error {
    Error::new(
        Code::AgentFailed,
        "the guest does not say whether the service has ended",
        "try again; when it happens again, stop and start the workspace",
    )
}
