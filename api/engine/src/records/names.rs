//! What names, labels and keys may be.

use std::collections::BTreeMap;

use crate::error::{Code, Error, Result};

/// Most characters of a workspace's name.
pub(crate) const MAX_NAME: usize = 200;
/// Most labels of a workspace.
pub(crate) const MAX_LABELS: usize = 64;
/// Most bytes of a label's value.
pub(crate) const MAX_LABEL_VALUE: usize = 1024;
/// Most characters of a key.
const MAX_KEY: usize = 64;

/// Whether `text` is `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`: label keys, snapshot and service names.
pub(crate) fn is_key(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= MAX_KEY
        && bytes
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Checks a workspace's name: free text for people.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let problem = if name.trim().is_empty() {
        "a workspace's name is empty"
    } else if name.chars().count() > MAX_NAME {
        "a workspace's name is longer than 200 characters"
    } else if name.chars().any(char::is_control) {
        "a workspace's name holds a control character"
    } else {
        return Ok(());
    };
    Err(Error::new(
        Code::InvalidName,
        problem,
        "pass a short line of text as the name",
    ))
}

/// Checks labels by themselves; how many a workspace has is checked with [`check_label_count`].
pub(crate) fn check_labels(labels: &BTreeMap<String, String>) -> Result<()> {
    for (key, value) in labels {
        check_label_key(key)?;
        if value.len() > MAX_LABEL_VALUE || value.chars().any(char::is_control) {
            return Err(Error::new(
                Code::InvalidLabel,
                format!("the value of the label {key} is too long or holds a control character"),
                format!("pass at most {MAX_LABEL_VALUE} bytes of one line of text"),
            ));
        }
    }
    check_label_count(labels)
}

/// Checks a label's key.
pub(crate) fn check_label_key(key: &str) -> Result<()> {
    if is_key(key) {
        return Ok(());
    }
    Err(Error::new(
        Code::InvalidLabel,
        format!("{key:?} cannot be the key of a label"),
        "start it with a letter or a digit, then up to 63 letters, digits, dots, underscores and dashes",
    ))
}

/// Checks how many labels there are.
pub(crate) fn check_label_count(labels: &BTreeMap<String, String>) -> Result<()> {
    if labels.len() <= MAX_LABELS {
        return Ok(());
    }
    Err(Error::new(
        Code::InvalidLabel,
        format!("{} labels are too many", labels.len()),
        format!("keep at most {MAX_LABELS}"),
    ))
}

/// Checks the name of a snapshot that is to be made.
pub(crate) fn check_snapshot_name(name: &str) -> Result<()> {
    if name == pyro_client::types::BASELINE {
        return Err(Error::new(
            Code::SnapshotReserved,
            "the snapshot `baseline` is there from a workspace's creation on and stays",
            "choose another name",
        ));
    }
    if is_key(name) {
        return Ok(());
    }
    Err(Error::new(
        Code::InvalidName,
        format!("{name:?} cannot be the name of a snapshot"),
        "start it with a letter or a digit, then up to 63 letters, digits, dots, underscores and dashes",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_as_the_contract_says() {
        for good in ["a", "0", "A.b_c-d", &"x".repeat(64)] {
            assert!(is_key(good), "{good}");
        }
        for bad in [
            "",
            ".a",
            "-a",
            "_a",
            "a/b",
            "a b",
            "ä",
            "..",
            &"x".repeat(65),
        ] {
            assert!(!is_key(bad), "{bad}");
        }
    }

    #[test]
    fn names_are_text_on_one_line() {
        check_name("Fix the Bug #12 – später").expect("fine");
        for bad in ["", "  ", "a\nb", "\x1b[2J", &"x".repeat(201)] {
            assert_eq!(
                check_name(bad).expect_err("refused").code(),
                Code::InvalidName
            );
        }
    }

    #[test]
    fn too_many_too_long_and_odd_labels_are_refused() {
        let many = (0..65).map(|n| (format!("k{n}"), String::new())).collect();
        let long = BTreeMap::from([("k".to_string(), "x".repeat(1025))]);
        let odd = BTreeMap::from([("a/b".to_string(), String::new())]);
        for labels in [many, long, odd] {
            assert_eq!(
                check_labels(&labels).expect_err("refused").code(),
                Code::InvalidLabel
            );
        }
    }

    #[test]
    fn the_baseline_is_nobodys_name() {
        assert_eq!(
            check_snapshot_name("baseline").expect_err("refused").code(),
            Code::SnapshotReserved
        );
        check_snapshot_name("baseline2").expect("fine");
    }
}
