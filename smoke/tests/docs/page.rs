//! Pages: where they are, what is on them, and where their links lead.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// A page, as far as its promises go.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// Relative to the project.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    pub(crate) links: Vec<String>,
    /// Anchors of its headings.
    pub(crate) anchors: BTreeSet<String>,
    /// Inline code.
    pub(crate) spans: Vec<String>,
    /// Language and text of code blocks.
    pub(crate) blocks: Vec<(String, String)>,
}

impl Page {
    pub(crate) fn read(path: &Path) -> Self {
        Self::parse(path, &fs::read_to_string(root().join(path)).unwrap())
    }

    pub(crate) fn parse(path: &Path, text: &str) -> Self {
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
    pub(crate) fn typed(&self) -> Vec<String> {
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

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Files with this ending beneath a folder, relative to the project.
pub(crate) fn files(folder: &str, end: &str) -> Vec<PathBuf> {
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
pub(crate) fn pages() -> Vec<Page> {
    let mut paths = vec![PathBuf::from("README.md"), PathBuf::from("CHANGELOG.md")];
    paths.extend(files("docs", ".md"));
    paths.extend(recipes());
    paths.iter().map(|path| Page::read(path)).collect()
}

pub(crate) fn recipes() -> Vec<PathBuf> {
    let mut pages = files("recipes", "README.md");
    pages.retain(|path| !path.components().any(|part| part.as_os_str() == "fixture"));
    pages
}

/// The anchor of a heading, as both the forge and the book make it.
pub(crate) fn slug(heading: &str) -> String {
    let kept = heading.trim().to_lowercase().replace(' ', "-");
    kept.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
        .collect()
}

pub(crate) fn numbered(slug: &str, number: usize) -> String {
    match number {
        0 => slug.to_owned(),
        _ => format!("{slug}-{number}"),
    }
}

/// A path without `..`; nothing when it leaves the project.
pub(crate) fn tidy(path: &Path) -> Option<PathBuf> {
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
pub(crate) fn broken(page: &Page, link: &str) -> Option<&'static str> {
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
