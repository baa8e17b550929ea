//! What tests of several modules need: small layers and stacks made on the spot.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::pack::{Metadata, PackLimits, PackedWriter};
use crate::tree::{
    Content, Cookie, Ino, Name, NewNode, Owner, PackedFiles, StackFiles, Timestamp, Tree,
};

/// A directory for files whose fate on a disk is not what is tested: in memory where there is
/// such a place, because waiting for a disk hundreds of times takes minutes.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// Two empty files, one for an index and one for data.
pub(crate) fn layer_files() -> PackedFiles {
    let file = || tempfile::tempfile().unwrap();
    PackedFiles {
        index: file(),
        data: file(),
    }
}

/// The same layer again.
pub(crate) fn again(files: &PackedFiles) -> PackedFiles {
    let again = |file: &File| file.try_clone().unwrap();
    PackedFiles {
        index: again(&files.index),
        data: again(&files.data),
    }
}

/// A layer of what `build` adds.
pub(crate) fn layer(build: impl FnOnce(&mut PackedWriter<'_>)) -> PackedFiles {
    let files = layer_files();
    let mut writer = PackedWriter::new(&files.index, &files.data, PackLimits::default()).unwrap();
    build(&mut writer);
    writer.finish().unwrap();
    files
}

/// Metadata of mode `mode`.
pub(crate) fn meta(mode: u16) -> Metadata {
    Metadata {
        mode,
        mtime: Timestamp {
            secs: 1_000_000,
            nanos: 5,
        },
        ..Metadata::default()
    }
}

/// A small root: a file with two names, a larger one, a directory with a directory, a link, a
/// device and an attribute.
pub(crate) fn sample(writer: &mut PackedWriter<'_>) {
    let add = |writer: &mut PackedWriter<'_>, path: &[u8], content: &[u8]| {
        writer
            .add_file(path, meta(0o644), &mut &content[..], content.len() as u64)
            .unwrap();
    };
    writer.add_directory(b"", meta(0o755)).unwrap();
    add(writer, b"etc/passwd", b"root:x:0:0\n");
    writer.add_hard_link(b"etc/passwd-", b"etc/passwd").unwrap();
    add(writer, b"usr/lib/big", &[b'b'; 10_000]);
    add(writer, b"usr/lib/small", b"small");
    add(writer, b"usr/empty", b"");
    writer.add_symlink(b"lib", meta(0o777), b"usr/lib").unwrap();
    writer
        .add_node(
            b"dev/null",
            meta(0o666),
            crate::tree::FileType::CharDevice,
            0x103,
        )
        .unwrap();
    let xattrs = BTreeMap::from([(b"security.capability".to_vec(), b"caps".to_vec())]);
    let suid = Metadata {
        xattrs,
        ..meta(0o6755)
    };
    writer
        .add_file(b"usr/ping", suid, &mut &b"\x7fELF"[..], 4)
        .unwrap();
}

/// The directory at `path`, as a stack takes it.
pub(crate) fn dir_fd(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

/// A tree over `layer` and the writable layer at `dir`.
pub(crate) fn open(layer: &PackedFiles, dir: &Path) -> Tree {
    Tree::open(StackFiles::new(vec![again(layer)], dir_fd(dir))).unwrap()
}

/// A tree over `layer`, the frozen layers at `frozen` and the writable layer at `dir`.
pub(crate) fn open_over(layer: &PackedFiles, frozen: &[&Path], dir: &Path) -> Tree {
    Tree::open(stack_over(layer, frozen, dir)).unwrap()
}

/// The files of such a tree.
pub(crate) fn stack_over(layer: &PackedFiles, frozen: &[&Path], dir: &Path) -> StackFiles {
    let mut stack = StackFiles::new(vec![again(layer)], dir_fd(dir));
    stack.frozen = frozen.iter().map(|dir| dir_fd(dir)).collect();
    stack
}

/// A name that is one.
pub(crate) fn name(name: &str) -> Name<'_> {
    Name::new(name.as_bytes()).unwrap()
}

/// Root's new node.
pub(crate) fn new(parent: Ino, of: &str) -> NewNode<'_> {
    NewNode {
        parent,
        name: name(of),
        owner: Owner { uid: 0, gid: 0 },
        mode: 0o644,
    }
}

/// The inode at `path`; components separated by `/`.
pub(crate) fn at(tree: &Tree, path: &str) -> Ino {
    path.split('/')
        .filter(|it| !it.is_empty())
        .fold(Ino::ROOT, |dir, it| tree.lookup(dir, name(it)).unwrap().ino)
}

/// Names in a directory, sorted, without `.` and `..`.
pub(crate) fn list(tree: &Tree, dir: Ino) -> Vec<String> {
    let mut names = Vec::new();
    tree.read_dir(dir, Cookie::DOT_DOT, &mut |entry| {
        names.push(String::from_utf8(entry.name.to_vec()).unwrap());
        ControlFlow::Continue(())
    })
    .unwrap();
    names.sort();
    names
}

/// Writes as the server does.
pub(crate) fn write(tree: &mut Tree, ino: Ino, offset: u64, bytes: &[u8]) {
    tree.reserve(ino, offset, bytes.len() as u64).unwrap();
    tree.content_mut(ino)
        .unwrap()
        .write_all_at(bytes, offset)
        .unwrap();
    tree.wrote(ino, offset + bytes.len() as u64, Some(Timestamp::now()))
        .unwrap();
}

/// Reads a whole file as the server does.
pub(crate) fn read(tree: &mut Tree, ino: Ino) -> Vec<u8> {
    let size = usize::try_from(tree.attr(ino).unwrap().size).unwrap();
    let mut bytes = vec![0; size];
    let (file, offset, len) = match tree.content(ino).unwrap() {
        Content::Hole => return bytes,
        Content::File { file } => (file, 0, size),
        Content::Packed { file, offset, len } => (file, offset, size.min(len as usize)),
    };
    let mut done = 0;
    while done < len {
        match file
            .read_at(&mut bytes[done..len], offset + done as u64)
            .unwrap()
        {
            0 => break,
            n => done += n,
        }
    }
    bytes
}
