//! What a tree should be, as simply as it can be said: whole files in memory, no layers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::ControlFlow;

use rustix::io::Errno;

use crate::testing::{at, name, read};
use crate::tree::{Cookie, FileType, Ino, RenameMode, Tree};

/// An inode of the model, by its place in [`Model::nodes`].
pub(super) type Id = usize;

/// The root.
pub(super) const ROOT: Id = 0;

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Dir(BTreeMap<String, Id>),
    File(Vec<u8>),
    Link(Vec<u8>),
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) mode: u16,
    pub(super) xattrs: BTreeMap<String, Vec<u8>>,
    pub(super) ino: Ino,
}

#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) nodes: Vec<Node>,
}

impl Model {
    /// The model of what `tree` has now.
    pub(super) fn of(tree: &mut Tree) -> Self {
        let mut model = Self { nodes: Vec::new() };
        let mut known = BTreeMap::new();
        model.take(tree, Ino::ROOT, &mut known);
        model
    }

    fn take(&mut self, tree: &mut Tree, ino: Ino, known: &mut BTreeMap<Ino, Id>) -> Id {
        if let Some(&id) = known.get(&ino) {
            return id;
        }
        let attr = tree.attr(ino).unwrap();
        let id = self.nodes.len();
        known.insert(ino, id);
        let kind = Kind::Dir(BTreeMap::new());
        let xattrs = BTreeMap::new();
        self.nodes.push(Node {
            kind,
            mode: attr.mode,
            xattrs,
            ino,
        });
        for key in tree.list_xattr(ino).unwrap().split(|&byte| byte == 0) {
            if !key.is_empty() {
                let value = tree.get_xattr(ino, key).unwrap();
                self.nodes[id]
                    .xattrs
                    .insert(String::from_utf8(key.to_vec()).unwrap(), value);
            }
        }
        self.nodes[id].kind = match attr.file_type {
            FileType::Directory => {
                let mut entries = BTreeMap::new();
                for (name, child) in entries_of(tree, ino) {
                    entries.insert(name, self.take(tree, child, known));
                }
                Kind::Dir(entries)
            }
            FileType::Symlink => Kind::Link(tree.readlink(ino).unwrap()),
            FileType::Regular => Kind::File(read(tree, ino)),
            // Of no content, and as good as an empty file here.
            _ => Kind::File(Vec::new()),
        };
        id
    }

    pub(super) fn entries(&self, dir: Id) -> &BTreeMap<String, Id> {
        match &self.nodes[dir].kind {
            Kind::Dir(entries) => entries,
            _ => panic!("not a directory"),
        }
    }

    fn entries_mut(&mut self, dir: Id) -> &mut BTreeMap<String, Id> {
        match &mut self.nodes[dir].kind {
            Kind::Dir(entries) => entries,
            _ => panic!("not a directory"),
        }
    }

    pub(super) fn is_dir(&self, id: Id) -> bool {
        matches!(self.nodes[id].kind, Kind::Dir(_))
    }

    /// Everything with a name, depth first, each once.
    pub(super) fn alive(&self) -> Vec<Id> {
        let mut alive = vec![ROOT];
        let mut next = 0;
        while let Some(&id) = alive.get(next) {
            next += 1;
            if self.is_dir(id) {
                for &child in self.entries(id).values() {
                    if !alive.contains(&child) {
                        alive.push(child);
                    }
                }
            }
        }
        alive
    }

    fn beneath(&self, id: Id, top: Id) -> bool {
        id == top
            || (self.is_dir(top)
                && self
                    .entries(top)
                    .values()
                    .any(|&child| self.beneath(id, child)))
    }

    pub(super) fn make(&mut self, dir: Id, of: &str, kind: Kind, mode: u16) -> Result<Id, Errno> {
        if self.entries(dir).contains_key(of) {
            return Err(Errno::EXIST);
        }
        self.nodes.push(Node {
            kind,
            mode,
            xattrs: BTreeMap::new(),
            ino: Ino(0),
        });
        let id = self.nodes.len() - 1;
        self.entries_mut(dir).insert(of.to_owned(), id);
        Ok(id)
    }

