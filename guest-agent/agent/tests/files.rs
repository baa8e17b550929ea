//! Looking at, listing and reading files of a running agent's machine.

#![allow(clippy::unwrap_used)] // A test may end where it finds something wrong.

mod support;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use pyro_agent_protocol::{
    Entry, ErrorCode, Event, FileEvent, FileKind, GuestPath, List, Read, Request, Sha256, Stat,
};
use sha2::Digest as _;
use support::{Agent, FileAnswer, wait_until};

fn guest(path: &Path) -> GuestPath {
    GuestPath::from_bytes(path.as_os_str().as_bytes().to_vec())
}

fn read(agent: &Agent, beneath: &Path, path: &str) -> FileAnswer {
    agent.files(&Request::Read(Read {
        path: path.into(),
        beneath: guest(beneath),
        offset: 0,
        max_bytes: u64::MAX,
    }))
}

fn list(agent: &Agent, beneath: &Path, path: &str, recursive: bool, max: u64) -> FileAnswer {
    agent.files(&Request::List(List {
        path: path.into(),
        beneath: guest(beneath),
        recursive,
        max_entries: max,
    }))
}

fn entries(answer: &FileAnswer) -> Vec<Entry> {
    let lists = answer.before.iter().map(|event| match event {
        FileEvent::Entries { entries } => entries.clone(),
        _ => Vec::new(),
    });
    lists.flatten().collect()
}

fn paths(answer: &FileAnswer) -> Vec<String> {
    let entries = entries(answer);
    entries.iter().map(|entry| entry.path.to_string()).collect()
}

fn stat(agent: &Agent, beneath: &Path, path: &str, follow: bool) -> FileEvent {
    let request = Request::Stat(Stat {
        path: path.into(),
        beneath: guest(beneath),
        follow,
    });
    agent.files(&request).last
}

/// A tree to look at, and a secret beside it.
fn tree() -> (tempfile::TempDir, std::path::PathBuf) {
    let outer = tempfile::tempdir().unwrap();
    let tree = outer.path().join("tree");
    std::fs::create_dir_all(tree.join("a/deep/er")).unwrap();
    std::fs::write(outer.path().join("secret"), "secret").unwrap();
    std::fs::write(tree.join("a/file"), "content").unwrap();
    std::fs::write(tree.join("a.txt"), "text").unwrap();
    symlink("a/file", tree.join("to-file")).unwrap();
    symlink(tree.join("a/deep"), tree.join("absolute-inside")).unwrap();
    symlink("../secret", tree.join("out")).unwrap();
    symlink(outer.path().join("secret"), tree.join("absolute-out")).unwrap();
    symlink("../../../tree/a/file", tree.join("a/deep/out-and-in")).unwrap();
    symlink("/", tree.join("root")).unwrap();
    symlink("loop", tree.join("loop")).unwrap();
    (outer, tree)
}

#[test]
fn a_file_is_read_whole_with_its_digest() {
    let agent = Agent::start_anywhere();
    let (_outer, tree) = tree();
    let content: Vec<u8> = (0..1_000_000u32)
        .map(|n| (n.wrapping_mul(n) >> 7) as u8)
        .collect();
    std::fs::write(tree.join("big"), &content).unwrap();
    let answer = read(&agent, &tree, "big");
    assert!(answer.content == content);
    let sha256 = Some(Sha256(sha2::Sha256::digest(&content).into()));
    let last = FileEvent::Read {
        bytes: 1_000_000,
        truncated: false,
        sha256,
    };
    assert_eq!(answer.last, last);
    let first = FileEvent::Reading {
        path: guest(&tree.join("big")),
        size: 1_000_000,
        mode: 0o644,
    };
    assert_eq!(answer.before, [first]);
}

