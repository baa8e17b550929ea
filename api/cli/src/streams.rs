//! Our own standard streams for a guest's command.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};

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

/// The stream without the standard library's line buffer: prompts appear at once.
pub(crate) fn unbuffered(stream: impl AsFd) -> io::Result<tokio::fs::File> {
    let descriptor: OwnedFd = stream.as_fd().try_clone_to_owned()?;
    Ok(tokio::fs::File::from_std(descriptor.into()))
}
