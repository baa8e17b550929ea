//! Contents of regular files.

use super::*;

#[test]
fn reads_end_where_the_file_ends() {
    let mut client = Client::new();
    let node = client.lookup(ROOT, "file").unwrap().nodeid;
    assert_eq!(client.read(node, 0, 4096).unwrap(), FILE);
    assert_eq!(client.read(node, 5, 3).unwrap(), &FILE[5..8]);
    assert!(client.read(node, FILE.len() as u64, 10).unwrap().is_empty());
    assert!(client.read(node, u64::MAX, 10).unwrap().is_empty());
    assert_eq!(client.read(node, 1, 1 << 20).unwrap(), &FILE[1..]);
}

#[test]
fn a_read_is_as_long_as_its_reply_at_most() {
    let mut client = Client::new();
    let node = client.lookup(ROOT, "file").unwrap().nodeid;
    let read = ReadIn {
        size: 4096,
        ..ReadIn::default()
    };
    let message = client.message(Opcode::Read as u32, node, &[read.as_bytes()]);
    let reply = client.raw(&message, 16 + 7).unwrap();
    assert_eq!(client.taken_apart(&reply).unwrap(), &FILE[..7]);
}

#[test]
fn writes_reach_the_file_and_leave_the_layer_below() {
    let mut client = Client::new();
    let node = client.lookup(ROOT, "file").unwrap().nodeid;
    let before = std::fs::read(client.dir.path().join("data")).unwrap();
    assert_eq!(client.write(node, 5, b"THE").unwrap(), 3);
    assert_eq!(
        client.read(node, 0, 4096).unwrap(),
        b"from THE layer below\n"
    );
    assert_eq!(
        std::fs::read(client.dir.path().join("data")).unwrap(),
        before
    );
}

#[test]
fn a_write_beyond_the_end_leaves_zeros_between() {
    let mut client = Client::new();
    let node = client.create(ROOT, "sparse").unwrap().nodeid;
    client.write(node, 10_000, b"end").unwrap();
    assert_eq!(client.getattr(node).unwrap().size, 10_003);
    let content = client.read(node, 0, 20_000).unwrap();
    assert_eq!(content.len(), 10_003);
    assert!(content[..10_000].iter().all(|b| *b == 0));
    assert_eq!(&content[10_000..], b"end");
}

#[test]
fn a_file_made_longer_reads_as_zeros() {
    let mut client = Client::new();
    let node = client.lookup(ROOT, "file").unwrap().nodeid;
    let set = |size| SetattrIn {
        valid: SetattrValid::SIZE.bits(),
        size,
        ..SetattrIn::default()
    };
    client.setattr(node, set(4)).unwrap();
    client.setattr(node, set(8)).unwrap();
    assert_eq!(client.read(node, 0, 100).unwrap(), b"from\0\0\0\0");
}

#[test]
fn only_regular_files_have_contents() {
    let mut client = Client::new();
    let null = client.lookup(ROOT, "null").unwrap().nodeid;
    let link = client.lookup(ROOT, "link").unwrap().nodeid;
    for (node, error) in [
        (ROOT, Errno::ISDIR),
        (null, Errno::INVAL),
        (link, Errno::INVAL),
    ] {
        assert_eq!(client.read(node, 0, 10).unwrap_err(), error);
        assert_eq!(client.write(node, 0, b"x").unwrap_err(), error);
    }
}

#[test]
fn a_write_takes_set_id_bits_away_when_the_kernel_says_so() {
    let mut client = Client::new();
    let node = client.lookup(ROOT, "setuid").unwrap().nodeid;
    client
        .write_flagged(node, 0, b"x", WriteFlags::empty())
        .unwrap();
    assert_eq!(client.getattr(node).unwrap().mode, 0o106_755);
    client
        .write_flagged(node, 0, b"x", WriteFlags::KILL_SUIDGID)
        .unwrap();
    assert_eq!(client.getattr(node).unwrap().mode, 0o100_755);
}

