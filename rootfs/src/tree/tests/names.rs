use std::ops::ControlFlow;

use rustix::io::Errno;

use crate::testing::{at, layer, list, name, new, open, read, sample, write};
use crate::tree::{Cookie, FileType, Ino, Name, NewNode, RenameMode};

const REPLACE: RenameMode = RenameMode::Replace;

#[test]
fn names_are_single_components() {
    for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0", b"\0"] {
        assert_eq!(Name::new(bad), Err(Errno::INVAL), "{bad:?}");
    }
    assert_eq!(Name::new(&[b'a'; 256]), Err(Errno::NAMETOOLONG));
    assert!(Name::new(&[b'a'; 255]).is_ok());
    assert!(Name::new(b"...").is_ok());
    assert!(Name::new(b"\xff\n").is_ok(), "names are bytes");
}

#[test]
fn a_directory_of_a_lower_layer_is_renamed_with_all_that_is_in_it() {
    let (layer, dir) = (layer(sample), tempfile::tempdir().unwrap());
    let mut tree = open(&layer, dir.path());
    let (lib, big) = (at(&tree, "usr/lib"), at(&tree, "usr/lib/big"));
    let usr = at(&tree, "usr");
    tree.rename(usr, name("lib"), Ino::ROOT, name("moved"), REPLACE)
        .unwrap();
    assert_eq!(at(&tree, "moved"), lib);
    assert_eq!(at(&tree, "moved/big"), big);
    assert_eq!(tree.parent_of(lib), Ok(Ino::ROOT));
    assert_eq!(tree.lookup(usr, name("lib")), Err(Errno::NOENT));
    assert_eq!(tree.attr(usr).unwrap().nlink, 2);
    drop(tree);
    let mut tree = open(&layer, dir.path());
    assert_eq!(list(&tree, lib), ["big", "small"]);
    assert_eq!(read(&mut tree, big), [b'b'; 10_000]);
    assert_eq!(list(&tree, usr), ["empty", "ping"]);
    // A new directory in its old place has nothing of it.
    let again = tree.mkdir(new(usr, "lib")).unwrap().ino;
    assert_eq!(list(&tree, again), Vec::<String>::new());
    assert!(
        std::fs::read_dir(dir.path().join("content"))
            .unwrap()
            .next()
            .is_none()
    );
}

#[test]
fn hard_links_of_a_lower_layer_stay_one_file() {
    let (layer, dir) = (layer(sample), tempfile::tempdir().unwrap());
    let mut tree = open(&layer, dir.path());
    let (etc, passwd) = (at(&tree, "etc"), at(&tree, "etc/passwd"));
    assert_eq!(at(&tree, "etc/passwd-"), passwd);
    write(&mut tree, passwd, 0, b"ROOT");
    tree.link(passwd, Ino::ROOT, name("third")).unwrap();
    assert_eq!(tree.attr(passwd).unwrap().nlink, 3);
    tree.unlink(etc, name("passwd")).unwrap();
    drop(tree);
    let mut tree = open(&layer, dir.path());
    assert_eq!(at(&tree, "etc/passwd-"), passwd);
    assert_eq!(at(&tree, "third"), passwd);
    assert_eq!(tree.attr(passwd).unwrap().nlink, 2);
    assert_eq!(read(&mut tree, passwd), b"ROOT:x:0:0\n");
}

#[test]
fn an_unlinked_file_is_readable_and_writable_until_it_is_forgotten() {
    let (layer, dir) = (layer(sample), tempfile::tempdir().unwrap());
    let mut tree = open(&layer, dir.path());
    let small = at(&tree, "usr/lib/small");
    let made = tree.create_file(new(Ino::ROOT, "temporary")).unwrap().ino;
    for ino in [small, small, made] {
        tree.retain(ino);
    }
    tree.unlink(at(&tree, "usr/lib"), name("small")).unwrap();
    tree.unlink(Ino::ROOT, name("temporary")).unwrap();
    write(&mut tree, made, 0, b"still here");
    write(&mut tree, small, 5, b" too");
    assert_eq!(read(&mut tree, made), b"still here");
    assert_eq!(read(&mut tree, small), b"small too");
    assert_eq!(tree.attr(small).unwrap().nlink, 0);
    assert_eq!(tree.link(small, Ino::ROOT, name("back")), Err(Errno::NOENT));
    tree.forget(small, 1);
    assert!(tree.attr(small).is_ok(), "one reference is left");
    tree.forget(small, 1);
    tree.forget(made, 99);
    assert_eq!(tree.attr(small), Err(Errno::STALE));
    assert_eq!(tree.attr(made), Err(Errno::STALE));
    tree.sync().unwrap();
    assert!(
        std::fs::read_dir(dir.path().join("content"))
            .unwrap()
            .next()
            .is_none()
    );
    drop(tree);
    let tree = open(&layer, dir.path());
    assert_eq!(tree.attr(small), Err(Errno::STALE));
}

