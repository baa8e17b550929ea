//! A tree whose writable layers lie on a mount that can be told to fail.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use pyro_rootfs::tree::{
    Content, Cookie, FreezeError, Ino, Name, NewNode, Owner, SetAttr, StackFiles, Timestamp, Tree,
};
use rustix::io::Errno;

use crate::stage::Stage;

/// Names in the root of the layer beneath.
const BENEATH: [&str; 7] = ["bin", "big", "etc", "link", "null", "tmp", "usr"];

/// How many layers there is room for.
const LAYERS: usize = 64;

/// The disk and the tree on it.
pub(super) struct Disk<'a> {
    pub(super) stage: &'a mut Stage,
    pub(super) tree: Tree,
    /// Directories for layers, all of them there from the beginning.
    layers: Vec<PathBuf>,
    /// How many of them are frozen.
    frozen: usize,
}

impl<'a> Disk<'a> {
    /// A tree that has nothing of its own yet.
    pub(super) fn new(stage: &'a mut Stage) -> Self {
        let layers: Vec<_> = (0..LAYERS)
            .map(|i| stage.path(&format!("layer{i}")))
            .collect();
        for layer in &layers {
            fs::create_dir(layer).unwrap();
        }
        File::open(stage.root()).unwrap().sync_all().unwrap();
        let tree = open(stage, &layers[..1]);
        Self {
            stage,
            tree,
            layers,
            frozen: 0,
        }
    }

    /// The power fails, and comes back.
    pub(super) fn cut_power(&mut self) {
        self.stage.crash();
        // The old one finds nothing where it was.
        self.tree = open(self.stage, &self.layers[..=self.frozen]);
    }

    /// Freezes.
    pub(super) fn freeze(&mut self) -> Result<(), FreezeError> {
        let next = File::open(&self.layers[self.frozen + 1]).unwrap();
        self.tree.freeze(next.into())?;
        self.frozen += 1;
        Ok(())
    }

    /// Removes all layers, for another disk.
    pub(super) fn erase(self) {
        drop(self.tree);
        for dir in self.layers {
            fs::remove_dir_all(dir).unwrap();
        }
    }

    pub(super) fn create(&mut self, of: &str) -> Ino {
        self.try_create(of).unwrap()
    }

    pub(super) fn try_create(&mut self, of: &str) -> Result<Ino, Errno> {
        self.tree.create_file(new(of)).map(|attr| attr.ino)
    }

    pub(super) fn mkdir(&mut self, of: &str) {
        self.try_mkdir(of).unwrap();
    }

    pub(super) fn try_mkdir(&mut self, of: &str) -> Result<Ino, Errno> {
        self.tree.mkdir(new(of)).map(|attr| attr.ino)
    }

    pub(super) fn write(&mut self, ino: Ino, offset: u64, bytes: &[u8]) {
        self.try_write(ino, offset, bytes).unwrap();
    }

    /// Writes as the server does.
    pub(super) fn try_write(&mut self, ino: Ino, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.tree.reserve(ino, offset, bytes.len() as u64)?;
        let file = self.tree.content_mut(ino)?;
        let written = file.write_all_at(bytes, offset);
        written.map_err(|error| Errno::from_io_error(&error).unwrap())?;
        let end = offset + bytes.len() as u64;
        self.tree.wrote(ino, end, Some(Timestamp::now()))
    }

    pub(super) fn truncate(&mut self, ino: Ino, size: u64) {
        let size = SetAttr {
            size: Some(size),
            ..SetAttr::default()
        };
        self.tree.set_attr(ino, &size).unwrap();
    }

    /// The content of the file `of`.
    pub(super) fn read(&mut self, of: &str) -> Vec<u8> {
        let attr = self.tree.lookup(Ino::ROOT, name(of)).unwrap();
        let mut bytes = vec![0; attr.size as usize];
        let (file, offset, len) = match self.tree.content(attr.ino).unwrap() {
            Content::Hole => return bytes,
            Content::File { file } => (file, 0, file.metadata().unwrap().len()),
            Content::Packed { file, offset, len } => (file, offset, len),
        };
        let len = bytes.len().min(len as usize);
        file.read_exact_at(&mut bytes[..len], offset).unwrap();
        bytes
    }

    /// Names in the root that are not of the layer beneath, sorted.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let visit = &mut |entry: pyro_rootfs::tree::DirEntry<'_>| {
            names.push(String::from_utf8(entry.name.to_vec()).unwrap());
            ControlFlow::Continue(())
        };
        self.tree
            .read_dir(Ino::ROOT, Cookie::DOT_DOT, visit)
            .unwrap();
        names.retain(|name| !BENEATH.contains(&name.as_str()));
        names.sort();
        names
    }

    /// How long the journal's file is.
    pub(super) fn journal_len(&self) -> u64 {
        let journal = self.layers[self.frozen].join("journal");
        journal.metadata().unwrap().len()
    }

    /// Lets the kernel write back the content of `ino`, and tell somebody else of a failure.
    pub(super) fn write_back(&self, ino: Ino) {
        let content = self.layers[self.frozen].join(format!("content/{:x}", ino.0));
        let _ = File::open(content).unwrap().sync_data();
    }
}

/// The tree over these layers, the last one writable.
fn open(stage: &Stage, layers: &[PathBuf]) -> Tree {
    let dir = |path: &PathBuf| File::open(path).unwrap().into();
    let (writable, frozen) = layers.split_last().unwrap();
    let mut stack = StackFiles::new(vec![stage.packed()], dir(writable));
    stack.frozen = frozen.iter().map(dir).collect();
    Tree::open(stack).unwrap()
}

/// A name that is one.
pub(super) fn name(name: &str) -> Name<'_> {
    Name::new(name.as_bytes()).unwrap()
}

fn new(of: &str) -> NewNode<'_> {
    NewNode {
        parent: Ino::ROOT,
        name: name(of),
        owner: Owner { uid: 0, gid: 0 },
        mode: 0o755,
    }
}
