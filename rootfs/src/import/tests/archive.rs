use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

use super::*;
use crate::testing::{at, list, read};

fn header(entry_type: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(entry_type);
    header.set_mode(0o6755);
    header.set_uid(1000);
    header.set_gid(100);
    header.set_mtime(1_700_000_000);
    header.set_size(size);
    header
}

fn archive(build: impl FnOnce(&mut Builder<Vec<u8>>)) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    build(&mut builder);
    builder.into_inner().unwrap()
}

fn file(builder: &mut Builder<Vec<u8>>, path: &str, content: &[u8]) {
    let mut header = header(EntryType::Regular, content.len() as u64);
    builder.append_data(&mut header, path, content).unwrap();
}

/// A member whose path or target the tar crate would not write.
fn raw(builder: &mut Builder<Vec<u8>>, entry_type: EntryType, path: &str, target: &str) {
    let mut header = header(entry_type, 0);
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_cksum();
    builder.append(&header, &b""[..]).unwrap();
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn import(stage: &mut Stage, archive: &[u8]) -> Result<ImportSummary, ImportError> {
    import_tar(
        &mut stage.tree,
        stage.dest,
        archive,
        ImportLimits::default(),
    )
}

fn refusal(build: impl FnOnce(&mut Builder<Vec<u8>>)) -> (String, &'static str) {
    refused(import(&mut stage(), &archive(build)))
}

#[test]
fn an_archive_comes_in_plain_and_compressed() {
    let plain = archive(|builder| {
        file(builder, "./src/main.py", b"print(1)\n");
        file(builder, &format!("{}/f", "d".repeat(200)), &[0; 10_000]);
        raw(builder, EntryType::Symlink, "./link", "src/main.py");
        raw(builder, EntryType::Link, "./again", "./src/main.py");
        raw(builder, EntryType::Directory, "./empty/", "");
    });
    for bytes in [plain.clone(), gzip(&plain)] {
        let mut stage = stage();
        let summary = import(&mut stage, &bytes).unwrap();
        assert_eq!(
            (
                summary.files,
                summary.directories,
                summary.symlinks,
                summary.hard_links
            ),
            (2, 3, 1, 1)
        );
        assert_eq!(summary.bytes, 10_009);
        let main = at(&stage.tree, "workspace/src/main.py");
        assert_eq!(read(&mut stage.tree, main), b"print(1)\n");
        let attr = stage.tree.attr(main).unwrap();
        assert_eq!(
            (attr.mode, attr.uid, attr.gid, attr.nlink),
            (0o755, 0, 0, 2)
        );
        assert_eq!(attr.mtime.secs, 1_700_000_000);
        assert_eq!(at(&stage.tree, "workspace/again"), main);
        let hole = at(&stage.tree, &format!("workspace/{}/f", "d".repeat(200)));
        let hole = stage.tree.attr(hole).unwrap();
        assert_eq!((hole.size, hole.blocks), (10_000, 0), "zeros are holes");
        let empty = stage.tree.attr(at(&stage.tree, "workspace/empty")).unwrap();
        assert_eq!(empty.mtime.secs, 1_700_000_000);
    }
}

#[test]
fn what_leaves_the_tree_is_refused_by_name() {
    let two = |entry_type, path: &'static str, target: &'static str| {
        refusal(|builder| {
            file(builder, "good", b"x");
            raw(builder, entry_type, path, target);
        })
    };
    let (member, reason) = two(EntryType::Regular, "../escape", "");
    assert_eq!(
        (member.as_str(), reason),
        ("../escape", "its path leaves the tree with ..")
    );
    let (member, reason) = two(EntryType::Regular, "/etc/passwd", "");
    assert_eq!(
        (member.as_str(), reason),
        ("/etc/passwd", "its path is absolute")
    );
    assert_eq!(
        two(EntryType::Symlink, "l", "/etc").1,
        "it links to a place outside the seed"
    );
    assert_eq!(
        two(EntryType::Symlink, "a/l", "../../x").1,
        "it links to a place outside the seed"
    );
    assert_eq!(
        two(EntryType::Link, "l", "/etc/passwd").1,
        "its path is absolute"
    );
    assert_eq!(
        two(EntryType::Link, "l", "../etc/passwd").1,
        "its path leaves the tree with .."
    );
    assert_eq!(
        two(EntryType::Link, "l", "nothere").1,
        "the target of the hard link is not in the archive before it"
    );
    assert_eq!(two(EntryType::Char, "null", "").1, "it is a device node");
    assert_eq!(two(EntryType::Block, "sda", "").1, "it is a device node");
    assert_eq!(two(EntryType::Fifo, "pipe", "").1, "it is a named pipe");
    assert_eq!(
        two(EntryType::GNUSparse, "s", "").1,
        "sparse members are not understood"
    );
}

#[test]
fn links_that_leave_by_way_of_others_are_refused_and_those_that_stay_are_not() {
    // x/l is the root; x/m has a target that looks as if it stayed in x.
    let (member, _) = refusal(|builder| {
        raw(builder, EntryType::Symlink, "x/l", "..");
        raw(builder, EntryType::Symlink, "x/m", "l/..");
    });
    assert_eq!(member, "x/m");
    // The link that makes it leave comes later.
    let (member, _) = refusal(|builder| {
        raw(builder, EntryType::Symlink, "x/m", "y/../..");
        raw(builder, EntryType::Symlink, "x/y", "..");
    });
    assert_eq!(member, "x/m");
    // A second name elsewhere leads elsewhere.
    let (member, _) = refusal(|builder| {
        raw(builder, EntryType::Symlink, "a/b/up", "../..");
        raw(builder, EntryType::Link, "up", "a/b/up");
    });
    assert_eq!(member, "up");
    let mut stage = stage();
    let fine = archive(|builder| {
        raw(builder, EntryType::Symlink, "a/b/up", "../..");
        raw(builder, EntryType::Symlink, "loop", "loop");
        raw(builder, EntryType::Symlink, "dangling", "not/here/../there");
    });
    assert_eq!(import(&mut stage, &fine).unwrap().symlinks, 3);
}

#[test]
fn nothing_is_written_through_a_link() {
    let (member, reason) = refusal(|builder| {
        file(builder, "dir/f", b"x");
        raw(builder, EntryType::Symlink, "link", "dir");
        file(builder, "link/g", b"x");
    });
    assert_eq!(
        (member.as_str(), reason),
        ("link/g", "something on its path is not a directory")
    );
}

#[test]
fn a_later_member_replaces_an_earlier_one_and_what_was_there() {
    let mut stage = stage();
    let first = archive(|builder| file(builder, "f", b"first"));
    let second = archive(|builder| {
        raw(builder, EntryType::Symlink, "f", "/replaced/later");
        file(builder, "f", b"second");
        file(builder, "g", b"");
    });
    import(&mut stage, &first).unwrap();
    import(&mut stage, &second).unwrap();
    let f = at(&stage.tree, "workspace/f");
    assert_eq!(read(&mut stage.tree, f), b"second");
    assert_eq!(list(&stage.tree, stage.dest), ["f", "g"]);
}

#[test]
fn bombs_end_at_the_limits() {
    let limits = ImportLimits {
        bytes: 1 << 20,
        entries: 100,
    };
    let bomb = gzip(&archive(|builder| file(builder, "bomb", &vec![0; 8 << 20])));
    assert!(bomb.len() < 20_000);
    let mut stage = stage();
    let error = import_tar(&mut stage.tree, stage.dest, &bomb[..], limits).unwrap_err();
    assert!(
        matches!(
            error,
            ImportError::TooLarge {
                limit: 0x10_0000,
                unit: "bytes",
                ..
            }
        ),
        "{error:?}"
    );
    let many = archive(|builder| (0..200).for_each(|i| file(builder, &format!("{i}"), b"")));
    let error = import_tar(&mut stage.tree, stage.dest, &many[..], limits).unwrap_err();
    assert!(
        matches!(error, ImportError::TooLarge { limit: 100, .. }),
        "{error:?}"
    );
    let deep = archive(|builder| file(builder, &"d/".repeat(500), b""));
    let error = import_tar(&mut stage.tree, stage.dest, &deep[..], limits).unwrap_err();
    assert!(
        matches!(error, ImportError::TooLarge { limit: 100, .. }),
        "{error:?}"
    );
    let long = archive(|builder| file(builder, &"e/".repeat(2100), b""));
    let (_, reason) = refused(import_tar(&mut stage.tree, stage.dest, &long[..], limits));
    assert_eq!(reason, "its path is longer than 4096 bytes");
    // Extended headers for no member at all, for ever.
    let records = vec![b'9'; 1 << 20];
    let pax = archive(|builder| {
        for _ in 0..80 {
            let mut header = header(EntryType::XGlobalHeader, records.len() as u64);
            header.set_cksum();
            builder.append(&header, &records[..]).unwrap();
        }
    });
    let error = import_tar(&mut stage.tree, stage.dest, &gzip(&pax)[..], limits).unwrap_err();
    assert!(
        matches!(error, ImportError::Member { .. } | ImportError::Archive(_)),
        "{error:?}"
    );
}

#[test]
fn a_full_quota_is_said_with_the_member() {
    let mut stage = stage_with(Quota {
        bytes: 64 << 10,
        inodes: 1000,
    });
    let bytes = archive(|builder| file(builder, "large", &[7; 100 << 10]));
    let error = import(&mut stage, &bytes).unwrap_err();
    assert!(
        matches!(&error, ImportError::NoSpace { member } if member == "large"),
        "{error:?}"
    );
    assert!(
        list(&stage.tree, stage.dest).is_empty(),
        "half a file is no file"
    );
}

#[test]
fn damaged_archives_are_errors_and_never_panic() {
    let plain = archive(|builder| {
        file(builder, "a/b", b"content");
        raw(builder, EntryType::Symlink, "l", "a");
    });
    let mut seed = 7_u64;
    for round in 0..400 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut bytes = plain.clone();
        let at = (seed >> 33) as usize % 2048;
        match round % 2 {
            0 => bytes[at] ^= (seed >> 8) as u8 | 1,
            _ => bytes.truncate(at),
        }
        let mut stage = stage();
        let _ = import(&mut stage, &bytes);
        assert!(round % 2 == 0 || import(&mut stage, &bytes).is_err());
    }
    for bytes in [
        &b""[..],
        b"\x1f",
        b"\x1f\x8b",
        b"no archive at all, only text",
    ] {
        let error = import(&mut stage(), bytes).unwrap_err();
        assert!(matches!(error, ImportError::Archive(_)), "{error:?}");
    }
}