#[test]
fn a_removed_directory_takes_no_new_entries() {
    let (layer, dir) = (layer(sample), tempfile::tempdir().unwrap());
    let mut tree = open(&layer, dir.path());
    let dev = at(&tree, "dev");
    tree.retain(dev);
    assert_eq!(tree.rmdir(Ino::ROOT, name("dev")), Err(Errno::NOTEMPTY));
    tree.unlink(dev, name("null")).unwrap();
    tree.rmdir(Ino::ROOT, name("dev")).unwrap();
    assert_eq!(tree.create_file(new(dev, "x")), Err(Errno::NOENT));
    let passwd = at(&tree, "etc/passwd");
    assert_eq!(tree.link(passwd, dev, name("x")), Err(Errno::NOENT));
    let moved = tree.rename(at(&tree, "etc"), name("passwd"), dev, name("x"), REPLACE);
    assert_eq!(moved, Err(Errno::NOENT));
    assert_eq!(tree.lookup(dev, name("null")), Err(Errno::NOENT));
    assert_eq!(list(&tree, dev), Vec::<String>::new());
}

#[test]
fn a_directory_is_not_renamed_into_itself() {
    let (layer, dir) = (layer(sample), tempfile::tempdir().unwrap());
    let mut tree = open(&layer, dir.path());
    let (usr, lib) = (at(&tree, "usr"), at(&tree, "usr/lib"));
    for into in [usr, lib] {
        let moved = tree.rename(Ino::ROOT, name("usr"), into, name("x"), REPLACE);
        assert_eq!(moved, Err(Errno::INVAL));
    }
    let swapped = tree.rename(
        usr,
        name("lib"),
        Ino::ROOT,
        name("usr"),
        RenameMode::Exchange,
    );
    assert_eq!(swapped, Err(Errno::INVAL));
    assert_eq!(
        tree.rename(usr, name("lib"), Ino::ROOT, name("usr"), REPLACE),
        Err(Errno::NOTEMPTY)
    );
}

#[test]
fn two_names_are_exchanged() {
    let (layer, dir) = (layer(sample), tempfile::tempdir().unwrap());
    let mut tree = open(&layer, dir.path());
    let (usr, etc) = (at(&tree, "usr"), at(&tree, "etc"));
    let (lib, passwd) = (at(&tree, "usr/lib"), at(&tree, "etc/passwd"));
    tree.rename(usr, name("lib"), etc, name("passwd"), RenameMode::Exchange)
        .unwrap();
    assert_eq!(
        (at(&tree, "usr/lib"), at(&tree, "etc/passwd")),
        (passwd, lib)
    );
    assert_eq!(
        (tree.attr(usr).unwrap().nlink, tree.attr(etc).unwrap().nlink),
        (2, 3)
    );
    assert_eq!(tree.parent_of(lib), Ok(etc));
    // In one directory too, where both get new places in the listing.
    let (empty, ping) = (at(&tree, "usr/empty"), at(&tree, "usr/ping"));
    tree.rename(usr, name("empty"), usr, name("ping"), RenameMode::Exchange)
        .unwrap();
    assert_eq!(
        (at(&tree, "usr/empty"), at(&tree, "usr/ping")),
        (ping, empty)
    );
    assert_eq!(list(&tree, usr), ["empty", "lib", "ping"]);
    let missing = tree.rename(usr, name("empty"), usr, name("no"), RenameMode::Exchange);
    assert_eq!(missing, Err(Errno::NOENT));
    let there = tree.rename(usr, name("empty"), usr, name("ping"), RenameMode::NoReplace);
    assert_eq!(there, Err(Errno::EXIST));
}

