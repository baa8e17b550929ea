//! Commands.

use pyro_client::types::{CAPTURE_BYTES, ExecState};

use super::*;

#[tokio::test]
async fn a_command_streams_ends_and_is_in_the_journal() {
    let world = World::new();
    let engine = world.open().await;
    let workspace = create(&engine, "a").await;

    let (record, events) = run(&engine, "a", shell("pwd; echo no >&2; exit 3")).await;

    assert_eq!(record.state, ExecState::Exited);
    assert_eq!(record.exit_code, Some(3));
    assert_eq!(record.stdout, format!("{}\n", world.root()));
    assert_eq!((record.stderr.as_str(), record.stderr_bytes), ("no\n", 3));
    assert!(!record.stdout_truncated && record.duration_ms.is_some());
    assert_eq!(events[0], ExecEvent::Started { sequence: 1 });
    assert_eq!(events.len(), 3, "{events:?}");
    let again = engine
        .exec_get("a", 1, Duration::ZERO)
        .await
        .expect("there");
    assert_eq!(again, record);
    let logs = engine.logs(&workspace.workspace_id).await.expect("read");
    assert_eq!((logs.count, logs.entries), (1, vec![record]));
    assert_eq!(engine.get("a").expect("there").command_count, 1);
}

#[tokio::test]
async fn what_cannot_be_started_is_told_by_code() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;

    let (missing, _) = run(&engine, "a", ExecRequest::new(["no-such-program"])).await;
    assert_eq!(
        (missing.state, missing.exit_code),
        (ExecState::NotStarted, Some(127))
    );
    assert_eq!(missing.error.expect("why").code, "command_not_found");
    let (folder, _) = run(&engine, "a", ExecRequest::new(["/etc"])).await;
    assert_eq!(
        (folder.state, folder.exit_code),
        (ExecState::NotStarted, Some(126))
    );
    let mut elsewhere = ExecRequest::new(["true"]);
    elsewhere.cwd = "not/there".into();
    let (elsewhere, _) = run(&engine, "a", elsewhere).await;
    assert_eq!(elsewhere.error.expect("why").code, "file_not_found");
}

#[tokio::test]
async fn a_timeout_a_signal_and_a_flood_end_as_the_contract_says() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;

    let mut slow = shell("sleep 1000 & wait");
    slow.timeout_seconds = 1;
    let (slow, _) = run(&engine, "a", slow).await;
    assert_eq!(
        (slow.state, slow.exit_code),
        (ExecState::TimedOut, Some(124))
    );
    let (killed, _) = run(&engine, "a", shell("kill -9 $$")).await;
    assert_eq!(
        (killed.state, killed.signal),
        (ExecState::Signalled, Some(9))
    );
    assert_eq!(killed.exit_code, Some(137));
    let (flood, _) = run(
        &engine,
        "a",
        shell("echo first; head -c 5000000 /dev/zero | tr '\\0' x; echo last"),
    )
    .await;
    assert!(flood.stdout_truncated);
    assert_eq!(flood.stdout_bytes, 5_000_011);
    assert!(flood.stdout.len() as u64 <= CAPTURE_BYTES);
    assert!(flood.stdout.starts_with("first\n") && flood.stdout.ends_with("last\n"));
}

#[tokio::test]
async fn a_command_that_nobody_waits_for_is_cancelled_unless_detached() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;

    let left = engine
        .exec("a", shell("sleep 1000"))
        .await
        .expect("started");
    drop(left);
    let record = engine.exec_get("a", 1, PATIENCE).await.expect("there");
    assert_eq!(
        (record.state, record.exit_code),
        (ExecState::Cancelled, None)
    );

    let mut detached = shell("echo on; read line < gate; echo off");
    detached.detach = true;
    let gate = world.fifo();
    let (record, _) = run(&engine, "a", detached).await;
    assert_eq!(record.state, ExecState::Running);
    let running = engine
        .exec_get("a", 2, Duration::ZERO)
        .await
        .expect("there");
    assert_eq!(running.state, ExecState::Running);
    std::fs::write(gate, "\n").expect("written");
    let ended = engine.exec_get("a", 2, PATIENCE).await.expect("there");
    assert_eq!(
        (ended.state, ended.stdout.as_str()),
        (ExecState::Exited, "on\noff\n")
    );
}

#[tokio::test]
async fn a_cancelled_command_dies_with_all_it_started() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;
    let mut request = shell("sleep 1000 & echo $!; wait");
    request.detach = true;
    run(&engine, "a", request).await;

    let record = engine.exec_cancel("a", 1).await.expect("cancelled");

    assert_eq!(record.state, ExecState::Cancelled);
    let again = engine.exec_cancel("a", 1).await.expect("left as it is");
    assert_eq!(again, record);
    assert_eq!(
        engine.exec_cancel("a", 9).await.expect_err("none").code(),
        Code::ExecNotFound
    );
}

