//! Freezing: what stays, what a kill leaves, what fails.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use rustix::io::Errno;

use crate::testing::{
    at, dir_fd, layer, list, name, new, open, open_over, read, sample, scratch, stack_over, write,
};
use crate::tree::{
    Cookie, Durability, FreezeError, Ino, Quota, RenameMode, SetAttr, Tree, XattrMode,
};

fn journal(dir: &Path) -> Vec<u8> {
    fs::read(dir.join("journal")).unwrap_or_default()
}

/// A layer's directory as a kill would leave it, with `journal` in it.
fn left(dir: &Path, journal: &[u8]) -> tempfile::TempDir {
    let copy = scratch();
    if !journal.is_empty() {
        fs::write(copy.path().join("journal"), journal).unwrap();
    }
    fs::create_dir(copy.path().join("content")).unwrap();
    for entry in fs::read_dir(dir.join("content")).unwrap() {
        let entry = entry.unwrap();
        let to = copy.path().join("content").join(entry.file_name());
        fs::copy(entry.path(), to).unwrap();
    }
    copy
}

#[test]
fn what_is_in_use_without_a_name_goes_on_after_a_freeze() {
    let (layer, old, top) = (layer(sample), scratch(), scratch());
    let mut tree = open(&layer, old.path());
    let made = tree.create_file(new(Ino::ROOT, "made")).unwrap().ino;
    let lower = at(&tree, "usr/lib/small");
    for ino in [made, lower] {
        tree.retain(ino);
    }
    write(&mut tree, made, 0, b"made");
    tree.unlink(Ino::ROOT, name("made")).unwrap();
    tree.unlink(at(&tree, "usr/lib"), name("small")).unwrap();
    tree.freeze(dir_fd(top.path())).unwrap();
    assert_eq!(read(&mut tree, made), b"made");
    assert_eq!(read(&mut tree, lower), b"small");
    for ino in [made, lower] {
        write(&mut tree, ino, 2, b"XY!");
        assert_eq!(tree.attr(ino).unwrap().nlink, 0);
    }
    assert_eq!(read(&mut tree, made), b"maXY!");
    assert_eq!(read(&mut tree, lower), b"smXY!");
    tree.forget(made, 1);
    tree.forget(lower, 1);
    for ino in [made, lower] {
        assert_eq!(tree.attr(ino), Err(Errno::STALE));
    }
    tree.sync().unwrap();
    drop(tree);
    let tree = open_over(&layer, &[old.path()], top.path());
    for ino in [made, lower] {
        assert_eq!(tree.attr(ino), Err(Errno::STALE));
    }
    assert_eq!(list(&tree, Ino::ROOT), ["dev", "etc", "lib", "usr"]);
}

