//! Many changes as one: all of them or none.

#![allow(clippy::unwrap_used)] // A test may end where it finds something wrong.

mod bench;
mod races;
mod streams;
#[path = "../support/mod.rs"]
mod support;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use pyro_agent_protocol::{Change, ErrorCode, Expect, FileEvent, Mode, Write};

use crate::bench::{Bench, applied, delete, digest, link, mkdir, rename, send, snapshot, write};
use crate::support::FileAnswer;

#[test]
fn a_file_is_written_with_its_parents() {
    let bench = Bench::new();
    let answer = bench.apply(&[(write("new/deep/file", "hello"), b"hello")]);
    assert_eq!(answer.last, applied(1, 0, 0, 2, 5));
    assert_eq!(bench.read("new/deep/file"), "hello");
    let mode = |path| bench.tree.join(path).metadata().unwrap().mode() & 0o7777;
    assert_eq!(mode("new"), 0o755);
    assert_eq!(mode("new/deep/file"), 0o644);
    assert_eq!(bench.agent.staged(), 0);
}

#[test]
fn a_replaced_file_keeps_mode_and_owner_unless_told_otherwise() {
    let bench = Bench::new();
    let file = bench.tree.join("file");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o4751)).unwrap();
    let root = rustix::process::getuid().is_root();
    if root {
        std::os::unix::fs::chown(&file, Some(1234), Some(4321)).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o4751)).unwrap();
    }
    let answer = bench.apply(&[(write("file", "after"), b"after")]);
    assert_eq!(answer.last, applied(0, 1, 0, 0, 5));
    let metadata = file.metadata().unwrap();
    assert_eq!(metadata.mode() & 0o7777, 0o4751);
    if root {
        assert_eq!((metadata.uid(), metadata.gid()), (1234, 4321));
    }
    let Change::Write(mut set) = write("file", "x") else {
        panic!("it is a write")
    };
    set.mode = Mode::Set(0o600);
    bench.apply(&[(Change::Write(set), b"x")]);
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn every_kind_of_change_is_made() {
    let bench = Bench::new();
    let answer = bench.apply(&[
        (delete("dir/other"), b""),
        (delete("dir"), b""),
        (write("dir", "a file now"), b"a file now"),
        (rename("file", "moved/file"), b""),
        (write("moved/file", "changed"), b"changed"),
        (link("link", "moved/file"), b""),
        (link("new-link", "/anywhere"), b""),
        (
            Change::Mkdir {
                path: "private".into(),
                mode: Mode::Set(0o700),
            },
            b"",
        ),
        (
            Change::SetMode {
                path: "moved/file".into(),
                mode: 0o755,
            },
            b"",
        ),
        (write("empty", ""), b""),
    ]);
    let expected = FileEvent::Applied {
        created: 3,
        modified: 3,
        deleted: 2,
        renamed: 1,
        directories: 2,
        bytes: 17,
    };
    assert_eq!(answer.last, expected);
    assert_eq!(bench.read("dir"), "a file now");
    assert_eq!(bench.read("moved/file"), "changed");
    assert_eq!(bench.read("link"), "changed");
    assert_eq!(bench.read("empty"), "");
    let mode = |path| bench.tree.join(path).metadata().unwrap().mode() & 0o7777;
    assert_eq!((mode("private"), mode("moved/file")), (0o700, 0o755));
    assert!(!bench.tree.join("file").exists());
    assert_eq!(bench.agent.staged(), 0);
}

#[test]
fn a_transaction_that_fails_at_its_end_changes_nothing() {
    let bench = Bench::new();
    std::fs::create_dir(bench.tree.join("empty")).unwrap();
    for (last, code) in [
        (delete("none"), ErrorCode::NotFound),
        (delete("dir"), ErrorCode::NotEmpty),
        (delete(""), ErrorCode::NotEmpty),
        (rename("file", "dir/other"), ErrorCode::AlreadyExists),
        (rename("dir", "elsewhere"), ErrorCode::NotAFile),
        (rename("none", "elsewhere"), ErrorCode::NotFound),
        (mkdir("file"), ErrorCode::NotADirectory),
        (mkdir("file/sub"), ErrorCode::NotADirectory),
        (link("dir", "x"), ErrorCode::NotAFile),
        (link("x", ""), ErrorCode::InvalidRequest),
        (link("made/by/it", "x"), ErrorCode::NotADirectory),
        (mkdir("../out"), ErrorCode::Outside),
        (delete("/etc/passwd"), ErrorCode::Outside),
        (
            Change::SetMode {
                path: "link".into(),
                mode: 0o644,
            },
            ErrorCode::NotAFile,
        ),
        (
            Change::SetMode {
                path: "file".into(),
                mode: 0o100_644,
            },
            ErrorCode::InvalidRequest,
        ),
    ] {
        let got = bench.refused(&[
            (write("file", "new"), b"new"),
            (write("fresh/file", "new"), b"new"),
            (write("made", "new"), b"new"),
            (delete("dir/other"), b""),
            (write("dir/another", "new"), b"new"),
            (write("dir/other", "new"), b"new"),
            (last.clone(), b""),
        ]);
        assert_eq!(got, code, "{last:?}");
    }
}

