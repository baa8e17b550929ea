//! Many changes as one: all of them or none.

#![allow(clippy::unwrap_used)] // A test may end where it finds something wrong.

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use pyro_agent_protocol::{
    Apply, Change, ErrorCode, Expect, FileEvent, FrameKind, GuestPath, Mode, Request, Sha256,
    Write, encode, encode_message,
};
use sha2::Digest as _;
use support::{Agent, FileAnswer, Holding, Stream, shell, wait_until};

/// An agent, and a tree in the file system that it stages in.
struct Bench {
    agent: Agent,
    tree: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let agent = Agent::start_anywhere();
        let tree = agent.staging().with_file_name("tree");
        std::fs::create_dir_all(tree.join("dir")).unwrap();
        std::fs::write(tree.join("file"), "before").unwrap();
        std::fs::write(tree.join("dir/other"), "other").unwrap();
        symlink("file", tree.join("link")).unwrap();
        Self { agent, tree }
    }

    fn begin(&self) -> Stream {
        self.agent.request(&Request::Apply(Apply {
            beneath: self.tree.to_str().unwrap().into(),
        }))
    }

    fn apply(&self, changes: &[(Change, &[u8])]) -> FileAnswer {
        let mut stream = self.begin();
        for (change, content) in changes {
            send(&mut stream, change, content);
        }
        send(&mut stream, &Change::Commit { dry_run: false }, b"");
        FileAnswer::collect(&mut stream)
    }

    /// What a failing transaction says, which must change nothing.
    fn refused(&self, changes: &[(Change, &[u8])]) -> ErrorCode {
        let before = snapshot(&self.tree);
        let answer = self.apply(changes);
        assert_eq!(snapshot(&self.tree), before, "{answer:?}");
        wait_until("nothing is staged", || self.agent.staged() == 0);
        answer.code()
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.tree.join(path)).unwrap()
    }
}

fn send(stream: &mut Stream, change: &Change, content: &[u8]) {
    let mut bytes = encode_message(change).unwrap();
    for piece in content.chunks(100_000) {
        bytes.extend(encode(FrameKind::Stdin, piece).unwrap());
    }
    // The agent may have refused already.
    let _ = std::io::Write::write_all(&mut stream.socket, &bytes);
}

/// All of a tree: kind, mode, inode and content of each path.
fn snapshot(tree: &Path) -> BTreeMap<PathBuf, (u32, u64, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut directories = vec![tree.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let content = if metadata.is_dir() {
                directories.push(path.clone());
                Vec::new()
            } else if metadata.is_symlink() {
                let target = std::fs::read_link(&path).unwrap();
                target.into_os_string().into_encoded_bytes()
            } else if metadata.is_file() {
                std::fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            all.insert(path, (metadata.mode(), metadata.ino(), content));
        }
    }
    all
}

fn write(path: &str, content: &str) -> Change {
    Change::Write(Write {
        path: path.into(),
        size: content.len() as u64,
        mode: Mode::Keep,
        expect: Expect::Anything,
        follow: false,
    })
}

fn digest(content: &str) -> Expect {
    Expect::Sha256(Sha256(sha2::Sha256::digest(content).into()))
}

fn delete(path: &str) -> Change {
    Change::Delete {
        path: path.into(),
        expect: Expect::Anything,
    }
}

fn mkdir(path: &str) -> Change {
    Change::Mkdir {
        path: path.into(),
        mode: Mode::Keep,
    }
}

fn link(path: &str, target: &str) -> Change {
    Change::Symlink {
        path: path.into(),
        target: target.into(),
        expect: Expect::Anything,
    }
}

fn rename(from: &str, to: &str) -> Change {
    Change::Rename {
        from: from.into(),
        to: to.into(),
        expect: Expect::Anything,
    }
}

fn applied(created: u64, modified: u64, deleted: u64, directories: u64, bytes: u64) -> FileEvent {
    FileEvent::Applied {
        created,
        modified,
        deleted,
        renamed: 0,
        directories,
        bytes,
    }
}

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