    pub(super) fn link(&mut self, id: Id, dir: Id, of: &str) -> Result<(), Errno> {
        if self.entries(dir).contains_key(of) {
            return Err(Errno::EXIST);
        }
        if self.is_dir(id) {
            return Err(Errno::PERM);
        }
        self.entries_mut(dir).insert(of.to_owned(), id);
        Ok(())
    }

    pub(super) fn unlink(&mut self, dir: Id, of: &str) -> Result<(), Errno> {
        let id = *self.entries(dir).get(of).ok_or(Errno::NOENT)?;
        if self.is_dir(id) {
            return Err(Errno::ISDIR);
        }
        self.entries_mut(dir).remove(of);
        Ok(())
    }

    pub(super) fn rmdir(&mut self, dir: Id, of: &str) -> Result<(), Errno> {
        let id = *self.entries(dir).get(of).ok_or(Errno::NOENT)?;
        if !self.is_dir(id) {
            return Err(Errno::NOTDIR);
        }
        if !self.entries(id).is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        self.entries_mut(dir).remove(of);
        Ok(())
    }

    pub(super) fn rename(
        &mut self,
        from: (Id, &str),
        to: (Id, &str),
        mode: RenameMode,
    ) -> Result<(), Errno> {
        let moved = *self.entries(from.0).get(from.1).ok_or(Errno::NOENT)?;
        let there = self.entries(to.0).get(to.1).copied();
        if self.is_dir(moved) && self.beneath(to.0, moved) {
            return Err(Errno::INVAL);
        }
        match (mode, there) {
            (RenameMode::Exchange, None) => return Err(Errno::NOENT),
            (RenameMode::Exchange, Some(there)) => {
                if self.is_dir(there) && self.beneath(from.0, there) {
                    return Err(Errno::INVAL);
                }
                self.entries_mut(to.0).insert(to.1.to_owned(), moved);
                self.entries_mut(from.0).insert(from.1.to_owned(), there);
                return Ok(());
            }
            (RenameMode::NoReplace, Some(_)) => return Err(Errno::EXIST),
            (_, Some(there)) if there == moved => return Ok(()),
            (_, Some(there)) => match (self.is_dir(moved), self.is_dir(there)) {
                (true, false) => return Err(Errno::NOTDIR),
                (false, true) => return Err(Errno::ISDIR),
                (true, true) if !self.entries(there).is_empty() => return Err(Errno::NOTEMPTY),
                _ => {}
            },
            (_, None) => {}
        }
        self.entries_mut(from.0).remove(from.1);
        self.entries_mut(to.0).insert(to.1.to_owned(), moved);
        Ok(())
    }

    /// Links of everything, by id.
    fn links(&self) -> BTreeMap<Id, u32> {
        let mut links = BTreeMap::from([(ROOT, 2)]);
        for dir in self.alive() {
            if !self.is_dir(dir) {
                continue;
            }
            for &child in self.entries(dir).values() {
                if self.is_dir(child) {
                    *links.entry(child).or_insert(1) += 1;
                    *links.entry(dir).or_insert(1) += 1;
                } else {
                    *links.entry(child).or_insert(0) += 1;
                }
            }
        }
        links
    }

    /// All metadata in words.
    pub(super) fn shape(&self) -> String {
        let mut shape = String::new();
        self.shape_of(ROOT, "", &self.links(), &mut shape);
        shape
    }

    fn shape_of(&self, id: Id, path: &str, links: &BTreeMap<Id, u32>, shape: &mut String) {
        let node = &self.nodes[id];
        let (kind, size) = match &node.kind {
            Kind::Dir(_) => ("dir".to_owned(), 4096),
            Kind::File(content) => ("file".to_owned(), content.len()),
            Kind::Link(target) => (
                format!("link {}", String::from_utf8_lossy(target)),
                target.len(),
            ),
        };
        let Node {
            mode, xattrs, ino, ..
        } = node;
        writeln!(
            shape,
            "{path}/ {ino} {kind} {mode:o} {} {size} {xattrs:?}",
            links[&id]
        )
        .unwrap();
        if self.is_dir(id) {
            for (of, &child) in self.entries(id) {
                self.shape_of(child, &format!("{path}/{of}"), links, shape);
            }
        }
    }

