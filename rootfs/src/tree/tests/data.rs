use std::os::unix::fs::MetadataExt;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::testing::{again, at, dir_fd, layer, name, new, open, read, sample, write};
use crate::tree::{Content, Ino, Quota, SetAttr, StackFiles, Tree, Whence};

const KEEP: FallocateFlags = FallocateFlags::KEEP_SIZE;
const PUNCH: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(KEEP);

fn resize(tree: &mut Tree, ino: Ino, size: u64) {
    tree.set_attr(
        ino,
        &SetAttr {
            size: Some(size),
            ..SetAttr::default()
        },
    )
    .unwrap();
}

#[test]
fn content_is_copied_up_at_the_first_write_and_not_before() {
    let (layer, dir) = (layer(sample), tempfile::tempdir().unwrap());
    let mut tree = open(&layer, dir.path());
    let big = at(&tree, "usr/lib/big");
    let owner = SetAttr {
        uid: Some(1),
        mode: Some(0o600),
        ..SetAttr::default()
    };
    tree.set_attr(big, &owner).unwrap();
    assert!(matches!(tree.content(big).unwrap(), Content::Packed { .. }));
    write(&mut tree, big, 5000, b"X");
    assert!(matches!(tree.content(big).unwrap(), Content::File { .. }));
    let mut expected = [b'b'; 10_000];
    expected[5000] = b'X';
    assert_eq!(read(&mut tree, big), expected);
    // Another guest over the same layer sees nothing of it.
    let other = tempfile::tempdir().unwrap();
    let mut other = open(&layer, other.path());
    assert_eq!(read(&mut other, big), [b'b'; 10_000]);
    assert_eq!(other.attr(big).unwrap().uid, 0);
}

#[test]
fn truncation_copies_only_what_stays() {
    let (layer, dir) = (layer(sample), tempfile::tempdir().unwrap());
    let mut tree = open(&layer, dir.path());
    let big = at(&tree, "usr/lib/big");
    resize(&mut tree, big, 20_000);
    assert!(
        matches!(tree.content(big).unwrap(), Content::Packed { .. }),
        "growing copies nothing"
    );
    assert_eq!(&read(&mut tree, big)[9_998..10_002], b"bb\0\0");
    resize(&mut tree, big, 100);
    resize(&mut tree, big, 200);
    assert_eq!(read(&mut tree, big), [[b'b'; 100], [0; 100]].concat());
    let small = at(&tree, "usr/lib/small");
    resize(&mut tree, small, 0);
    assert!(matches!(tree.content(small).unwrap(), Content::Hole));
    resize(&mut tree, small, 3);
    assert_eq!(read(&mut tree, small), [0; 3]);
    drop(tree);
    let mut tree = open(&layer, dir.path());
    assert_eq!(read(&mut tree, big), [[b'b'; 100], [0; 100]].concat());
    assert_eq!(read(&mut tree, small), [0; 3]);
    let error = tree.set_attr(
        big,
        &SetAttr {
            size: Some(u64::MAX),
            ..SetAttr::default()
        },
    );
    assert_eq!(error, Err(Errno::FBIG));
}

#[test]
fn what_a_failed_write_left_beyond_the_end_never_shows() {
    let (layer, dir) = (layer(sample), tempfile::tempdir().unwrap());
    let mut tree = open(&layer, dir.path());
    let file = tree.create_file(new(Ino::ROOT, "f")).unwrap().ino;
    write(&mut tree, file, 0, b"1234");
    for grow in [true, false] {
        use std::os::unix::fs::FileExt;
        // A write that was never reported.
        tree.content_mut(file)
            .unwrap()
            .write_all_at(b"garbage", 4)
            .unwrap();
        if grow {
            resize(&mut tree, file, 8);
            assert_eq!(read(&mut tree, file), b"1234\0\0\0\0");
            resize(&mut tree, file, 4);
        } else {
            write(&mut tree, file, 8, b"9");
            assert_eq!(read(&mut tree, file), b"1234\0\0\0\x009");
        }
    }
}

