//! What a handler gives.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::in_words_of_tools;
use crate::{Error, Profile, cut};

/// Most bytes of a command in a result: whoever asks knows it.
const COMMAND_BYTES: usize = 1024;
/// Most bytes of a list in a result.
pub(super) const LIST_BYTES: usize = 48 << 10;

/// Members of a workspace's record that only the widest profile has.
const WIDE: [&str; 6] = [
    "network_policy",
    "network_failure",
    "secrets",
    "service_count",
    "shell_count",
    "snapshot_count",
];

/// A result, and what to do next when it is not all of it.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    result: T,
    next: Option<String>,
}

impl<T> From<T> for Answer<T> {
    fn from(result: T) -> Self {
        Self { result, next: None }
    }
}

impl<T> Answer<T> {
    /// The same about another result.
    pub(crate) fn map<U>(self, into: impl FnOnce(T) -> U) -> Answer<U> {
        Answer {
            result: into(self.result),
            next: self.next,
        }
    }

    /// With a word about how to go on, when there is one.
    pub(crate) fn maybe_next(mut self, next: Option<String>) -> Self {
        self.next = next;
        self
    }
}

impl<T: Serialize> Answer<T> {
    /// As structured content.
    pub(super) fn into_value(self, profile: Profile) -> Result<Value, Error> {
        let encoded = serde_json::to_value(self.result);
        let Ok(Value::Object(mut members)) = encoded else {
            return Err(Error::new(
                "adapter_failed",
                "the result cannot be encoded",
                "report this",
            ));
        };
        if profile != Profile::WorkspaceFull {
            narrow(&mut members);
        }
        for (name, member) in &mut members {
            tell(name, member, profile);
        }
        if let Some(next) = self.next {
            members.insert("next".into(), next.into());
        }
        Ok(Value::Object(members))
    }
}

/// Puts why something failed into the model's words, and bounds commands, however deep they are.
fn tell(name: &str, value: &mut Value, profile: Profile) {
    match name {
        "error" | "failure" | "network_failure" => {
            if let Some(Value::String(remedy)) = value.get_mut("remedy") {
                *remedy = in_words_of_tools(remedy, profile);
            }
        }
        "command" => shorten(value),
        _ => settle(value, profile),
    }
}

fn settle(value: &mut Value, profile: Profile) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| settle(item, profile)),
        Value::Object(members) => {
            for (name, member) in members {
                tell(name, member, profile);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A command as far as it tells which it is.
fn shorten(command: &mut Value) {
    let Some(words) = command.as_array_mut() else {
        return;
    };
    let mut left = COMMAND_BYTES;
    for at in 0..words.len() {
        let word = words[at].as_str().unwrap_or_default();
        let part = cut::front(word, left);
        if part.len() < word.len() {
            words[at] = format!("{part}[the rest is left out]").into();
            words.truncate(at + 1);
            return;
        }
        left = left.saturating_sub(part.len() + 3);
    }
}

/// Leaves as many of the first items as fit, and one at least.
pub(super) fn fit<T: Serialize>(items: &mut Vec<T>) {
    let mut size = 0;
    let fits = items.iter().take_while(|item| {
        size += serde_json::to_vec(item).map_or(0, |bytes| bytes.len() + 1);
        size <= LIST_BYTES
    });
    let fits = fits.count().max(1);
    items.truncate(fits);
}

/// Takes from workspaces' records what narrow profiles do not have.
fn narrow(members: &mut Map<String, Value>) {
    if members.contains_key("workspace_path") {
        for name in WIDE {
            members.remove(name);
        }
    }
    if let Some(Value::Array(records)) = members.get_mut("workspaces") {
        for record in records.iter_mut().filter_map(Value::as_object_mut) {
            narrow(record);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn narrow_profiles_see_nothing_of_what_they_lack() {
        let record =
            json!({"workspace_path": "/workspace", "secrets": [], "labels": {"secrets": "x"}});
        let list = json!({"workspaces": [record]});
        let narrow = |profile| {
            Answer::from(list.clone())
                .maybe_next(Some("n".into()))
                .into_value(profile)
                .unwrap()
        };

        assert_eq!(
            narrow(Profile::WorkspaceCore),
            json!({"workspaces": [{"workspace_path": "/workspace", "labels": {"secrets": "x"}}], "next": "n"})
        );
        assert_eq!(
            narrow(Profile::WorkspaceFull)["workspaces"],
            list["workspaces"]
        );
    }

    #[test]
    fn results_are_bounded_and_speak_of_tools() {
        let failure = json!({"code": "c", "message": "-- --a-b", "remedy": "pass --ttl-seconds"});
        let long = "x".repeat(5000);
        let record =
            json!({"command": ["bash", "-c", long], "error": failure, "labels": {"command": "y"}});
        let all = json!({"entries": [record], "command": vec!["word"; 1000], "failure": failure});
        let value = Answer::from(all)
            .into_value(Profile::WorkspaceFull)
            .unwrap();

        let told = json!({"code": "c", "message": "-- --a-b", "remedy": "pass ttl_seconds"});
        assert_eq!(
            (&value["failure"], &value["entries"][0]["error"]),
            (&told, &told)
        );
        assert!(
            value.to_string().len() < 4000,
            "{}",
            value.to_string().len()
        );
        let line = value["entries"][0]["command"][2].as_str().unwrap();
        assert!(line.ends_with("x[the rest is left out]"), "{line}");

        let mut items = vec!["x".repeat(1000); 100];
        fit(&mut items);
        assert_eq!(items.len(), 49);
        let mut items = vec!["x".repeat(LIST_BYTES)];
        fit(&mut items);
        assert_eq!(items.len(), 1);
    }
}
