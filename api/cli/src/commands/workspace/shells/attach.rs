//! `pyro workspace shell attach`: the user's own terminal in the place of the shell's.
//!
//! What is typed goes to the shell byte by byte, what it writes comes as it is. The key that detaches
//! is looked for before anything else is done with the input, so it works whatever the shell does.

use std::io::{self, IsTerminal};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use pyro_client::types::{
    Encoding, FollowShell, ReadShell, ResizeShell, Shell, ShellEvent, WriteShell,
};
use pyro_client::{Client, ClientError, ShellStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::raw::{self, Raw};
use crate::daemon;
use crate::interrupt::{Interrupt, Interrupts};
use crate::output::{Failure, escape, note};
use crate::streams::{pass_on, unbuffered};

/// Ctrl-].
const DETACH: u8 = 0x1d;
/// Pieces of input that wait for a shell that does not take them.
const WAITING: usize = 256;
/// Most characters of what was written before that are shown.
const BEFORE: u64 = 20_000;

/// Why the terminal is left.
enum End {
    Detached,
    Closed(Shell),
    Signal(Interrupt),
}

pub(super) async fn attach(workspace: &str, id: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(Failure::new(
            "invalid_request",
            "attach needs a terminal for its input and output",
            "use `pyro workspace shell read` and `write` in scripts",
        ));
    }
    let client = daemon::client().await?;
    let before = ReadShell {
        plain: true,
        max_chars: BEFORE,
        ..ReadShell::default()
    };
    let before = client.shell_read(workspace, id, &before).await?;
    let follow = FollowShell {
        cursor: before.cursor,
    };
    let stream = client.shell_follow(workspace, id, &follow).await?;
    note("pyro: attached; Ctrl-] detaches");
    let interrupts = Interrupts::install()?;
    let raw = Raw::enter()?;
    let end = session(&client, workspace, id, &before.output, stream, interrupts).await;
    drop(raw);
    match end? {
        End::Detached => {
            note(&format!(
                "\npyro: detached; the shell goes on: pyro workspace shell attach {} {id}",
                escape::quoted(workspace)
            ));
            Ok(())
        }
        End::Closed(shell) => {
            note(&format!(
                "\npyro: the shell's program has ended with status {}",
                shell.exit_code.unwrap_or_default()
            ));
            Ok(())
        }
        End::Signal(signal) => Err(Failure::Interrupted(signal)),
    }
}

async fn session(
    client: &Client,
    workspace: &str,
    id: &str,
    before: &str,
    stream: ShellStream,
    mut interrupts: Interrupts,
) -> Result<End, Failure> {
    let mut stdout = unbuffered(io::stdout())?;
    if !before.is_empty() {
        let lines = before.replace('\n', "\r\n");
        stdout.write_all(lines.as_bytes()).await?;
        stdout.flush().await?;
    }
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::select! {
        biased;
        signal = interrupts.wait() => Ok(End::Signal(signal)),
        end = show(stream, &mut stdout) => end,
        end = read(sender) => end,
        error = write(client, workspace, id, receiver) => Err(error),
        error = resize(client, workspace, id) => Err(error),
    }
}

/// Shows what the shell writes until its end.
async fn show(mut stream: ShellStream, stdout: &mut tokio::fs::File) -> Result<End, Failure> {
    while let Some(event) = stream.next().await? {
        match event {
            ShellEvent::Output { data } => pass_on(stdout, &data).await?,
            ShellEvent::Closed { shell } => return Ok(End::Closed(shell)),
            ShellEvent::Failed { error } => return Err(error.into()),
            ShellEvent::Attached { .. } | ShellEvent::Gap { .. } => {}
        }
    }
    Err(ClientError::Broken { source: None }.into())
}

/// Takes what is typed until the key that detaches, or the terminal's end.
async fn read(sender: mpsc::Sender<Vec<u8>>) -> Result<End, Failure> {
    let mut stdin = unbuffered(io::stdin())?;
    let mut bytes = [0; 4096];
    loop {
        let n = stdin.read(&mut bytes).await?;
        let (typed, detach) = until_detach(&bytes[..n]);
        if !typed.is_empty() {
            // What a shell does not take for so long is lost, as on a terminal whose buffer is full.
            let _ = sender.try_send(typed.to_vec());
        }
        if detach || n == 0 {
            return Ok(End::Detached);
        }
    }
}

/// What comes before the key that detaches, and whether it was pressed.
fn until_detach(bytes: &[u8]) -> (&[u8], bool) {
    match bytes.iter().position(|byte| *byte == DETACH) {
        Some(at) => (&bytes[..at], true),
        None => (bytes, false),
    }
}

/// Types into the shell. Gives why it cannot any more.
async fn write(
    client: &Client,
    workspace: &str,
    id: &str,
    mut typed: mpsc::Receiver<Vec<u8>>,
) -> Failure {
    while let Some(mut bytes) = typed.recv().await {
        while let Ok(more) = typed.try_recv() {
            bytes.extend(more);
        }
        let request = WriteShell {
            input: BASE64.encode(&bytes),
            encoding: Encoding::Base64,
            newline: false,
        };
        match client.shell_write(workspace, id, &request).await {
            Ok(_) => {}
            // Whoever waits for the shell's end says so, and one that is busy may not be for ever.
            Err(ClientError::Api(error))
                if matches!(error.code.as_str(), "shell_closed" | "shell_busy") => {}
            Err(error) => return error.into(),
        }
    }
    std::future::pending().await
}

/// Gives the shell's terminal the size of ours, now and whenever it changes. Gives why it cannot.
async fn resize(client: &Client, workspace: &str, id: &str) -> Failure {
    let mut changed = match signal(SignalKind::window_change()) {
        Ok(changed) => changed,
        Err(error) => return error.into(),
    };
    // Twice at first, the second time as it is: what runs there draws itself anew when its terminal's
    // size changes, and not otherwise.
    let mut nudge = Some(1);
    loop {
        if let Some((cols, rows)) = raw::size() {
            let less = nudge.filter(|_| rows > 1).unwrap_or(0);
            for rows in [rows - less, rows] {
                let request = ResizeShell { cols, rows };
                match client.shell_resize(workspace, id, &request).await {
                    Ok(_) | Err(ClientError::Api(_)) => {}
                    Err(error) => return error.into(),
                }
            }
            nudge = None;
        }
        if changed.recv().await.is_none() {
            return std::future::pending().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_that_detaches_is_not_typed_and_nothing_behind_it() {
        assert_eq!(until_detach(b"ls\r\x1dpwd"), (&b"ls\r"[..], true));
        assert_eq!(until_detach(b"ls\r"), (&b"ls\r"[..], false));
        assert_eq!(until_detach(b""), (&b""[..], false));
    }
}