#[test]
fn a_part_of_a_file_has_no_digest() {
    let agent = Agent::start_anywhere();
    let (_outer, tree) = tree();
    for (offset, max_bytes, content, truncated) in [
        (0, 3, "con", true),
        (0, 0, "", true),
        (3, 2, "te", true),
        (3, 4, "tent", false),
        (7, 10, "", false),
        (u64::MAX, u64::MAX, "", false),
    ] {
        let request = Request::Read(Read {
            path: "a/file".into(),
            beneath: guest(&tree),
            offset,
            max_bytes,
        });
        let answer = agent.files(&request);
        assert_eq!(answer.content, content.as_bytes());
        let last = FileEvent::Read {
            bytes: content.len() as u64,
            truncated,
            sha256: None,
        };
        assert_eq!(answer.last, last);
    }
}

#[test]
fn links_that_stay_inside_are_followed_and_those_that_leave_are_not() {
    let agent = Agent::start_anywhere();
    let (_outer, tree) = tree();
    std::fs::write(tree.join("a/deep/er/x"), "x").unwrap();
    let absolute = tree.join("a/file").to_str().unwrap().to_owned();
    for path in [
        "to-file",
        "./a//file",
        "a/deep/../file",
        "absolute-inside/../file",
        &absolute,
    ] {
        assert_eq!(read(&agent, &tree, path).content, b"content", "{path}");
    }
    assert_eq!(read(&agent, &tree, "absolute-inside/er/x").content, b"x");
    let inside = tree.to_str().unwrap();
    for path in [
        "out",
        "absolute-out",
        "../secret",
        "a/../../secret",
        "a/deep/out-and-in",
        "root/etc/passwd",
        "/etc/passwd",
        &format!("{inside}/../secret"),
        &format!("{inside}x/secret"),
    ] {
        let answer = read(&agent, &tree, path);
        assert_eq!(answer.code(), ErrorCode::Outside, "{path}");
        assert!(answer.content.is_empty());
        assert_eq!(
            list(&agent, &tree, path, true, 10).code(),
            ErrorCode::Outside
        );
    }
    assert_eq!(
        read(&agent, &tree, "loop").code(),
        ErrorCode::InvalidRequest
    );
}

#[test]
fn what_is_no_regular_file_is_refused_without_opening_it() {
    let agent = Agent::start_anywhere();
    let (_outer, tree) = tree();
    assert_eq!(
        agent
            .shell(&format!("mkfifo {}/pipe", tree.display()))
            .code(),
        0
    );
    let _socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
    for path in ["a", "pipe", "socket", ""] {
        assert_eq!(
            read(&agent, &tree, path).code(),
            ErrorCode::NotAFile,
            "{path}"
        );
    }
    assert_eq!(
        read(&agent, Path::new("/"), "dev/null").code(),
        ErrorCode::NotAFile
    );
    assert_eq!(read(&agent, &tree, "none").code(), ErrorCode::NotFound);
    assert_eq!(
        read(&agent, &tree, "a/file/x").code(),
        ErrorCode::NotADirectory
    );
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let agent = Agent::start_anywhere();
    let (_outer, tree) = tree();
    let long = "x".repeat(300);
    for path in ["a\0b", &"a/".repeat(3000), &long] {
        let code = read(&agent, &tree, path).code();
        assert_eq!(code, ErrorCode::InvalidRequest);
    }
    for beneath in ["", "relative", "/tmp/../etc", "/tmp\0"] {
        let code = read(&agent, Path::new(beneath), "x").code();
        assert_eq!(code, ErrorCode::InvalidRequest, "{beneath:?}");
    }
    let code = read(&agent, Path::new("/no/such"), "x").code();
    assert_eq!(code, ErrorCode::NotFound);
    let code = read(&agent, &tree.join("a/file"), "x").code();
    assert_eq!(code, ErrorCode::NotADirectory);
}

