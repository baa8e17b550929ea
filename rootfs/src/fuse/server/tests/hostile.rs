//! Requests that no kernel would send. Each gets an error or silence, and changes nothing.

use super::*;

/// Fixed part of each opcode's arguments, zeros throughout.
fn fixed_len(opcode: Opcode) -> usize {
    match opcode {
        Opcode::Init => 16,
        Opcode::Forget | Opcode::Mkdir | Opcode::Rename | Opcode::Link => 8,
        Opcode::BatchForget | Opcode::Setxattr | Opcode::Getxattr | Opcode::Listxattr => 8,
        Opcode::Getattr | Opcode::Mknod | Opcode::Create | Opcode::Rename2 => 16,
        Opcode::Fsync | Opcode::Fsyncdir => 16,
        Opcode::Fallocate => 32,
        Opcode::Read | Opcode::Readdir | Opcode::Readdirplus | Opcode::Write => 40,
        Opcode::CopyFileRange => 56,
        Opcode::Setattr => 88,
        _ => 0,
    }
}

/// How many strings follow.
fn strings(opcode: Opcode) -> usize {
    match opcode {
        Opcode::Lookup | Opcode::Mknod | Opcode::Mkdir | Opcode::Create | Opcode::Link => 1,
        Opcode::Unlink | Opcode::Rmdir | Opcode::Getxattr | Opcode::Removexattr => 1,
        Opcode::Setxattr => 1,
        Opcode::Symlink | Opcode::Rename | Opcode::Rename2 => 2,
        _ => 0,
    }
}

#[test]
fn a_request_without_a_whole_header_gets_no_reply() {
    let mut client = Client::new();
    let message = client.message(Opcode::Getattr as u32, ROOT, &[&[0; 16]]);
    for len in 0..size_of::<InHeader>() {
        assert_eq!(client.raw(&message[..len], ROOMY), None, "{len}");
    }
}

#[test]
fn truncated_arguments_are_refused() {
    let mut client = Client::new();
    let before = client.snapshot();
    for opcode in Opcode::ALL {
        // Told rightly, but too short for the opcode.
        for len in 0..fixed_len(opcode) {
            let message = client.message(opcode as u32, ROOT, &[&vec![0; len]]);
            let Some(reply) = client.raw(&message, ROOMY) else {
                assert!(!opcode.has_reply(), "{opcode:?}");
                continue;
            };
            assert_eq!(
                client.taken_apart(&reply),
                Err(Errno::INVAL),
                "{opcode:?} {len}"
            );
        }
        // Strings without their end.
        if strings(opcode) > 0 {
            let fixed = vec![0; fixed_len(opcode)];
            let mut parts: Vec<&[u8]> = vec![&fixed];
            parts.extend((1..strings(opcode)).map(|_| &b"file\0"[..]));
            parts.push(b"unended");
            assert_eq!(
                client.call(opcode, ROOT, &parts),
                Err(Errno::INVAL),
                "{opcode:?}"
            );
        }
    }
    assert_eq!(client.snapshot(), before);
}

#[test]
fn lengths_that_lie_are_refused() {
    let mut client = Client::new();
    let before = client.snapshot();
    for opcode in Opcode::ALL {
        for lie in [0, 1, 39, 4096, u32::MAX] {
            let body = [vec![0; fixed_len(opcode)], nul("file"), nul("other")].concat();
            let mut message = client.message(opcode as u32, ROOT, &[&body]);
            message[..4].copy_from_slice(&lie.to_ne_bytes());
            let Some(reply) = client.raw(&message, ROOMY) else {
                assert!(!opcode.has_reply());
                continue;
            };
            assert_eq!(
                client.taken_apart(&reply),
                Err(Errno::INVAL),
                "{opcode:?} {lie}"
            );
        }
    }
    assert_eq!(client.snapshot(), before);
}

#[test]
fn bodies_larger_than_any_request_are_refused() {
    let mut client = Client::new();
    let body = vec![0; 1 << 20];
    for opcode in Opcode::ALL {
        if !opcode.has_reply() || opcode == Opcode::Write {
            continue;
        }
        assert_eq!(
            client.call(opcode, ROOT, &[&body]),
            Err(Errno::TOOBIG),
            "{opcode:?}"
        );
    }
}

#[test]
fn a_write_says_no_more_than_it_brings() {
    let mut client = Client::new();
    let node = client.create(ROOT, "new").unwrap().nodeid;
    for (size, payload) in [
        (1, 0),
        (5, 4),
        (u32::MAX, 100),
        ((1 << 20) + 1, (1 << 20) + 1),
    ] {
        let write = WriteIn {
            size,
            ..WriteIn::default()
        };
        let args: [&[u8]; 2] = [write.as_bytes(), &vec![1; payload]];
        assert_eq!(
            client.call(Opcode::Write, node, &args),
            Err(Errno::INVAL),
            "{size}"
        );
    }
    for offset in [u64::MAX, u64::MAX - 3, i64::MAX as u64] {
        assert_eq!(
            client.write(node, offset, b"1234"),
            Err(Errno::FBIG),
            "{offset}"
        );
    }
    assert_eq!(client.getattr(node).unwrap().size, 0);
    assert_eq!(client.write(node, 0, b""), Ok(0));
}

