//! Which files Git would ignore, found out without running Git: a work tree's configuration can
//! name programs.
//!
//! The pattern language is the `ignore` crate's; what files patterns are in, and which wins, is
//! gitignore(5): the deepest `.gitignore` first, then `.git/info/exclude`, then the user's own file.
//! A directory with a `.git` of its own is a work tree of its own.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder, gitconfig_excludes_path};
use rustix::fs::{AtFlags, Mode, OFlags, openat, statat};

use super::index::tracked;

/// How much of a file with patterns is read.
const PATTERNS_MAX: u64 = 1 << 20;

/// How much of an index is read.
const INDEX_MAX: u64 = 256 << 20;

/// The rules that hold in one directory.
#[derive(Clone)]
pub(super) struct Rules {
    /// The last one wins; each is one file of patterns.
    matchers: Vec<std::rc::Rc<Gitignore>>,
    /// Paths in the index of the work tree, and directories above them, from its root.
    tracked: std::rc::Rc<BTreeSet<Vec<u8>>>,
    /// This directory's path from the root of its work tree.
    path: Vec<u8>,
    /// Whether this directory is one that Git ignores and that has files of the index in it.
    inside_ignored: bool,
}

impl Rules {
    /// The rules for the seed at `path` of the host, opened as `dir`; `None` when it is in no work tree.
    pub(super) fn of_seed(path: &Path, dir: impl AsFd) -> Option<Self> {
        if has_git(&dir) {
            return Some(Self::of_work_tree(&dir));
        }
        let path = path.canonicalize().ok()?;
        let mut above = path.ancestors().skip(1);
        let top = above.find(|above| above.join(".git").symlink_metadata().is_ok())?;
        let mut here: OwnedFd = File::open(top).ok()?.into();
        let mut rules = Self::of_work_tree(&here);
        for component in path.strip_prefix(top).ok()?.components() {
            let name = component.as_os_str().as_bytes();
            here = open_dir(&here, name)?;
            rules = rules.enter(name, &here);
        }
        Some(rules)
    }

    /// The rules in the root of a work tree.
    fn of_work_tree(dir: impl AsFd) -> Self {
        let mut rules = Self {
            matchers: Vec::new(),
            tracked: std::rc::Rc::default(),
            path: Vec::new(),
            inside_ignored: false,
        };
        let own = gitconfig_excludes_path().and_then(|path| File::open(path).ok());
        rules.add(own.and_then(|file| read(file, PATTERNS_MAX)));
        if let Some(git) = open_dir(&dir, b".git") {
            if let Some(info) = open_dir(&git, b"info") {
                rules.add(read_at(&info, b"exclude", PATTERNS_MAX));
            }
            if let Some(index) = read_at(&git, b"index", INDEX_MAX) {
                rules.tracked = tracked(&index).unwrap_or_default().into();
            }
        }
        rules.add(read_at(&dir, b".gitignore", PATTERNS_MAX));
        rules
    }

    /// The rules in directory `name` of this one, opened as `dir`.
    pub(super) fn enter(&self, name: &[u8], dir: impl AsFd) -> Self {
        if has_git(&dir) {
            return Self::of_work_tree(dir);
        }
        let mut rules = self.clone();
        rules.path = self.join(name);
        rules.inside_ignored = self.matches(&rules.path, true);
        rules.add(read_at(&dir, b".gitignore", PATTERNS_MAX));
        rules
    }

    /// Whether Git ignores `name` in this directory.
    pub(super) fn ignores(&self, name: &[u8], is_dir: bool) -> bool {
        if name == b".git" {
            return false;
        }
        let path = self.join(name);
        self.matches(&path, is_dir) && !self.tracked.contains(&path)
    }

    fn matches(&self, path: &[u8], is_dir: bool) -> bool {
        let host = absolute(path);
        let decided =
            self.matchers
                .iter()
                .rev()
                .find_map(|matcher| match matcher.matched(&host, is_dir) {
                    Match::None => None,
                    Match::Ignore(_) => Some(true),
                    Match::Whitelist(_) => Some(false),
                });
        // What is in an ignored directory cannot be taken back by a pattern.
        self.inside_ignored || decided == Some(true)
    }

    /// The path of `name` in this directory from the root of the work tree.
    fn join(&self, name: &[u8]) -> Vec<u8> {
        let mut path = self.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }

    fn add(&mut self, patterns: Option<Vec<u8>>) {
        let Some(patterns) = patterns else {
            return;
        };
        let mut builder = GitignoreBuilder::new(absolute(&self.path));
        let patterns = String::from_utf8_lossy(&patterns);
        for line in patterns.trim_start_matches('\u{feff}').lines() {
            // Git passes over what it does not understand, too.
            let _ = builder.add_line(None, line);
        }
        if let Ok(matcher) = builder.build()
            && !matcher.is_empty()
        {
            self.matchers.push(matcher.into());
        }
    }
}

/// A path of the work tree as matchers take it: as if its root were `/`.
fn absolute(path: &[u8]) -> PathBuf {
    Path::new("/").join(OsStr::from_bytes(path))
}

fn has_git(dir: impl AsFd) -> bool {
    statat(dir, ".git", AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

fn open_dir(dir: impl AsFd, name: &[u8]) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty()).ok()
}

/// Reads a file that is no link; `None` when it is not there or longer than `max`.
fn read_at(dir: impl AsFd, name: &[u8], max: u64) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(dir, name, flags, Mode::empty()).ok()?;
    read(file.into(), max)
}

fn read(file: File, max: u64) -> Option<Vec<u8>> {
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= max).then_some(bytes)
}
