//! Command lines: taken apart as a shell would, and held against the help of the real `pyro`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

/// The program to ask: `PYRO_BIN`, else the release build in the folder that this test was built in.
pub(crate) fn pyro() -> PathBuf {
    if let Some(path) = std::env::var_os("PYRO_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    // TRIPLE/debug/deps/docs-…
    let built = test.ancestors().nth(3).unwrap().join("release/pyro");
    assert!(built.is_file(), "`make build` first, or set PYRO_BIN");
    built
}

/// Help pages by the words that lead to them.
pub(crate) struct Help {
    pub(crate) pyro: PathBuf,
    pub(crate) pages: BTreeMap<Vec<String>, String>,
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
    pub(crate) fn check(&mut self, arguments: &[String]) -> Result<(), String> {
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
pub(crate) fn subcommands(page: &str) -> Vec<&str> {
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
pub(crate) fn segments(line: &str) -> Vec<Vec<String>> {
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
pub(crate) fn program(words: &[String]) -> Option<(&str, &[String])> {
    let at = words.iter().position(|word| {
        let assigned = word.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        });
        !assigned && word != "sudo" && word != "time"
    })?;
    Some((words[at].rsplit('/').next()?, &words[at + 1..]))
}
