//! Workspace ids.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

const PREFIX: &str = "ws-";
const DIGITS: usize = 12;
const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// The machine's key of a workspace: `ws-` and 12 lower-case letters and digits. Safe as a file
/// name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct WorkspaceId(String);

impl WorkspaceId {
    /// A fresh one: 62 random bits.
    pub(crate) fn random() -> io::Result<Self> {
        let mut number = u128::from_ne_bytes(crate::run_dir::random()?);
        let mut text = PREFIX.to_string();
        for _ in 0..DIGITS {
            let digit = usize::try_from(number % 36).expect("less than 36");
            text.push(char::from(ALPHABET[digit]));
            number /= 36;
        }
        Ok(Self(text))
    }

    /// The id that `text` is, if it is one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(PREFIX)?;
        let valid = digits.len() == DIGITS && digits.bytes().all(|byte| ALPHABET.contains(&byte));
        valid.then(|| Self(text.to_string()))
    }

    /// As text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkspaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for WorkspaceId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("not a workspace id")
    }
}

impl From<WorkspaceId> for String {
    fn from(id: WorkspaceId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_parse_and_differ() {
        let one = WorkspaceId::random().expect("random");
        let two = WorkspaceId::random().expect("random");
        assert_ne!(one, two);
        assert_eq!(WorkspaceId::parse(one.as_str()), Some(one));
    }

    #[test]
    fn what_could_be_a_path_is_no_id() {
        for text in [
            "",
            "ws-",
            "ws-../../../../x",
            "ws-ABCDEFGHIJKL",
            "ws-abcdefghijklm",
            "xs-abcdefghijkl",
        ] {
            assert_eq!(WorkspaceId::parse(text), None, "{text}");
        }
    }
}
