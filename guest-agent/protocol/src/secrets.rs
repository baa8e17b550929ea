//! Secrets of the guest's programs: files that are on no disk.

use serde::{Deserialize, Serialize};

/// Most secrets.
pub const SECRETS_MAX: usize = 64;
/// Most bytes of one secret.
pub const SECRET_MAX: u64 = 64 << 10;
/// Where they are: a file system in the guest's memory, of which nothing reaches the host or a disk.
pub const SECRETS_DIRECTORY: &str = "/run/pyro-secrets";

/// Replaces all secrets.
///
/// The values follow in `Stdin` frames, one after the other without anything between them, cut into
/// frames as one likes, exactly as many bytes as `secrets` announces. They are never in a message, so
/// that none is ever in a log. Answered with [`Event::Done`](crate::Event::Done) when the files of
/// [`SECRETS_DIRECTORY`] are these and no others, each named as its secret, of root, mode 0400.
///
/// Each file is replaced at once: nobody reads half of one. When it fails before all are written,
/// those of before stay. A stream that ends before all values have come changes nothing.
/// [`ErrorCode::TooMuch`](crate::ErrorCode::TooMuch) for more than [`SECRETS_MAX`] or longer than
/// [`SECRET_MAX`]; [`ErrorCode::InvalidRequest`](crate::ErrorCode::InvalidRequest) for a name that
/// comes twice and for too many bytes; [`ErrorCode::NoSpace`](crate::ErrorCode::NoSpace) and
/// [`ErrorCode::Internal`](crate::ErrorCode::Internal).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// In the order of their values.
    pub secrets: Vec<Secret>,
}

/// One secret, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// Its name, and its file's.
    pub name: SecretName,
    /// How many bytes its value has.
    pub size: u64,
}

/// A secret's name: `[A-Za-z_][A-Za-z0-9_]{0,63}`, checked as it is read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SecretName(String);

impl SecretName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SecretName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let begins = text
            .bytes()
            .next()
            .is_some_and(|byte| !byte.is_ascii_digit());
        if begins && text.len() <= 64 && text.bytes().all(fits) {
            Ok(Self(text))
        } else {
            Err("a secret's name is 1 to 64 letters, digits and underscores, no digit first")
        }
    }
}

impl std::str::FromStr for SecretName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.to_owned().try_into()
    }
}

impl From<SecretName> for String {
    fn from(name: SecretName) -> Self {
        name.0
    }
}

impl std::fmt::Display for SecretName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}
