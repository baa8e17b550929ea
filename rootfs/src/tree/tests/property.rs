//! Random operations on a tree and on its model, which must agree on every error and on
//! everything that is there, also after the tree is opened anew, after a crash, after freezes, and
//! after going back to what was frozen.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::rc::Rc;

use proptest::prelude::*;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use tempfile::TempDir;

use super::model::{Id, Kind, Model, shape};
use crate::testing::{again, dir_fd, layer, name, new, open, open_over, sample, scratch, write};
use crate::tree::{
    ChangeKind, Owner, PackedFiles, RenameMode, SetAttr, StackReader, Tree, XattrMode,
};

const NAMES: [&str; 8] = ["a", "b", "c", "usr", "lib", "etc", "passwd", "big"];

/// Choices are numbers that are taken modulo what there is to choose from.
#[derive(Clone, Debug)]
enum Op {
    Create(u8, u8),
    Mkdir(u8, u8),
    Symlink(u8, u8),
    Link(u8, u8, u8),
    Unlink(u8, u8),
    Rmdir(u8, u8),
    Rename(u8, u8, u8, u8, u8),
    Write(u8, u16, u16, u8),
    Resize(u8, u16),
    Punch(u8, u16, u16),
    Copy(u8, u16, u8, u16, u16),
    Chmod(u8, u16),
    Xattr(u8, bool, u8),
    Flush,
    Sync,
    Reopen,
    Crash,
    Freeze,
    FreezeStopped,
    Reset(u8),
    Changes,
}

fn op() -> impl Strategy<Value = Op> {
    let n = any::<u8>;
    let offset = || 0..20_000_u16;
    prop_oneof![
        4 => (n(), n()).prop_map(|(dir, of)| Op::Create(dir, of)),
        4 => (n(), n()).prop_map(|(dir, of)| Op::Mkdir(dir, of)),
        1 => (n(), n()).prop_map(|(dir, of)| Op::Symlink(dir, of)),
        3 => (n(), n(), n()).prop_map(|(node, dir, of)| Op::Link(node, dir, of)),
        5 => (n(), n()).prop_map(|(dir, of)| Op::Unlink(dir, of)),
        4 => (n(), n()).prop_map(|(dir, of)| Op::Rmdir(dir, of)),
        9 => (n(), n(), n(), n(), n()).prop_map(|(a, b, c, d, mode)| Op::Rename(a, b, c, d, mode)),
        6 => (n(), offset(), 1..9_000_u16, n()).prop_map(|(f, o, l, b)| Op::Write(f, o, l, b)),
        4 => (n(), offset()).prop_map(|(file, size)| Op::Resize(file, size)),
        2 => (n(), offset(), 1..9_000_u16).prop_map(|(f, o, l)| Op::Punch(f, o, l)),
        2 => (n(), offset(), n(), offset(), 1..9_000_u16)
            .prop_map(|(a, b, c, d, len)| Op::Copy(a, b, c, d, len)),
        2 => (n(), 0..0o10000_u16).prop_map(|(node, mode)| Op::Chmod(node, mode)),
        2 => (n(), any::<bool>(), n()).prop_map(|(node, set, value)| Op::Xattr(node, set, value)),
        1 => Just(Op::Flush),
        1 => Just(Op::Sync),
        1 => Just(Op::Reopen),
        1 => Just(Op::Crash),
        2 => Just(Op::Freeze),
        1 => Just(Op::FreezeStopped),
        1 => n().prop_map(Op::Reset),
        1 => Just(Op::Changes),
    ]
}

struct Both {
    layer: PackedFiles,
    frozen: Vec<Rc<TempDir>>,
    dir: TempDir,
    tree: Tree,
    model: Model,
    /// Shapes that a crash may leave.
    since_sync: Vec<String>,
    /// What was frozen so far, and what it was then.
    points: Vec<(Vec<Rc<TempDir>>, Model)>,
}

impl Both {
    fn new() -> Self {
        let (layer, dir) = (layer(sample), scratch());
        let mut tree = open(&layer, dir.path());
        let model = Model::of(&mut tree);
        let since_sync = vec![model.shape()];
        Self {
            layer,
            frozen: Vec::new(),
            dir,
            tree,
            points: vec![(Vec::new(), model.clone())],
            model,
            since_sync,
        }
    }

    fn open_at(&self, dir: &Path) -> Tree {
        open_stack(&self.layer, &self.frozen, dir)
    }

