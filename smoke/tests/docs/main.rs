//! What the pages for people say is there: links and anchors lead somewhere, the book has every page,
//! `make` targets exist, `pyro` knows each command and flag, and there is one version. Needs no guest;
//! what the commands do is for `make dist-check`, which runs those of the walkthrough.

#![allow(clippy::unwrap_used)] // nothing but tests

mod commands;
mod page;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use commands::{Help, program, pyro, segments};
use page::{Page, broken, files, pages, recipes, root, tidy};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Folders whose files a page may name in code.
const FOLDERS: [&str; 8] = [
    "api",
    "docs",
    "guest-agent",
    "images",
    "recipes",
    "rootfs",
    "smoke",
    "vmm",
];

fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_link_and_anchor_leads_somewhere() {
    let mut wrong = Vec::new();
    for page in pages() {
        for link in &page.links {
            if let Some(why) = broken(&page, link) {
                wrong.push(format!("{}: {link} {why}", page.path.display()));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn a_wrong_link_is_noticed() {
    let page = Page::parse(Path::new("docs/x.md"), "# A `b`, c\n\n# A b c\n");
    assert_eq!(broken(&page, "../README.md"), None);
    assert_eq!(broken(&page, "#a-b-c-1"), None);
    assert_eq!(
        broken(&page, "#a-b-c-2"),
        Some("has an anchor that is not there")
    );
    assert_eq!(broken(&page, "missing.md"), Some("leads nowhere"));
    assert_eq!(broken(&page, "../../README.md"), Some("leaves the project"));
}

#[test]
fn the_book_has_every_page_once() {
    let summary = Page::read(Path::new("docs/SUMMARY.md"));
    let mut listed = BTreeSet::new();
    for link in &summary.links {
        let path = tidy(&Path::new("docs").join(link)).unwrap();
        assert!(listed.insert(path), "{link} is there twice");
    }
    let mut expected = BTreeSet::from([PathBuf::from("README.md"), PathBuf::from("CHANGELOG.md")]);
    expected.extend(files("docs", ".md"));
    expected.extend(recipes());
    expected.remove(Path::new("docs/SUMMARY.md"));
    assert_eq!(listed, expected);
}

#[test]
fn every_make_target_that_is_named_exists() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let mut targets = BTreeSet::new();
    for line in makefile.lines() {
        if let Some(stories) = line.strip_prefix("STORIES := ") {
            targets.extend(stories.split_whitespace().map(|it| format!("smoke-{it}")));
        } else if let Some((names, _)) = line.split_once(':').filter(|_| !line.starts_with('\t')) {
            targets.extend(names.split_whitespace().map(str::to_owned));
        }
    }
    let mut wrong = Vec::new();
    for page in pages() {
        for code in page.typed().iter().chain(&page.spans) {
            for segment in segments(code) {
                // Words of a guest's command are none of our targets.
                if program(&segment).is_none_or(|(name, _)| name != "make") {
                    continue;
                }
                let named = program(&segment).unwrap().1.iter();
                for target in named.filter(|word| !word.contains('=') && !word.starts_with('-')) {
                    if !targets.contains(target) {
                        wrong.push(format!("{}: make {target}", page.path.display()));
                    }
                }
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn every_file_of_the_project_that_is_named_exists() {
    let mut wrong = Vec::new();
    for page in pages() {
        for span in &page.spans {
            let first = span.split('/').next().unwrap();
            let plain = span.contains('/') && !span.contains([' ', '<', '*', '{', '$']);
            let ours = FOLDERS.contains(&first) && plain;
            // The history names what was.
            if ours && page.path != Path::new("CHANGELOG.md") && !root().join(span).exists() {
                wrong.push(format!("{}: {span}", page.path.display()));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn pyro_knows_every_command_and_flag() {
    let mut help = Help {
        pyro: pyro(),
        pages: BTreeMap::new(),
    };
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in pages() {
        for line in page.typed() {
            for segment in segments(&line) {
                if let Some((name, arguments)) =
                    program(&segment).filter(|(name, _)| *name == "pyro")
                {
                    seen += 1;
                    if let Err(why) = help.check(arguments) {
                        let line = format!("{name} {}", arguments.join(" "));
                        wrong.push(format!("{}: {line}: {why}", page.path.display()));
                    }
                }
            }
        }
    }
    assert!(seen > 20, "only {seen} commands found");
    assert_none(&wrong);
}

#[test]
fn a_line_of_shell_is_taken_apart() {
    let line = "A=1 x/pyro run 'a b' -- sh -c \"c | d\" && s=$(pyro ws list --json) > f # pyro no";
    let found: Vec<_> = segments(line)
        .iter()
        .filter_map(|words| program(words).filter(|(name, _)| *name == "pyro"))
        .map(|(_, arguments)| arguments.join("|"))
        .collect();
    assert_eq!(found, ["run|a b|--|sh|-c|c | d", "ws|list|--json"]);
}

#[test]
fn there_is_one_version() {
    let mut wrong = Vec::new();
    for manifest in files("api", "Cargo.toml").into_iter().chain(
        ["guest-agent", "images", "rootfs", "smoke", "vmm"]
            .into_iter()
            .flat_map(|folder| files(folder, "Cargo.toml")),
    ) {
        let text = fs::read_to_string(root().join(&manifest)).unwrap();
        if !text.contains("\nversion.workspace = true\n") {
            wrong.push(format!("{} has a version of its own", manifest.display()));
        }
    }
    let catalogue = fs::read(root().join("images/catalogue.json")).unwrap();
    let catalogue: serde_json::Value = serde_json::from_slice(&catalogue).unwrap();
    if catalogue["version"] != VERSION {
        wrong.push(format!(
            "images/catalogue.json has {}",
            catalogue["version"]
        ));
    }
    for page in pages() {
        // What is downloaded, and what a transcript shows.
        for (at, _) in page
            .text
            .match_indices("pyro-")
            .chain(page.text.match_indices("pyro "))
        {
            let rest = &page.text[at + "pyro-".len()..];
            let number: String = rest
                .chars()
                .take_while(|c| c.is_ascii_digit() || *c == '.')
                .collect();
            let number = number.trim_end_matches('.');
            if number.contains('.') && number != VERSION {
                wrong.push(format!("{} has {number}", page.path.display()));
            }
        }
        if page.path == Path::new("CHANGELOG.md") {
            let newest = page.text.lines().find_map(|line| line.strip_prefix("## "));
            if newest.is_none_or(|title| title.split(' ').next() != Some(VERSION)) {
                wrong.push(format!("CHANGELOG.md begins with {newest:?}"));
            }
        }
    }
    assert_none(&wrong);
}
