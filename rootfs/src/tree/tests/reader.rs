//! Reading without serving: running and stopped stacks, paths, changes.

use rustix::io::Errno;

use crate::export::ReadTree;
use crate::testing::{again, at, dir_fd, layer, meta, name, new, open, sample, scratch, write};
use crate::tree::writable::NodeEntry;
use crate::tree::{
    ChangeKind, Content, Damage, Ino, PackedFiles, RenameMode, ResolveError, SetAttr, StackReader,
};

fn reader(layer: &PackedFiles, dirs: &[&std::path::Path]) -> StackReader {
    let deltas: Vec<_> = dirs.iter().map(|dir| dir_fd(dir)).collect();
    StackReader::open(vec![again(layer)], &deltas).unwrap()
}

#[test]
fn a_running_tree_is_read_as_of_its_last_whole_record() {
    let (layer, dir) = (layer(sample), scratch());
    let mut tree = open(&layer, dir.path());
    let file = tree.create_file(new(Ino::ROOT, "file")).unwrap().ino;
    write(&mut tree, file, 0, b"content");
    tree.sync().unwrap();
    tree.mkdir(new(Ino::ROOT, "not-written-yet")).unwrap();
    let before = std::fs::read(dir.path().join("journal")).unwrap();
    let mut now = reader(&layer, &[dir.path()]);
    assert_eq!(now.lookup(Ino::ROOT, name("file")).unwrap().size, 7);
    assert_eq!(
        now.lookup(Ino::ROOT, name("not-written-yet")),
        Err(Errno::NOENT)
    );
    assert!(matches!(
        now.content(file),
        Ok(Content::Packed { len: 7, .. })
    ));
    assert_eq!(std::fs::read(dir.path().join("journal")).unwrap(), before);
    // Its owner goes on, and removes what the reader knows of.
    let mut late = reader(&layer, &[dir.path()]);
    tree.unlink(Ino::ROOT, name("file")).unwrap();
    tree.sync().unwrap();
    assert_eq!(late.content(file).map(|_| ()), Err(Errno::STALE));
    assert_eq!(
        reader(&layer, &[dir.path()]).lookup(Ino::ROOT, name("file")),
        Err(Errno::NOENT)
    );
    // One that was never written to is nothing, and stays nothing.
    let empty = scratch();
    assert!(
        reader(&layer, &[dir.path(), empty.path()])
            .lookup(Ino::ROOT, name("etc"))
            .is_ok()
    );
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);
}

#[test]
fn paths_are_followed_in_the_tree_and_kept_in_their_directory() {
    let layer = layer(|writer| {
        sample(writer);
        let mut link = |path: &str, to: &str| {
            writer
                .add_symlink(path.as_bytes(), meta(0o777), to.as_bytes())
                .unwrap();
        };
        link("workspace/out", "../etc/passwd");
        link("workspace/etc", "/etc");
        link("workspace/in", "/workspace/sub/file");
        link("workspace/alias", "/alias/sub");
        link("workspace/loop", "loop");
        link("workspace/gone", "nowhere");
        link("alias", "workspace");
        writer
            .add_file(b"workspace/sub/file", meta(0o600), &mut &b"f"[..], 1)
            .unwrap();
    });
    let tree = reader(&layer, &[]);
    let find = |path: &str| tree.resolve(path.as_bytes(), b"/workspace", true);
    let file = tree.resolve(b"/workspace/sub/file", b"/", true).unwrap();
    for path in [
        "sub/file",
        "./sub//file",
        "sub/../sub/file",
        "/workspace/sub/file",
        "in",
        "alias/file",
        "/alias/sub/file",
    ] {
        assert_eq!(find(path), Ok(file), "{path}");
    }
    for path in [
        "..",
        "../workspace/in",
        "out",
        "etc",
        "etc/passwd",
        "/etc",
        "/etc/none",
        "/none",
        "/",
        "sub/../../etc",
        "/workspace/..",
    ] {
        assert_eq!(find(path), Err(ResolveError::Leaves), "{path}");
    }
    assert_eq!(find("loop"), Err(ResolveError::Loop));
    assert_eq!(find("gone"), Err(ResolveError::NotFound));
    assert_eq!(find("sub/none"), Err(ResolveError::NotFound));
    assert_eq!(find("sub/file/x"), Err(ResolveError::NotADirectory));
    assert_eq!(find("in/"), Err(ResolveError::NotADirectory));
    assert_eq!(find("a\0b"), Err(ResolveError::Invalid));
    assert_eq!(find(&"x".repeat(5000)), Err(ResolveError::Invalid));
    let link = tree.resolve(b"out", b"/workspace", false).unwrap();
    assert_eq!(link.file_type, crate::tree::FileType::Symlink);
    let whole = tree.resolve(b"workspace/out", b"/", true).unwrap();
    assert_eq!(
        whole.ino,
        tree.resolve(b"/../etc/passwd", b"/", true).unwrap().ino
    );
}

