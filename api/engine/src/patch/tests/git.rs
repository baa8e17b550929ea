use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use super::*;

pub(super) fn git(dir: &Path, args: &[&str]) -> Output {
    Command::new("git")
        .args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@t",
            "-c",
            "core.autocrlf=false",
        ])
        .args(args)
        .current_dir(dir)
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .expect("git is needed for this test")
}

pub(super) fn put(dir: &Path, files: &Files) {
    for (path, (mode, content)) in files {
        let path = dir.join(std::ffi::OsStr::from_bytes(path));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if *mode == FileMode::Symlink {
            symlink(std::ffi::OsStr::from_bytes(content), path).unwrap();
            continue;
        }
        fs::write(&path, content).unwrap();
        let bits = if *mode == FileMode::Executable {
            0o755
        } else {
            0o644
        };
        fs::set_permissions(path, PermissionsExt::from_mode(bits)).unwrap();
    }
}

pub(super) fn get(dir: &Path) -> Files {
    fn walk(top: &Path, dir: &Path, found: &mut Files) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let name = path
                .strip_prefix(top)
                .unwrap()
                .as_os_str()
                .as_bytes()
                .to_vec();
            if name == b".git" {
            } else if meta.is_dir() {
                walk(top, &path, found);
            } else if meta.is_symlink() {
                let target = fs::read_link(&path).unwrap();
                found.insert(
                    name,
                    (FileMode::Symlink, target.as_os_str().as_bytes().to_vec()),
                );
            } else {
                let mode = match meta.mode() & 0o100 {
                    0 => FileMode::Regular,
                    _ => FileMode::Executable,
                };
                found.insert(name, (mode, fs::read(&path).unwrap()));
            }
        }
    }
    let mut found = Files::new();
    walk(dir, dir, &mut found);
    found
}

/// A work tree whose first commit is `old`.
pub(super) fn work_tree(old: &Files) -> tempfile::TempDir {
    let dir = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    assert!(git(dir.path(), &["init", "-q"]).status.success());
    put(dir.path(), old);
    assert!(git(dir.path(), &["add", "-A"]).status.success());
    let commit = git(dir.path(), &["commit", "-q", "--allow-empty", "-m", "old"]);
    assert!(commit.status.success(), "{commit:?}");
    dir
}

/// Our diff takes Git from `old` to `new`, and us too.
pub(super) fn check_our_diff(old: &Files, new: &Files) {
    let (patch, _) = diff(old, new);
    if patch.is_empty() {
        assert_eq!(old, new);
        return;
    }
    check_with_git(old, new, &patch);
    assert_eq!(apply(old, &patch).as_ref(), Ok(new), "{}", text(&patch));
}

/// Git takes `patch` from `old` to `new`.
fn check_with_git(old: &Files, new: &Files, patch: &[u8]) {
    let dir = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    put(&tree, old);
    fs::write(dir.path().join("patch"), patch).unwrap();
    for args in [
        &["apply", "--check", "../patch"][..],
        &["apply", "--whitespace=nowarn", "../patch"],
    ] {
        let output = git(&tree, args);
        assert!(
            output.status.success(),
            "{}\n{}",
            text(&output.stderr),
            text(patch)
        );
    }
    assert_eq!(&get(&tree), new, "{}", text(patch));
}

/// Git's diff takes us from `old` to `new`.
pub(super) fn check_gits_diff(old: &Files, new: &Files) {
    let dir = work_tree(old);
    for path in old.keys() {
        fs::remove_file(dir.path().join(std::ffi::OsStr::from_bytes(path))).unwrap();
    }
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if !path.ends_with(".git") {
            fs::remove_dir_all(path).unwrap();
        }
    }
    put(dir.path(), new);
    git(dir.path(), &["add", "-A"]);
    for args in [
        &["diff", "--cached", "HEAD"][..],
        &[
            "diff",
            "--cached",
            "-M30%",
            "-C30%",
            "--find-copies-harder",
            "HEAD",
        ],
        &["diff", "--cached", "--no-renames", "-U0", "HEAD"],
        &[
            "diff",
            "--cached",
            "--full-index",
            "--patience",
            "-U10",
            "HEAD",
        ],
    ] {
        let patch = git(dir.path(), args).stdout;
        if old == new {
            assert!(patch.is_empty());
            continue;
        }
        assert_eq!(
            apply(old, &patch).as_ref(),
            Ok(new),
            "{args:?}\n{}",
            text(&patch)
        );
    }
}

