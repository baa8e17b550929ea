//! Whether a stack is whole.
//!
//! Opening it has checked the headers of packed layers and every record of the journals. This
//! walks the tree as the stack has it, and looks at everything that deltas say besides. What
//! packed layers hold is the image store's to verify, by digest; here only their structure is
//! used. A content file may rightly be shorter than its file, whose end is then a hole, so no
//! length is compared.

use std::collections::HashMap;
use std::ops::ControlFlow;

use rustix::fs::{AtFlags, FileType as HostType, statat};
use rustix::io::Errno;

use super::writable::{FrozenLayer, NodeContent};
use super::{Attr, Cookie, FileType, Ino, StackReader};

/// The most damages that [`Verified::damages`] names.
pub const DAMAGES_MAX: usize = 1000;

/// What [`StackReader::verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Inodes that have a name.
    pub inodes: u64,
    /// Content files of deltas.
    pub contents: u64,
    /// What is damaged, the first [`DAMAGES_MAX`] of it.
    pub damages: Vec<Damage>,
    /// How much is damaged in all.
    pub damage_count: u64,
}

impl Verified {
    /// Whether nothing is damaged.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.damage_count == 0
    }

    fn damaged(&mut self, ino: Ino, path: &[u8], what: &'static str) {
        self.damage_count += 1;
        if self.damages.len() < DAMAGES_MAX {
            let path = String::from_utf8_lossy(path).into_owned();
            self.damages.push(Damage { ino, path, what });
        }
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The inode.
    pub ino: Ino,
    /// A path of it, as far as one is known; bytes that are no UTF-8 replaced.
    pub path: String,
    /// What is wrong with it, in words.
    pub what: &'static str,
}

/// What is known of an inode that was met.
struct Met {
    names: u32,
    /// Of a directory.
    subdirs: u32,
    attr: Attr,
    path: Vec<u8>,
}

impl StackReader {
    /// Looks at all of the stack. Takes as long as the tree is large.
    #[must_use]
    pub fn verify(&self) -> Verified {
        let mut verified = Verified::default();
        let mut met = HashMap::new();
        self.walk(&mut met, &mut verified);
        verified.inodes = met.len() as u64;
        for (&ino, it) in &met {
            let right = match it.attr.file_type {
                FileType::Directory => it.subdirs.saturating_add(2),
                _ => it.names,
            };
            if it.attr.nlink != right {
                verified.damaged(ino, &it.path, "its number of links is wrong");
            }
        }
        for layer in self.layers().frozen {
            self.check_delta(layer, &met, &mut verified);
        }
        verified
            .damages
            .sort_unstable_by(|a, b| (&a.path, a.ino, a.what).cmp(&(&b.path, b.ino, b.what)));
        verified
    }

    fn walk(&self, met: &mut HashMap<Ino, Met>, verified: &mut Verified) {
        let layers = self.layers();
        let mut todo = vec![(Ino::ROOT, Ino::ROOT, FileType::Directory, Vec::new())];
        while let Some((ino, parent, file_type, path)) = todo.pop() {
            if let Some(again) = met.get_mut(&ino) {
                again.names = again.names.saturating_add(1);
                if again.attr.file_type == FileType::Directory {
                    verified.damaged(ino, &path, "it is a directory with two names");
                }
                continue;
            }
            let Ok(attr) = layers.attr(ino) else {
                verified.damaged(ino, &path, "its name is there and it is not");
                continue;
            };
            if attr.file_type != file_type {
                verified.damaged(ino, &path, "its name says another type");
            }
            if let Err(what) = self.check_inode(ino, &attr, parent) {
                verified.damaged(ino, &path, what);
            }
            let mut subdirs = 0_u32;
            if attr.file_type == FileType::Directory {
                let listed = layers.read_dir(ino, Cookie::DOT_DOT, &mut |entry| {
                    let slash = if path.is_empty() { &b""[..] } else { b"/" };
                    let path = [&path, slash, entry.name].concat();
                    subdirs += u32::from(entry.file_type == FileType::Directory);
                    todo.push((entry.ino, ino, entry.file_type, path));
                    ControlFlow::Continue(())
                });
                if listed.is_err() {
                    verified.damaged(ino, &path, "it cannot be listed");
                }
            }
            let it = Met {
                names: 1,
                subdirs,
                attr,
                path,
            };
            met.insert(ino, it);
        }
    }

    fn check_inode(&self, ino: Ino, attr: &Attr, parent: Ino) -> Result<(), &'static str> {
        let layers = self.layers();
        let readable = match attr.file_type {
            FileType::Regular => layers.stored(ino).map(|_| ()),
            FileType::Symlink => layers.readlink(ino).map(|_| ()),
            _ => Ok(()),
        };
        readable.map_err(|_| "where its content is does not exist")?;
        layers
            .xattrs(ino, &mut |_, _| ControlFlow::Continue(()))
            .map_err(|_| "its extended attributes are damaged")?;
        if attr.file_type == FileType::Directory && layers.parent_of(ino) != Ok(parent) {
            return Err("it says that another directory holds it");
        }
        Ok(())
    }

    fn check_delta(&self, layer: &FrozenLayer, met: &HashMap<Ino, Met>, verified: &mut Verified) {
        for node in layer.delta().nodes() {
            let ino = node.attr.ino;
            let path = met.get(&ino).map_or(&b""[..], |it| &it.path);
            if node.content == NodeContent::Own {
                verified.contents += 1;
                if let Err(what) = check_content(layer, ino) {
                    verified.damaged(ino, path, what);
                }
            }
            let now = self.layers().attr(ino);
            if !met.contains_key(&ino) && now.is_ok_and(|attr| attr.nlink > 0) {
                verified.damaged(ino, path, "it has links and no name");
            }
        }
    }
}

fn check_content(layer: &FrozenLayer, ino: Ino) -> Result<(), &'static str> {
    const MISSING: &str = "its content file is missing";
    let contents = layer.contents().ok_or(MISSING)?;
    let name = super::writable::content_name(ino);
    match statat(contents, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if HostType::from_raw_mode(stat.st_mode) == HostType::RegularFile => Ok(()),
        Ok(_) => Err("its content file is no file"),
        Err(Errno::NOENT) => Err(MISSING),
        Err(_) => Err("its content file cannot be looked at"),
    }
}
