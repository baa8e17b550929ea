//! Services.

use pyro_client::types::*;

use super::*;

fn service(script: &str) -> StartService {
    StartService {
        ready_interval_ms: 10,
        ..StartService::new("s", ["/bin/sh", "-c", script])
    }
}

fn ready_by(script: &str, readiness: Readiness) -> StartService {
    StartService {
        readiness: Some(readiness),
        ..service(script)
    }
}

async fn logs(engine: &Arc<Engine>) -> String {
    let all = ReadServiceLogs {
        all: true,
        ..ReadServiceLogs::default()
    };
    engine.service_logs("a", "s", all).await.expect("read").log
}

/// Waits until the service is as wanted.
async fn until(engine: &Arc<Engine>, wanted: impl Fn(&Service) -> bool) -> Service {
    let waiting = async {
        loop {
            // It may be about to be started.
            if let Ok(service) = engine.service_status("a", "s")
                && wanted(&service)
            {
                return service;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("in time")
}

#[tokio::test]
async fn a_service_runs_is_listed_logs_and_is_stopped() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;
    let request = ready_by(
        "echo one; echo two >&2; touch ready; exec sleep 1000",
        Readiness::File {
            path: "ready".into(),
        },
    );

    let started = engine
        .service_start("a", request.clone())
        .await
        .expect("started");

    assert_eq!(
        (started.state, started.ready),
        (ServiceState::Running, true)
    );
    assert!(started.ready_at.is_some() && started.stop_reason.is_none());
    assert_eq!(
        engine.service_list("a").expect("listed").services,
        [started]
    );
    assert_eq!(engine.get("a").expect("there").service_count, 1);
    assert_eq!(logs(&engine).await, "one\ntwo\n");
    let tail = ReadServiceLogs {
        tail_lines: 1,
        all: false,
    };
    let tail = engine.service_logs("a", "s", tail).await.expect("read");
    assert_eq!((tail.log.as_str(), tail.truncated), ("two\n", true));
    let again = engine
        .service_start("a", request.clone())
        .await
        .expect_err("refused");
    assert_eq!(again.code(), Code::ServiceRunning);

    let stopped = engine.service_stop("a", "s").await.expect("stopped");

    assert_eq!(stopped.state, ServiceState::Stopped);
    assert_eq!(stopped.stop_reason, Some(StopReason::Requested));
    assert_eq!((stopped.exit_code, stopped.signal), (Some(143), Some(15)));
    assert_eq!(
        engine.service_stop("a", "s").await.expect("is already"),
        stopped
    );
    assert_eq!(logs(&engine).await, "one\ntwo\n");
    std::fs::remove_file(format!("{}/ready", world.root())).expect("there");
    let anew = engine
        .service_start("a", request)
        .await
        .expect("in the place of the last one");
    assert_eq!(anew.state, ServiceState::Running);
    let missing = engine.service_status("a", "x").expect_err("not there");
    assert_eq!(missing.code(), Code::ServiceNotFound);
}

#[tokio::test]
async fn every_kind_of_probe_sees_what_it_is_for() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = listener.local_addr().expect("an address").port();
    // Answers 503 at first.
    let answers = std::thread::spawn(move || {
        use std::io::{Read, Write};
        for status in ["503 No", "200 OK"] {
            let (mut stream, _) = listener.accept().expect("a probe");
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).expect("read") == 1 {
                request.push(byte[0]);
            }
            assert!(request.starts_with(b"GET /health?x HTTP/1.1\r\n"));
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").expect("written");
        }
        listener
    });
    let probes = [
        Readiness::Http {
            url: format!("http://127.0.0.1:{port}/health?x"),
        },
        Readiness::Tcp {
            host: "localhost".into(),
            port,
        },
        Readiness::Command {
            command: "test -e made".into(),
        },
    ];
    let mut answers = Some(answers);
    let mut listener = None;
    for probe in probes {
        let script = "sleep 0.05; touch made; exec sleep 1000";
        let http = matches!(probe, Readiness::Http { .. });
        let started = engine.service_start("a", ready_by(script, probe)).await;
        assert_eq!(started.expect("started").state, ServiceState::Running);
        if http {
            listener = answers
                .take()
                .map(|answers| answers.join().expect("answered both"));
        }
        engine.service_stop("a", "s").await.expect("stopped");
    }
    drop(listener);
}

