//! What the pages for people say is there: links and anchors lead somewhere, the book has every page,
//! `make` targets exist, `pyro` knows each command and flag, and there is one version. Needs no guest;
//! what the commands do is for `make dist-check`, which runs those of the walkthrough.

#![allow(clippy::unwrap_used)] // nothing but tests

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

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

/// A page, as far as its promises go.
#[derive(Debug, Default)]
struct Page {
    /// Relative to the project.
    path: PathBuf,
    text: String,
    links: Vec<String>,
    /// Anchors of its headings.
    anchors: BTreeSet<String>,
    /// Inline code.
    spans: Vec<String>,
    /// Language and text of code blocks.
    blocks: Vec<(String, String)>,
}

impl Page {
    fn read(path: &Path) -> Self {
        Self::parse(path, &fs::read_to_string(root().join(path)).unwrap())
    }

    fn parse(path: &Path, text: &str) -> Self {
        let mut page = Self {
            path: path.to_owned(),
            text: text.to_owned(),
            ..Self::default()
        };
        let mut heading: Option<String> = None;
        let mut block: Option<(String, String)> = None;
        for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let slug = slug(&heading.take().unwrap());
                    let taken = |n: usize| page.anchors.contains(&numbered(&slug, n));
                    let number = (0..).find(|n| !taken(*n)).unwrap();
                    page.anchors.insert(numbered(&slug, number));
                }
                Event::Start(Tag::CodeBlock(kind)) => {
                    let language = match &kind {
                        CodeBlockKind::Fenced(info) => info.split_whitespace().next(),
                        CodeBlockKind::Indented => None,
                    };
                    block = Some((language.unwrap_or_default().to_owned(), String::new()));
                }
                Event::End(TagEnd::CodeBlock) => page.blocks.extend(block.take()),
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(dest_url.to_string());
                }
                Event::Text(part) => {
                    if let Some(open) = block.as_mut().map(|(_, text)| text).or(heading.as_mut()) {
                        open.push_str(&part);
                    }
                }
                Event::Code(part) => {
                    if let Some(open) = heading.as_mut() {
                        open.push_str(&part);
                    }
                    page.spans.push(part.to_string());
                }
                _ => {}
            }
        }
        page
    }

    /// Lines that a reader would type.
    fn typed(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (language, text) in &self.blocks {
            match language.as_str() {
                "sh" => lines.extend(text.lines().map(str::to_owned)),
                "console" => lines.extend(
                    text.lines()
                        .filter_map(|line| line.strip_prefix("$ "))
                        .map(str::to_owned),
                ),
                _ => {}
            }
        }
        lines
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Files with this ending beneath a folder, relative to the project.
fn files(folder: &str, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if path.to_str().unwrap().ends_with(end) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Every page for people. What is in a recipe's fixture belongs to the story.
fn pages() -> Vec<Page> {
    let mut paths = vec![PathBuf::from("README.md"), PathBuf::from("CHANGELOG.md")];
    paths.extend(files("docs", ".md"));
    paths.extend(recipes());
    paths.iter().map(|path| Page::read(path)).collect()
}

fn recipes() -> Vec<PathBuf> {
    let mut pages = files("recipes", "README.md");
    pages.retain(|path| !path.components().any(|part| part.as_os_str() == "fixture"));
    pages
}

/// The anchor of a heading, as both the forge and the book make it.
fn slug(heading: &str) -> String {
    let kept = heading.trim().to_lowercase().replace(' ', "-");
    kept.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
        .collect()
}

fn numbered(slug: &str, number: usize) -> String {
    match number {
        0 => slug.to_owned(),
        _ => format!("{slug}-{number}"),
    }
}

/// A path without `..`; nothing when it leaves the project.
fn tidy(path: &Path) -> Option<PathBuf> {
    let mut tidy = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => tidy.push(name),
            Component::CurDir => {}
            Component::ParentDir if tidy.pop() => {}
            _ => return None,
        }
    }
    Some(tidy)
}

