//! Commands in a workspace.

use std::sync::Arc;
use std::time::Duration;

use pyro_client::types::{ExecEvent, ExecRecord, ExecRequest, WorkspaceLogs};
use tokio::sync::mpsc;

use super::{Engine, not_built_yet};
use crate::error::Result;

/// A command's events as they come: `started` first, `ended` or `failed` last.
///
/// Whoever does not take them slows the command down. Dropping it cancels the command, unless it
/// was started detached.
#[derive(Debug)]
pub struct ExecStream {
    sequence: u64,
    events: mpsc::Receiver<ExecEvent>,
}

impl ExecStream {
    /// The command's number in the workspace's journal.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The next event; `None` after the last. Cancel safe.
    pub async fn next(&mut self) -> Option<ExecEvent> {
        self.events.recv().await
    }
}

impl Engine {
    /// Goes on with commands that ran under the last daemon, or notes that they are lost.
    pub(super) async fn reattach(self: &Arc<Self>, slot: &Arc<super::slot::Slot>) -> Result<()> {
        let _ = slot;
        Ok(())
    }

    /// Starts a command; answers when it has a number in the journal. A detached one gives
    /// `started` and then `ended` with its record as of now, and runs on.
    pub async fn exec(
        self: &Arc<Self>,
        workspace: &str,
        request: ExecRequest,
    ) -> Result<ExecStream> {
        let _ = (self.find(workspace)?, request);
        Err(not_built_yet("exec"))
    }

    /// A command of the journal; waits at most `wait` for its end when it runs.
    pub async fn exec_get(
        &self,
        workspace: &str,
        sequence: u64,
        wait: Duration,
    ) -> Result<ExecRecord> {
        let _ = (self.find(workspace)?, sequence, wait);
        Err(not_built_yet("exec_get"))
    }

    /// Kills a command with all that it started; answers when it has ended. One that has ended
    /// already is left as it is.
    pub async fn exec_cancel(
        self: &Arc<Self>,
        workspace: &str,
        sequence: u64,
    ) -> Result<ExecRecord> {
        let _ = (self.find(workspace)?, sequence);
        Err(not_built_yet("exec_cancel"))
    }

    /// The journal since creation or the last reset.
    pub async fn logs(&self, workspace: &str) -> Result<WorkspaceLogs> {
        let _ = self.find(workspace)?;
        Err(not_built_yet("logs"))
    }
}