    /// Everything by path: a word for what it is and holds, and one for its metadata. `device` is
    /// the sample's, which is a file to the model.
    pub(super) fn by_path(&self, device: Ino) -> BTreeMap<String, (&'static str, Vec<u8>, String)> {
        let mut all = BTreeMap::new();
        let mut todo = vec![(String::new(), ROOT)];
        while let Some((path, id)) = todo.pop() {
            let node = &self.nodes[id];
            let (kind, content) = match &node.kind {
                Kind::Dir(entries) => {
                    let slash = if path.is_empty() { "" } else { "/" };
                    for (of, &child) in entries {
                        todo.push((format!("{path}{slash}{of}"), child));
                    }
                    ("directory", Vec::new())
                }
                Kind::File(_) if node.ino == device => ("device", Vec::new()),
                Kind::File(content) => ("file", content.clone()),
                Kind::Link(target) => ("link", target.clone()),
            };
            let metadata = format!("{:o} {:?}", node.mode, node.xattrs);
            all.insert(path, (kind, content, metadata));
        }
        all
    }

    /// Compares all contents.
    pub(super) fn check_contents(&self, tree: &mut Tree) {
        for id in self.alive() {
            let file_type = tree.attr(self.nodes[id].ino).unwrap().file_type;
            if let (Kind::File(content), FileType::Regular) = (&self.nodes[id].kind, file_type) {
                let found = read(tree, self.nodes[id].ino);
                assert_eq!(found.len(), content.len());
                if let Some(at) = (0..found.len()).find(|&at| found[at] != content[at]) {
                    panic!("content of {} differs from {at} on", self.nodes[id].ino);
                }
            }
        }
    }
}

/// Named entries of a directory.
fn entries_of(tree: &Tree, dir: Ino) -> Vec<(String, Ino)> {
    let mut entries = Vec::new();
    tree.read_dir(dir, Cookie::DOT_DOT, &mut |entry| {
        assert_eq!(tree.attr(entry.ino).unwrap().file_type, entry.file_type);
        entries.push((String::from_utf8(entry.name.to_vec()).unwrap(), entry.ino));
        ControlFlow::Continue(())
    })
    .unwrap();
    entries.sort();
    entries
}

/// All metadata of a tree in the words of [`Model::shape`].
pub(super) fn shape(tree: &Tree) -> String {
    let mut shape = String::new();
    shape_of(tree, Ino::ROOT, Ino::ROOT, "", &mut shape);
    shape
}

fn shape_of(tree: &Tree, ino: Ino, parent: Ino, path: &str, shape: &mut String) {
    let attr = tree.attr(ino).unwrap();
    let kind = match attr.file_type {
        FileType::Directory => "dir".to_owned(),
        FileType::Symlink => {
            format!(
                "link {}",
                String::from_utf8_lossy(&tree.readlink(ino).unwrap())
            )
        }
        _ => "file".to_owned(),
    };
    let xattrs: BTreeMap<String, Vec<u8>> = tree
        .list_xattr(ino)
        .unwrap()
        .split(|&byte| byte == 0)
        .filter(|key| !key.is_empty())
        .map(|key| {
            (
                String::from_utf8(key.to_vec()).unwrap(),
                tree.get_xattr(ino, key).unwrap(),
            )
        })
        .collect();
    let (mode, nlink, size) = (attr.mode, attr.nlink, attr.size);
    writeln!(
        shape,
        "{path}/ {ino} {kind} {mode:o} {nlink} {size} {xattrs:?}"
    )
    .unwrap();
    if attr.file_type == FileType::Directory {
        assert_eq!(tree.parent_of(ino), Ok(parent));
        for (of, child) in entries_of(tree, ino) {
            assert_eq!(tree.lookup(ino, name(&of)).unwrap().ino, child);
            shape_of(tree, child, ino, &format!("{path}/{of}"), shape);
        }
    }
}

#[test]
fn the_model_of_a_sample_has_its_shape() {
    let layer = crate::testing::layer(crate::testing::sample);
    let dir = tempfile::tempdir().unwrap();
    let mut tree = crate::testing::open(&layer, dir.path());
    let model = Model::of(&mut tree);
    assert_eq!(model.shape(), shape(&tree));
    assert!(model.shape().contains("/usr/lib/big/"));
    assert_eq!(at(&tree, ""), Ino::ROOT);
}
