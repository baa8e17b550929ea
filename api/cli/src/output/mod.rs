//! What is printed, and where: results on standard output, our own status lines on standard error.
//!
//! Nothing here panics on a closed pipe. A person gets colours on a terminal unless `NO_COLOR` is
//! set; a program gets one JSON document, two-space indent, sorted keys. What a guest wrote reaches a
//! terminal only [escaped](escape), but for the output of its commands.

mod error;
pub(crate) mod escape;
pub(crate) mod human;
mod paint;
mod table;

use std::io::{self, Write};

use serde::Serialize;

pub(crate) use error::{Failure, is_usage, print_error};
pub(crate) use human::bytes as human_bytes;
pub(crate) use paint::{Colour, Paint};
pub(crate) use table::{Cell, Column, Fields, Table};

/// The statuses with which `pyro` ends on its own account.
pub(crate) mod status {
    /// Something failed.
    pub(crate) const FAILED: u8 = 1;
    /// The command line makes no sense.
    pub(crate) const USAGE: u8 = 2;
    /// The product failed, where other statuses are the guest's.
    pub(crate) const PRODUCT_FAILED: u8 = 125;
    /// A reader of our output went away: 128 + SIGPIPE.
    pub(crate) const PIPE: u8 = 141;
}

/// Writes text to standard output.
pub(crate) fn print(text: &str) -> io::Result<()> {
    print_bytes(text.as_bytes())
}

/// Writes bytes to standard output.
pub(crate) fn print_bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Writes one JSON document to standard output.
pub(crate) fn print_json(document: &impl Serialize) -> io::Result<()> {
    // By way of a `Value`, whose maps are sorted.
    let value = serde_json::to_value(document).map_err(io::Error::other)?;
    print(&format!("{value:#}\n"))
}

/// Writes a status line to standard error; a closed standard error is nobody's problem.
pub(crate) fn note(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Writes what to do next to standard error.
pub(crate) fn hint(line: &str) {
    note(&Paint::stderr().dim(&format!("  next: {line}")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_sorted_and_indented() {
        #[derive(Serialize)]
        struct Unsorted {
            b: u8,
            a: u8,
        }
        let value = serde_json::to_value(Unsorted { b: 1, a: 2 }).unwrap();
        assert_eq!(format!("{value:#}"), "{\n  \"a\": 2,\n  \"b\": 1\n}");
    }
}
