//! Our own standard streams for a guest's command.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use pyro_client::ClientError;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::output::Failure;

/// Our standard input for the guest, unless reading it would stop us: a job in the background of
/// a terminal may not read it.
pub(crate) fn stdin() -> io::Result<Option<tokio::fs::File>> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        let foreground = rustix::termios::tcgetpgrp(&stdin).ok();
        if foreground != Some(rustix::process::getpgrp()) {
            return Ok(None);
        }
    }
    Ok(Some(unbuffered(stdin)?))
}

/// Writes what an event says that a command wrote.
pub(crate) async fn pass_on(to: &mut (impl AsyncWrite + Unpin), data: &str) -> Result<(), Failure> {
    let data = BASE64.decode(data).map_err(|source| ClientError::Answer {
        source: source.into(),
    })?;
    to.write_all(&data).await?;
    to.flush().await?;
    Ok(())
}

/// The stream without the standard library's line buffer: prompts appear at once.
pub(crate) fn unbuffered(stream: impl AsFd) -> io::Result<tokio::fs::File> {
    let descriptor: OwnedFd = stream.as_fd().try_clone_to_owned()?;
    Ok(tokio::fs::File::from_std(descriptor.into()))
}
