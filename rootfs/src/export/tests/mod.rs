//! What an export may do to the host, and what it has to keep.

mod host;
mod tar;

use super::*;
use crate::testing::{at, layer, new, open, sample, scratch, write};
use crate::tree::{FileType, Ino, SetAttr, Timestamp, Tree, XattrMode};

/// A tree with something of everything in `/workspace`, over `sample`.
fn tree() -> (Tree, tempfile::TempDir) {
    let dir = scratch();
    let mut tree = open(&layer(sample), dir.path());
    let root = tree.mkdir(new(Ino::ROOT, "workspace")).unwrap().ino;
    let file = |tree: &mut Tree, parent, name: &str, bytes: &[u8]| {
        let ino = tree.create_file(new(parent, name)).unwrap().ino;
        write(tree, ino, 0, bytes);
        ino
    };
    let sub = tree.mkdir(new(root, "sub")).unwrap().ino;
    let first = file(&mut tree, sub, "script", b"#!/bin/sh\n");
    tree.link(first, root, crate::testing::name("other"))
        .unwrap();
    file(&mut tree, root, "big", &[9; 300_000]);
    let hole = tree.create_file(new(root, "hole")).unwrap().ino;
    let size = SetAttr {
        size: Some(1 << 20),
        ..SetAttr::default()
    };
    tree.set_attr(hole, &size).unwrap();
    write(&mut tree, hole, 512 << 10, b"in the middle");
    for (name, target) in [
        ("in", &b"sub/script"[..]),
        ("sub/up", b"../big"),
        ("dangling", b"not/there"),
        ("abs", b"/etc/passwd"),
        ("out", b"../etc/passwd"),
        ("sub/far", b"../../etc"),
        ("by-another", b"sub/far/passwd"),
    ] {
        let (parent, name) = match name.strip_prefix("sub/") {
            Some(name) => (sub, name),
            None => (root, name),
        };
        tree.symlink(new(parent, name), target).unwrap();
    }
    tree.mknod(new(root, "null"), FileType::CharDevice, 0x103)
        .unwrap();
    tree.mknod(new(root, "pipe"), FileType::Fifo, 0).unwrap();
    tree.set_xattr(first, b"user.k", b"v", XattrMode::Any)
        .unwrap();
    for (ino, mode) in [(first, 0o6751), (sub, 0o2050), (root, 0o755)] {
        let change = SetAttr {
            mode: Some(mode),
            uid: Some(1000),
            mtime: Some(Timestamp {
                secs: 1_600_000_000,
                nanos: 5,
            }),
            ..SetAttr::default()
        };
        tree.set_attr(ino, &change).unwrap();
    }
    (tree, dir)
}

/// What `tree` leaves out of an export of `/workspace`.
const SKIPPED: [&str; 6] = ["abs", "by-another", "null", "out", "pipe", "sub/far"];

fn skipped(summary: &ExportSummary) -> Vec<&str> {
    summary.skipped.iter().map(|it| it.path.as_str()).collect()
}

#[test]
fn content_comes_in_order_without_its_holes() {
    let (mut tree, _dir) = tree();
    let attr = tree.attr(at(&tree, "workspace/hole")).unwrap();
    let mut runs = Vec::new();
    let read = read::read_data(&mut tree, &attr, &mut |offset, bytes: &[u8]| {
        runs.push((offset, bytes.len()));
        Ok::<(), ()>(())
    });
    assert!(read.is_ok());
    assert_eq!(runs, [(512 << 10, 13)]);
}