fn check(old: &[(&str, &str)], new: &[(&str, &str)]) {
    check_trees(&files(old), &files(new));
}

fn check_trees(old: &Files, new: &Files) {
    check_our_diff(old, new);
    check_gits_diff(old, new);
}

const TEN: &str = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n";

#[test]
fn files_are_added_deleted_and_modified() {
    check(&[], &[("a", "x\n")]);
    check(&[("a", "x\n"), ("k", "")], &[("k", "")]);
    check(
        &[("a", TEN)],
        &[("a", &TEN.replace("5\n", "five\nand a half\n"))],
    );
    check(
        &[("a", TEN), ("d/b", TEN), ("d/c", "x\n")],
        &[
            ("a", &TEN.replace("1\n2\n", "")),
            ("d/b", &format!("{TEN}{TEN}")),
            ("e/f/g", "new\n"),
        ],
    );
    check(&[("a", "")], &[("b", ""), ("a", "not empty\n")]);
    check(&[("a", "x\n"), ("b", "")], &[("a", "")]);
}

#[test]
fn binary_files_are_taken_by_git_apply() {
    let binary = |seed: u32, len: u32| -> Vec<u8> {
        (0..len)
            .map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(seed << 13) >> 13) as u8)
            .chain([0])
            .collect()
    };
    let tree = |list: &[(&str, FileMode, Vec<u8>)]| -> Files {
        list.iter()
            .map(|(path, mode, content)| (path.as_bytes().to_vec(), (*mode, content.clone())))
            .collect()
    };
    let (file, program) = (FileMode::Regular, FileMode::Executable);
    let old = tree(&[
        ("changed", file, binary(1, 5000)),
        ("gone", file, binary(2, 300)),
        ("mode", file, binary(3, 53)),
        ("to text", file, binary(4, 9)),
        ("emptied", program, binary(5, 100)),
    ]);
    let new = tree(&[
        ("changed", file, binary(6, 70_000)),
        ("new", program, binary(7, 3)),
        ("mode", program, binary(8, 53)),
        ("to text", file, b"text\n".to_vec()),
        ("emptied", program, Vec::new()),
    ]);
    for (old, new) in [(&old, &new), (&new, &old)] {
        let (patch, counts) = diff_with(old, new, BinaryFiles::Whole);
        assert_eq!(counts.binary, 6);
        check_with_git(old, new, &patch);
        // We do not patch binary files, and say so.
        assert!(matches!(apply(old, &patch), Err(PatchError::Syntax { .. })));
    }
}

#[test]
fn ends_without_a_newline_and_carriage_returns_stay() {
    check(&[("a", "x")], &[("a", "x\n")]);
    check(&[("a", "x\n")], &[("a", "x")]);
    check(&[("a", "x")], &[("a", "y")]);
    check(
        &[("a", TEN), ("b", "1\n2")],
        &[("a", &TEN[..TEN.len() - 1]), ("b", "1\n2\n3")],
    );
    let crlf = TEN.replace('\n', "\r\n");
    check(&[("a", &crlf)], &[("a", &crlf.replace('5', "five"))]);
    check(&[("a", TEN)], &[("a", &crlf)]);
    check(&[("a", "x\r\n")], &[("a", "x\r")]);
    check(
        &[("a", "--- a/x\n+++ b/x\n@@ -1 +1 @@\n")],
        &[("a", "-- \n--- a/y\n+++ b/x\n\\ No\n")],
    );
}