#[test]
fn unknown_opcodes_get_enosys() {
    let mut client = Client::new();
    for opcode in [
        0,
        7,
        19,
        31,
        32,
        33,
        34,
        37,
        39,
        40,
        41,
        48,
        49,
        51,
        52,
        4096,
        u32::MAX,
    ] {
        let message = client.message(opcode, ROOT, &[&[0; 64]]);
        let reply = client.raw(&message, ROOMY).unwrap();
        assert_eq!(client.taken_apart(&reply), Err(Errno::NOSYS), "{opcode}");
    }
}

#[test]
fn unknown_nodes_get_an_error() {
    let mut client = Client::new();
    let before = client.snapshot();
    for node in [0, 9999, u64::MAX, 1 << 63] {
        for opcode in Opcode::ALL {
            let about_a_node = !matches!(
                opcode,
                Opcode::Init
                    | Opcode::Destroy
                    | Opcode::Statfs
                    | Opcode::Release
                    | Opcode::Releasedir
                    | Opcode::Syncfs
            );
            if !about_a_node {
                continue;
            }
            let fixed = vec![0; fixed_len(opcode)];
            let parts: [&[u8]; 3] = [&fixed, b"user.name\0", b"other\0"];
            let message = client.message(opcode as u32, node, &parts);
            let Some(reply) = client.raw(&message, ROOMY) else {
                assert!(!opcode.has_reply());
                continue;
            };
            let result = client.taken_apart(&reply);
            let missing = opcode == Opcode::Lookup
                && result
                    .as_ref()
                    .is_ok_and(|body| parse::<EntryOut>(body).nodeid == 0);
            assert!(
                result.is_err() || missing,
                "{opcode:?} of node {node}: {result:?}"
            );
        }
    }
    assert_eq!(client.snapshot(), before);
}

#[test]
fn names_that_are_no_single_component_are_refused() {
    let mut client = Client::new();
    let file = client.lookup(ROOT, "file").unwrap().nodeid;
    let before = client.snapshot();
    let long = [vec![b'n'; 256], vec![0]].concat();
    let names: [(&[u8], Errno); 8] = [
        (b"\0", Errno::INVAL),
        (b".\0", Errno::INVAL),
        (b"..\0", Errno::INVAL),
        (b"/\0", Errno::INVAL),
        (b"../etc/passwd\0", Errno::INVAL),
        (b"/etc/passwd\0", Errno::INVAL),
        (b"dir/one\0", Errno::INVAL),
        (&long, Errno::NAMETOOLONG),
    ];
    let mkdir = MkdirIn {
        mode: 0o755,
        umask: 0,
    };
    let mknod = MknodIn {
        mode: 0o100_644,
        ..MknodIn::default()
    };
    let create = CreateIn {
        mode: 0o100_644,
        ..CreateIn::default()
    };
    let link = LinkIn { oldnodeid: file };
    let rename = RenameIn { newdir: ROOT };
    let rename2 = Rename2In {
        newdir: ROOT,
        ..Rename2In::default()
    };
    for (bad, error) in names {
        let good = b"file\0";
        let requests: [(Opcode, Vec<&[u8]>); 13] = [
            (Opcode::Lookup, vec![bad]),
            (Opcode::Mkdir, vec![mkdir.as_bytes(), bad]),
            (Opcode::Mknod, vec![mknod.as_bytes(), bad]),
            (Opcode::Create, vec![create.as_bytes(), bad]),
            (Opcode::Symlink, vec![bad, b"target\0"]),
            (Opcode::Link, vec![link.as_bytes(), bad]),
            (Opcode::Unlink, vec![bad]),
            (Opcode::Rmdir, vec![bad]),
            (Opcode::Rename, vec![rename.as_bytes(), bad, good]),
            (Opcode::Rename, vec![rename.as_bytes(), good, bad]),
            (Opcode::Rename2, vec![rename2.as_bytes(), bad, good]),
            (Opcode::Rename2, vec![rename2.as_bytes(), good, bad]),
            (Opcode::Rename2, vec![rename2.as_bytes(), bad, bad]),
        ];
        for (opcode, parts) in requests {
            assert_eq!(
                client.call(opcode, ROOT, &parts),
                Err(error),
                "{opcode:?} {bad:?}"
            );
        }
    }
    assert_eq!(client.snapshot(), before);
}