    /// Gives up the tree and its locks.
    fn close(&mut self) {
        let elsewhere = scratch();
        self.tree = open(&self.layer, elsewhere.path());
    }

    fn freeze(&mut self) {
        let new = scratch();
        self.tree.freeze(dir_fd(new.path())).unwrap();
        // Asking twice is asking once.
        self.tree.freeze(dir_fd(new.path())).unwrap();
        self.frozen_with(new);
        self.check();
    }

    fn freeze_stopped(&mut self) {
        self.close();
        self.frozen_with(scratch());
        self.tree = self.open_at(self.dir.path());
        self.check();
    }

    fn frozen_with(&mut self, new: TempDir) {
        let old = std::mem::replace(&mut self.dir, new);
        self.frozen.push(Rc::new(old));
        self.points.push((self.frozen.clone(), self.model.clone()));
        // All of it was synced.
        self.since_sync.clear();
    }

    /// Back to something that was frozen, or aside to it: dropping layers and branching are one.
    fn reset(&mut self, choice: u8) {
        self.close();
        let (frozen, model) = self.points[usize::from(choice) % self.points.len()].clone();
        (self.frozen, self.model, self.dir) = (frozen, model, scratch());
        self.tree = self.open_at(self.dir.path());
        self.since_sync.clear();
        self.check();
    }

    /// The changes since every state that this one was once are those of the models.
    fn check_changes(&mut self) {
        self.tree.sync().unwrap();
        let mut deltas: Vec<_> = self.frozen.iter().map(|dir| dir_fd(dir.path())).collect();
        deltas.push(dir_fd(self.dir.path()));
        let reader = StackReader::open(vec![again(&self.layer)], &deltas).unwrap();
        assert_eq!(reader.verify().damages, []);
        let device = Model::of(&mut open(&self.layer, scratch().path()));
        let device = device
            .nodes
            .iter()
            .find(|node| {
                node.mode == 0o666 && matches!(&node.kind, Kind::File(bytes) if bytes.is_empty())
            })
            .unwrap()
            .ino;
        let new = self.model.by_path(device);
        for (frozen, model) in &self.points {
            let beneath = frozen.len() <= self.frozen.len()
                && frozen
                    .iter()
                    .zip(&self.frozen)
                    .all(|(a, b)| Rc::ptr_eq(a, b));
            if !beneath {
                continue;
            }
            let old = model.by_path(device);
            let mut expected = Vec::new();
            let paths: BTreeSet<_> = old.keys().chain(new.keys()).collect();
            for path in paths {
                let change = match (old.get(path), new.get(path)) {
                    (None, _) => (ChangeKind::Added, false, false),
                    (_, None) => (ChangeKind::Removed, false, false),
                    (Some(a), Some(b)) if a.0 != b.0 => (ChangeKind::TypeChanged, false, false),
                    (Some(a), Some(b)) => (ChangeKind::Modified, a.1 != b.1, a.2 != b.2),
                };
                if change != (ChangeKind::Modified, false, false) {
                    expected.push((path.clone(), change));
                }
            }
            let found: Vec<_> = reader
                .changes(frozen.len())
                .unwrap()
                .map(|change| {
                    let change = change.unwrap();
                    let what = (change.kind(), change.content, change.metadata);
                    (String::from_utf8(change.path).unwrap(), what)
                })
                .collect();
            assert_eq!(found, expected, "since {} layers", frozen.len());
        }
    }

    /// Everything that was ever frozen is still what it was.
    fn check_points(&mut self) {
        for (frozen, model) in std::mem::take(&mut self.points) {
            let dir = scratch();
            let mut tree = open_stack(&self.layer, &frozen, dir.path());
            assert_eq!(shape(&tree), model.shape());
            model.check_contents(&mut tree);
        }
    }

    fn pick(&self, choice: u8, wanted: impl Fn(&Kind) -> bool) -> Option<Id> {
        let mut all = self.model.alive();
        all.retain(|&id| wanted(&self.model.nodes[id].kind));
        (!all.is_empty()).then(|| all[usize::from(choice) % all.len()])
    }

    fn dir(&self, choice: u8) -> Id {
        self.pick(choice, |kind| matches!(kind, Kind::Dir(_)))
            .unwrap()
    }

