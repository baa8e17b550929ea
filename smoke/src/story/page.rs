//! The steps of a recipe page.
//!
//! A fenced block whose info string is `json step` is a [`Step`]; one with another language and a name
//! (`python inspect.py`) is a text that steps refer to as `${inspect.py}`. All else is prose.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Parser, Tag, TagEnd};

use super::step::Step;

/// A page.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// Its heading.
    pub title: String,
    /// Named texts.
    pub texts: Vec<(String, String)>,
    /// What is done, in this order.
    pub steps: Vec<Step>,
}

impl Page {
    /// Reads the page of a story's folder.
    ///
    /// # Errors
    /// When it cannot be read, or not understood.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("README.md");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// Takes the steps out of a page.
    ///
    /// # Errors
    /// When a block is none, there is no heading, or there are no steps.
    pub fn parse(text: &str) -> Result<Self> {
        let mut page = Self {
            title: String::new(),
            texts: Vec::new(),
            steps: Vec::new(),
        };
        let mut heading: Option<(HeadingLevel, String)> = None;
        let mut under = String::new();
        let mut block: Option<(String, String)> = None;
        for event in Parser::new(text) {
            match event {
                Event::Start(Tag::Heading { level, .. }) => heading = Some((level, String::new())),
                Event::End(TagEnd::Heading(_)) => match heading.take() {
                    Some((HeadingLevel::H1, title)) => page.title = title,
                    Some((_, title)) => under = title,
                    None => {}
                },
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                    block = Some((info.to_string(), String::new()));
                }
                Event::End(TagEnd::CodeBlock) => {
                    if let Some((info, text)) = block.take() {
                        page.block(&info, text, &under)?;
                    }
                }
                Event::Text(part) | Event::Code(part) => {
                    let open = heading.as_mut().map(|(_, title)| title);
                    if let Some(text) = block.as_mut().map(|(_, text)| text).or(open) {
                        text.push_str(&part);
                    }
                }
                _ => {}
            }
        }
        ensure!(!page.title.is_empty(), "the page has no title");
        ensure!(!page.steps.is_empty(), "the page has no steps");
        Ok(page)
    }

    fn block(&mut self, info: &str, text: String, under: &str) -> Result<()> {
        let mut words = info.split_whitespace();
        match (words.next(), words.next()) {
            (Some("json"), Some("step")) => {
                let number = self.steps.len() + 1;
                let step = serde_json::from_str::<Step>(&text)
                    .with_context(|| format!("step {number} (under {under:?})"))?;
                self.steps.push(Step {
                    title: under.to_string(),
                    ..step
                });
            }
            (Some(_), Some(name)) => {
                if self.texts.iter().any(|(known, _)| known == name) {
                    bail!("two blocks are called {name}");
                }
                self.texts.push((name.to_string(), text));
            }
            _ => {}
        }
        Ok(())
    }
}