#[test]
fn a_name_ends_at_its_nul() {
    let mut client = Client::new();
    let mkdir = MkdirIn {
        mode: 0o755,
        umask: 0,
    };
    client
        .call(
            Opcode::Mkdir,
            ROOT,
            &[mkdir.as_bytes(), b"short\0/../escape\0"],
        )
        .unwrap();
    client.lookup(ROOT, "short").unwrap();
    assert!(
        client
            .list(ROOT)
            .iter()
            .all(|name| !name.contains("escape"))
    );
}

#[test]
fn a_target_too_long_is_refused() {
    let mut client = Client::new();
    let target = [vec![b't'; 4096], vec![0]].concat();
    let error = client
        .call(Opcode::Symlink, ROOT, &[b"new\0", &target])
        .unwrap_err();
    assert_eq!(error, Errno::NAMETOOLONG);
    assert_eq!(client.lookup(ROOT, "new").unwrap_err(), Errno::NOENT);
}

#[test]
fn without_room_for_the_reply_nothing_is_done() {
    let mut client = Client::new();
    let before = client.snapshot();
    let mkdir = MkdirIn {
        mode: 0o755,
        umask: 0,
    };
    for capacity in 0..16 + size_of::<EntryOut>() {
        let parts: [&[u8]; 2] = [mkdir.as_bytes(), b"new\0"];
        let message = client.message(Opcode::Mkdir as u32, ROOT, &parts);
        match client.raw(&message, capacity) {
            None => assert!(capacity < 16),
            Some(reply) => assert_eq!(client.taken_apart(&reply), Err(Errno::INVAL)),
        }
    }
    assert_eq!(client.snapshot(), before);
}

#[test]
fn a_lookup_that_could_not_be_told_is_not_counted() {
    let mut client = Client::new();
    let node = client.create(ROOT, "new").unwrap().nodeid;
    let message = client.message(Opcode::Lookup as u32, ROOT, &[b"new\0"]);
    let reply = client.raw(&message, 100).unwrap();
    assert_eq!(client.taken_apart(&reply), Err(Errno::INVAL));
    client.call(Opcode::Unlink, ROOT, &[b"new\0"]).unwrap();
    client.forget(node, 1);
    client.getattr(node).unwrap_err();
}

#[test]
fn forgetting_too_much_is_harmless() {
    let mut client = Client::new();
    let node = client.create(ROOT, "new").unwrap().nodeid;
    for node in [node, ROOT, 0, u64::MAX] {
        client.forget(node, u64::MAX);
        client.forget(node, u64::MAX);
    }
    assert_eq!(client.lookup(ROOT, "new").unwrap().nodeid, node);
    let count = BatchForgetIn {
        count: u32::MAX,
        dummy: 0,
    };
    let one = ForgetOne {
        nodeid: node,
        nlookup: u64::MAX,
    };
    let parts: [&[u8]; 2] = [count.as_bytes(), one.as_bytes()];
    let message = client.message(Opcode::BatchForget as u32, 0, &parts);
    assert_eq!(client.raw(&message, ROOMY), None);
    client.getattr(node).unwrap();
}

#[test]
fn one_batch_forgets_no_more_than_a_request_of_a_kernel_holds() {
    let mut client = Client::new();
    let node = client.create(ROOT, "new").unwrap().nodeid;
    client.call(Opcode::Unlink, ROOT, &[b"new\0"]).unwrap();
    let count = BatchForgetIn {
        count: u32::MAX,
        dummy: 0,
    };
    let nothing = vec![0; 2 * crate::fuse::MAX_WRITE as usize];
    let one = ForgetOne {
        nodeid: node,
        nlookup: 1,
    };
    let parts: [&[u8]; 3] = [count.as_bytes(), &nothing, one.as_bytes()];
    let message = client.message(Opcode::BatchForget as u32, 0, &parts);
    assert_eq!(client.raw(&message, ROOMY), None);
    client.getattr(node).unwrap();
}

#[test]
fn a_read_larger_than_any_request_is_refused() {
    let mut client = Client::new();
    let node = client.lookup(ROOT, "file").unwrap().nodeid;
    for size in [(1 << 20) + 1, u32::MAX] {
        assert_eq!(client.read(node, 0, size), Err(Errno::INVAL), "{size}");
    }
    assert_eq!(client.read(node, 0, 1 << 20), Ok(FILE.to_vec()));
}

#[test]
fn cookies_that_were_never_given_are_harmless() {
    let mut client = Client::new();
    for offset in [3, 77, 1 << 40, u64::MAX] {
        for opcode in [Opcode::Readdir, Opcode::Readdirplus] {
            let read = ReadIn {
                offset,
                size: 4096,
                ..ReadIn::default()
            };
            client.call(opcode, ROOT, &[read.as_bytes()]).unwrap();
        }
    }
}