#[test]
fn writing_where_no_file_can_be_is_refused() {
    let bench = Bench::new();
    assert_eq!(
        bench
            .agent
            .shell(&format!("mkfifo {}/pipe", bench.tree.display()))
            .code(),
        0
    );
    symlink("/etc", bench.tree.join("etc")).unwrap();
    symlink("../staging/x", bench.tree.join("out")).unwrap();
    for (path, code) in [
        ("dir", ErrorCode::NotAFile),
        ("", ErrorCode::NotAFile),
        ("pipe", ErrorCode::NotAFile),
        ("file/x", ErrorCode::NotADirectory),
        ("etc/x", ErrorCode::Outside),
        ("../x", ErrorCode::Outside),
        ("none/../x", ErrorCode::NotFound),
        ("/tmp/x", ErrorCode::Outside),
        ("a\0b", ErrorCode::InvalidRequest),
    ] {
        assert_eq!(bench.refused(&[(write(path, "x"), b"x")]), code, "{path:?}");
    }
    let Change::Write(mut through) = write("out", "x") else {
        panic!("it is a write")
    };
    through.follow = true;
    let code = bench.refused(&[(Change::Write(through), b"x")]);
    assert_eq!(code, ErrorCode::Outside);
}

#[test]
fn a_link_is_replaced_or_written_through_as_told() {
    let bench = Bench::new();
    let Change::Write(mut through) = write("link", "through") else {
        panic!("it is a write")
    };
    through.follow = true;
    bench.apply(&[(Change::Write(through), b"through")]);
    assert_eq!(bench.read("file"), "through");
    assert!(bench.tree.join("link").is_symlink());
    bench.apply(&[(write("link", "instead"), b"instead")]);
    assert_eq!(bench.read("file"), "through");
    assert!(!bench.tree.join("link").is_symlink());
}

#[test]
fn a_link_of_the_same_transaction_is_no_parent() {
    let bench = Bench::new();
    let code = bench.refused(&[(link("evil", "/tmp"), b""), (write("evil/file", "x"), b"x")]);
    assert_eq!(code, ErrorCode::NotADirectory);
    let code = bench.refused(&[
        (delete("dir/other"), b""),
        (delete("dir"), b""),
        (link("dir", "/tmp"), b""),
        (write("dir/file", "x"), b"x"),
    ]);
    assert_eq!(code, ErrorCode::NotADirectory);
}

#[test]
fn what_is_expected_has_to_be_there() {
    let bench = Bench::new();
    let with = |path: &str, expect| {
        Change::Write(Write {
            path: path.into(),
            size: 1,
            mode: Mode::Keep,
            expect,
            follow: false,
        })
    };
    for (path, expect) in [
        ("file", digest("something else")),
        ("file", Expect::Absent),
        ("none", digest("")),
        ("link", digest("before")),
    ] {
        let code = bench.refused(&[(with(path, expect), b"x")]);
        assert_eq!(code, ErrorCode::Conflict, "{path} {expect:?}");
    }
    for change in [
        Change::Delete {
            path: "file".into(),
            expect: digest("else"),
        },
        Change::Rename {
            from: "file".into(),
            to: "to".into(),
            expect: digest("else"),
        },
        Change::Symlink {
            path: "file".into(),
            target: "to".into(),
            expect: Expect::Absent,
        },
    ] {
        assert_eq!(bench.refused(&[(change, b"")]), ErrorCode::Conflict);
    }
    bench.apply(&[
        (with("file", digest("before")), b"x"),
        (with("fresh", Expect::Absent), b"y"),
        (
            Change::Delete {
                path: "dir/other".into(),
                expect: digest("other"),
            },
            b"",
        ),
    ]);
    assert_eq!(
        (bench.read("file"), bench.read("fresh")),
        ("x".into(), "y".into())
    );
    assert!(!bench.tree.join("dir/other").exists());
}

#[test]
fn a_trial_says_what_would_be_done_and_does_nothing() {
    let bench = Bench::new();
    let before = snapshot(&bench.tree);
    let mut stream = bench.begin();
    send(&mut stream, &write("file", "x"), b"x");
    send(&mut stream, &write("a/b", "y"), b"y");
    send(&mut stream, &Change::Commit { dry_run: true }, b"");
    let answer = FileAnswer::collect(&mut stream);
    assert_eq!(answer.last, applied(1, 1, 0, 1, 2));
    assert_eq!(snapshot(&bench.tree), before);
    assert_eq!(bench.agent.staged(), 0);
}
