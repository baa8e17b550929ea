//! The user's own terminal.

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use rustix::termios::{self, OptionalActions, Termios};

use crate::wire::Size;

/// The terminal on standard input in raw mode, until this is dropped.
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Enters raw mode.
    ///
    /// # Errors
    /// When standard input is no terminal.
    pub fn enter() -> Result<Self> {
        let stdin = rustix::stdio::stdin();
        let before = termios::tcgetattr(stdin).context("standard input is no terminal")?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(stdin, OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing can be done for a terminal that has gone.
        let _ = termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &self.before);
    }
}

/// Size of the terminal on standard input, if it is one.
#[must_use]
pub fn size() -> Option<Size> {
    let size = termios::tcgetwinsize(rustix::stdio::stdin().as_fd()).ok()?;
    Some(Size {
        cols: size.ws_col.max(1),
        rows: size.ws_row.max(1),
    })
}
