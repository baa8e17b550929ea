//! Shells.

use pyro_client::types::*;

use super::*;

async fn open(engine: &Arc<Engine>) -> String {
    let env = [
        ("PS1".to_string(), "$ ".to_string()),
        ("HISTFILE".into(), "/dev/null".into()),
    ];
    let request = OpenShell {
        env: env.into(),
        ..OpenShell::default()
    };
    engine
        .shell_open("a", request)
        .await
        .expect("opened")
        .shell_id
}

async fn write(engine: &Arc<Engine>, id: &str, line: &str) {
    engine
        .shell_write("a", id, WriteShell::line(line))
        .await
        .expect("written");
}

/// Reads until `wanted` is there.
async fn until(engine: &Arc<Engine>, id: &str, plain: bool, wanted: &str) -> ShellOutput {
    let request = ReadShell {
        plain,
        wait_for_idle_ms: 20,
        max_chars: MAX_READ_CHARS,
        ..ReadShell::default()
    };
    let reading = async {
        loop {
            let read = engine.shell_read("a", id, request).await.expect("read");
            if read.output.contains(wanted) {
                return read;
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("in time")
}

#[tokio::test]
async fn a_shell_is_typed_into_and_read_as_a_person_would() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;
    let id = open(&engine).await;

    write(
        &engine,
        &id,
        "pwd; printf '\\033[31mred\\033[0m 1%%\\r2%%\\n'; stty size",
    )
    .await;
    let raw = until(&engine, &id, false, "30 120").await;
    let plain = until(&engine, &id, true, "30 120").await;

    assert!(raw.output.contains("\u{1b}[31mred\u{1b}[0m"));
    let lines: Vec<_> = plain.output.lines().collect();
    assert!(lines.contains(&world.root().as_str()), "{lines:?}");
    assert!(
        lines.contains(&"2%d 1%")
            || lines.contains(&"2%  1%")
            || lines.iter().any(|l| l.starts_with("2%")),
        "{lines:?}"
    );
    assert!(!plain.output.contains('\u{1b}'));
    let rest = ReadShell {
        cursor: raw.cursor,
        ..ReadShell::default()
    };
    let rest = engine.shell_read("a", &id, rest).await.expect("read");
    assert_eq!((rest.closed, rest.dropped_bytes), (false, 0));
    assert!(rest.cursor >= raw.cursor);
    assert_eq!(engine.shell_list("a").await.expect("listed").count, 1);
}

#[tokio::test]
async fn a_shell_is_resized_signalled_ends_and_is_closed() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;
    let id = open(&engine).await;

    let size = ResizeShell { cols: 77, rows: 11 };
    let resized = engine.shell_resize("a", &id, size).await.expect("resized");
    assert_eq!((resized.cols, resized.rows), (77, 11));
    write(&engine, &id, "stty size; echo go; sleep 1000").await;
    until(&engine, &id, false, "go\r\n").await;
    until(&engine, &id, false, "11 77").await;
    engine
        .shell_signal(
            "a",
            &id,
            SignalShell {
                signal: ShellSignal::Int,
            },
        )
        .await
        .expect("signalled");
    write(&engine, &id, "echo after-$?; exit 3").await;
    until(&engine, &id, false, "after-130").await;
    let waited = tokio::time::timeout(PATIENCE, async {
        let mut stream = engine
            .shell_follow("a", &id, FollowShell::default())
            .await
            .expect("there");
        let mut last = None;
        while let Some(event) = stream.next().await {
            last = Some(event);
        }
        last.expect("an event")
    });
    let ShellEvent::Closed { shell } = waited.await.expect("in time") else {
        panic!("another end");
    };
    assert_eq!((shell.closed, shell.exit_code), (true, Some(3)));
    let read = engine
        .shell_read("a", &id, ReadShell::default())
        .await
        .expect("still there");
    assert_eq!((read.closed, read.exit_code), (true, Some(3)));
    let closed = engine
        .shell_write("a", &id, WriteShell::line("x"))
        .await
        .expect_err("refused");
    assert_eq!(closed.code(), Code::ShellClosed);
    engine.shell_close("a", &id).await.expect("closed");
    let gone = engine
        .shell_read("a", &id, ReadShell::default())
        .await
        .expect_err("gone");
    assert_eq!(gone.code(), Code::ShellNotFound);
    assert_eq!(engine.get("a").expect("there").shell_count, 0);
}

#[tokio::test]
async fn closing_ends_what_runs_in_it() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;
    let id = open(&engine).await;
    write(&engine, &id, "trap '' HUP; sleep 1000 & echo started").await;
    until(&engine, &id, false, "started\r\n").await;

    engine.shell_close("a", &id).await.expect("closed");

    let slot = engine.find("a").expect("there");
    let guest = slot.guest().expect("runs");
    let jobs = super::super::jobs::all(&guest).await.expect("answered");
    assert!(jobs.is_empty(), "{jobs:?}");
}