#[test]
fn a_stream_that_ends_before_the_commit_changes_nothing() {
    let bench = Bench::new();
    let before = snapshot(&bench.tree);
    let content = vec![b'x'; 300_000];
    for cut in 0..4 {
        let mut stream = bench.begin();
        send(&mut stream, &write("file", "new"), b"new");
        let big = Change::Write(Write {
            path: "big".into(),
            size: 300_000,
            mode: Mode::Keep,
            expect: Expect::Anything,
            follow: false,
        });
        send(&mut stream, &big, &content[..100_000 * cut]);
        if cut > 1 {
            wait_until("it stages", || bench.agent.staged() == 1);
        }
        drop(stream);
        wait_until("nothing is staged", || bench.agent.staged() == 0);
    }
    assert_eq!(snapshot(&bench.tree), before);
    bench.agent.ping();
}

#[test]
fn streams_that_break_the_rules_are_refused_with_nothing_changed() {
    let bench = Bench::new();
    let before = snapshot(&bench.tree);
    let message = |change: &Change| encode_message(change).unwrap();
    let stdin = |bytes: &[u8]| encode(FrameKind::Stdin, bytes).unwrap();
    let commit = message(&Change::Commit { dry_run: false });
    for frames in [
        stdin(b"x"),
        [message(&write("a", "abc")), stdin(b"abcd")].concat(),
        [message(&write("a", "abc")), stdin(b"ab"), commit.clone()].concat(),
        [message(&write("a", "abc")), message(&mkdir("b"))].concat(),
        [message(&write("a", "")), stdin(b"x")].concat(),
        encode(FrameKind::Signal, b"{\"signal\":9}").unwrap(),
        encode(FrameKind::Message, b"{\"change\":\"explode\"}").unwrap(),
        encode(FrameKind::Message, b"{\"op\":\"ping\"}").unwrap(),
        [message(&write("file", "x")), stdin(b"x"), vec![9; 9]].concat(),
    ] {
        let mut stream = bench.begin();
        stream.send(&frames);
        // A host that goes on sending still gets to know.
        let _ = std::io::Write::write_all(&mut stream.socket, &stdin(&[0; 200_000]));
        let answer = FileAnswer::collect(&mut stream);
        assert_eq!(answer.code(), ErrorCode::InvalidRequest, "{answer:?}");
        drop(stream);
        wait_until("nothing is staged", || bench.agent.staged() == 0);
    }
    assert_eq!(snapshot(&bench.tree), before);
    wait_until("descriptors are closed", || bench.agent.descriptors() < 14);
}

#[test]
fn megabytes_in_thousands_of_files_arrive() {
    let bench = Bench::new();
    let mut stream = bench.begin();
    let content = "0123456789abcdef".repeat(100);
    for number in 0..3000 {
        let path = format!("d{}/f{number}", number % 50);
        send(&mut stream, &write(&path, &content), content.as_bytes());
    }
    send(&mut stream, &Change::Commit { dry_run: false }, b"");
    let answer = FileAnswer::collect(&mut stream);
    assert_eq!(answer.last, applied(3000, 0, 0, 50, 3000 * 1600));
    assert_eq!(bench.read("d7/f2957"), content);
    assert_eq!(bench.agent.staged(), 0);
}

#[test]
fn a_full_disk_is_told_and_the_staging_is_gone() {
    if !rustix::process::getuid().is_root() {
        eprintln!("skipped: only root can mount a small disk");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let flags = rustix::mount::MountFlags::empty();
    let options = Some(c"size=1m");
    if rustix::mount::mount("tmpfs", &path, "tmpfs", flags, options).is_err() {
        eprintln!("skipped: this machine mounts nothing");
        return;
    }
    for name in ["tree", "staging"] {
        std::fs::create_dir(path.join(name)).unwrap();
    }
    std::fs::write(path.join("tree/file"), "before").unwrap();
    let agent = Agent::start_in(directory, Holding::Traces).unwrap();
    let bench = Bench {
        tree: path.join("tree"),
        agent,
    };
    let big = "x".repeat(3 << 20);
    let code = bench.refused(&[
        (write("file", "new"), b"new"),
        (write("big", &big), big.as_bytes()),
    ]);
    assert_eq!(code, ErrorCode::NoSpace);
    let answer = bench.apply(&[(write("file", "new"), b"new")]);
    assert_eq!(answer.last, applied(0, 1, 0, 0, 3));
    drop(bench);
    rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH).unwrap();
}

