//! What a failed bootstrap said, as an error with a remedy.

use std::path::Path;

use crate::Error;

/// How much of what it said goes into an error.
const DETAIL: usize = 300;

/// Words of apt, dpkg and the system that tell causes apart, in the order they are looked for.
const NO_SPACE: [&str; 3] = [
    "No space left on device",
    "You don't have enough free space",
    "Disk quota exceeded",
];
const UNREACHABLE: [&str; 9] = [
    "Could not resolve",
    "Temporary failure resolving",
    "Could not connect",
    "Cannot initiate the connection",
    "Unable to connect",
    "Connection failed",
    "Connection timed out",
    "Connection refused",
    "Network is unreachable",
];
const KEYS: [&str; 5] = [
    "NO_PUBKEY",
    "EXPKEYSIG",
    "is not signed",
    "Missing key",
    "signatures couldn't be verified",
];
const UNUSABLE: [&str; 6] = [
    "does not have a Release file",
    "Failed to fetch",
    "Unable to locate package",
    "has no installation candidate",
    "is not valid yet",
    "names no kernel",
];

/// Tells why the bootstrap failed from what it said on standard error.
pub(crate) fn explain(said: &[String], suite: &str, mirror: &str, scratch: &Path) -> Error {
    let find = |words: &[&str]| {
        said.iter()
            .find(|line| words.iter().any(|word| line.contains(word)))
            .map(|line| cut(line))
    };
    let mirror = mirror.to_owned();
    let suite = suite.to_owned();
    if find(&NO_SPACE).is_some() {
        let path = scratch.parent().unwrap_or(scratch).to_owned();
        Error::NoSpace {
            what: "unpacking Debian".to_owned(),
            path,
        }
    } else if let Some(detail) = find(&UNREACHABLE) {
        Error::MirrorUnreachable { mirror, detail }
    } else if let Some(detail) = find(&KEYS) {
        Error::KeyringOutdated { suite, detail }
    } else if let Some(detail) = find(&UNUSABLE) {
        Error::MirrorUnusable {
            mirror,
            suite,
            detail,
        }
    } else {
        let errors: Vec<&str> = said
            .iter()
            .filter(|line| line.starts_with("E:"))
            .map(String::as_str)
            .collect();
        let last = said.last().map_or("it said nothing", String::as_str);
        let detail = if errors.is_empty() {
            last.to_owned()
        } else {
            errors.join("; ")
        };
        Error::Bootstrap {
            detail: cut(&detail),
        }
    }
}

/// At most [`DETAIL`] bytes, without control characters.
fn cut(text: &str) -> String {
    let mut text: String = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let end = (0..=DETAIL.min(text.len()))
        .rev()
        .find(|&end| text.is_char_boundary(end));
    text.truncate(end.unwrap_or(0));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(said: &str) -> &'static str {
        let said: Vec<String> = said.lines().map(str::to_owned).collect();
        explain(
            &said,
            "bookworm",
            "http://mirror.example/debian",
            Path::new("/s/tmp/w"),
        )
        .code()
    }

    #[test]
    fn causes_are_told_apart() {
        let release = "E: The repository 'http://mirror.example/debian bookworm Release' does not \
                       have a Release file.";
        let cases = [
            (
                "Err:1 http://m bookworm InRelease\n  Could not connect to m:80\nE: x",
                "mirror_unreachable",
            ),
            (release, "mirror_unusable"),
            (
                "W: GPG error: x InRelease: NO_PUBKEY 0E98404D386FA1D9",
                "keyring_outdated",
            ),
            (
                "tar: write error: No space left on device\nE: tar failed",
                "no_space",
            ),
            ("E: setup failed: something else", "bootstrap_failed"),
            ("", "bootstrap_failed"),
        ];
        for (said, expected) in cases {
            assert_eq!(code(said), expected, "{said}");
        }
    }

    #[test]
    fn what_it_said_is_bounded() {
        let said = vec![format!("E: {}", "ä\u{1b}[2J".repeat(10_000))];

        let error = explain(&said, "s", "m", Path::new("/s")).to_string();

        assert!(error.len() < DETAIL + 100);
        assert!(!error.contains('\u{1b}'));
    }
}
