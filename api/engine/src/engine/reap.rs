//! Taking expired workspaces away.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Engine;
use crate::records::WorkspaceId;

/// When a workspace that could not be taken away is tried again.
const AGAIN: SignedDuration = SignedDuration::from_secs(60);

impl Engine {
    /// Takes workspaces away when their time is up, for as long as it is polled. A workspace in
    /// which something is going on is never expired.
    pub async fn maintain(self: Arc<Self>) -> Infallible {
        let mut failed: HashMap<WorkspaceId, Timestamp> = HashMap::new();
        loop {
            // Before looking: what changes meanwhile wakes us at once.
            let changed = self.reap.notified();
            let now = Timestamp::now();
            let mut next: Option<Timestamp> = None;
            let mut expired = Vec::new();
            for slot in self.slots() {
                let Some(at) = slot.reap_at(now) else {
                    continue;
                };
                let at = failed.get(slot.id()).map_or(at, |again| at.max(*again));
                if at <= now {
                    expired.push(slot);
                } else {
                    next = Some(next.map_or(at, |next| next.min(at)));
                }
            }
            failed.retain(|_, again| *again > now);
            if !expired.is_empty() {
                for slot in expired {
                    tracing::info!(workspace = %slot.id(), "its time to live is over");
                    if let Err(error) = self.remove(&slot).await {
                        tracing::error!(workspace = %slot.id(), %error, "cannot reap");
                        failed.insert(slot.id().clone(), Timestamp::now() + AGAIN);
                    }
                }
                continue;
            }
            match next {
                None => changed.await,
                Some(at) => {
                    let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep(wait) => {}
                    }
                }
            }
        }
    }
}