#[test]
fn another_file_system_is_refused_with_nothing_changed() {
    let bench = Bench::new();
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("skipped: no second file system");
        return;
    };
    let device = |path: &Path| path.metadata().unwrap().dev();
    if device(other.path()) == device(&bench.tree) {
        eprintln!("skipped: no second file system");
        return;
    }
    std::fs::write(other.path().join("file"), "before").unwrap();
    let bench = Bench {
        tree: other.path().to_owned(),
        ..bench
    };
    for change in [write("file", "x"), write("a/b", "x"), delete("file")] {
        let content: &[u8] = if matches!(change, Change::Write(_)) {
            b"x"
        } else {
            b""
        };
        let got = bench.refused(&[(change, content)]);
        assert_eq!(got, ErrorCode::InvalidRequest);
    }
}

#[test]
fn leftovers_of_an_agent_that_was_cut_off_are_deleted_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let staging = directory.path().join("staging");
    std::fs::create_dir_all(staging.join(".pyro-staging-1-2-3-0/dir")).unwrap();
    std::fs::write(staging.join(".pyro-staging-1-2-3-0/n0"), "x").unwrap();
    std::fs::create_dir_all(staging.join("other")).unwrap();
    std::fs::write(staging.join(".pyro-staging"), "x").unwrap();
    let kept = directory.path().join("kept");
    std::fs::create_dir(&kept).unwrap();
    std::fs::write(kept.join("file"), "x").unwrap();
    symlink(&kept, staging.join(".pyro-staging-link")).unwrap();
    let agent = Agent::start_in(directory, Holding::Traces).unwrap();
    agent.ping();
    let mut names: Vec<_> = std::fs::read_dir(&staging)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, [".pyro-staging", ".pyro-staging-link", "other"]);
    assert!(kept.join("file").exists());
}

/// A program that reads a file all the time sees one content or the other, whole.
#[test]
fn no_program_sees_a_half_written_file_or_none() {
    let bench = Bench::new();
    let (a, b) = ("a".repeat(50_000), "b".repeat(50_000));
    bench.apply(&[(write("file", &a), a.as_bytes())]);
    let file = bench.tree.join("file");
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let (wanted_a, wanted_b) = (a.clone(), b.clone());
    let reader = std::thread::spawn(move || {
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            let content = std::fs::read_to_string(&file).unwrap();
            assert!(
                content == wanted_a || content == wanted_b,
                "{}",
                content.len()
            );
        }
    });
    for _ in 0..50 {
        bench.apply(&[(write("file", &b), b.as_bytes())]);
        bench.apply(&[(write("file", &a), a.as_bytes())]);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    reader.join().unwrap();
}

/// Of many who each expect what they have read, one wins each time: no update is lost.
#[test]
fn no_update_is_lost() {
    let bench = Bench::new();
    std::fs::write(bench.tree.join("file"), "0").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut done = 0;
                while done < 20 {
                    let old = bench.read("file");
                    let new = (old.parse::<u32>().unwrap() + 1).to_string();
                    let change = Change::Write(Write {
                        path: "file".into(),
                        size: new.len() as u64,
                        mode: Mode::Keep,
                        expect: digest(&old),
                        follow: false,
                    });
                    match bench.apply(&[(change, new.as_bytes())]).last {
                        FileEvent::Applied { .. } => done += 1,
                        FileEvent::Failed {
                            code: ErrorCode::Conflict,
                            ..
                        } => {}
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
    });
    assert_eq!(bench.read("file"), "80");
}