    /// A regular file; the sample's device is one to the model, and empty.
    fn file(&self, choice: u8) -> Option<Id> {
        let file = self.pick(choice, |kind| matches!(kind, Kind::File(_)))?;
        let regular = crate::tree::FileType::Regular;
        (self
            .tree
            .attr(self.model.nodes[file].ino)
            .unwrap()
            .file_type
            == regular)
            .then_some(file)
    }

    fn content(&mut self, file: Id) -> &mut Vec<u8> {
        match &mut self.model.nodes[file].kind {
            Kind::File(content) => content,
            _ => panic!("not a file"),
        }
    }

    fn ino(&self, id: Id) -> crate::tree::Ino {
        self.model.nodes[id].ino
    }

    fn make(&mut self, dir: u8, of: u8, kind: Kind, mode: u16) {
        let (dir, of) = (self.dir(dir), NAMES[usize::from(of) % NAMES.len()]);
        let owner = Owner { uid: 0, gid: 0 };
        let node = crate::tree::NewNode {
            mode: 0o640,
            owner,
            ..new(self.ino(dir), of)
        };
        let parent_mode = self.model.nodes[dir].mode;
        let made = match &kind {
            Kind::Dir(_) => self.tree.mkdir(node),
            Kind::File(_) => self.tree.create_file(node),
            Kind::Link(target) => self.tree.symlink(node, target),
        };
        let sgid = if matches!(kind, Kind::Dir(_)) {
            parent_mode & 0o2000
        } else {
            0
        };
        let expected = self.model.make(dir, of, kind, mode | sgid);
        assert_eq!(made.map(|_| ()), expected.map(|_| ()));
        if let (Ok(attr), Ok(id)) = (made, expected) {
            self.model.nodes[id].ino = attr.ino;
        }
    }

    fn run(&mut self, op: &Op) {
        let of = |choice: u8| NAMES[usize::from(choice) % NAMES.len()];
        match *op {
            Op::Create(dir, of) => self.make(dir, of, Kind::File(Vec::new()), 0o640),
            Op::Mkdir(dir, of) => self.make(dir, of, Kind::Dir(Default::default()), 0o640),
            Op::Symlink(dir, of) => self.make(dir, of, Kind::Link(b"to".to_vec()), 0o777),
            Op::Link(node, dir, to) => {
                let (id, dir) = (self.pick(node, |_| true).unwrap(), self.dir(dir));
                let done = self.tree.link(self.ino(id), self.ino(dir), name(of(to)));
                assert_eq!(done.map(|_| ()), self.model.link(id, dir, of(to)));
            }
            Op::Unlink(dir, from) => {
                let dir = self.dir(dir);
                let done = self.tree.unlink(self.ino(dir), name(of(from)));
                assert_eq!(done, self.model.unlink(dir, of(from)));
            }
            Op::Rmdir(dir, from) => {
                let dir = self.dir(dir);
                let done = self.tree.rmdir(self.ino(dir), name(of(from)));
                assert_eq!(done, self.model.rmdir(dir, of(from)));
            }
            Op::Rename(from, old, to, new, mode) => {
                let (from, to) = (self.dir(from), self.dir(to));
                let mode = [
                    RenameMode::Replace,
                    RenameMode::NoReplace,
                    RenameMode::Exchange,
                ][usize::from(mode) % 3];
                let (a, b) = (self.ino(from), self.ino(to));
                let done = self.tree.rename(a, name(of(old)), b, name(of(new)), mode);
                assert_eq!(
                    done,
                    self.model.rename((from, of(old)), (to, of(new)), mode)
                );
            }
            Op::Chmod(node, mode) => {
                let id = self.pick(node, |_| true).unwrap();
                let change = SetAttr {
                    mode: Some(mode),
                    ..SetAttr::default()
                };
                self.tree.set_attr(self.ino(id), &change).unwrap();
                self.model.nodes[id].mode = mode;
            }
            Op::Xattr(node, set, value) => self.xattr(node, set, value),
            Op::Flush => self.tree.flush().unwrap(),
            Op::Sync => {
                self.tree.sync().unwrap();
                self.since_sync.clear();
            }
            Op::Changes => {
                self.check_changes();
                self.since_sync.clear();
            }
            Op::Reopen => self.reopen(),
            Op::Crash => self.crash(),
            Op::Freeze => self.freeze(),
            Op::FreezeStopped => self.freeze_stopped(),
            Op::Reset(choice) => self.reset(choice),
            _ => self.run_on_content(op),
        }
        self.since_sync.push(self.model.shape());
    }

