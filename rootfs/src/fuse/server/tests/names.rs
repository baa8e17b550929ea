//! Names, nodes, lookup counts, listings, attributes.

use super::*;

/// After `name` is unlinked, the node stays for exactly `count` forgets.
fn expect_count(client: &mut Client, name: &str, node: u64, count: u64) {
    client.call(Opcode::Unlink, ROOT, &[&nul(name)]).unwrap();
    for _ in 0..count {
        client.getattr(node).unwrap();
        client.forget(node, 1);
    }
    client.getattr(node).unwrap_err();
}

#[test]
fn each_reply_about_a_node_counts_one_lookup() {
    let mut client = Client::new();
    let node = client.create(ROOT, "new").unwrap().nodeid;
    client.lookup(ROOT, "new").unwrap();
    client.lookup(ROOT, "new").unwrap();
    expect_count(&mut client, "new", node, 3);
}

#[test]
fn link_and_create_count_too() {
    let mut client = Client::new();
    let create = CreateIn {
        mode: 0o100_600,
        ..CreateIn::default()
    };
    let args: [&[u8]; 2] = [create.as_bytes(), &nul("new")];
    let body = client.call(Opcode::Create, ROOT, &args).unwrap();
    assert_eq!(body.len(), size_of::<EntryOut>() + size_of::<OpenOut>());
    let node = parse::<EntryOut>(&body).nodeid;
    let link = LinkIn { oldnodeid: node };
    let entry: EntryOut = parse(
        &client
            .call(Opcode::Link, ROOT, &[link.as_bytes(), &nul("other")])
            .unwrap(),
    );
    assert_eq!((entry.nodeid, entry.attr.nlink), (node, 2));
    client.call(Opcode::Unlink, ROOT, &[&nul("new")]).unwrap();
    expect_count(&mut client, "other", node, 2);
}

#[test]
fn batch_forget_takes_back_what_it_lists() {
    let mut client = Client::new();
    let node = client.create(ROOT, "new").unwrap().nodeid;
    client.lookup(ROOT, "new").unwrap();
    client.call(Opcode::Unlink, ROOT, &[&nul("new")]).unwrap();
    let one = ForgetOne {
        nodeid: node,
        nlookup: 1,
    };
    for count in [1, 2] {
        client.getattr(node).unwrap();
        let batch = BatchForgetIn { count: 1, dummy: 0 };
        // What is beyond the count is not looked at; a count beyond what is there is cut.
        let parts: [&[u8]; 3] = [batch.as_bytes(), one.as_bytes(), one.as_bytes()];
        let parts = if count == 1 { &parts[..] } else { &parts[..2] };
        let message = client.message(Opcode::BatchForget as u32, 0, parts);
        assert_eq!(client.raw(&message, 0), None);
    }
    client.getattr(node).unwrap_err();
}

#[test]
fn a_missing_name_is_remembered_as_missing() {
    let mut client = Client::new();
    let body = client
        .call(Opcode::Lookup, ROOT, &[&nul("nothing")])
        .unwrap();
    let entry: EntryOut = parse(&body);
    assert_eq!(entry.nodeid, 0);
    assert!(entry.entry_valid > 1 << 30);
}

#[test]
fn readdirplus_counts_exactly_what_fitted() {
    let mut client = Client::new();
    let names = ["aaaa", "bbbb", "cccc"];
    let dir = client.mkdir(ROOT, "plus").unwrap().nodeid;
    let nodes = names.map(|name| client.create(dir, name).unwrap().nodeid);
    // Room for `.`, `..` and the first two.
    let record = size_of::<EntryOut>() + size_of::<Dirent>() + 8;
    let size = (4 * record + record / 2) as u32;
    let read = ReadIn {
        size,
        ..ReadIn::default()
    };
    let body = client
        .call(Opcode::Readdirplus, dir, &[read.as_bytes()])
        .unwrap();
    assert_eq!(body.len(), 4 * record);
    let told: Vec<u64> = body
        .chunks(record)
        .map(|one| parse::<EntryOut>(one).nodeid)
        .collect();
    assert_eq!(
        told[..2],
        [0, 0],
        "`.` and `..` are never counted by the kernel"
    );
    let listed: Vec<Vec<u8>> = body
        .chunks(record)
        .map(|one| dirent_of(&one[size_of::<EntryOut>()..]).1)
        .collect();
    assert_eq!(listed[..2], [b".".to_vec(), b"..".to_vec()]);
    for (name, node) in names.into_iter().zip(nodes) {
        let count = 1 + told.iter().filter(|told| **told == node).count();
        client.call(Opcode::Unlink, dir, &[&nul(name)]).unwrap();
        for _ in 0..count {
            client.getattr(node).unwrap();
            client.forget(node, 1);
        }
        client.getattr(node).unwrap_err();
    }
    assert_eq!(
        told[2..].iter().filter(|told| nodes.contains(told)).count(),
        2
    );
}