#[test]
fn only_a_write_past_the_kernels_cache_moves_the_times() {
    let mut client = Client::new();
    let node = client.create(ROOT, "new").unwrap().nodeid;
    let valid = SetattrValid::MTIME | SetattrValid::CTIME;
    let set = SetattrIn {
        valid: valid.bits(),
        mtime: 5,
        ctime: 6,
        ..SetattrIn::default()
    };
    client.setattr(node, set).unwrap();
    client
        .write_flagged(node, 0, b"x", WriteFlags::CACHE)
        .unwrap();
    let attr = client.getattr(node).unwrap();
    assert_eq!((attr.mtime, attr.ctime), (5, 6));
    client
        .write_flagged(node, 0, b"x", WriteFlags::empty())
        .unwrap();
    let attr = client.getattr(node).unwrap();
    assert!(attr.mtime > 6 && attr.ctime > 6);
}

#[test]
fn writes_beyond_the_quota_fail_and_change_nothing() {
    let mut client = Client::with_quota(Quota {
        bytes: 1 << 20,
        inodes: 100,
    });
    let node = client.create(ROOT, "big").unwrap().nodeid;
    let chunk = vec![7; 100_000];
    let mut offset = 0;
    let error = loop {
        match client.write(node, offset, &chunk) {
            Ok(n) => offset += u64::from(n),
            Err(error) => break error,
        }
        assert!(offset < 4 << 20, "the quota does not hold");
    };
    assert_eq!(error, Errno::NOSPC);
    assert_eq!(client.getattr(node).unwrap().size, offset);
    client
        .setattr(
            node,
            SetattrIn {
                valid: SetattrValid::SIZE.bits(),
                ..SetattrIn::default()
            },
        )
        .unwrap();
    client.write(node, 0, &chunk).unwrap();
}

#[test]
fn fallocate_checks_its_range_and_mode() {
    let mut client = Client::new();
    let node = client.create(ROOT, "new").unwrap().nodeid;
    let mut fallocate = |node, offset, length, mode| {
        let args = FallocateIn {
            offset,
            length,
            mode,
            ..FallocateIn::default()
        };
        client
            .call(Opcode::Fallocate, node, &[args.as_bytes()])
            .map(drop)
    };
    assert_eq!(fallocate(node, 0, 8192, 0), Ok(()));
    assert_eq!(fallocate(node, 0, 0, 0), Err(Errno::INVAL));
    assert_eq!(fallocate(node, u64::MAX, 2, 0), Err(Errno::FBIG));
    assert_eq!(fallocate(node, 0, 4096, 1 << 20), Err(Errno::OPNOTSUPP));
    assert_eq!(fallocate(ROOT, 0, 4096, 0), Err(Errno::ISDIR));
    assert_eq!(client.getattr(node).unwrap().size, 8192);
}

#[test]
fn ranges_are_copied_between_files() {
    let mut client = Client::new();
    let from = client.lookup(ROOT, "file").unwrap().nodeid;
    let to = client.create(ROOT, "copy").unwrap().nodeid;
    let copy = |off_in, len, flags| CopyFileRangeIn {
        off_in,
        nodeid_out: to,
        off_out: 2,
        len,
        flags,
        ..CopyFileRangeIn::default()
    };
    let mut call =
        |args: CopyFileRangeIn| client.call(Opcode::CopyFileRange, from, &[args.as_bytes()]);
    assert_eq!(parse::<WriteOut>(&call(copy(5, 3, 0)).unwrap()).size, 3);
    assert_eq!(call(copy(5, 3, 1)).unwrap_err(), Errno::INVAL);
    assert_eq!(call(copy(1000, 3, 0)).unwrap_err(), Errno::OPNOTSUPP);
    assert_eq!(call(copy(u64::MAX, 3, 0)).unwrap_err(), Errno::FBIG);
    assert_eq!(client.read(to, 0, 100).unwrap(), b"\0\0the");
}