#[test]
fn sparse_files_stay_sparse() {
    let (layer, dir) = (layer(sample), tempfile::tempdir().unwrap());
    let mut tree = open(&layer, dir.path());
    let file = tree.create_file(new(Ino::ROOT, "sparse")).unwrap().ino;
    write(&mut tree, file, 1 << 40, b"end");
    let attr = tree.attr(file).unwrap();
    assert_eq!(attr.size, (1 << 40) + 3);
    assert!(attr.blocks <= 16, "{} blocks", attr.blocks);
    assert_eq!(tree.seek(file, 0, Whence::Hole), Ok(0));
    assert_eq!(tree.seek(file, 0, Whence::Data), Ok(1 << 40));
    assert_eq!(
        tree.seek(file, (1 << 40) + 1, Whence::Hole),
        Ok((1 << 40) + 3)
    );
    assert_eq!(
        tree.seek(file, (1 << 40) + 3, Whence::Data),
        Err(Errno::NXIO)
    );
    resize(&mut tree, file, 1 << 41);
    assert_eq!(
        tree.seek(file, (1 << 40) + 4096, Whence::Data),
        Err(Errno::NXIO)
    );
    let host = dir.path().join("content").join(format!("{:x}", file.0));
    assert!(std::fs::metadata(host).unwrap().blocks() <= 16);
    let big = at(&tree, "usr/lib/big");
    assert_eq!(tree.seek(big, 5, Whence::Data), Ok(5));
    assert_eq!(tree.seek(big, 5, Whence::Hole), Ok(10_000));
}

#[test]
fn ranges_are_allocated_punched_and_zeroed() {
    let (layer, dir) = (layer(sample), tempfile::tempdir().unwrap());
    let mut tree = open(&layer, dir.path());
    let big = at(&tree, "usr/lib/big");
    tree.fallocate(big, 4096, 4096, PUNCH).unwrap();
    let mut expected = vec![b'b'; 10_000];
    expected[4096..8192].fill(0);
    assert_eq!(read(&mut tree, big), expected);
    tree.fallocate(big, 0, 10, FallocateFlags::ZERO_RANGE)
        .unwrap();
    expected[..10].fill(0);
    assert_eq!(read(&mut tree, big), expected);
    tree.fallocate(big, 8_000, 4_000, FallocateFlags::empty())
        .unwrap();
    expected.resize(12_000, 0);
    assert_eq!(read(&mut tree, big), expected);
    tree.fallocate(big, 0, 1 << 20, KEEP).unwrap();
    assert_eq!(tree.attr(big).unwrap().size, 12_000);
    assert!(tree.attr(big).unwrap().blocks >= 2048);
    let punch_only = FallocateFlags::PUNCH_HOLE;
    for (mode, len, error) in [
        (punch_only, 10, Errno::OPNOTSUPP),
        (FallocateFlags::COLLAPSE_RANGE, 4096, Errno::OPNOTSUPP),
        (KEEP, 0, Errno::INVAL),
        (KEEP, u64::MAX, Errno::FBIG),
    ] {
        assert_eq!(tree.fallocate(big, 4096, len, mode), Err(error));
    }
}