#[test]
fn a_listing_that_fits_nothing_is_not_an_empty_one() {
    let mut client = Client::new();
    for opcode in [Opcode::Readdir, Opcode::Readdirplus] {
        let read = ReadIn {
            size: 20,
            ..ReadIn::default()
        };
        let error = client.call(opcode, ROOT, &[read.as_bytes()]).unwrap_err();
        assert_eq!(error, Errno::INVAL);
    }
}

#[test]
fn listings_hold_every_name_once() {
    let mut client = Client::new();
    let dir = client.mkdir(ROOT, "many").unwrap().nodeid;
    let mut expected: Vec<String> = (0..500).map(|i| format!("name-{i:04}")).collect();
    for name in &expected {
        client.create(dir, name).unwrap();
    }
    expected.extend([".".to_owned(), "..".to_owned()]);
    let mut listed = client.list(dir);
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);
}

#[test]
fn new_nodes_belong_to_the_caller_and_keep_their_mode() {
    let mut client = Client::new();
    let mknod = MknodIn {
        mode: 0o020_640,
        rdev: 0x501,
        umask: 0o022,
        padding: 0,
    };
    let args: [&[u8]; 2] = [mknod.as_bytes(), &nul("tty")];
    let attr = parse::<EntryOut>(&client.call(Opcode::Mknod, ROOT, &args).unwrap()).attr;
    assert_eq!((attr.uid, attr.gid, attr.rdev), (1000, 1001, 0x501));
    assert_eq!(attr.mode, 0o020_640, "the kernel has applied the umask");
}

#[test]
fn mknod_makes_no_directories_and_no_links() {
    let mut client = Client::new();
    for mode in [0o040_755, 0o120_777, 0, 0o170_000] {
        let mknod = MknodIn {
            mode,
            ..MknodIn::default()
        };
        let args: [&[u8]; 2] = [mknod.as_bytes(), &nul("odd")];
        assert_eq!(
            client.call(Opcode::Mknod, ROOT, &args).unwrap_err(),
            Errno::INVAL
        );
    }
    assert_eq!(client.lookup(ROOT, "odd").unwrap_err(), Errno::NOENT);
}

#[test]
fn create_opens_what_is_there_unless_it_is_exclusive() {
    let mut client = Client::new();
    let create = |flags| CreateIn {
        flags,
        mode: 0o100_600,
        ..CreateIn::default()
    };
    let name = nul("file");
    let file = client.lookup(ROOT, "file").unwrap().nodeid;
    let body = client
        .call(Opcode::Create, ROOT, &[create(0).as_bytes(), &name])
        .unwrap();
    assert_eq!(parse::<EntryOut>(&body).nodeid, file);
    let exclusive = create(O_EXCL);
    let error = client
        .call(Opcode::Create, ROOT, &[exclusive.as_bytes(), &name])
        .unwrap_err();
    assert_eq!(error, Errno::EXIST);
    let (plain, dir) = (create(0), nul("dir"));
    let args = [plain.as_bytes(), &dir];
    assert_eq!(
        client.call(Opcode::Create, ROOT, &args).unwrap_err(),
        Errno::ISDIR
    );
}

#[test]
fn renames_know_their_three_modes() {
    let mut client = Client::new();
    let dir = client.lookup(ROOT, "dir").unwrap().nodeid;
    let one = client.lookup(dir, "one").unwrap().nodeid;
    let two = client.lookup(dir, "two").unwrap().nodeid;
    let mut rename = |old: &str, new: &str, flags| {
        let args = Rename2In {
            newdir: dir,
            flags,
            padding: 0,
        };
        client.call(
            Opcode::Rename2,
            dir,
            &[args.as_bytes(), &nul(old), &nul(new)],
        )
    };
    assert_eq!(
        rename("one", "two", RENAME_NOREPLACE).unwrap_err(),
        Errno::EXIST
    );
    rename("one", "two", RENAME_EXCHANGE).unwrap();
    assert_eq!(rename("one", "two", 4).unwrap_err(), Errno::INVAL);
    assert_eq!(client.lookup(dir, "one").unwrap().nodeid, two);
    let args = RenameIn { newdir: ROOT };
    let names = [nul("two"), nul("moved")];
    client
        .call(
            Opcode::Rename,
            dir,
            &[args.as_bytes(), &names[0], &names[1]],
        )
        .unwrap();
    assert_eq!(client.lookup(ROOT, "moved").unwrap().nodeid, one);
    assert_eq!(client.lookup(dir, "two").unwrap_err(), Errno::NOENT);
}

#[test]
fn links_are_read_as_they_were_made() {
    let mut client = Client::new();
    let args = [nul("new"), nul("../../etc/passwd")];
    let body = client
        .call(Opcode::Symlink, ROOT, &[&args[0], &args[1]])
        .unwrap();
    let node = parse::<EntryOut>(&body).nodeid;
    assert_eq!(
        client.call(Opcode::Readlink, node, &[]).unwrap(),
        b"../../etc/passwd"
    );
    assert_eq!(
        client.call(Opcode::Readlink, ROOT, &[]).unwrap_err(),
        Errno::INVAL
    );
}

