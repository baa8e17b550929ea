//! What a model is told when a call fails.

use pyro_client::ClientError;
use pyro_client::types::ApiError;
use serde_json::{Value, json};

use crate::Profile;
use crate::tools;

/// Why a call failed: in the API's own form, with advice that can be followed with tools.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub ApiError);

impl Error {
    /// An error of the adapter's own.
    pub(crate) fn new(code: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self(ApiError {
            code: code.into(),
            message: message.into(),
            remedy: remedy.into(),
            detail: None,
        })
    }

    /// As structured content: the same document that the API and `--json` give.
    pub(crate) fn to_value(&self, profile: Profile) -> Value {
        // Other messages quote files and commands, which are to stay as they are.
        let message = match self.0.code.as_str() {
            "invalid_request" => in_words_of_tools(&self.0.message, profile),
            _ => self.0.message.clone(),
        };
        let mut error = json!({
            "code": self.0.code,
            "message": message,
            "remedy": in_words_of_tools(&self.0.remedy, profile),
        });
        if let Some(detail) = &self.0.detail {
            error["detail"] = detail.as_str().into();
        }
        json!({ "error": error })
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        Self(error.to_api_error())
    }
}

impl From<ApiError> for Error {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

/// Advice for the command line, as advice for somebody who has tools: `pyro workspace file read` is
/// `workspace_file_read`, `--timeout-seconds` is `timeout_seconds`. What the profile has no tool
/// for stays: then a person has to do it.
pub(crate) fn in_words_of_tools(text: &str, profile: Profile) -> String {
    let mut text = text.to_string();
    if !text.contains("pyro ") && !text.contains("--") {
        return text;
    }
    for tool in tools::of(profile) {
        let words = tool.name.replace('_', " ");
        let command = if words.starts_with("workspace ") {
            format!("pyro {words}")
        } else {
            format!("pyro workspace {words}")
        };
        text = replace_words(&text, &command, tool.name);
    }
    if profile == Profile::WorkspaceFull {
        text = replace_words(&text, "pyro env list", "vm_list_environments");
        // Its record names the shells.
        text = replace_words(&text, "pyro workspace shell list", "workspace_status");
    }
    flags(&text)
}

/// Replaces `what` where no further word of a command follows directly.
fn replace_words(text: &str, what: &str, with: &str) -> String {
    let mut told = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(what) {
        let (before, after) = rest.split_at(at);
        let after = &after[what.len()..];
        told.push_str(before);
        let goes_on = after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
        told.push_str(if goes_on { what } else { with });
        rest = after;
    }
    told + rest
}

/// `--like-this` becomes `like_this`; a lone `--` stays.
fn flags(text: &str) -> String {
    let mut told = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("--") {
        let (before, after) = rest.split_at(at);
        told.push_str(before);
        let name = &after[2..];
        let end = name
            .find(|c: char| !c.is_ascii_lowercase() && c != '-')
            .unwrap_or(name.len());
        let (name, after) = name.split_at(end);
        let is_flag = name.starts_with(|c: char| c.is_ascii_lowercase())
            && !before.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
        if is_flag {
            told.push_str(&name.replace('-', "_"));
        } else {
            told.push_str("--");
            told.push_str(name);
        }
        rest = after;
    }
    told + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_for_the_command_line_becomes_advice_for_tools() {
        for (cli, tools) in [
            (
                "see `pyro workspace logs ws-1`; old commands are dropped",
                "see `workspace_logs ws-1`; old commands are dropped",
            ),
            (
                "pass --timeout-seconds with 1 to 86400",
                "pass timeout_seconds with 1 to 86400",
            ),
            ("`pyro env list`", "`vm_list_environments`"),
            ("`pyro workspace snapshot list a`", "`snapshot_list a`"),
            ("`pyro workspace shell list a`", "`workspace_status a`"),
            ("put it after `--`", "put it after `--`"),
            ("--- a/f\n+++ b/f", "--- a/f\n+++ b/f"),
            ("`pyro env pull debian:12`", "`pyro env pull debian:12`"),
        ] {
            assert_eq!(in_words_of_tools(cli, Profile::WorkspaceFull), tools);
        }
        let snapshot = "`pyro workspace snapshot list a`";
        assert_eq!(
            in_words_of_tools(snapshot, Profile::WorkspaceCore),
            snapshot
        );
    }

    #[test]
    fn structured_errors_have_code_message_and_remedy() {
        let value = Error::new("invalid_path", "b", "c").to_value(Profile::WorkspaceCore);
        assert_eq!(
            value,
            json!({"error": {"code": "invalid_path", "message": "b", "remedy": "c"}})
        );
    }
}
