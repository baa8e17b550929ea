use rustix::io::Errno;

use crate::testing::{at, layer, name, new, open, sample, scratch};
use crate::tree::{Ino, SetAttr, Timestamp, XattrMode};

const CAPABILITY: &[u8] = b"security.capability";

#[test]
fn attributes_of_lower_layers_change_and_last() {
    let (layer, dir) = (layer(sample), scratch());
    let mut tree = open(&layer, dir.path());
    let passwd = at(&tree, "etc/passwd");
    let before = tree.attr(passwd).unwrap();
    let time = |secs| Timestamp {
        secs,
        nanos: 999_999_999,
    };
    let change = SetAttr {
        mode: Some(0o4600),
        uid: Some(u32::MAX - 1),
        gid: Some(5),
        atime: Some(time(-5)),
        mtime: Some(time(6)),
        ctime: Some(time(7)),
        ..SetAttr::default()
    };
    let after = tree.set_attr(passwd, &change).unwrap();
    assert_eq!(
        (after.mode, after.uid, after.gid),
        (0o4600, u32::MAX - 1, 5)
    );
    assert_eq!(
        (after.atime, after.mtime, after.ctime),
        (time(-5), time(6), time(7))
    );
    assert_eq!((after.size, after.nlink), (before.size, before.nlink));
    drop(tree);
    let tree = open(&layer, dir.path());
    assert_eq!(tree.attr(passwd), Ok(after));
}

#[test]
fn a_new_owner_takes_privileges_away() {
    let (layer, dir) = (layer(sample), scratch());
    let mut tree = open(&layer, dir.path());
    let ping = at(&tree, "usr/ping");
    assert_eq!(tree.get_xattr(ping, CAPABILITY).unwrap(), b"caps");
    let attr = tree
        .set_attr(
            ping,
            &SetAttr {
                uid: Some(3),
                ..SetAttr::default()
            },
        )
        .unwrap();
    assert_eq!(attr.mode, 0o755);
    assert_eq!(tree.get_xattr(ping, CAPABILITY), Err(Errno::NODATA));
    // Set-group-id without execution by the group is no privilege; directories keep theirs.
    let modes = SetAttr {
        mode: Some(0o6705),
        ..SetAttr::default()
    };
    tree.set_attr(ping, &modes).unwrap();
    tree.kill_privileges(ping).unwrap();
    assert_eq!(tree.attr(ping).unwrap().mode, 0o2705);
    let usr = at(&tree, "usr");
    tree.set_attr(
        usr,
        &SetAttr {
            mode: Some(0o2755),
            ..SetAttr::default()
        },
    )
    .unwrap();
    let attr = tree
        .set_attr(
            usr,
            &SetAttr {
                gid: Some(3),
                ..SetAttr::default()
            },
        )
        .unwrap();
    assert_eq!(attr.mode, 0o2755);
}

#[test]
fn extended_attributes_are_set_listed_and_removed() {
    let (layer, dir) = (layer(sample), scratch());
    let mut tree = open(&layer, dir.path());
    let ping = at(&tree, "usr/ping");
    tree.set_xattr(ping, b"user.a", b"1", XattrMode::Create)
        .unwrap();
    tree.set_xattr(ping, b"user.empty", b"", XattrMode::Any)
        .unwrap();
    assert_eq!(
        tree.set_xattr(ping, b"user.a", b"2", XattrMode::Create),
        Err(Errno::EXIST)
    );
    tree.set_xattr(ping, b"user.a", b"2", XattrMode::Replace)
        .unwrap();
    assert_eq!(
        tree.set_xattr(ping, b"user.b", b"", XattrMode::Replace),
        Err(Errno::NODATA)
    );
    assert_eq!(
        tree.list_xattr(ping).unwrap(),
        b"security.capability\0user.a\0user.empty\0"
    );
    tree.remove_xattr(ping, CAPABILITY).unwrap();
    assert_eq!(tree.remove_xattr(ping, CAPABILITY), Err(Errno::NODATA));
    drop(tree);
    let tree = open(&layer, dir.path());
    assert_eq!(tree.list_xattr(ping).unwrap(), b"user.a\0user.empty\0");
    assert_eq!(tree.get_xattr(ping, b"user.a").unwrap(), b"2");
}

#[test]
fn extended_attributes_are_bounded() {
    let (layer, dir) = (layer(sample), scratch());
    let mut tree = open(&layer, dir.path());
    let any = XattrMode::Any;
    let file = tree.create_file(new(Ino::ROOT, "f")).unwrap().ino;
    let long = [b"user.".to_vec(), vec![b'n'; 251]].concat();
    for (name, value, error) in [
        (&b""[..], 1, Errno::RANGE),
        (&long, 1, Errno::RANGE),
        (b"user.\0", 1, Errno::INVAL),
        (b"user.", 1, Errno::OPNOTSUPP),
        (b"system.other", 1, Errno::OPNOTSUPP),
        (b"user.big", 65_537, Errno::TOOBIG),
    ] {
        assert_eq!(
            tree.set_xattr(file, name, &vec![0; value], any),
            Err(error),
            "{name:?}"
        );
    }
    tree.set_xattr(file, b"system.posix_acl_access", b"acl", any)
        .unwrap();
    tree.set_xattr(file, b"user.one", &[1; 65_000], any)
        .unwrap();
    tree.set_xattr(file, b"user.two", &[2; 65_000], any)
        .unwrap();
    assert_eq!(
        tree.set_xattr(file, b"user.three", &[3; 65_000], any),
        Err(Errno::NOSPC)
    );
    // The layer as a whole is bounded too, whatever number of inodes there is.
    let mut full = None;
    for i in 0..2_000 {
        let file = tree
            .create_file(new(Ino::ROOT, &format!("{i}")))
            .unwrap()
            .ino;
        if let Err(error) = tree.set_xattr(file, b"user.big", &[0; 65_536], any) {
            full = Some(error);
            break;
        }
    }
    assert_eq!(full, Some(Errno::NOSPC));
}

#[test]
fn targets_of_links_are_bounded_together() {
    let (layer, dir) = (layer(sample), scratch());
    let mut tree = open(&layer, dir.path());
    let target = [b't'; 4095];
    let most = (64 << 20) / target.len();
    for i in 0..most {
        tree.symlink(new(Ino::ROOT, &format!("{i}")), &target)
            .unwrap();
    }
    let more = tree.symlink(new(Ino::ROOT, "more"), &target);
    assert_eq!(more.map(|attr| attr.ino), Err(Errno::NOSPC));
    tree.create_file(new(Ino::ROOT, "file")).unwrap();
    tree.unlink(Ino::ROOT, name("0")).unwrap();
    tree.symlink(new(Ino::ROOT, "more"), &target).unwrap();
}