#[test]
fn chown_and_flagged_truncation_take_set_id_bits_away() {
    let mut client = Client::new();
    let node = client.lookup(ROOT, "setuid").unwrap().nodeid;
    let chown = SetattrIn {
        valid: SetattrValid::UID.bits(),
        uid: 7,
        ..SetattrIn::default()
    };
    assert_eq!(client.setattr(node, chown).unwrap().mode, 0o100_755);
    let chmod = SetattrIn {
        valid: SetattrValid::MODE.bits(),
        mode: 0o106_755,
        ..SetattrIn::default()
    };
    assert_eq!(client.setattr(node, chmod).unwrap().mode, 0o106_755);
    let kill = SetattrValid::SIZE | SetattrValid::KILL_SUIDGID;
    let truncate = SetattrIn {
        valid: kill.bits(),
        size: 1,
        ..SetattrIn::default()
    };
    let attr = client.setattr(node, truncate).unwrap();
    assert_eq!((attr.mode, attr.size), (0o100_755, 1));
}

#[test]
fn setattr_refuses_what_cannot_be() {
    let mut client = Client::new();
    let node = client.lookup(ROOT, "file").unwrap().nodeid;
    let mut refused = |valid: SetattrValid, set: SetattrIn| {
        client
            .setattr(
                node,
                SetattrIn {
                    valid: valid.bits(),
                    ..set
                },
            )
            .unwrap_err()
    };
    let none = SetattrIn::default();
    assert_eq!(
        refused(
            SetattrValid::UID,
            SetattrIn {
                uid: u32::MAX,
                ..none
            }
        ),
        Errno::INVAL
    );
    assert_eq!(
        refused(
            SetattrValid::SIZE,
            SetattrIn {
                size: u64::MAX,
                ..none
            }
        ),
        Errno::FBIG
    );
    let late = SetattrIn {
        mtimensec: 1_000_000_000,
        ..none
    };
    assert_eq!(refused(SetattrValid::MTIME, late), Errno::INVAL);
}

#[test]
fn times_are_kept_to_the_nanosecond_also_before_1970() {
    let mut client = Client::new();
    let node = client.lookup(ROOT, "file").unwrap().nodeid;
    let valid = SetattrValid::MTIME | SetattrValid::ATIME | SetattrValid::CTIME;
    let set = SetattrIn {
        valid: valid.bits(),
        mtime: -5,
        mtimensec: 999_999_999,
        atime: 1 << 34,
        atimensec: 1,
        ctime: 3,
        ..SetattrIn::default()
    };
    let attr = client.setattr(node, set).unwrap();
    assert_eq!((attr.mtime, attr.mtimensec), (-5, 999_999_999));
    assert_eq!((attr.atime, attr.atimensec, attr.ctime), (1 << 34, 1, 3));
}

#[test]
fn xattrs_have_sizes_flags_and_namespaces() {
    let mut client = Client::new();
    let node = client.lookup(ROOT, "file").unwrap().nodeid;
    let mut set = |name: &str, value: &[u8], flags| {
        let args = SetxattrIn {
            size: value.len() as u32,
            flags,
        };
        client
            .call(
                Opcode::Setxattr,
                node,
                &[args.as_bytes(), &nul(name), value],
            )
            .map(drop)
    };
    assert_eq!(set("user.a", b"value", XATTR_REPLACE), Err(Errno::NODATA));
    assert_eq!(set("user.a", b"value", XATTR_CREATE), Ok(()));
    assert_eq!(set("user.a", b"value", XATTR_CREATE), Err(Errno::EXIST));
    assert_eq!(set("user.a", b"value", 3), Err(Errno::INVAL));
    assert_eq!(set("user.", b"value", 0), Err(Errno::INVAL));
    assert_eq!(set("", b"value", 0), Err(Errno::RANGE));
    assert_eq!(
        set(&format!("user.{}", "x".repeat(251)), b"", 0),
        Err(Errno::RANGE)
    );
    assert_eq!(
        set("system.posix_acl_access", b"value", 0),
        Err(Errno::OPNOTSUPP)
    );
    assert_eq!(set("user.b", &[0; 65537], 0), Err(Errno::TOOBIG));
    let mut get = |size, name: &str| {
        let args = GetxattrIn { size, padding: 0 };
        client.call(Opcode::Getxattr, node, &[args.as_bytes(), &nul(name)])
    };
    assert_eq!(parse::<GetxattrOut>(&get(0, "user.a").unwrap()).size, 5);
    assert_eq!(get(4, "user.a"), Err(Errno::RANGE));
    assert_eq!(get(5, "user.a").unwrap(), b"value");
    assert_eq!(get(5, "user.b"), Err(Errno::NODATA));
    assert_eq!(get(5, "system.posix_acl_access"), Err(Errno::OPNOTSUPP));
    let list = GetxattrIn {
        size: 7,
        padding: 0,
    };
    assert_eq!(
        client
            .call(Opcode::Listxattr, node, &[list.as_bytes()])
            .unwrap(),
        b"user.a\0"
    );
    client
        .call(Opcode::Removexattr, node, &[&nul("user.a")])
        .unwrap();
    let error = client
        .call(Opcode::Removexattr, node, &[&nul("user.a")])
        .unwrap_err();
    assert_eq!(error, Errno::NODATA);
}