    fn xattr(&mut self, node: u8, set: bool, value: u8) {
        let id = self.pick(node, |_| true).unwrap();
        let ino = self.ino(id);
        if set {
            self.tree
                .set_xattr(ino, b"user.k", &[value], XattrMode::Any)
                .unwrap();
            self.model.nodes[id]
                .xattrs
                .insert("user.k".to_owned(), vec![value]);
        } else {
            let expected = match self.model.nodes[id].xattrs.remove("user.k") {
                Some(_) => Ok(()),
                None => Err(Errno::NODATA),
            };
            assert_eq!(self.tree.remove_xattr(ino, b"user.k"), expected);
        }
    }

    fn run_on_content(&mut self, op: &Op) {
        match *op {
            Op::Write(file, offset, len, byte) => {
                let Some(file) = self.file(file) else { return };
                let (offset, len) = (usize::from(offset), usize::from(len));
                write(
                    &mut self.tree,
                    self.model.nodes[file].ino,
                    offset as u64,
                    &vec![byte; len],
                );
                let content = self.content(file);
                content.resize(content.len().max(offset + len), 0);
                content[offset..offset + len].fill(byte);
            }
            Op::Resize(file, size) => {
                let Some(file) = self.file(file) else { return };
                let change = SetAttr {
                    size: Some(u64::from(size)),
                    ..SetAttr::default()
                };
                self.tree.set_attr(self.ino(file), &change).unwrap();
                self.content(file).resize(usize::from(size), 0);
            }
            Op::Punch(file, offset, len) => {
                let Some(file) = self.file(file) else { return };
                let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                let ino = self.ino(file);
                self.tree
                    .fallocate(ino, u64::from(offset), u64::from(len), mode)
                    .unwrap();
                let content = self.content(file);
                let end = (usize::from(offset) + usize::from(len)).min(content.len());
                let start = usize::from(offset).min(end);
                content[start..end].fill(0);
            }
            Op::Copy(from, from_offset, to, to_offset, len) => {
                let (Some(from), Some(to)) = (self.file(from), self.file(to)) else {
                    return;
                };
                self.copy(from, from_offset.into(), to, to_offset.into(), len.into());
            }
            _ => unreachable!("others are run elsewhere"),
        }
    }

    fn copy(&mut self, from: Id, from_offset: usize, to: Id, to_offset: usize, len: usize) {
        let (a, b) = (self.ino(from), self.ino(to));
        let done = self
            .tree
            .copy_range(a, from_offset as u64, b, to_offset as u64, len as u64);
        let source = self.content(from).clone();
        let len = len.min(source.len().saturating_sub(from_offset));
        let overlap = from == to && from_offset < to_offset + len && to_offset < from_offset + len;
        if len > 0 && overlap {
            assert_eq!(done, Err(Errno::INVAL));
            return;
        }
        assert_eq!(done, Ok(len as u64));
        if len > 0 {
            let content = self.content(to);
            content.resize(content.len().max(to_offset + len), 0);
            content[to_offset..to_offset + len]
                .copy_from_slice(&source[from_offset..from_offset + len]);
        }
    }

    fn check(&mut self) {
        assert_eq!(shape(&self.tree), self.model.shape());
        self.model.check_contents(&mut self.tree);
    }

    fn reopen(&mut self) {
        self.check();
        // The lock of the old one has to go first.
        self.close();
        self.tree = self.open_at(self.dir.path());
        self.check();
    }

    /// Opens a copy of what is on the disk now.
    fn crash(&mut self) {
        let copy = scratch();
        copy_dir(self.dir.path(), copy.path());
        let left = shape(&self.open_at(copy.path()));
        assert!(
            self.since_sync.contains(&left),
            "a state that never was:\n{left}"
        );
    }
}

fn open_stack(layer: &PackedFiles, frozen: &[Rc<TempDir>], dir: &Path) -> Tree {
    let frozen: Vec<_> = frozen.iter().map(|dir| dir.path()).collect();
    open_over(layer, &frozen, dir)
}

fn copy_dir(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&to).unwrap();
            copy_dir(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_and_its_model_agree(ops in prop::collection::vec(op(), 1..120)) {
        let mut both = Both::new();
        for op in &ops {
            both.run(op);
        }
        both.reopen();
        both.crash();
        both.check_changes();
        both.check_points();
    }
}