#[test]
fn a_listing_goes_on_rightly_over_a_freeze() {
    let (layer, old, top) = (layer(sample), scratch(), scratch());
    let mut tree = open(&layer, old.path());
    for i in 0..10 {
        tree.create_file(new(Ino::ROOT, &format!("f{i}"))).unwrap();
    }
    let (mut seen, mut place) = (Vec::new(), Cookie::DOT_DOT);
    let mut some = |tree: &Tree, most: usize| {
        let end = seen.len() + most;
        tree.read_dir(Ino::ROOT, place, &mut |entry| {
            seen.push(String::from_utf8(entry.name.to_vec()).unwrap());
            place = entry.cookie;
            if seen.len() < end {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })
        .unwrap();
        seen.clone()
    };
    some(&tree, 7);
    tree.freeze(dir_fd(top.path())).unwrap();
    tree.unlink(Ino::ROOT, name("f1")).unwrap();
    tree.unlink(Ino::ROOT, name("f8")).unwrap();
    tree.create_file(new(Ino::ROOT, "f8")).unwrap();
    tree.create_file(new(Ino::ROOT, "late")).unwrap();
    let mut all = some(&tree, 100);
    all.sort();
    all.dedup();
    let mut expected: Vec<_> = (0..10).map(|i| format!("f{i}")).collect();
    expected.extend(["dev", "etc", "lib", "usr", "late"].map(str::to_owned));
    expected.sort();
    assert_eq!(all, expected);
}

#[test]
fn a_kill_at_any_moment_of_a_freeze_leaves_the_state_before_or_after() {
    let (layer, old, top) = (layer(sample), scratch(), scratch());
    let mut tree = open(&layer, old.path());
    let file = tree.create_file(new(Ino::ROOT, "synced")).unwrap().ino;
    write(&mut tree, file, 0, b"content");
    tree.sync().unwrap();
    let synced = journal(old.path()).len();
    tree.mkdir(new(Ino::ROOT, "unsynced")).unwrap();
    tree.freeze(dir_fd(top.path())).unwrap();
    let frozen = journal(old.path());
    tree.mkdir(new(Ino::ROOT, "above")).unwrap();
    write(&mut tree, file, 0, b"CON");
    tree.sync().unwrap();
    let above = journal(top.path());
    let base = ["dev", "etc", "lib", "synced"];
    // Before: the old journal is on its way, the new directory is empty.
    for len in synced..=frozen.len() {
        let (lower, upper) = (left(old.path(), &frozen[..len]), scratch());
        let whole = len == frozen.len();
        for _ in 0..2 {
            let mut tree = open_over(&layer, &[lower.path()], upper.path());
            assert_eq!(read(&mut tree, file), b"content");
            let mut names = list(&tree, Ino::ROOT);
            names.retain(|name| !base.contains(&name.as_str()) && name != "usr");
            assert!(
                names == ["unsynced"]
                    || (!whole && names.is_empty())
                    || names.contains(&"more".to_owned()),
                "cut at {len}: {names:?}"
            );
            // And it works on from there, over the torn end.
            let _ = tree.mkdir(new(Ino::ROOT, "more"));
            tree.sync().unwrap();
        }
        assert_eq!(journal(lower.path()), &frozen[..len], "it is not changed");
        let mut tree = open(&layer, lower.path());
        assert_eq!(read(&mut tree, file), b"content");
    }
    // After: the new journal begins and grows.
    for len in 0..=above.len() {
        let (lower, upper) = (left(old.path(), &frozen), left(top.path(), &above[..len]));
        let mut tree = open_over(&layer, &[lower.path()], upper.path());
        let is_above = list(&tree, Ino::ROOT).contains(&"above".to_owned());
        assert_eq!(is_above, len == above.len());
        assert!(list(&tree, Ino::ROOT).contains(&"unsynced".to_owned()));
        let expected = if is_above { b"CONtent" } else { b"content" };
        assert_eq!(read(&mut tree, file), expected);
    }
    // What lies beneath was cut below what the layer above was put on.
    let lower = left(old.path(), &frozen[..synced]);
    let upper = left(top.path(), &above);
    let opened = Tree::open(stack_over(&layer, &[lower.path()], upper.path()));
    assert!(matches!(opened, Err(crate::tree::OpenError::OtherStack)));
}

#[test]
fn a_freeze_that_fails_leaves_the_tree_as_it_was() {
    let (layer, old, other) = (layer(sample), scratch(), scratch());
    open(&layer, other.path())
        .mkdir(new(Ino::ROOT, "of-others"))
        .unwrap();
    let mut tree = open(&layer, old.path());
    tree.mkdir(new(Ino::ROOT, "kept")).unwrap();
    let frozen = tree.freeze(dir_fd(other.path()));
    assert!(matches!(
        frozen,
        Err(FreezeError::Begin(_) | FreezeError::NotEmpty)
    ));
    let gone = scratch();
    let fd = dir_fd(gone.path());
    drop(gone);
    assert!(matches!(tree.freeze(fd), Err(FreezeError::Begin(_))));
    tree.mkdir(new(Ino::ROOT, "more")).unwrap();
    tree.sync().unwrap();
    drop(tree);
    let tree = open(&layer, old.path());
    assert_eq!(
        list(&tree, Ino::ROOT),
        ["dev", "etc", "kept", "lib", "more", "usr"]
    );
}

#[test]
fn the_quota_counts_all_layers_above_the_packed_ones() {
    let (layer, old, top, next) = (layer(sample), scratch(), scratch(), scratch());
    let mut stack = stack_over(&layer, &[], old.path());
    stack.quota = Quota {
        bytes: 64 << 10,
        inodes: 3,
    };
    stack.durability = Durability::Process;
    let mut tree = Tree::open(stack).unwrap();
    let file = tree.create_file(new(Ino::ROOT, "f")).unwrap().ino;
    write(&mut tree, file, 0, &[1; 40 << 10]);
    tree.freeze(dir_fd(top.path())).unwrap();
    let free = tree.stat_fs().unwrap().blocks_free;
    assert_eq!(free, 6);
    let other = tree.create_file(new(Ino::ROOT, "g")).unwrap().ino;
    assert_eq!(tree.reserve(other, 0, 40 << 10), Err(Errno::NOSPC));
    write(&mut tree, other, 0, &[2; 20 << 10]);
    // To change what is frozen is to have it twice.
    assert_eq!(tree.reserve(file, 0, 1), Err(Errno::NOSPC));
    tree.freeze(dir_fd(next.path())).unwrap();
    tree.create_file(new(Ino::ROOT, "h")).unwrap();
    assert_eq!(
        tree.create_file(new(Ino::ROOT, "i")).map(|_| ()),
        Err(Errno::NOSPC)
    );
    assert_eq!(read(&mut tree, file), [1; 40 << 10]);
}

#[test]
fn everything_of_an_inode_comes_up_through_frozen_layers() {
    let (layer, one, two, three) = (layer(sample), scratch(), scratch(), scratch());
    let mut tree = open(&layer, one.path());
    let big = at(&tree, "usr/lib/big");
    tree.set_xattr(big, b"user.k", b"v", XattrMode::Any)
        .unwrap();
    let size = |size| SetAttr {
        size: Some(size),
        ..SetAttr::default()
    };
    tree.freeze(dir_fd(two.path())).unwrap();
    tree.set_attr(big, &size(20_000)).unwrap();
    tree.rename(
        Ino::ROOT,
        name("usr"),
        at(&tree, "etc"),
        name("usr"),
        RenameMode::Replace,
    )
    .unwrap();
    tree.freeze(dir_fd(three.path())).unwrap();
    let expected: Vec<u8> = [vec![b'b'; 10_000], vec![0; 10_000]].concat();
    assert_eq!(at(&tree, "etc/usr/lib/big"), big);
    assert_eq!(read(&mut tree, big), expected);
    assert_eq!(tree.get_xattr(big, b"user.k").unwrap(), b"v");
    write(&mut tree, big, 15_000, b"x");
    tree.set_attr(big, &size(15_001)).unwrap();
    drop(tree);
    let mut tree = open_over(&layer, &[one.path(), two.path()], three.path());
    let now = read(&mut tree, big);
    assert_eq!((now.len(), &now[..15_000]), (15_001, &expected[..15_000]));
    assert_eq!(tree.parent_of(at(&tree, "etc/usr")), Ok(at(&tree, "etc")));
}
