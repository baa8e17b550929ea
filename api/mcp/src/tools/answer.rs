//! What a handler gives.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::{Error, Profile};

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
    /// With a word about how to go on.
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

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
        if let Some(next) = self.next {
            members.insert("next".into(), next.into());
        }
        Ok(Value::Object(members))
    }
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
                .next("n")
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
}