#[test]
fn modes_links_and_types_change() {
    let with = |mode, content: &str| Files::from([(b"f".to_vec(), (mode, content.into()))]);
    let (file, program) = (
        with(FileMode::Regular, TEN),
        with(FileMode::Executable, TEN),
    );
    check_trees(&file, &program);
    check_trees(
        &program,
        &with(FileMode::Regular, &TEN.replace('3', "three")),
    );
    check_trees(&Files::new(), &program);
    let link = with(FileMode::Symlink, "target");
    check_trees(&Files::new(), &link);
    check_trees(&link, &with(FileMode::Symlink, "other"));
    check_trees(&link, &Files::new());
    check_trees(&link, &file);
    check_trees(&file, &link);
}

#[test]
fn files_are_renamed_and_copied() {
    let other = TEN.replace('7', "seven");
    check(&[("a", TEN)], &[("d/b", TEN)]);
    check(&[("a", TEN)], &[("b", &other)]);
    check(&[("a", TEN)], &[("a", TEN), ("b", TEN), ("c", &other)]);
    check(
        &[("a", TEN), ("b", "other\nlines\nof\ntext\n")],
        &[("b", TEN), ("a", "other\nlines\nof\ntext\n")],
    );
    check(&[("a", TEN)], &[("a", &other), ("b", TEN)]);
}

#[test]
fn a_file_takes_the_place_of_a_directory_and_the_other_way_round() {
    check(&[("a", TEN)], &[("a/b", "other\n")]);
    check(&[("a/b", TEN)], &[("a", "other\n")]);
    check(&[("a", TEN)], &[("a/b", TEN)]);
    let link = Files::from([(b"a".to_vec(), (FileMode::Symlink, b"x".to_vec()))]);
    check_trees(&link, &files(&[("a/b", "x\n")]));
}

#[test]
fn names_of_all_kinds_survive() {
    let names = [
        "with space",
        " leading",
        "trailing ",
        "tab\there",
        "new\nline",
        "quote\"d",
        "back\\slash",
        "größe",
        "a b/c d",
        "a/b b/a",
        "-dash",
        "b/x",
        "a/x",
        "\u{7f}",
    ];
    let with = |content: &str| {
        names
            .iter()
            .map(|name| {
                (
                    name.as_bytes().to_vec(),
                    (FileMode::Regular, content.into()),
                )
            })
            .collect::<Files>()
    };
    check_trees(&with("old\n"), &with("new\n"));
    check_trees(&Files::new(), &with(""));
    check_trees(&with(""), &Files::new());
    let mut modes = with("x\n");
    modes
        .values_mut()
        .for_each(|(mode, _)| *mode = FileMode::Executable);
    check_trees(&with("x\n"), &modes);
    let raw = |content: &[u8]| {
        Files::from([(b"\xff\xfe".to_vec(), (FileMode::Regular, content.to_vec()))])
    };
    check_trees(&raw(b"\xe4\n"), &raw(b"\xf6\n"));
}

#[test]
fn a_mail_with_a_patch_is_understood() {
    let dir = work_tree(&files(&[("a", TEN)]));
    put(dir.path(), &files(&[("a", &TEN.replace('2', "two"))]));
    assert!(
        git(
            dir.path(),
            &["commit", "-qam", "subject\n\nbody\n--- not a name\n"]
        )
        .status
        .success()
    );
    let mail = git(dir.path(), &["format-patch", "--stdout", "-1"]).stdout;
    let after = apply(&files(&[("a", TEN)]), &mail).unwrap();
    assert_eq!(after, get(dir.path()));
}

#[test]
fn a_hunk_that_moved_is_found_where_all_its_lines_are() {
    let old = files(&[("a", &format!("new\nlines\n{TEN}"))]);
    let patch = diff(
        &files(&[("a", TEN)]),
        &files(&[("a", &TEN.replace("5\n", ""))]),
    )
    .0;
    assert_eq!(
        apply(&old, &patch),
        Ok(files(&[(
            "a",
            &format!("new\nlines\n{}", TEN.replace("5\n", ""))
        )]))
    );
}
