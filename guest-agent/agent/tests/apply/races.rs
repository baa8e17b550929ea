//! Several at once, and random transactions.

use pyro_agent_protocol::{Change, ErrorCode, Expect, FileEvent, GuestPath, Mode, Write};

use crate::bench::{Bench, digest, snapshot, write};
use crate::support::shell;

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
