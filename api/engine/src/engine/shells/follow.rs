//! Following what a shell writes.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use pyro_client::types::{FollowShell, Shell, ShellEvent};
use tokio::sync::mpsc;

use super::failed;
use crate::agent::AgentError;
use crate::engine::Engine;
use crate::engine::jobs::{self, Attached, Next};
use crate::engine::slot::Slot;
use crate::error::Result;
use crate::machine::guest::Guest;
use crate::redact::Stream;

/// Events that wait for whoever takes them.
const EVENTS: usize = 8;

/// A shell's output as it comes: `attached` first, `closed` or `failed` last.
///
/// Whoever does not take the events misses some output, which a `gap` says; the shell is not held up.
/// Dropping it leaves the shell as it is.
#[derive(Debug)]
pub struct ShellStream {
    events: mpsc::Receiver<ShellEvent>,
}

impl ShellStream {
    /// The next event; `None` after the last. Cancel safe.
    pub async fn next(&mut self) -> Option<ShellEvent> {
        self.events.recv().await
    }
}

impl Engine {
    /// Follows a shell's output from a cursor. That is a read.
    ///
    /// # Errors
    /// [`crate::Code::ShellNotFound`].
    pub async fn shell_follow(
        self: &Arc<Self>,
        workspace: &str,
        shell: &str,
        request: FollowShell,
    ) -> Result<ShellStream> {
        let slot = self.find(workspace)?;
        let sheet = slot.living.shells.find(&slot, shell)?;
        let guest = slot.guest()?;
        let attached = match Attached::to(&guest, &sheet.job, request.cursor, true).await {
            Ok(attached) => attached,
            Err(error) => return Err(failed(&slot, &guest, shell, error).await),
        };
        let shell = slot
            .living
            .shells
            .refresh(&attached.info)
            .unwrap_or(sheet.shell);
        let (sender, events) = mpsc::channel(EVENTS);
        tokio::spawn(async move {
            let gone = sender.clone();
            tokio::select! {
                () = pass(&slot, &guest, shell, request.cursor, attached, sender) => {}
                () = gone.closed() => {}
            }
        });
        Ok(ShellStream { events })
    }
}

async fn pass(
    slot: &Arc<Slot>,
    guest: &Arc<Guest>,
    mut shell: Shell,
    cursor: u64,
    mut attached: Attached,
    events: mpsc::Sender<ShellEvent>,
) {
    let _ = events
        .send(ShellEvent::Attached {
            shell: shell.clone(),
        })
        .await;
    let mut stream = slot.living.redactor().stream();
    if cursor > 0 {
        // What was before is not looked at.
        stream.gap();
    }
    loop {
        let next = attached.next().await;
        match next {
            Ok(Next::Output(bytes)) => output(&events, stream.push(&bytes)).await,
            Ok(Next::Gap(bytes)) => {
                output(&events, stream.gap()).await;
                let _ = events.send(ShellEvent::Gap { bytes }).await;
            }
            Ok(Next::Exited(status)) => {
                rest(&events, &mut stream).await;
                shell.closed = true;
                shell.exit_code = Some(jobs::exit(status).0);
                let _ = events.send(ShellEvent::Closed { shell }).await;
                return;
            }
            Ok(Next::Running) => return,
            Err(error) => {
                rest(&events, &mut stream).await;
                let error = lost(slot, guest, &shell, error).await;
                let _ = events.send(ShellEvent::Failed { error }).await;
                return;
            }
        }
    }
}

async fn rest(events: &mpsc::Sender<ShellEvent>, stream: &mut Stream) {
    output(events, stream.finish()).await;
}

async fn output(events: &mpsc::Sender<ShellEvent>, bytes: Vec<u8>) {
    for piece in bytes.chunks(64 << 10) {
        let data = BASE64.encode(piece);
        let _ = events.send(ShellEvent::Output { data }).await;
    }
}

async fn lost(
    slot: &Arc<Slot>,
    guest: &Guest,
    shell: &Shell,
    error: AgentError,
) -> pyro_client::types::ApiError {
    let error = failed(slot, guest, &shell.shell_id, error).await;
    slot.living.redactor().error(error.to_api())
}