#[test]
fn a_path_is_told_for_what_it_is() {
    let agent = Agent::start_anywhere();
    let (_outer, tree) = tree();
    let FileEvent::Stat { entry } = stat(&agent, &tree, "to-file", false) else {
        panic!("it is there")
    };
    assert_eq!(entry.kind, FileKind::Symlink);
    assert_eq!(entry.target, Some("a/file".into()));
    let FileEvent::Stat { entry } = stat(&agent, &tree, "to-file", true) else {
        panic!("it is there")
    };
    assert_eq!((entry.kind, entry.size), (FileKind::File, 7));
    assert_eq!(entry.path, guest(&tree.join("a/file")));
    // A link that leaves is itself inside.
    let FileEvent::Stat { entry } = stat(&agent, &tree, "out", false) else {
        panic!("it is there")
    };
    assert_eq!(entry.kind, FileKind::Symlink);
    let outside = stat(&agent, &tree, "out", true);
    assert!(matches!(
        outside,
        FileEvent::Failed {
            code: ErrorCode::Outside,
            ..
        }
    ));
}

#[test]
fn a_listing_is_in_the_order_of_the_bytes_of_its_paths() {
    let agent = Agent::start_anywhere();
    let (_outer, tree) = tree();
    let answer = list(&agent, &tree, "", true, 1000);
    let got = paths(&answer);
    let mut sorted = got.clone();
    sorted.sort();
    assert_eq!(got, sorted);
    assert_eq!(
        got,
        [
            "a",
            "a.txt",
            "a/deep",
            "a/deep/er",
            "a/deep/out-and-in",
            "a/file",
            "absolute-inside",
            "absolute-out",
            "loop",
            "out",
            "root",
            "to-file"
        ]
    );
    let flat = list(&agent, &tree, "", false, 1000);
    assert_eq!(paths(&flat).len(), 8);
    let through = list(&agent, &tree, "absolute-inside", false, 1000);
    assert_eq!(paths(&through), ["er", "out-and-in"]);
    let listing = FileEvent::Listing {
        path: guest(&tree.join("a/deep")),
    };
    assert_eq!(through.before[0], listing);
    let single = list(&agent, &tree, "a/file", true, 1000);
    assert_eq!(paths(&single), [""]);
}

#[test]
fn a_long_listing_comes_in_pieces_and_is_cut_where_it_is_told() {
    let agent = Agent::start_anywhere();
    let directory = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for outer in 0..30 {
        let name = format!("d{outer:02}");
        std::fs::create_dir(directory.path().join(&name)).unwrap();
        expected.push(name.clone());
        for inner in 0..100 {
            let path = format!("{name}/{inner:03}");
            std::fs::write(directory.path().join(&path), "").unwrap();
            expected.push(path);
        }
    }
    let answer = list(&agent, directory.path(), "", true, 100_000);
    assert_eq!(paths(&answer), expected);
    assert!(answer.before.len() > 5, "it came in pieces");
    for max in [0, 1, 101, 102, 1000, 3029, 3030, 3031] {
        let answer = list(&agent, directory.path(), "", true, max);
        let count = usize::try_from(max).unwrap().min(expected.len());
        assert_eq!(paths(&answer), expected[..count]);
        let last = FileEvent::Listed {
            entries: count as u64,
            truncated: max < 3030,
            unreadable: 0,
        };
        assert_eq!(answer.last, last, "{max}");
    }
}

#[test]
fn names_that_are_no_text_come_back_byte_by_byte() {
    let agent = Agent::start_anywhere();
    let directory = tempfile::tempdir().unwrap();
    let name = OsStr::from_bytes(b"\xff\xfe\n\"");
    std::fs::write(directory.path().join(name), "odd").unwrap();
    symlink(name, directory.path().join("link")).unwrap();
    let answer = list(&agent, directory.path(), "", false, 10);
    let entries = entries(&answer);
    assert_eq!(
        entries[0].target.as_ref().unwrap().as_bytes(),
        name.as_bytes()
    );
    let odd = entries[1].path.clone();
    assert_eq!(odd.as_bytes(), name.as_bytes());
    let request = Request::Read(Read {
        path: odd,
        beneath: guest(directory.path()),
        offset: 0,
        max_bytes: 10,
    });
    assert_eq!(agent.files(&request).content, b"odd");
}

