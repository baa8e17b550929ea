use std::io::Read;

use tar::{Builder, EntryType, Header};

use super::*;
use crate::testing::{at, dir_fd, layer_files, list, read};
use crate::tree::{Content, Ino, PackedFiles, StackFiles, Tree};

fn header(entry_type: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(entry_type);
    header.set_mode(0o640);
    header.set_uid(1000);
    header.set_gid(100);
    header.set_mtime(1_700_000_000);
    header.set_size(size);
    header
}

fn add(builder: &mut Builder<Vec<u8>>, path: &str, content: &[u8]) {
    let mut header = header(EntryType::Regular, content.len() as u64);
    builder.append_data(&mut header, path, content).unwrap();
}

fn add_link(builder: &mut Builder<Vec<u8>>, entry_type: EntryType, path: &str, target: &str) {
    builder
        .append_link(&mut header(entry_type, 0), path, target)
        .unwrap();
}

/// A member whose path the tar crate would not write.
fn add_raw(builder: &mut Builder<Vec<u8>>, path: &[u8], entry_type: EntryType) {
    let mut header = header(entry_type, 0);
    header.as_old_mut().name[..path.len()].copy_from_slice(path);
    header.set_cksum();
    builder.append(&header, &b""[..]).unwrap();
}

fn pack_into(
    archive: &[u8],
    files: &PackedFiles,
    limits: PackLimits,
) -> Result<PackSummary, PackError> {
    pack_tar(archive, &files.index, &files.data, limits, &mut |_| {})
}

fn refusal(archive: &[u8]) -> PackError {
    pack_into(archive, &layer_files(), PackLimits::default()).unwrap_err()
}

/// The reason for which the one member is refused.
fn member_refusal(build: impl FnOnce(&mut Builder<Vec<u8>>)) -> &'static str {
    let mut builder = Builder::new(Vec::new());
    build(&mut builder);
    match refusal(&builder.into_inner().unwrap()) {
        PackError::Member { reason, .. } => reason,
        other => panic!("refused otherwise: {other:?}"),
    }
}

fn everything() -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    builder
        .append_data(&mut header(EntryType::Directory, 0), "./", &b""[..])
        .unwrap();
    add(&mut builder, "./etc/hostname", b"debian\n");
    let long = format!("./usr/{}/{}", "d".repeat(150), "f".repeat(200));
    add(&mut builder, &long, b"long");
    add_link(&mut builder, EntryType::Symlink, "./bin", "usr/bin");
    add_link(
        &mut builder,
        EntryType::Link,
        "./etc/other",
        "./etc/hostname",
    );
    let mut null = header(EntryType::Char, 0);
    null.set_device_major(1).unwrap();
    null.set_device_minor(0x1203).unwrap();
    builder
        .append_data(&mut null, "./dev/null", &b""[..])
        .unwrap();
    builder
        .append_pax_extensions([
            ("SCHILY.xattr.security.capability", &b"\x01\0\n\x02"[..]),
            ("mtime", b"1700000000.25"),
            ("uid", b"4000000000"),
        ])
        .unwrap();
    add(&mut builder, "./usr/ping", &vec![7; 9000]);
    builder.into_inner().unwrap()
}

#[test]
fn all_kinds_of_members_come_back_from_a_packed_layer() {
    let files = layer_files();
    let summary = pack_into(&everything(), &files, PackLimits::default()).unwrap();
    assert_eq!(summary.bytes, 7 + 4 + 9000);
    let dir = tempfile::tempdir().unwrap();
    let stack = StackFiles::new(vec![files], dir_fd(dir.path()));
    let mut tree = Tree::open(stack).unwrap();

    assert_eq!(list(&tree, Ino::ROOT), ["bin", "dev", "etc", "usr"]);
    let hostname = at(&tree, "etc/hostname");
    let attr = tree.attr(hostname).unwrap();
    assert_eq!(
        (attr.mode, attr.uid, attr.gid, attr.nlink),
        (0o640, 1000, 100, 2)
    );
    assert_eq!(attr.mtime.secs, 1_700_000_000);
    assert_eq!(at(&tree, "etc/other"), hostname);
    assert_eq!(read(&mut tree, hostname), b"debian\n");
    let long = at(
        &tree,
        &format!("usr/{}/{}", "d".repeat(150), "f".repeat(200)),
    );
    assert_eq!(read(&mut tree, long), b"long");
    let bin = at(&tree, "bin");
    assert_eq!(tree.readlink(bin).unwrap(), b"usr/bin");
    let null = tree.attr(at(&tree, "dev/null")).unwrap();
    // new_encode_dev: low byte of the minor, twelve bits of major, the rest of the minor.
    assert_eq!(
        (null.file_type, null.rdev),
        (FileType::CharDevice, 0x0120_0103)
    );
    let ping = at(&tree, "usr/ping");
    let attr = tree.attr(ping).unwrap();
    assert_eq!((attr.uid, attr.mtime.nanos), (4_000_000_000, 250_000_000));
    assert_eq!(
        tree.get_xattr(ping, b"security.capability").unwrap(),
        b"\x01\0\n\x02"
    );
    assert_eq!(read(&mut tree, ping), vec![7; 9000]);
    let Content::Packed { offset, .. } = tree.content(ping).unwrap() else {
        panic!("not packed")
    };
    assert!(offset.is_multiple_of(4096));
    assert_eq!(tree.attr(Ino::ROOT).unwrap().nlink, 5);
}

