//! Sizes of terminals.

use serde::{Deserialize, Serialize};

/// Most columns and most rows of a terminal.
pub const TERMINAL_MAX: u16 = 1000;

/// How large a terminal is: 1 to [`TERMINAL_MAX`] columns and rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Form", try_from = "Form")]
pub struct TerminalSize {
    cols: u16,
    rows: u16,
}

impl TerminalSize {
    /// This size, if a terminal can have it.
    #[must_use]
    pub fn new(cols: u16, rows: u16) -> Option<Self> {
        let fits = |count| (1..=TERMINAL_MAX).contains(&count);
        (fits(cols) && fits(rows)).then_some(Self { cols, rows })
    }

    /// Characters of a line.
    #[must_use]
    pub const fn cols(self) -> u16 {
        self.cols
    }

    /// Lines.
    #[must_use]
    pub const fn rows(self) -> u16 {
        self.rows
    }
}

/// How a size crosses the wire.
#[derive(Serialize, Deserialize)]
struct Form {
    cols: u16,
    rows: u16,
}

impl From<TerminalSize> for Form {
    fn from(size: TerminalSize) -> Self {
        let TerminalSize { cols, rows } = size;
        Self { cols, rows }
    }
}

impl TryFrom<Form> for TerminalSize {
    type Error = &'static str;

    fn try_from(form: Form) -> Result<Self, Self::Error> {
        Self::new(form.cols, form.rows).ok_or("a terminal has 1 to 1000 columns and rows")
    }
}