#[tokio::test]
async fn output_is_followed_as_it_comes() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;
    let id = open(&engine).await;
    let mut stream = engine
        .shell_follow("a", &id, FollowShell::default())
        .await
        .expect("there");
    let next = async |stream: &mut crate::ShellStream| {
        tokio::time::timeout(PATIENCE, stream.next())
            .await
            .expect("in time")
            .expect("an event")
    };
    assert!(matches!(
        next(&mut stream).await,
        ShellEvent::Attached { .. }
    ));

    write(&engine, &id, "echo 1$((1+1))3; exit").await;
    let mut text = String::new();
    loop {
        match next(&mut stream).await {
            ShellEvent::Output { data } => {
                use base64::Engine as _;
                let data = base64::engine::general_purpose::STANDARD
                    .decode(data)
                    .expect("base64");
                text.push_str(&String::from_utf8_lossy(&data));
            }
            ShellEvent::Closed { shell } => {
                assert_eq!(shell.exit_code, Some(0));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(text.contains("123\r\n"), "{text}");
}

#[test]
fn a_daemon_that_is_killed_before_a_shell_is_open_leaves_none() {
    let world = World::new();
    let (workspace, kept) = world.daemon(async |engine| {
        let workspace = create(&engine, "a").await.workspace_id;
        (workspace, open(&engine).await)
    });
    // As it is noted before the agent knows it.
    let shells = world
        .state()
        .join("workspaces")
        .join(workspace)
        .join("shells");
    let sheet = std::fs::read_to_string(shells.join(format!("{kept}.json"))).expect("noted");
    let other = sheet.replace(&kept, "sh-unopened");
    std::fs::write(shells.join("sh-unopened.json"), other).expect("written");
    world.daemon(async |engine| {
        let list = engine.shell_list("a").await.expect("listed");
        let ids: Vec<_> = list.shells.iter().map(|shell| &shell.shell_id).collect();
        assert_eq!(ids, [&kept]);
        assert!(!shells.join("sh-unopened.json").exists());
    });
}

#[test]
fn the_next_daemon_reads_on_and_a_stop_ends_shells() {
    let world = World::new();
    let (id, cursor) = world.daemon(async |engine| {
        create(&engine, "a").await;
        let id = open(&engine).await;
        write(&engine, &id, "echo o''ne").await;
        let read = until(&engine, &id, false, "one").await;
        (id, read.cursor)
    });
    world.daemon(async |engine| {
        write(&engine, &id, "echo t''wo").await;
        until(&engine, &id, false, "two").await;
        let rest = ReadShell {
            cursor,
            ..ReadShell::default()
        };
        let rest = engine.shell_read("a", &id, rest).await.expect("read");
        assert!(
            rest.output.contains("two") && !rest.output.contains("one"),
            "{rest:?}"
        );
        engine.stop("a").await.expect("stopped");
        assert_eq!(engine.shell_list("a").await.expect("listed").count, 0);
        let gone = engine
            .shell_read("a", &id, ReadShell::default())
            .await
            .expect_err("gone");
        assert_eq!(gone.code(), Code::ShellNotFound);
    });
}

#[tokio::test]
async fn several_readers_and_what_was_dropped() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;
    let id = open(&engine).await;
    write(
        &engine,
        &id,
        "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo t''he end",
    )
    .await;
    until(&engine, &id, false, "the end").await;

    let read = || {
        engine.shell_read(
            "a",
            &id,
            ReadShell {
                max_chars: 1000,
                ..ReadShell::default()
            },
        )
    };
    let (one, two) = tokio::join!(read(), read());

    let (one, two) = (one.expect("read"), two.expect("read"));
    assert_eq!(one, two);
    assert!(
        one.truncated && one.dropped_bytes > 1_000_000,
        "{}",
        one.dropped_bytes
    );
    assert_eq!(one.output.chars().count(), 1000);
    assert_eq!(one.cursor, one.dropped_bytes + 1000);
}

#[tokio::test]
async fn secrets_are_in_no_read_raw_or_plain() {
    let world = World::new();
    let engine = world.open().await;
    engine
        .create(CreateWorkspace {
            name: Some("a".into()),
            secrets: vec![DeclareSecret::literal("T", "s3cr3t-value")],
            ..CreateWorkspace::new("debian:12")
        })
        .await
        .expect("created");
    let request = OpenShell {
        secret_env: [("T".to_string(), "T".to_string())].into(),
        ..OpenShell::default()
    };
    let id = engine
        .shell_open("a", request)
        .await
        .expect("opened")
        .shell_id;
    write(
        &engine,
        &id,
        "echo $T; printf \"\\033[1m${T%-value}\\033[0m-value\\n\"; echo d''one",
    )
    .await;
    let raw = until(&engine, &id, false, "done").await;
    let plain = until(&engine, &id, true, "done").await;

    assert!(raw.output.contains("[REDACTED]\r\n"), "{raw:?}");
    assert!(!plain.output.contains("s3cr3t"), "{plain:?}");
    assert_eq!(plain.output.matches("\n[REDACTED]").count(), 2, "{plain:?}");
}

#[tokio::test]
async fn odd_requests_are_refused() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;
    let none = OpenShell {
        cols: 0,
        ..OpenShell::default()
    };
    let error = engine.shell_open("a", none).await.expect_err("refused");
    assert_eq!(error.code(), Code::InvalidRequest);
    let elsewhere = OpenShell {
        cwd: "not/there".into(),
        ..OpenShell::default()
    };
    let error = engine
        .shell_open("a", elsewhere)
        .await
        .expect_err("refused");
    assert_eq!(error.code(), Code::FileNotFound);
    assert_eq!(engine.shell_list("a").await.expect("listed").count, 0);
    let id = open(&engine).await;
    for odd in [
        ReadShell {
            max_chars: 0,
            ..ReadShell::default()
        },
        ReadShell {
            wait_for_idle_ms: 10_001,
            ..ReadShell::default()
        },
    ] {
        let error = engine.shell_read("a", &id, odd).await.expect_err("refused");
        assert_eq!(error.code(), Code::InvalidRequest);
    }
}