#[test]
fn changes_are_all_paths_of_what_changed_and_nothing_else() {
    let (layer, one, two) = (layer(sample), scratch(), scratch());
    let mut tree = open(&layer, one.path());
    let note = tree.create_file(new(Ino::ROOT, "note")).unwrap().ino;
    write(&mut tree, note, 0, b"first");
    tree.link(note, at(&tree, "usr"), name("note")).unwrap();
    tree.freeze(dir_fd(two.path())).unwrap();
    let list = |tree: &mut crate::tree::Tree| {
        tree.sync().unwrap();
        let reader = reader(&layer, &[one.path(), two.path()]);
        let changes = reader.changes(1).unwrap().map(|change| {
            let change = change.unwrap();
            (
                String::from_utf8(change.path.clone()).unwrap(),
                change.kind(),
            )
        });
        changes.collect::<Vec<_>>()
    };
    let of = |kind, paths: &[&str]| {
        paths
            .iter()
            .map(|path| ((*path).to_owned(), kind))
            .collect::<Vec<_>>()
    };
    assert_eq!(list(&mut tree), []);
    // Through one name, of a packed layer and of a frozen one: the others changed too.
    let passwd = at(&tree, "etc/passwd-");
    write(&mut tree, passwd, 0, b"ROOT");
    write(&mut tree, note, 0, b"FIRST");
    let paths = ["etc/passwd", "etc/passwd-", "note", "usr/note"];
    assert_eq!(list(&mut tree), of(ChangeKind::Modified, &paths));
    // And back again.
    write(&mut tree, passwd, 0, b"root");
    write(&mut tree, note, 0, b"first");
    let touch = SetAttr {
        mtime: Some(crate::tree::Timestamp::now()),
        ..SetAttr::default()
    };
    tree.set_attr(at(&tree, "usr/empty"), &touch).unwrap();
    assert_eq!(list(&mut tree), []);
    // A name that was removed and made again with the same in it.
    let usr = at(&tree, "usr");
    tree.unlink(usr, name("empty")).unwrap();
    assert_eq!(list(&mut tree), of(ChangeKind::Removed, &["usr/empty"]));
    tree.create_file(new(usr, "empty")).unwrap();
    assert_eq!(list(&mut tree), []);
    // A directory that moved takes its children along.
    tree.rename(
        usr,
        name("lib"),
        Ino::ROOT,
        name("lib64"),
        RenameMode::Replace,
    )
    .unwrap();
    let mut expected = of(ChangeKind::Added, &["lib64", "lib64/big", "lib64/small"]);
    expected.extend(of(
        ChangeKind::Removed,
        &["usr/lib", "usr/lib/big", "usr/lib/small"],
    ));
    assert_eq!(list(&mut tree), expected);
}

#[test]
fn damage_is_named() {
    let (layer, one, two) = (layer(sample), scratch(), scratch());
    let mut tree = open(&layer, one.path());
    let lost = tree.create_file(new(Ino::ROOT, "lost")).unwrap().ino;
    let kept = tree.create_file(new(at(&tree, "usr"), "kept")).unwrap().ino;
    for ino in [lost, kept] {
        write(&mut tree, ino, 0, b"content");
    }
    tree.freeze(dir_fd(two.path())).unwrap();
    tree.link(kept, Ino::ROOT, name("second")).unwrap();
    tree.sync().unwrap();
    let dirs = [one.path(), two.path()];
    let whole = reader(&layer, &dirs).verify();
    assert!(whole.is_whole(), "{whole:?}");
    assert_eq!((whole.inodes, whole.contents), (14, 2));
    std::fs::remove_file(one.path().join(format!("content/{:x}", lost.0))).unwrap();
    let damage = |path: &str, ino, what| Damage {
        ino,
        path: path.to_owned(),
        what,
    };
    assert_eq!(
        reader(&layer, &dirs).verify().damages,
        [damage("lost", lost, "its content file is missing")]
    );
    // A layer that does not belong there is noticed when it is opened.
    let deltas: Vec<_> = dirs.iter().rev().map(|dir| dir_fd(dir)).collect();
    let opened = StackReader::open(vec![again(&layer)], &deltas);
    assert!(matches!(opened, Err(crate::tree::OpenError::OtherStack)));
    // Links that are counted wrongly, and names of nothing: a journal says whatever it says.
    tree.writable.update(kept, |node| node.attr.nlink = 7);
    let entry = NodeEntry::Child {
        ino: Ino(1_000_000),
        file_type: crate::tree::FileType::Fifo,
        cookie: 9_999,
    };
    tree.writable.set_entry(Ino::ROOT, b"nothing", Some(entry));
    tree.sync().unwrap();
    let damages = reader(&layer, &dirs).verify();
    assert_eq!(damages.damage_count, 3);
    assert!(
        damages
            .damages
            .iter()
            .any(|it| it.path == "nothing" && it.ino == Ino(1_000_000))
    );
    assert!(
        damages
            .damages
            .iter()
            .any(|it| it.ino == kept && it.what.contains("links"))
    );
}

#[test]
fn paths_without_end_are_refused_and_fill_no_memory() {
    let (layer, dir) = (layer(sample), scratch());
    let mut tree = open(&layer, dir.path());
    // 3,000 levels of the longest names: more than a gigabyte of paths.
    let long = "n".repeat(255);
    let mut at = Ino::ROOT;
    for _ in 0..3_000 {
        at = tree.mkdir(new(at, &long)).unwrap().ino;
    }
    tree.sync().unwrap();
    let reader = reader(&layer, &[dir.path()]);
    assert_eq!(reader.changes(0).err(), Some(Errno::TOOBIG));
}