#[tokio::test]
async fn one_that_is_not_ready_in_time_is_stopped_and_says_what_it_last_wrote() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;
    let request = StartService {
        ready_timeout_seconds: 1,
        ..ready_by(
            "i=0; while [ $i -lt 50 ]; do echo line $i; i=$((i+1)); done; exec sleep 1000",
            Readiness::File {
                path: "never".into(),
            },
        )
    };

    let error = engine
        .service_start("a", request)
        .await
        .expect_err("not ready");

    assert_eq!(error.code(), Code::ServiceNotReady);
    let detail = error.detail().expect("its last words");
    assert!(
        detail.ends_with("line 48\nline 49") && !detail.contains("line 29"),
        "{detail}"
    );
    let service = engine.service_status("a", "s").expect("kept");
    assert_eq!(service.state, ServiceState::Failed);
    assert_eq!(service.stop_reason, Some(StopReason::NotReady));
    assert_eq!(service.signal, Some(15));
    assert!(logs(&engine).await.starts_with("line 0\n"));
}

#[tokio::test]
async fn one_that_ends_before_it_is_ready_is_not_waited_for() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;
    let request = StartService {
        ready_timeout_seconds: 3600,
        ready_interval_ms: 60_000,
        ..ready_by(
            "echo bad config; exit 3",
            Readiness::File {
                path: "never".into(),
            },
        )
    };

    let start = engine.service_start("a", request);
    let error = tokio::time::timeout(PATIENCE, start)
        .await
        .expect("at once")
        .expect_err("not ready");

    assert_eq!(error.code(), Code::ServiceNotReady);
    assert_eq!(error.detail(), Some("bad config"));
    let service = engine.service_status("a", "s").expect("kept");
    assert_eq!(service.stop_reason, Some(StopReason::ExitedBeforeReady));
    assert_eq!(
        (service.state, service.exit_code),
        (ServiceState::Failed, Some(3))
    );
}

#[tokio::test]
async fn one_that_ignores_the_signal_is_killed_with_its_children() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;
    let request = ready_by(
        "trap '' TERM; (trap '' TERM; sleep 1000) & echo $! >child; while :; do sleep 0.1; done",
        Readiness::Command {
            command: "test -s child".into(),
        },
    );
    engine.service_start("a", request).await.expect("started");

    let stopped = engine.service_stop("a", "s").await.expect("stopped");

    assert_eq!(stopped.state, ServiceState::Stopped);
    assert_eq!((stopped.exit_code, stopped.signal), (Some(137), Some(9)));
}

#[tokio::test]
async fn one_that_ends_by_itself_keeps_its_code() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;
    let fifo = world.fifo();
    engine
        .service_start("a", service(&format!("read x <{fifo}; exit 7")))
        .await
        .expect("started");

    tokio::task::spawn_blocking(move || std::fs::write(fifo, "\n"))
        .await
        .expect("ran")
        .expect("opened");

    let service = until(&engine, |service| !service.state.is_live()).await;
    assert_eq!(
        (service.state, service.exit_code),
        (ServiceState::Exited, Some(7))
    );
    assert_eq!(
        (service.stop_reason, service.ready),
        (Some(StopReason::Exited), false)
    );
    assert!(service.ended_at.is_some());
}

