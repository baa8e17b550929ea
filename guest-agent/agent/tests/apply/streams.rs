//! Streams that break off or break the rules, and file systems that refuse.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use pyro_agent_protocol::{
    Change, ErrorCode, Expect, FrameKind, Mode, Write, encode, encode_message,
};

use crate::bench::{Bench, applied, delete, mkdir, send, snapshot, write};
use crate::support::{Agent, FileAnswer, Holding, wait_until};

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
