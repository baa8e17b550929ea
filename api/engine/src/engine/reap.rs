//! Taking expired workspaces away.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pyro_client::types::ReapedWorkspaces;

use super::Engine;
use crate::records::WorkspaceId;

/// When a workspace that could not be taken away is tried again.
const AGAIN: SignedDuration = SignedDuration::from_secs(60);

impl Engine {
    /// Takes workspaces away when their time is up, for as long as it is polled. A workspace in
    /// which something is going on is never expired.
    pub async fn maintain(self: Arc<Self>) -> Infallible {
        let mut failed = HashMap::new();
        loop {
            // Before looking: what changes meanwhile wakes us at once.
            let changed = self.reap.notified();
            let now = Timestamp::now();
            match self.reap_expired(now, &mut failed).await {
                None => changed.await,
                Some(at) => {
                    let wait = at.duration_since(Timestamp::now());
                    let wait = Duration::try_from(wait).unwrap_or_default();
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep(wait) => {}
                    }
                }
            }
        }
    }

    /// Takes away what is expired now, and says what that was. What cannot be taken away is left to
    /// [`maintain`](Self::maintain), which tries again.
    pub async fn reap(self: &Arc<Self>) -> ReapedWorkspaces {
        let mut workspace_ids = Vec::new();
        let now = Timestamp::now();
        for slot in self.slots() {
            if slot.reap_at(now).is_some_and(|at| at <= now) {
                tracing::info!(workspace = %slot.id(), "its time to live is over");
                match self.remove(&slot).await {
                    Ok(gone) => workspace_ids.push(gone.workspace_id),
                    Err(error) => tracing::error!(workspace = %slot.id(), %error, "cannot reap"),
                }
            }
        }
        ReapedWorkspaces {
            count: workspace_ids.len() as u64,
            workspace_ids,
        }
    }

    /// Takes away what is expired at `now`; gives when the next is to be looked for. `failed`
    /// has what could not be taken away and when it is tried again.
    pub(super) async fn reap_expired(
        self: &Arc<Self>,
        now: Timestamp,
        failed: &mut HashMap<WorkspaceId, Timestamp>,
    ) -> Option<Timestamp> {
        failed.retain(|_, again| *again > now);
        let mut next: Option<Timestamp> = None;
        for slot in self.slots() {
            let Some(expires) = slot.reap_at(now) else {
                continue;
            };
            let mut at = failed
                .get(slot.id())
                .map_or(expires, |again| expires.max(*again));
            if at <= now {
                tracing::info!(workspace = %slot.id(), "its time to live is over");
                let Err(error) = self.remove(&slot).await else {
                    continue;
                };
                tracing::error!(workspace = %slot.id(), %error, "cannot reap");
                at = now + AGAIN;
                failed.insert(slot.id().clone(), at);
            }
            next = Some(next.map_or(at, |next| next.min(at)));
        }
        next
    }
}
