//! Why a command ends without a result, and how that is told.

use std::io::{self, Write};

use pyro_client::ClientError;
use pyro_client::types::ApiError;
use pyro_engine::Error;
use serde_json::{Value, json};

use super::escape;
use super::paint::{Colour, Paint};
use super::print_json;
use crate::interrupt::Interrupt;

/// Why a command ends without a result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something that a person can act on.
    Told(Box<ApiError>),
    /// A signal asked us to stop while the daemon works on.
    Interrupted(Interrupt),
    /// A signal ended a pull of ours.
    PullInterrupted(Interrupt),
    /// Our own output cannot be written.
    Output(io::Error),
}

impl Failure {
    /// A failure of this program's own.
    pub(crate) fn new(code: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Told(Box::new(ApiError {
            code: code.to_string(),
            message: message.into(),
            remedy: remedy.into(),
            detail: None,
        }))
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Told(Box::new(error))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        error.to_api().into()
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Output { source } => Self::Output(source),
            error => error.to_api_error().into(),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Whether the caller asked for something that can never work: a usage error.
pub(crate) fn is_usage(error: &ApiError) -> bool {
    matches!(
        error.code.as_str(),
        "vcpu_count_out_of_range"
            | "memory_out_of_range"
            | "time_out_of_range"
            | "invalid_command"
            | "invalid_environment"
            | "invalid_secret"
            | "invalid_label"
            | "invalid_name"
            | "invalid_path"
            | "invalid_request"
    )
}

/// Tells an error: as a document on standard output, or in words on standard error.
pub(crate) fn print_error(error: &ApiError, json: bool) -> io::Result<()> {
    if json {
        return print_json(&document(error));
    }
    let text = words(error, Paint::stderr());
    // Standard error may be closed; the exit status still tells.
    let _ = io::stderr().lock().write_all(text.as_bytes());
    Ok(())
}

/// An error in words. Its sentence may quote a guest.
fn words(error: &ApiError, paint: Paint) -> String {
    let code = format!("error[{}]", escape::line(&error.code));
    let mut text = format!(
        "{}: {}\n  {}: {}\n",
        paint.bold(Colour::Red, &code),
        escape::line(&error.message),
        paint.bold(Colour::Green, "fix"),
        escape::line(&error.remedy)
    );
    for line in error.detail.iter().flat_map(|detail| detail.lines()) {
        text.push_str(&format!("  {} {}\n", paint.dim("|"), escape::text(line)));
    }
    text
}

fn document(error: &ApiError) -> Value {
    let mut body = json!({
        "code": error.code,
        "message": error.message,
        "remedy": error.remedy,
    });
    if let Some(detail) = &error.detail {
        body["detail"] = detail.as_str().into();
    }
    json!({ "error": body })
}

#[cfg(test)]
mod tests {
    use pyro_engine::Code;

    use super::*;

    fn told(error: Error) -> ApiError {
        error.to_api()
    }

    #[test]
    fn an_error_document_has_exactly_the_contracts_fields() {
        let error = told(Error::new(Code::KvmMissing, "no KVM", "get one"));
        let expected = json!({"error": {
            "code": "kvm_missing", "message": "no KVM", "remedy": "get one"
        }});
        assert_eq!(document(&error), expected);
        let error = told(Error::new(Code::KvmMissing, "no", "go").with_detail("a\nb"));
        assert_eq!(document(&error)["error"]["detail"], "a\nb");
    }

    #[test]
    fn words_cannot_be_forged_by_a_guest() {
        let error = told(
            Error::new(Code::FileNotFound, "no \x1b[2J\n\u{202e}file", "look\r")
                .with_detail("one\x1b[1A\ntwo"),
        );
        assert_eq!(
            words(&error, Paint::fixed(false)),
            "error[file_not_found]: no \\x1b[2J\\n\\u{202e}file\n  fix: look\\r\n  | one\\x1b[1A\n  | two\n"
        );
    }

    #[test]
    fn what_the_engine_calls_usage_is_usage_here() {
        for code in [
            Code::VcpuCountOutOfRange,
            Code::MemoryOutOfRange,
            Code::TimeOutOfRange,
            Code::InvalidCommand,
            Code::InvalidName,
            Code::InvalidLabel,
            Code::InvalidPath,
        ] {
            assert!(is_usage(&told(Error::new(code, "m", "r"))), "{code}");
        }
        assert!(!is_usage(&told(Error::new(
            Code::WorkspaceNotFound,
            "m",
            "r"
        ))));
    }
}
