//! Where a path leads inside a stack. Its components are looked up in the layers, one by one; no
//! path is ever given to the host.

use rustix::io::Errno;

use super::layers::Layers;
use super::{Attr, FileType, Ino, Name};

/// How many symbolic links one path may pass (`MAXSYMLINKS` of Linux, `namei.h`).
const LINKS_MAX: u32 = 40;

/// The longest path (`PATH_MAX` of Linux).
const PATH_MAX: usize = 4096;

/// Why a path leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// Nothing is there.
    #[error("no such file or directory")]
    NotFound,
    /// What comes before the last component is no directory.
    #[error("not a directory")]
    NotADirectory,
    /// It leads out of the directory that it must stay in.
    #[error("the path leads out of its directory")]
    Leaves,
    /// It passes too many symbolic links.
    #[error("too many symbolic links")]
    Loop,
    /// A component, or all of it, is too long, or has a NUL.
    #[error("not a path")]
    Invalid,
    /// The stack cannot be read.
    #[error("the layers cannot be read")]
    Read(#[source] Errno),
}

/// See [`StackReader::resolve`](super::StackReader::resolve).
pub(super) fn resolve(
    layers: Layers<'_>,
    path: &[u8],
    within: &[u8],
    follow: bool,
) -> Result<Attr, ResolveError> {
    let root = Walk {
        layers,
        at: vec![Ino::ROOT],
        base: vec![Ino::ROOT],
        links: 0,
    };
    let mut base = root.clone();
    if !base.walk(within, true)?.is_dir() {
        return Err(ResolveError::NotADirectory);
    }
    let mut walk = Walk {
        at: base.at.clone(),
        base: base.at,
        ..root
    };
    walk.walk(path, follow)
}

impl Attr {
    fn is_dir(&self) -> bool {
        self.file_type == FileType::Directory
    }
}

#[derive(Clone)]
struct Walk<'a> {
    layers: Layers<'a>,
    /// The directories from the root to where it is.
    at: Vec<Ino>,
    /// Those to the directory that it must stay in.
    base: Vec<Ino>,
    links: u32,
}

impl Walk<'_> {
    fn walk(&mut self, path: &[u8], follow: bool) -> Result<Attr, ResolveError> {
        let mut todo: Vec<Vec<u8>> = Vec::new();
        self.push(&mut todo, path)?;
        while let Some(component) = todo.pop() {
            match component.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    if self.at.len() == self.base.len() && self.base.len() > 1 {
                        return Err(ResolveError::Leaves);
                    }
                    if self.at.len() > 1 {
                        self.at.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let last = todo.iter().all(|it| matches!(it.as_slice(), b"" | b"."));
            let must_be_dir = !todo.is_empty();
            let name = Name::new(&component).map_err(|_| ResolveError::Invalid)?;
            let found = self.layers.lookup(self.here(), name);
            let outside = self.at.len() < self.base.len();
            let attr = match found {
                // What is elsewhere is nobody's business, whether it is there or not.
                _ if outside && !self.on_the_way(&found) => return Err(ResolveError::Leaves),
                Ok(attr) => attr,
                Err(Errno::NOENT) => return Err(ResolveError::NotFound),
                Err(error) => return Err(ResolveError::Read(error)),
            };
            match attr.file_type {
                FileType::Directory => self.at.push(attr.ino),
                FileType::Symlink if follow || must_be_dir => {
                    self.links += 1;
                    if self.links > LINKS_MAX {
                        return Err(ResolveError::Loop);
                    }
                    let target = self.layers.readlink(attr.ino).map_err(ResolveError::Read)?;
                    self.push(&mut todo, target)?;
                }
                _ if last && !must_be_dir => return Ok(attr),
                _ => return Err(ResolveError::NotADirectory),
            }
        }
        if self.at.len() < self.base.len() {
            return Err(ResolveError::Leaves);
        }
        self.layers.attr(self.here()).map_err(ResolveError::Read)
    }

    fn here(&self) -> Ino {
        self.at.last().copied().unwrap_or(Ino::ROOT)
    }

    /// Whether what was found above the base is a step towards it. A link there is followed: it
    /// may be how the base is reached.
    fn on_the_way(&self, found: &Result<Attr, Errno>) -> bool {
        match found {
            Ok(attr) => {
                attr.file_type == FileType::Symlink
                    || self.base.get(self.at.len()) == Some(&attr.ino)
            }
            Err(_) => false,
        }
    }

    /// Puts the components of `path` before those that are still to do; an absolute one begins at
    /// the root.
    fn push(&mut self, todo: &mut Vec<Vec<u8>>, path: &[u8]) -> Result<(), ResolveError> {
        if path.len() > PATH_MAX || path.contains(&0) {
            return Err(ResolveError::Invalid);
        }
        if path.first() == Some(&b'/') {
            self.at.truncate(1);
        }
        todo.extend(path.split(|&byte| byte == b'/').rev().map(<[u8]>::to_vec));
        Ok(())
    }
}