#[test]
fn the_longest_names_and_the_deepest_tree_fit() {
    let agent = Agent::start_anywhere();
    let directory = tempfile::tempdir().unwrap();
    for number in 0..300 {
        let name = format!("{number:03}{}", "\u{1}".repeat(252));
        std::fs::write(directory.path().join(name), "").unwrap();
    }
    let script = format!(
        "cd {}; i=0; while [ $i -lt 60 ]; do n=$(printf '%0200d' 0); mkdir $n; cd $n; i=$((i+1)); done",
        directory.path().display()
    );
    assert_eq!(agent.shell(&script).code(), 0);
    let answer = list(&agent, directory.path(), "", true, 100_000);
    let FileEvent::Listed {
        entries,
        truncated,
        unreadable,
    } = answer.last
    else {
        panic!("{:?}", answer.last)
    };
    // Twenty levels have a path short enough to be used.
    assert!((316..=322).contains(&entries), "{entries}");
    assert_eq!((truncated, unreadable), (false, 1));
    agent.shell(&format!("rm -rf {}/0*", directory.path().display()));
}

#[test]
fn a_reader_that_does_not_read_and_one_that_leaves_hold_nothing_up() {
    let agent = Agent::start_anywhere();
    let directory = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(directory.path().join("big")).unwrap();
    file.set_len(1 << 30).unwrap();
    let request = Request::Read(Read {
        path: "big".into(),
        beneath: guest(directory.path()),
        offset: 0,
        max_bytes: u64::MAX,
    });
    let deaf: Vec<_> = (0..20).map(|_| agent.request(&request)).collect();
    agent.ping();
    std::fs::write(directory.path().join("small"), "small").unwrap();
    assert_eq!(read(&agent, directory.path(), "small").content, b"small");
    drop(deaf);
    wait_until("their descriptors are closed", || agent.descriptors() < 14);
    let before = agent.ticks();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(agent.ticks() - before <= 3, "it goes on reading for nobody");
}

#[test]
fn sync_is_answered_and_many_at_once_as_well() {
    let agent = Agent::start_anywhere();
    let mut streams: Vec<_> = (0..20).map(|_| agent.request(&Request::Sync)).collect();
    agent.ping();
    for stream in &mut streams {
        assert_eq!(stream.event(), Event::Done);
        assert!(stream.frame().is_none());
    }
}

/// While a program swaps a directory for a link that leads out, again and again, no read ever
/// gives what is outside.
#[test]
fn no_race_leads_out() {
    let agent = Agent::start_anywhere();
    let (_outer, tree) = tree();
    std::fs::create_dir(tree.join("swap")).unwrap();
    std::fs::write(tree.join("swap/secret"), "inside").unwrap();
    let script = format!(
        "cd {}; while :; do mv swap real; ln -s .. swap; rm swap; mv real swap; done",
        tree.display()
    );
    let racer = agent.exec(support::shell(&script));
    let mut inside = 0;
    for _ in 0..400 {
        let answer = read(&agent, &tree, "swap/secret");
        match answer.last {
            FileEvent::Read { .. } => {
                assert_eq!(answer.content, b"inside");
                inside += 1;
            }
            FileEvent::Failed { code, .. } => assert!(
                matches!(code, ErrorCode::NotFound | ErrorCode::Outside),
                "{code:?}"
            ),
            other => panic!("{other:?}"),
        }
        let listed = list(&agent, &tree, "swap", true, 100);
        assert!(!paths(&listed).iter().any(|path| path.contains("tree")));
    }
    assert!(inside > 0);
    drop(racer);
}
