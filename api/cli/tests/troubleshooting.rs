//! docs/troubleshooting.md has every code that can reach a person, and no other.

#![allow(clippy::unwrap_used)] // nothing but tests

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// What is quoted in a piece of source and looks like a code.
fn quoted(source: &str) -> impl Iterator<Item = String> {
    source
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(|text| {
            text.starts_with(|c: char| c.is_ascii_lowercase())
                && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        })
        .map(str::to_string)
}

/// The part of a source from a line that contains `begin` to the next one that is `end`.
fn part<'a>(source: &'a str, begin: &str, end: &str) -> &'a str {
    let start = source.find(begin).unwrap_or_else(|| panic!("{begin:?}"));
    let rest = &source[start..];
    &rest[..rest.find(end).unwrap_or_else(|| panic!("{end:?}"))]
}

/// Rust files beneath a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_code_is_explained_and_every_explained_code_exists() {
    let mut codes: BTreeSet<String> = pyro_engine::Code::ALL
        .iter()
        .map(|code| code.as_str().to_string())
        .collect();
    for (path, begin) in [
        ("images/src/error.rs", "pub fn code("),
        ("api/client/src/sdk/error.rs", "pub fn code("),
    ] {
        let source = read(path);
        let found: Vec<_> = quoted(part(&source, begin, "\n    }\n")).collect();
        assert!(found.len() > 5, "{path}: {found:?}");
        codes.extend(found);
    }
    // In each of these, the code follows its status.
    let source = read("api/server/src/refusal.rs");
    let refusals = part(&source, "impl From<Cause> for Refusal", "\n}\n");
    let found: Vec<_> = refusals
        .split("StatusCode::")
        .skip(1)
        .filter_map(|case| quoted(case).next())
        .collect();
    assert!(found.len() > 5, "{found:?}");
    codes.extend(found);
    // The command line's own.
    let mut files = Vec::new();
    sources(&repository().join("api/cli/src"), &mut files);
    for file in files {
        let source = fs::read_to_string(file).unwrap();
        let made = source.split("Failure::new(").skip(1);
        codes.extend(made.filter_map(|rest| quoted(&rest[..rest.len().min(80)]).next()));
        let documents = source.split("\"code\": ").skip(1);
        codes.extend(documents.filter_map(|rest| quoted(rest.lines().next()?).next()));
    }
    // The MCP adapter's own.
    let mut files = Vec::new();
    sources(&repository().join("api/mcp/src"), &mut files);
    for file in files {
        let source = fs::read_to_string(file).unwrap();
        let made = source.split("Error::new(").skip(1);
        codes.extend(made.filter_map(|rest| quoted(&rest[..rest.len().min(80)]).next()));
    }
    assert!(codes.contains("usage") && codes.contains("still_running"));

    let page = read("docs/troubleshooting.md");
    let explained: Vec<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .map(str::to_string)
        .collect();
    let once: BTreeSet<_> = explained.iter().cloned().collect();
    assert_eq!(once.len(), explained.len(), "a code is explained twice");
    let missing: Vec<_> = codes.difference(&once).collect();
    let unknown: Vec<_> = once.difference(&codes).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "not explained: {missing:?}; not a code: {unknown:?}"
    );
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").collect();
        assert_eq!(cells.len(), 3, "{line}");
        assert!(cells.iter().all(|cell| !cell.trim().is_empty()), "{line}");
    }
}