#[tokio::test]
async fn what_cannot_be_started_is_told_by_code() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;
    let start = async |request: StartService| {
        let error = engine
            .service_start("a", request)
            .await
            .expect_err("refused");
        error.code()
    };

    assert_eq!(
        start(StartService::new("s", ["no-such-program"])).await,
        Code::CommandNotFound
    );
    let kept = engine.service_status("a", "s").expect("kept");
    assert_eq!(kept.stop_reason, Some(StopReason::NotStarted));
    assert_eq!(kept.state, ServiceState::Failed);
    assert_eq!(
        start(StartService::new("../s", ["true"])).await,
        Code::InvalidName
    );
    assert_eq!(
        start(StartService::new("s", [""; 0])).await,
        Code::InvalidCommand
    );
    let odd = |readiness| ready_by("true", readiness);
    for readiness in [
        Readiness::File {
            path: String::new(),
        },
        Readiness::Tcp {
            host: "example.com".into(),
            port: 1,
        },
        Readiness::Tcp {
            host: "localhost".into(),
            port: 0,
        },
        Readiness::Http {
            url: "https://localhost".into(),
        },
        Readiness::Command {
            command: String::new(),
        },
    ] {
        assert_eq!(start(odd(readiness)).await, Code::InvalidRequest);
    }
    let published = StartService {
        publish: vec![PublishPort {
            host_port: None,
            guest_port: 80,
        }],
        ..service("true")
    };
    assert_eq!(start(published).await, Code::NetworkUnavailable);
    let timeless = StartService {
        ready_timeout_seconds: 0,
        ..service("true")
    };
    assert_eq!(start(timeless).await, Code::TimeOutOfRange);
}

#[tokio::test]
async fn states_are_true_after_stop_start_reset_and_a_killed_monitor() {
    let world = World::new();
    let engine = world.open().await;
    let id = create(&engine, "a").await.workspace_id;
    let start = async || {
        let request = service("echo up; exec sleep 1000");
        engine.service_start("a", request).await.expect("started");
    };
    let status = || engine.service_status("a", "s");

    start().await;
    engine.stop("a").await.expect("stopped");
    let service = status().expect("kept");
    assert_eq!(service.state, ServiceState::Stopped);
    assert_eq!(service.stop_reason, Some(StopReason::WorkspaceStopped));
    assert_eq!(logs(&engine).await, "up\n");

    engine.start("a").await.expect("started");
    assert_eq!(status().expect("kept").state, ServiceState::Stopped);
    start().await;
    world.kill(&id);
    let service = until(&engine, |service| !service.state.is_live()).await;
    assert_eq!(service.state, ServiceState::Failed);
    assert_eq!(service.stop_reason, Some(StopReason::GuestEnded));
    assert_eq!(service.error.expect("why").code, "command_lost");

    engine.stop("a").await.expect("noted");
    engine.start("a").await.expect("started again");
    start().await;
    engine
        .reset(
            "a",
            Reset {
                snapshot: "baseline".into(),
            },
        )
        .await
        .expect("reset");
    assert_eq!(
        status().expect_err("forgotten").code(),
        Code::ServiceNotFound
    );
    assert_eq!(engine.service_list("a").expect("listed").count, 0);
}

#[test]
fn the_next_daemon_goes_on_with_a_service() {
    let world = World::new();
    world.daemon(async |engine| {
        create(&engine, "a").await;
        let fifo = world.fifo();
        engine
            .service_start(
                "a",
                service(&format!("echo up; read x <{fifo}; echo down; exit 5")),
            )
            .await
            .expect("started");
    });
    let fifo = format!("{}/gate", world.root());
    world.daemon(async |engine| {
        let service = engine.service_status("a", "s").expect("kept");
        assert_eq!(service.state, ServiceState::Running);
        tokio::task::spawn_blocking(move || std::fs::write(fifo, "\n"))
            .await
            .expect("ran")
            .expect("opened");
        let service = until(&engine, |service| !service.state.is_live()).await;
        assert_eq!(
            (service.state, service.exit_code),
            (ServiceState::Exited, Some(5))
        );
        assert_eq!(logs(&engine).await, "up\ndown\n");
    });
}

#[test]
fn a_service_whose_log_cannot_be_made_is_followed_to_its_end() {
    let world = World::new();
    let id = world.daemon(async |engine| {
        let id = create(&engine, "a").await.workspace_id;
        let fifo = world.fifo();
        engine
            .service_start("a", service(&format!("read x <{fifo}; exit 5")))
            .await
            .expect("started");
        id
    });
    // No file can take the place of a folder that is not empty.
    let folder = world.state().join("workspaces").join(id);
    let log = folder.join("services/s.log");
    std::fs::remove_file(&log).expect("a log");
    std::fs::create_dir_all(log.join("in the way")).expect("made");
    let fifo = format!("{}/gate", world.root());
    world.daemon(async |engine| {
        tokio::task::spawn_blocking(move || std::fs::write(fifo, "\n"))
            .await
            .expect("ran")
            .expect("opened");
        let service = until(&engine, |service| !service.state.is_live()).await;
        assert_eq!(
            (service.state, service.exit_code),
            (ServiceState::Exited, Some(5))
        );
    });
}

