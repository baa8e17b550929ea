use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use super::*;

fn export(
    tree: &mut Tree,
    what: &str,
    output: &std::path::Path,
) -> Result<ExportSummary, ExportError> {
    let ino = at(tree, what);
    export_to_host(tree, ino, output, Existing::Refuse, ExportLimits::default())
}

fn names(dir: &std::path::Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_directory_becomes_one_of_the_host() {
    let (mut tree, _dir) = tree();
    let host = scratch();
    let out = host.path().join("out");
    let summary = export(&mut tree, "workspace", &out).unwrap();
    assert_eq!(
        (summary.files, summary.directories, summary.symlinks),
        (3, 2, 3)
    );
    assert_eq!(skipped(&summary), SKIPPED);
    assert_eq!(summary.skipped_count, 6);
    assert_eq!(names(host.path()), ["out"]);
    assert_eq!(
        names(&out),
        ["big", "dangling", "hole", "in", "other", "sub"]
    );
    assert_eq!(fs::read(out.join("big")).unwrap(), vec![9; 300_000]);
    let script = fs::symlink_metadata(out.join("sub/script")).unwrap();
    assert_eq!(script.mode() & 0o7777, 0o751, "no set-id bits");
    assert_eq!((script.mtime(), script.mtime_nsec()), (1_600_000_000, 5));
    assert_eq!(script.ino(), fs::metadata(out.join("other")).unwrap().ino());
    assert_eq!(fs::read(out.join("in")).unwrap(), b"#!/bin/sh\n");
    assert_eq!(
        fs::read_link(out.join("sub/up")).unwrap().to_str(),
        Some("../big")
    );
    let sub = fs::metadata(out.join("sub")).unwrap();
    assert_eq!((sub.mode() & 0o7777, sub.mtime()), (0o750, 1_600_000_000));
    let hole = fs::metadata(out.join("hole")).unwrap();
    assert_eq!(hole.len(), 1 << 20);
    assert!(hole.blocks() * 512 < 64 << 10, "holes stay holes");
}

#[test]
fn a_file_becomes_one_of_the_host() {
    let (mut tree, _dir) = tree();
    let host = scratch();
    let out = host.path().join("passwd");
    export(&mut tree, "etc/passwd", &out).unwrap();
    assert_eq!(fs::read(&out).unwrap(), b"root:x:0:0\n");
    let error = export(&mut tree, "lib", &host.path().join("x")).unwrap_err();
    assert!(
        matches!(error, ExportError::Unsupported { .. }),
        "{error:?}"
    );
    assert_eq!(names(host.path()), ["passwd"]);
}

#[test]
fn an_existing_output_is_refused_or_replaced_whole() {
    let (mut tree, _dir) = tree();
    let host = scratch();
    let outside = scratch();
    fs::write(outside.path().join("precious"), "x").unwrap();
    let out = host.path().join("out");
    let make: [(&str, &dyn Fn()); 4] = [
        ("file", &|| fs::write(&out, "old").unwrap()),
        ("link", &|| symlink(outside.path(), &out).unwrap()),
        ("empty directory", &|| fs::create_dir(&out).unwrap()),
        ("directory", &|| {
            fs::create_dir_all(out.join("a/b")).unwrap();
            symlink(outside.path(), out.join("a/link")).unwrap();
        }),
    ];
    for (what, make) in make {
        make();
        for ino in ["workspace", "etc/passwd"] {
            let error = export(&mut tree, ino, &out).unwrap_err();
            assert!(
                matches!(error, ExportError::Exists { .. }),
                "{what}: {error:?}"
            );
        }
        let ino = at(&tree, "workspace/sub");
        let limits = ExportLimits::default();
        export_to_host(&mut tree, ino, &out, Existing::Replace, limits).unwrap();
        assert_eq!(names(&out), ["script"], "{what}");
        assert_eq!(names(host.path()), ["out"], "{what}");
        assert_eq!(names(outside.path()), ["precious"]);
        fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn an_export_that_fails_leaves_nothing_behind() {
    let (mut tree, _dir) = tree();
    let host = scratch();
    let ino = at(&tree, "workspace");
    let mut export = |bytes, entries| {
        let limits = ExportLimits { bytes, entries };
        let out = host.path().join("out");
        export_to_host(&mut tree, ino, &out, Existing::Replace, limits).unwrap_err()
    };
    let error = export(400_000, 1000);
    assert!(
        matches!(error, ExportError::TooLarge { unit: "bytes", .. }),
        "{error:?}"
    );
    let error = export(u64::MAX, 5);
    assert!(
        matches!(error, ExportError::TooLarge { limit: 5, .. }),
        "{error:?}"
    );
    assert!(names(host.path()).is_empty());
    let missing = host.path().join("not/there");
    let error = super::export_to_host(
        &mut tree,
        ino,
        &missing,
        Existing::Refuse,
        ExportLimits::default(),
    );
    assert!(matches!(error, Err(ExportError::Write { .. })), "{error:?}");
}

#[test]
fn what_came_in_goes_out_the_same() {
    use crate::import::{IgnoredFiles, ImportLimits, import_path, make_directories};

    let (mut tree, _dir) = tree();
    let host = scratch();
    let (first, second) = (host.path().join("first"), host.path().join("second"));
    export(&mut tree, "workspace", &first).unwrap();
    let dest = make_directories(&mut tree, b"again").unwrap();
    let limits = ImportLimits::default();
    import_path(&mut tree, dest, &first, IgnoredFiles::Take, limits).unwrap();
    export(&mut tree, "again", &second).unwrap();
    let output = std::process::Command::new("diff")
        .args(["-r", "--no-dereference"])
        .args([&first, &second])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}
