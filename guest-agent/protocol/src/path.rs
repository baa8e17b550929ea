//! Names of the guest, which are bytes, in JSON, which is text.

use std::fmt::{Display, Formatter};

use serde::{Deserialize, Serialize};

/// A path or a link's target of the guest, any bytes.
///
/// In JSON it is a string where it is UTF-8, and `{"hex":"…"}` otherwise; a reader takes both
/// forms for any path. Nothing is escaped or lost. [`Display`] replaces what is not UTF-8.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "Form", try_from = "Form")]
pub struct GuestPath(Vec<u8>);

impl GuestPath {
    /// These bytes as a path. Nothing is checked here; the agent refuses what no path can be.
    #[must_use]
    pub const fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As text, where it is text.
    #[must_use]
    pub fn to_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl From<&str> for GuestPath {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<String> for GuestPath {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

impl Display for GuestPath {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&String::from_utf8_lossy(&self.0))
    }
}

/// How a path crosses the wire.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    Text(String),
    Bytes { hex: String },
}

impl From<GuestPath> for Form {
    fn from(path: GuestPath) -> Self {
        match String::from_utf8(path.0) {
            Ok(text) => Self::Text(text),
            Err(error) => Self::Bytes {
                hex: to_hex(error.as_bytes()),
            },
        }
    }
}

impl TryFrom<Form> for GuestPath {
    type Error = &'static str;

    fn try_from(form: Form) -> Result<Self, Self::Error> {
        match form {
            Form::Text(text) => Ok(Self(text.into_bytes())),
            Form::Bytes { hex } => from_hex(&hex)
                .map(Self)
                .ok_or("a path is not in hexadecimal"),
        }
    }
}

/// The SHA-256 of a file's content. 64 hexadecimal digits in JSON, lower case when written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Sha256(pub [u8; 32]);

impl Display for Sha256 {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&to_hex(&self.0))
    }
}

impl std::fmt::Debug for Sha256 {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Sha256({self})")
    }
}

impl From<Sha256> for String {
    fn from(digest: Sha256) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Sha256 {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl std::str::FromStr for Sha256 {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        from_hex(text)
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or("a SHA-256 is not 64 hexadecimal digits")
    }
}

fn to_hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| u8::try_from(char::from(byte).to_digit(16)?).ok();
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_text_is_a_string_and_another_is_hexadecimal() {
        let text = GuestPath::from("a \"b\"/ü%");
        assert_eq!(serde_json::to_string(&text).unwrap(), r#""a \"b\"/ü%""#);
        let bytes = GuestPath::from_bytes(vec![b'a', 0xff, 0x0a]);
        assert_eq!(
            serde_json::to_string(&bytes).unwrap(),
            r#"{"hex":"61ff0a"}"#
        );
        for path in [text, bytes, GuestPath::default()] {
            let json = serde_json::to_string(&path).unwrap();
            assert_eq!(serde_json::from_str::<GuestPath>(&json).unwrap(), path);
        }
    }

    #[test]
    fn what_is_no_hexadecimal_is_refused() {
        for text in [r#"{"hex":"6"}"#, r#"{"hex":"zz"}"#, "{}", "1", "null"] {
            assert!(serde_json::from_str::<GuestPath>(text).is_err(), "{text}");
        }
        for text in [r#""""#, r#""00""#, &format!("\"{}\"", "é".repeat(32))] {
            assert!(serde_json::from_str::<Sha256>(text).is_err(), "{text}");
        }
    }
}