/// While a program swaps a directory for a link that leads out, a transaction writes inside or
/// fails, and nothing comes out.
#[test]
fn no_race_leads_out() {
    let bench = Bench::new();
    let outside = bench.tree.with_file_name("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::create_dir(bench.tree.join("swap")).unwrap();
    let script = format!(
        "cd {}; while :; do mv swap real; ln -s ../outside swap; rm swap; mv real swap; done",
        bench.tree.display()
    );
    let racer = bench.agent.exec(shell(&script));
    let mut done = 0;
    for number in 0..300 {
        let path = format!("swap/{number}");
        let answer = bench.apply(&[(write("file", "x"), b"x"), (write(&path, "y"), b"y")]);
        match answer.last {
            FileEvent::Applied { .. } => done += 1,
            FileEvent::Failed { code, .. } => assert!(
                matches!(
                    code,
                    ErrorCode::Conflict | ErrorCode::Outside | ErrorCode::NotFound
                ),
                "{code:?}"
            ),
            other => panic!("{other:?}"),
        }
    }
    assert!(done > 0);
    drop(racer);
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

/// Random transactions on a small tree: each either changes what it says, or nothing.
#[test]
fn random_transactions_are_made_whole_or_not_at_all() {
    use proptest::prelude::*;
    let bench = Bench::new();
    let paths = || {
        let names = [
            "a", "b", "dir", "dir/x", "a/x", "link", "link/x", "", "..", "b/c/d",
        ];
        prop::sample::select(names.to_vec())
    };
    let expects = || {
        prop_oneof![
            8 => Just(Expect::Anything),
            1 => Just(Expect::Absent),
            1 => Just(digest("w")),
        ]
    };
    let guest = |path: &str| GuestPath::from(path);
    let change = prop_oneof![
        4 => (paths(), expects(), any::<bool>()).prop_map(move |(path, expect, follow)| {
            Change::Write(Write { path: guest(path), size: 1, mode: Mode::Keep, expect, follow })
        }),
        1 => (paths(), 0u32..0o10000).prop_map(move |(path, mode)| {
            Change::Mkdir { path: guest(path), mode: Mode::Set(mode | 0o700) }
        }),
        1 => (paths(), paths(), expects()).prop_map(move |(path, target, expect)| {
            Change::Symlink { path: guest(path), target: guest(target), expect }
        }),
        3 => (paths(), expects()).prop_map(move |(path, expect)| {
            Change::Delete { path: guest(path), expect }
        }),
        2 => (paths(), paths(), expects()).prop_map(move |(from, to, expect)| {
            Change::Rename { from: guest(from), to: guest(to), expect }
        }),
    ];
    let mut runner =
        proptest::test_runner::TestRunner::new(proptest::test_runner::Config::with_cases(400));
    let (mut made, mut refused) = (0, 0);
    let outcome = runner.run(&prop::collection::vec(change, 1..7), |changes| {
        let before = snapshot(&bench.tree);
        let with_content: Vec<(Change, &[u8])> = changes
            .into_iter()
            .map(|change| match change {
                Change::Write(_) => (change, &b"w"[..]),
                other => (other, &b""[..]),
            })
            .collect();
        match bench.apply(&with_content).last {
            FileEvent::Applied { .. } => MADE.with(|made| made.set(made.get() + 1)),
            FileEvent::Failed { code, message } => {
                prop_assert_eq!(snapshot(&bench.tree), before, "{}", message);
                prop_assert_ne!(code, ErrorCode::Internal, "{}", message);
                REFUSED.with(|refused| refused.set(refused.get() + 1));
            }
            other => prop_assert!(false, "{other:?}"),
        }
        prop_assert_eq!(bench.agent.staged(), 0);
        Ok(())
    });
    outcome.unwrap();
    MADE.with(|count| made += count.get());
    REFUSED.with(|count| refused += count.get());
    assert!(made > 5 && refused > 20, "{made} made, {refused} refused");
    let around = bench.tree.parent().unwrap();
    let mut names: Vec<_> = std::fs::read_dir(around)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["socket", "staging", "tree"]);
}

thread_local! {
    static MADE: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
    static REFUSED: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}