#[tokio::test]
async fn a_slow_listener_slows_the_command_and_gets_all_of_it() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;
    let script = "head -c 20000000 /dev/zero; echo done > finished";
    let mut stream = engine.exec("a", shell(script)).await.expect("started");
    let mut bytes = 0;
    let finished = PathBuf::from(world.root()).join("finished");
    assert!(matches!(
        stream.next().await,
        Some(ExecEvent::Started { .. })
    ));
    while let Some(event) = stream.next().await {
        match event {
            ExecEvent::Stdout { data } => {
                // Far more is still to come than fits between it and us.
                assert!(bytes > 0 || !finished.exists());
                bytes += data.len() / 4 * 3;
            }
            ExecEvent::Ended { record } => assert_eq!(record.stdout_bytes, 20_000_000),
            other => panic!("{other:?}"),
        }
    }
    assert!(bytes >= 20_000_000);
}

#[tokio::test]
async fn a_hundred_commands_run_at_once() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;
    let mut streams = Vec::new();
    for n in 0..100 {
        streams.push(
            engine
                .exec("a", shell(&format!("echo {n}")))
                .await
                .expect("started"),
        );
    }
    for (n, mut stream) in streams.into_iter().enumerate() {
        loop {
            let event = tokio::time::timeout(PATIENCE, stream.next())
                .await
                .expect("in time");
            if let Some(ExecEvent::Ended { record }) = event {
                assert_eq!(record.stdout, format!("{n}\n"), "{record:?}");
                break;
            }
        }
    }
    assert_eq!(engine.logs("a").await.expect("read").count, 100);
}

#[tokio::test]
async fn impossible_requests_are_refused_before_anything_happens() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;
    type Fault = fn(&mut ExecRequest);
    let change: [(Code, Fault); 5] = [
        (Code::InvalidCommand, |r| r.command.clear()),
        (Code::TimeOutOfRange, |r| r.timeout_seconds = 0),
        (Code::InvalidPath, |r| r.cwd = "a\0b".into()),
        (Code::InvalidEnvironment, |r| {
            drop(r.env.insert("A=B".into(), String::new()))
        }),
        (Code::InvalidEnvironment, |r| {
            drop(r.env.insert("A".into(), "x".repeat(200_000)))
        }),
    ];
    for (code, change) in change {
        let mut request = shell("true");
        change(&mut request);
        assert_eq!(
            engine.exec("a", request).await.expect_err("refused").code(),
            code
        );
    }
    assert_eq!(engine.get("a").expect("there").command_count, 0);
}

#[test]
fn commands_outlive_the_daemon_and_the_next_one_has_all_their_output() {
    let world = World::new();
    let gate = world.fifo();
    let quick = world.daemon(async |engine| {
        create(&engine, "a").await;
        for script in ["echo before; read line < gate; echo after", "echo quick"] {
            let mut request = shell(script);
            request.detach = true;
            run(&engine, "a", request).await;
        }
        engine.exec_get("a", 2, PATIENCE).await.expect("ended")
    });
    world.daemon(async |engine| {
        let still = engine
            .exec_get("a", 1, Duration::ZERO)
            .await
            .expect("there");
        assert_eq!(still.state, ExecState::Running);
        std::fs::write(&gate, "\n").expect("written");
        let ended = engine.exec_get("a", 1, PATIENCE).await.expect("there");

        assert_eq!(
            (ended.state, ended.stdout.as_str()),
            (ExecState::Exited, "before\nafter\n")
        );
        assert_eq!(
            engine.exec_get("a", 2, PATIENCE).await.expect("there"),
            quick
        );
        let (third, _) = run(&engine, "a", shell("true")).await;
        assert_eq!(third.sequence, 3);
    });
}

#[test]
fn commands_whose_guest_ended_without_a_daemon_are_lost() {
    let world = World::new();
    let id = world.daemon(async |engine| {
        let made = create(&engine, "a").await;
        let mut request = shell("sleep 1000");
        request.detach = true;
        run(&engine, "a", request).await;
        made.workspace_id
    });
    world.kill(&id);
    world.daemon(async |engine| {
        let record = engine.exec_get("a", 1, PATIENCE).await.expect("there");
        assert_eq!(record.state, ExecState::Lost);
        assert_eq!(record.error.expect("why").code, "command_lost");
    });
}

#[tokio::test]
async fn a_command_that_a_reset_or_a_deletion_ends_is_lost() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;

    for deletion in [false, true] {
        let command = shell("echo ready; sleep 1000");
        let mut stream = engine.exec("a", command).await.expect("started");
        while !matches!(stream.next().await, Some(ExecEvent::Stdout { .. })) {}
        if deletion {
            engine.delete("a").await.expect("deleted");
        } else {
            let snapshot = pyro_client::types::BASELINE.to_string();
            let reset = pyro_client::types::Reset { snapshot };
            engine.reset("a", reset).await.expect("reset");
        }
        let mut last = None;
        while let Some(event) = stream.next().await {
            last = Some(event);
        }
        let Some(ExecEvent::Ended { record }) = last else {
            panic!("{last:?}");
        };
        assert_eq!(record.state, ExecState::Lost, "{record:?}");
    }
}