#[test]
fn ranges_are_copied_between_and_within_files() {
    let (layer, dir) = (layer(sample), tempfile::tempdir().unwrap());
    let mut tree = open(&layer, dir.path());
    let (big, small) = (at(&tree, "usr/lib/big"), at(&tree, "usr/lib/small"));
    let file = tree.create_file(new(Ino::ROOT, "f")).unwrap().ino;
    assert_eq!(tree.copy_range(big, 9_000, file, 10, 5_000), Ok(1_000));
    assert_eq!(
        read(&mut tree, file),
        [&[0; 10][..], &[b'b'; 1_000]].concat()
    );
    assert_eq!(tree.copy_range(small, 1, file, 0, 3), Ok(3));
    assert_eq!(&read(&mut tree, file)[..5], b"mal\0\0");
    assert_eq!(tree.copy_range(file, 0, file, 2_000, 3), Ok(3));
    assert_eq!(&read(&mut tree, file)[1_999..], b"\0mal");
    assert_eq!(tree.copy_range(file, 0, file, 2, 5), Err(Errno::INVAL));
    assert_eq!(tree.copy_range(small, 5, file, 0, 5), Ok(0));
    // Zeros that are stored nowhere are copied over what is there.
    let hole = tree.create_file(new(Ino::ROOT, "hole")).unwrap().ino;
    resize(&mut tree, hole, 8192);
    assert_eq!(tree.copy_range(hole, 0, big, 0, 8192), Ok(8192));
    assert_eq!(
        read(&mut tree, big),
        [&[0; 8192][..], &[b'b'; 10_000 - 8192]].concat()
    );
    resize(&mut tree, small, 100);
    assert_eq!(tree.copy_range(small, 0, big, 9_900, 200), Ok(100));
    assert_eq!(&read(&mut tree, big)[9_900..9_906], b"small\0");
}

#[test]
fn the_quota_counts_what_is_stored_and_is_given_back() {
    let (layer, dir) = (layer(sample), tempfile::tempdir().unwrap());
    let mut stack = StackFiles::new(vec![again(&layer)], dir_fd(dir.path()));
    stack.quota = Quota {
        bytes: 64 << 10,
        inodes: 3,
    };
    let mut tree = Tree::open(stack).unwrap();
    let free = tree.stat_fs().unwrap();
    assert_eq!((free.blocks_free, free.files_free), (16, 3));
    let file = tree.create_file(new(Ino::ROOT, "f")).unwrap().ino;
    write(&mut tree, file, 0, &[1; 60 << 10]);
    assert_eq!(tree.reserve(file, 60 << 10, 8 << 10), Err(Errno::NOSPC));
    // What is there is written again without more room.
    for _ in 0..5 {
        write(&mut tree, file, 0, &[2; 60 << 10]);
    }
    let big = at(&tree, "usr/lib/big");
    assert_eq!(
        tree.reserve(big, 0, 1),
        Err(Errno::NOSPC),
        "the copy does not fit"
    );
    assert!(matches!(tree.content(big).unwrap(), Content::Packed { .. }));
    tree.fallocate(file, 0, 32 << 10, PUNCH).unwrap();
    write(&mut tree, big, 0, b"B");
    assert_eq!(read(&mut tree, big)[..2], *b"Bb");
    tree.create_file(new(Ino::ROOT, "g")).unwrap();
    tree.mkdir(new(Ino::ROOT, "h")).unwrap();
    assert_eq!(tree.create_file(new(Ino::ROOT, "i")), Err(Errno::NOSPC));
    assert_eq!(tree.stat_fs().unwrap().files_free, 0);
    tree.unlink(Ino::ROOT, name("f")).unwrap();
    tree.create_file(new(Ino::ROOT, "i")).unwrap();
    assert_eq!(tree.stat_fs().unwrap().blocks_free, 13);
}

#[test]
fn more_files_are_written_than_are_kept_open() {
    let (layer, dir) = (layer(sample), tempfile::tempdir().unwrap());
    let mut tree = open(&layer, dir.path());
    let files: Vec<_> = (0..300)
        .map(|i| {
            tree.create_file(new(Ino::ROOT, &format!("f{i}")))
                .unwrap()
                .ino
        })
        .collect();
    for round in 0..2 {
        for (i, &file) in files.iter().enumerate() {
            write(&mut tree, file, round * 4, format!("{i:04}").as_bytes());
        }
    }
    tree.sync().unwrap();
    for (i, &file) in files.iter().enumerate() {
        assert_eq!(read(&mut tree, file), format!("{i:04}{i:04}").as_bytes());
    }
}
