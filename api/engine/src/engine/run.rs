//! One command in a VM of its own, as events.

use std::sync::Arc;

use pyro_client::types::{RunEvent, RunRequest};
use tokio::sync::mpsc;

use super::{Engine, not_built_yet};
use crate::error::Result;

/// A run's events as they come: `started` first unless it fails before, `ended` or `failed` last.
///
/// Whoever does not take them slows the command down. Dropping it ends the VM.
#[derive(Debug)]
pub struct RunStream {
    events: mpsc::Receiver<RunEvent>,
}

impl RunStream {
    /// The next event; `None` after the last. Cancel safe.
    pub async fn next(&mut self) -> Option<RunEvent> {
        self.events.recv().await
    }
}

impl Engine {
    /// Boots a VM for one command and leaves nothing behind. What can be known before anything is
    /// made is checked before it answers.
    pub async fn run(self: &Arc<Self>, request: RunRequest) -> Result<RunStream> {
        let _ = request;
        Err(not_built_yet("run"))
    }
}