#[test]
fn a_listing_goes_on_rightly_while_the_directory_changes() {
    let (layer, dir) = (layer(sample), tempfile::tempdir().unwrap());
    let mut tree = open(&layer, dir.path());
    for i in 0..50 {
        tree.create_file(new(Ino::ROOT, &format!("stays-{i:02}")))
            .unwrap();
        tree.create_file(new(Ino::ROOT, &format!("goes-{i:02}")))
            .unwrap();
    }
    let (mut seen, mut after, mut round) = (Vec::new(), Cookie::START, 0);
    loop {
        let mut batch = Vec::new();
        tree.read_dir(Ino::ROOT, after, &mut |entry| {
            batch.push((entry.name.to_vec(), entry.cookie));
            if batch.len() == 7 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .unwrap();
        let Some((_, last)) = batch.last() else { break };
        assert!(
            batch.windows(2).all(|pair| pair[0].1 < pair[1].1),
            "cookies increase"
        );
        after = *last;
        seen.extend(
            batch
                .into_iter()
                .map(|(name, _)| String::from_utf8(name).unwrap()),
        );
        for goes in [round, 49 - round] {
            let _ = tree.unlink(Ino::ROOT, name(&format!("goes-{goes:02}")));
        }
        if round < 10 {
            tree.create_file(new(Ino::ROOT, &format!("new-{round}")))
                .unwrap();
        }
        round += 1;
    }
    let stayed = seen
        .iter()
        .filter(|name| name.starts_with("stays-"))
        .count();
    assert_eq!(stayed, 50);
    for lower in [".", "..", "dev", "etc", "lib", "usr"] {
        assert_eq!(
            seen.iter().filter(|name| *name == lower).count(),
            1,
            "{lower}"
        );
    }
    seen.sort();
    let before = seen.len();
    seen.dedup();
    assert_eq!(seen.len(), before, "nothing is listed twice");
}

#[test]
fn what_is_made_has_owner_type_and_set_group_id_as_posix_says() {
    let (layer, dir) = (layer(sample), tempfile::tempdir().unwrap());
    let mut tree = open(&layer, dir.path());
    let owner = crate::tree::Owner { uid: 7, gid: 8 };
    let node = |parent, of| NewNode {
        parent,
        name: name(of),
        owner,
        mode: 0o2750,
    };
    let dir = tree.mkdir(node(Ino::ROOT, "group")).unwrap();
    assert_eq!((dir.mode, dir.uid, dir.gid, dir.nlink), (0o2750, 7, 8, 2));
    let other = crate::tree::Owner { uid: 9, gid: 10 };
    let sub = NewNode {
        owner: other,
        mode: 0o700,
        ..node(dir.ino, "sub")
    };
    let sub = tree.mkdir(sub).unwrap();
    assert_eq!((sub.mode, sub.uid, sub.gid), (0o2700, 9, 8));
    let file = NewNode {
        owner: other,
        mode: 0o600,
        ..node(dir.ino, "file")
    };
    let file = tree.create_file(file).unwrap();
    assert_eq!((file.mode, file.uid, file.gid), (0o600, 9, 8));
    let null = tree
        .mknod(node(Ino::ROOT, "null"), FileType::CharDevice, 0x103)
        .unwrap();
    assert_eq!((null.file_type, null.rdev), (FileType::CharDevice, 0x103));
    let bad = tree.mknod(node(Ino::ROOT, "bad"), FileType::Directory, 0);
    assert_eq!(bad, Err(Errno::INVAL));
    let link = tree.symlink(node(Ino::ROOT, "to"), b"away").unwrap();
    assert_eq!((link.mode, link.size), (0o777, 4));
    assert_eq!(tree.readlink(link.ino).unwrap(), b"away");
    for (target, error) in [
        (&b""[..], Errno::NOENT),
        (&[b'x'; 4096], Errno::NAMETOOLONG),
        (b"a\0", Errno::INVAL),
    ] {
        assert_eq!(tree.symlink(node(Ino::ROOT, "bad"), target), Err(error));
    }
}

#[test]
fn numbers_that_name_nothing_are_stale_everywhere() {
    let (layer, dir) = (layer(sample), tempfile::tempdir().unwrap());
    let mut tree = open(&layer, dir.path());
    for ino in [Ino(0), Ino(1 << 40), Ino(u64::MAX)] {
        assert_eq!(tree.attr(ino), Err(Errno::STALE));
        assert_eq!(tree.lookup(ino, name("x")), Err(Errno::STALE));
        assert_eq!(tree.create_file(new(ino, "x")), Err(Errno::STALE));
        assert_eq!(tree.content_mut(ino).map(|_| ()), Err(Errno::STALE));
        assert_eq!(tree.link(ino, Ino::ROOT, name("x")), Err(Errno::STALE));
        assert_eq!(tree.fsync(ino, false), Err(Errno::STALE));
        tree.forget(ino, u64::MAX);
    }
    let passwd = at(&tree, "etc/passwd");
    assert_eq!(tree.lookup(passwd, name("x")), Err(Errno::NOTDIR));
    assert_eq!(tree.create_file(new(passwd, "x")), Err(Errno::NOTDIR));
    assert_eq!(tree.content(Ino::ROOT).map(|_| ()), Err(Errno::ISDIR));
    assert_eq!(tree.readlink(passwd), Err(Errno::INVAL));
    assert_eq!(tree.link(Ino::ROOT, Ino::ROOT, name("x")), Err(Errno::PERM));
}

#[test]
fn a_root_deleted_whole_is_gone_and_costs_nothing() {
    let (layer, dir) = (layer(sample), tempfile::tempdir().unwrap());
    let mut tree = open(&layer, dir.path());
    fn remove(tree: &mut crate::tree::Tree, dir: Ino) {
        for child in list(tree, dir) {
            let attr = tree.lookup(dir, name(&child)).unwrap();
            if attr.file_type == FileType::Directory {
                remove(tree, attr.ino);
                tree.rmdir(dir, name(&child)).unwrap();
            } else {
                tree.unlink(dir, name(&child)).unwrap();
            }
        }
    }
    remove(&mut tree, Ino::ROOT);
    assert_eq!(tree.attr(Ino::ROOT).unwrap().nlink, 2);
    drop(tree);
    let tree = open(&layer, dir.path());
    assert_eq!(list(&tree, Ino::ROOT), Vec::<String>::new());
}
