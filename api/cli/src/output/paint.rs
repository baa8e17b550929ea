//! Colours: on a terminal, unless `NO_COLOR` is set.

use std::io::{self, IsTerminal};

/// Colours with a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    /// Wrong, or taken away.
    Red,
    /// Right, or added.
    Green,
    /// Doubtful, or under way.
    Yellow,
    /// A heading.
    Blue,
}

impl Colour {
    fn code(self) -> u8 {
        match self {
            Self::Red => 31,
            Self::Green => 32,
            Self::Yellow => 33,
            Self::Blue => 34,
        }
    }
}

/// Whether and how to colour one stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// For standard output.
    pub(crate) fn stdout() -> Self {
        Self {
            on: io::stdout().is_terminal() && wanted(),
        }
    }

    /// For standard error.
    pub(crate) fn stderr() -> Self {
        Self {
            on: io::stderr().is_terminal() && wanted(),
        }
    }

    /// Colours always, or never.
    #[cfg(test)]
    pub(crate) fn fixed(on: bool) -> Self {
        Self { on }
    }

    /// Whether it colours.
    pub(crate) fn is_on(self) -> bool {
        self.on
    }

    /// Bold and coloured.
    pub(crate) fn bold(self, colour: Colour, text: &str) -> String {
        self.wrap(&format!("1;{}", colour.code()), text)
    }

    /// Coloured.
    pub(crate) fn colour(self, colour: Colour, text: &str) -> String {
        self.wrap(&colour.code().to_string(), text)
    }

    /// Bold.
    pub(crate) fn strong(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// Less visible.
    pub(crate) fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.on {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_string()
        }
    }
}

/// See no-color.org: any non-empty value turns colours off.
fn wanted() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !no_color && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}