/// What is wrong with a page's link.
fn broken(page: &Page, link: &str) -> Option<&'static str> {
    if link.contains("://") {
        return None;
    }
    let (file, anchor) = match link.split_once('#') {
        Some((file, anchor)) => (file, Some(anchor)),
        None => (link, None),
    };
    let wrong_anchor = "has an anchor that is not there";
    if file.is_empty() {
        return (!page.anchors.contains(anchor?)).then_some(wrong_anchor);
    }
    let Some(target) = tidy(&page.path.parent().unwrap().join(file)) else {
        return Some("leaves the project");
    };
    if !root().join(&target).exists() {
        return Some("leads nowhere");
    }
    let anchor = anchor?;
    let known = target.extension().is_some_and(|end| end == "md")
        && Page::read(&target).anchors.contains(anchor);
    (!known).then_some(wrong_anchor)
}

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
    let Some(pyro) = pyro() else {
        println!(
            "skipped: no release build of pyro beside this test (make build), and no PYRO_BIN"
        );
        return;
    };
    let mut help = Help {
        pyro,
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

/// The program to ask: `PYRO_BIN`, else the release build in the folder that this test was built in.
fn pyro() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("PYRO_BIN") {
        return Some(path.into());
    }
    let test = std::env::current_exe().unwrap();
    // TRIPLE/debug/deps/docs-…
    let built = test.ancestors().nth(3)?.join("release/pyro");
    built.is_file().then_some(built)
}

/// Help pages by the words that lead to them.
struct Help {
    pyro: PathBuf,
    pages: BTreeMap<Vec<String>, String>,
}

impl Help {
    fn page(&mut self, words: &[String]) -> &str {
        let pyro = &self.pyro;
        self.pages.entry(words.to_vec()).or_insert_with(|| {
            let output = Command::new(pyro)
                .args(words)
                .arg("--help")
                .output()
                .unwrap();
            assert!(output.status.success(), "{words:?}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        })
    }

    /// Goes down through the subcommands, then looks for each flag on the page it came to.
    fn check(&mut self, arguments: &[String]) -> Result<(), String> {
        let ours = arguments
            .split(|word| word == "--")
            .next()
            .unwrap_or_default();
        let mut words: Vec<String> = Vec::new();
        for word in ours.iter().take_while(|word| !word.starts_with('-')) {
            let page = self.page(&words);
            let listed = subcommands(page);
            if listed.is_empty() {
                break;
            }
            if !listed.contains(&word.as_str()) {
                return Err(format!("there is no {word}"));
            }
            words.push(word.clone());
        }
        let page = self.page(&words);
        let known: BTreeSet<&str> = page
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
            .collect();
        let flags = ours.iter().filter(|word| word.starts_with("--"));
        for flag in flags.map(|word| word.split('=').next().unwrap_or_default()) {
            if flag != "--version" && !known.contains(flag) {
                return Err(format!("{flag} is not in its help"));
            }
        }
        Ok(())
    }
}

/// Subcommands, and their aliases, on a help page.
fn subcommands(page: &str) -> Vec<&str> {
    let after = page.lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines = after.take_while(|line| !line.is_empty());
    let mut names: Vec<&str> = lines
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !name.is_empty())
        .collect();
    if names.contains(&"workspace") {
        names.push("ws");
    }
    names
}

/// The commands of a line of shell, in words. Knows quotes, comments and what separates commands,
/// which is all that our pages need.
fn segments(line: &str) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ' ' | '|' | '&' | ';' | '>' | '<' | '(' | ')') => {
                all.last_mut().unwrap().extend(word.take());
                if c != ' ' && !all.last().unwrap().is_empty() {
                    all.push(Vec::new());
                }
            }
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    all.last_mut().unwrap().extend(word);
    all.retain(|words| !words.is_empty());
    all
}

/// A command's program without its folder, and its arguments.
fn program(words: &[String]) -> Option<(&str, &[String])> {
    let at = words.iter().position(|word| {
        let assigned = word.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        });
        !assigned && word != "sudo" && word != "time"
    })?;
    Some((words[at].rsplit('/').next()?, &words[at + 1..]))
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