#[test]
fn the_same_archive_gives_the_same_bytes() {
    let (one, two) = (layer_files(), layer_files());
    let first = pack_into(&everything(), &one, PackLimits::default()).unwrap();
    let second = pack_into(&everything(), &two, PackLimits::default()).unwrap();
    assert_eq!(first, second);
}

#[test]
fn paths_that_leave_the_tree_are_refused() {
    for path in [&b"../x"[..], b"a/../../x", b"/etc/x", b"./..", b"a/.."] {
        let reason = member_refusal(|builder| add_raw(builder, path, EntryType::Regular));
        assert!(
            reason.contains("leaves the tree") || reason.contains("absolute"),
            "{reason}"
        );
    }
    let reason = member_refusal(|builder| {
        add_link(builder, EntryType::Symlink, "out", "/etc");
        add(builder, "out/passwd", b"x");
    });
    assert_eq!(reason, "something on its path is not a directory");
}

#[test]
fn hard_links_to_what_is_not_there_are_refused() {
    for target in ["missing", "dir/missing", "../outside"] {
        let reason = member_refusal(|builder| {
            builder
                .append_data(&mut header(EntryType::Directory, 0), "dir", &b""[..])
                .unwrap();
            let mut link = header(EntryType::Link, 0);
            link.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
            link.as_old_mut().name[..4].copy_from_slice(b"link");
            link.set_cksum();
            builder.append(&link, &b""[..]).unwrap();
        });
        assert!(
            reason.contains("target") || reason.contains("leaves"),
            "{reason}"
        );
    }
    let reason = member_refusal(|builder| {
        builder
            .append_data(&mut header(EntryType::Directory, 0), "dir", &b""[..])
            .unwrap();
        add_link(builder, EntryType::Link, "link", "dir");
    });
    assert_eq!(reason, "a hard link to a directory");
}

#[test]
fn sizes_that_lie_are_refused() {
    let reason = member_refusal(|builder| {
        builder
            .append_pax_extensions([("size", &b"512"[..])])
            .unwrap();
        add(builder, "file", &[0; 1024]);
    });
    assert_eq!(reason, "its two sizes contradict each other");
    let reason = member_refusal(|builder| {
        let mut header = header(EntryType::Symlink, 512);
        header.set_link_name("x").unwrap();
        builder
            .append_data(&mut header, "link", &[0; 512][..])
            .unwrap();
    });
    assert!(reason.contains("content"), "{reason}");
    // A size beyond the end of the archive.
    let mut builder = Builder::new(Vec::new());
    add(&mut builder, "file", &[1; 4096]);
    let whole = builder.into_inner().unwrap();
    assert!(matches!(refusal(&whole[..2048]), PackError::Read(_)));
}

#[test]
fn an_archive_cut_anywhere_is_refused() {
    let whole = everything();
    // Two blocks of zeros end it; one is enough.
    for len in (0..=whole.len() - 1024).step_by(256) {
        let error = refusal(&whole[..len]);
        assert!(
            matches!(error, PackError::Read(_)),
            "cut at {len}: {error:?}"
        );
    }
}

#[test]
fn limits_are_kept() {
    let limits = PackLimits {
        bytes: 7 + 4 + 8999,
        ..PackLimits::default()
    };
    let error = pack_into(&everything(), &layer_files(), limits).unwrap_err();
    assert!(
        matches!(error, PackError::TooLarge { unit: "bytes", .. }),
        "{error:?}"
    );
    let limits = PackLimits {
        inodes: 5,
        ..PackLimits::default()
    };
    let error = pack_into(&everything(), &layer_files(), limits).unwrap_err();
    assert!(
        matches!(error, PackError::TooLarge { unit: "inodes", .. }),
        "{error:?}"
    );
    // An endless long name is refused by its size, before it is read.
    let mut name = header(EntryType::GNULongName, 1 << 40);
    name.set_cksum();
    let archive = name.as_bytes().to_vec();
    let endless = archive.chain(std::io::repeat(b'a'));
    let files = layer_files();
    let limits = PackLimits::default();
    let error = pack_tar(endless, &files.index, &files.data, limits, &mut |_| {}).unwrap_err();
    assert!(matches!(error, PackError::TooLarge { .. }), "{error:?}");
}

#[test]
fn empty_and_foreign_archives_are_refused() {
    assert!(matches!(refusal(&[0; 1024]), PackError::Empty));
    assert!(matches!(refusal(&[b'x'; 1024]), PackError::Read(_)));
    assert!(matches!(refusal(b""), PackError::Read(_)));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]

    #[test]
    fn changed_archives_never_panic(at in 0..everything().len(), byte: u8, fix: bool) {
        let mut archive = everything();
        archive[at] = byte;
        if fix {
            // Past the checksum, into the fields.
            let block = at / 512 * 512;
            let mut header = Header::new_gnu();
            header.as_mut_bytes().copy_from_slice(&archive[block..block + 512]);
            header.set_cksum();
            archive[block..block + 512].copy_from_slice(header.as_bytes());
        }
        let limits = PackLimits { bytes: 1 << 20, inodes: 100 };
        let _ = pack_into(&archive, &layer_files(), limits);
    }
}