#[test]
fn a_daemon_that_is_killed_while_a_service_becomes_ready_leaves_that_to_the_next() {
    let world = World::new();
    world.daemon(async |engine| {
        create(&engine, "a").await;
        let request = ready_by(
            "exec sleep 1000",
            Readiness::File {
                path: "ready".into(),
            },
        );
        let starting = engine.service_start("a", request);
        tokio::select! {
            _ = starting => panic!("it is not ready"),
            _ = until(&engine, |service| service.state == ServiceState::Starting) => {}
        }
        // The job is there once the agent knows it.
        let slot = engine.find("a").expect("there");
        let guest = slot.guest().expect("runs");
        while super::super::jobs::all(&guest)
            .await
            .expect("answered")
            .is_empty()
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    std::fs::write(format!("{}/ready", world.root()), "").expect("written");
    world.daemon(async |engine| {
        let service = until(&engine, |service| service.state != ServiceState::Starting).await;
        assert_eq!(
            (service.state, service.ready),
            (ServiceState::Running, true)
        );
        engine.service_stop("a", "s").await.expect("stopped");
    });
}

#[test]
fn a_daemon_that_is_killed_before_a_service_is_started_leaves_that_it_was_not() {
    let world = World::new();
    let workspace = world.daemon(async |engine| {
        let workspace = create(&engine, "a").await.workspace_id;
        engine
            .service_start("a", service("exec sleep 1000"))
            .await
            .expect("started");
        workspace
    });
    // As it is noted before the agent knows it.
    let services = world
        .state()
        .join("workspaces")
        .join(workspace)
        .join("services");
    let sheet = std::fs::read(services.join("s.json")).expect("noted");
    let mut sheet: serde_json::Value = serde_json::from_slice(&sheet).expect("JSON");
    sheet["job"] = "service-1".into();
    sheet["service"]["state"] = "starting".into();
    std::fs::write(services.join("s.json"), sheet.to_string()).expect("written");
    world.daemon(async |engine| {
        let service = engine.service_status("a", "s").expect("kept");
        assert_eq!(service.state, ServiceState::Failed);
        assert_eq!(service.stop_reason, Some(StopReason::NotStarted));
        assert_eq!(service.error.expect("why").code, "service_not_started");
    });
}

#[test]
fn a_guest_that_ended_between_two_daemons_took_its_services() {
    let world = World::new();
    let id = world.daemon(async |engine| {
        let id = create(&engine, "a").await.workspace_id;
        engine
            .service_start("a", service("exec sleep 1000"))
            .await
            .expect("started");
        id
    });
    world.kill(&id);
    world.daemon(async |engine| {
        let service = engine.service_status("a", "s").expect("kept");
        assert_eq!(service.state, ServiceState::Failed);
        assert_eq!(service.stop_reason, Some(StopReason::GuestEnded));
    });
}

#[tokio::test]
async fn a_flood_of_output_is_bounded_and_keeps_its_end() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;
    engine
        .service_start(
            "a",
            service("yes 0123456789 | head -c 20000000; echo; echo the end"),
        )
        .await
        .expect("started");

    until(&engine, |service| !service.state.is_live()).await;

    let log = logs(&engine).await;
    assert!(log.ends_with("\nthe end\n"));
    assert!(
        log.len() as u64 <= 2 * SERVICE_LOG_BYTES + 1000,
        "{}",
        log.len()
    );
}

#[tokio::test]
async fn secrets_are_not_in_logs_whichever_way_they_are_cut() {
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
    let request = StartService {
        secret_env: [("T".to_string(), "T".to_string())].into(),
        ..service("printf 'a s3cr'; sleep 0.05; printf '3t-value b\\n'; echo $T; echo $T s3cr")
    };

    engine.service_start("a", request).await.expect("started");
    until(&engine, |service| !service.state.is_live()).await;

    assert_eq!(
        logs(&engine).await,
        "a [REDACTED] b\n[REDACTED]\n[REDACTED] s3cr\n"
    );
}
