//! What is printed, and where: results on standard output, our own status lines on standard error.
//!
//! Nothing here panics on a closed pipe. A person gets colours on a terminal unless `NO_COLOR` is
//! set; a program gets one JSON document, two-space indent, sorted keys.

use std::io::{self, IsTerminal, Write};

use pyro_engine::Error;
use serde::Serialize;
use serde_json::{Value, json};

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

/// Why a command ends without a result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something that a person can act on.
    Engine(Box<Error>),
    /// Our own output cannot be written.
    Output(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Engine(Box::new(error))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Writes text to standard output.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
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

/// Tells an error: as a document on standard output, or in words on standard error.
pub(crate) fn print_error(error: &Error, json: bool) -> io::Result<()> {
    if json {
        return print_json(&error_document(error));
    }
    let paint = Paint::stderr();
    let code = paint.bold(Colour::Red, &format!("error[{}]", error.code()));
    let mut text = format!("{code}: {}\n", error.sentence());
    text.push_str(&format!(
        "  {}: {}\n",
        paint.bold(Colour::Green, "fix"),
        error.remedy()
    ));
    if let Some(detail) = error.detail() {
        for line in detail.lines() {
            text.push_str(&format!("  {} {line}\n", paint.dim("|")));
        }
    }
    // Standard error may be closed; the exit status still tells.
    let _ = io::stderr().lock().write_all(text.as_bytes());
    Ok(())
}

fn error_document(error: &Error) -> Value {
    let mut body = json!({
        "code": error.code().as_str(),
        "message": error.sentence(),
        "remedy": error.remedy(),
    });
    if let Some(detail) = error.detail() {
        body["detail"] = detail.into();
    }
    json!({ "error": body })
}

/// Colours with a meaning.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Colour {
    /// Wrong.
    Red,
    /// Right.
    Green,
    /// Doubtful.
    Yellow,
    /// A heading.
    Blue,
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

    /// Bold and coloured.
    pub(crate) fn bold(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Red => 31,
            Colour::Green => 32,
            Colour::Yellow => 33,
            Colour::Blue => 34,
        };
        self.wrap(&format!("1;{code}"), text)
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

/// Bytes for a person: `1.5 GiB`.
pub(crate) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pyro_engine::Code;

    #[test]
    fn an_error_document_has_exactly_the_contracts_fields() {
        let error = Error::new(Code::KvmMissing, "no KVM", "get one");
        let expected = json!({"error": {
            "code": "kvm_missing", "message": "no KVM", "remedy": "get one"
        }});
        assert_eq!(error_document(&error), expected);
        let error = error.with_detail("a\nb");
        assert_eq!(error_document(&error)["error"]["detail"], "a\nb");
    }

    #[test]
    fn bytes_are_rounded_for_people() {
        assert_eq!(human_bytes(1023), "1023 B");
        assert_eq!(human_bytes(1536), "1.5 KiB");
        assert_eq!(human_bytes(3 << 40), "3072.0 GiB");
    }

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
