//! The SDK against the server: every method arrives, and connections do what they promise.

mod common;

use std::time::Duration;

use common::Server;
use pyro_client::types::{
    ApplyPatch, CreateSnapshot, CreateWorkspace, Encoding, ExecRequest, Export, ExportDisk,
    FollowShell, ListFiles, OpenShell, ReadFile, ReadServiceLogs, ReadShell, Reset, ResizeShell,
    RunRequest, ShellSignal, StartService, SyncPush, UpdateWorkspace, WriteFile, WriteShell,
};
use pyro_client::{Client, ClientError};
use pyro_server::Limits;

fn run() -> RunRequest {
    RunRequest::new("nothing:0", ["true"])
}

/// Calls every method on a workspace that does not exist; gives each method's name and error code.
async fn call_all(client: &Client) -> Vec<(&'static str, String)> {
    let w = "no such/workspace?";
    let mut codes = Vec::new();
    macro_rules! call {
        ($name:ident($($argument:expr),*)) => {
            let code = match client.$name($($argument),*).await {
                Ok(_) => "ok".to_string(),
                Err(error) => error.code().to_string(),
            };
            codes.push((stringify!($name), code));
        };
    }
    let read = ReadFile::new("a b&c=d");
    let list = ListFiles {
        path: "/workspace".into(),
        recursive: true,
    };
    call!(health());
    call!(run(&run()));
    call!(run_stream(&run()));
    call!(run_stream_with_input(&run(), tokio::io::empty()));
    call!(list());
    call!(environments());
    call!(reap());
    call!(create(&CreateWorkspace::new("nothing:0")));
    call!(get(w));
    call!(update(
        w,
        &UpdateWorkspace {
            clear_name: true,
            ..UpdateWorkspace::default()
        }
    ));
    call!(delete(w));
    call!(start(w));
    call!(stop(w));
    call!(reset(
        w,
        &Reset {
            snapshot: "baseline".into()
        }
    ));
    call!(logs(w));
    call!(exec(w, &ExecRequest::new(["true"])));
    call!(exec_stream(w, &ExecRequest::new(["true"])));
    call!(exec_get(w, 1, Duration::ZERO));
    call!(exec_cancel(w, 1));
    call!(sync_push(
        w,
        &SyncPush {
            source: "/s".into(),
            dest: "/workspace".into()
        }
    ));
    call!(export(
        w,
        &Export {
            path: "a".into(),
            output: "/o".into(),
            force: false
        }
    ));
    call!(diff(w));
    call!(patch_apply(
        w,
        &ApplyPatch {
            patch: String::new(),
            dry_run: true
        }
    ));
    call!(file_list(w, &list));
    call!(file_read(w, &read));
    call!(file_write(
        w,
        &WriteFile {
            path: "a".into(),
            content: String::new(),
            encoding: Encoding::Utf8,
            expect_sha256: None,
        }
    ));
    call!(snapshot_list(w));
    call!(snapshot_create(w, &CreateSnapshot { name: "a".into() }));
    call!(snapshot_delete(w, "a/b"));
    call!(disk_export(
        w,
        &ExportDisk {
            output: "/o".into(),
            force: false
        }
    ));
    call!(disk_list(w, &list));
    call!(disk_read(w, &read));
    call!(service_list(w));
    call!(service_start(w, &StartService::new("a", ["true"])));
    call!(service_status(w, "a/b"));
    call!(service_logs(w, "a/b", &ReadServiceLogs::default()));
    call!(service_stop(w, "a/b"));
    call!(shell_list(w));
    call!(shell_open(w, &OpenShell::default()));
    call!(shell_read(w, "a/b", &ReadShell::default()));
    call!(shell_wait(w, "a/b"));
    call!(shell_follow(w, "a/b", &FollowShell::default()));
    call!(shell_write(w, "a/b", &WriteShell::line("true")));
    call!(shell_signal(w, "a/b", ShellSignal::Int));
    call!(shell_resize(w, "a/b", &ResizeShell { cols: 80, rows: 24 }));
    call!(shell_close(w, "a/b"));
    codes
}

#[tokio::test]
async fn every_method_arrives_at_its_operation() {
    let server = Server::start().await;

    let codes = call_all(&server.client()).await;

    for (method, code) in &codes {
        // Nothing that is asked for exists here; but each was understood by the engine.
        if ["health", "list", "environments", "reap"].contains(method) {
            assert_eq!(code, "ok", "{method}");
        } else {
            let not_understood = code.starts_with("daemon_")
                || code.starts_with("route_")
                || code.starts_with("method_")
                || [
                    "invalid_json",
                    "invalid_query",
                    "invalid_path_parameter",
                    "ok",
                ]
                .contains(&code.as_str());
            assert!(!not_understood, "{method}: {code}");
        }
    }
    let metrics = server.client().metrics().await.expect("answered");
    for info in pyro_client::operations::ALL {
        let calls: u64 = metrics
            .lines()
            .filter(|line| line.starts_with("pyro_http_requests_total"))
            .filter(|line| {
                let method = info.method.as_str();
                line.contains(&format!(r#"method="{method}",route="{}","#, info.path))
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum();
        assert_eq!(calls, info.sdk.len() as u64, "{}", info.id);
    }
    let called: std::collections::BTreeSet<_> = codes.iter().map(|(method, _)| *method).collect();
    let listed: std::collections::BTreeSet<_> = pyro_client::operations::ALL
        .iter()
        .flat_map(|info| info.sdk.iter().copied())
        .collect();
    assert_eq!(called, listed);
}

#[tokio::test]
async fn two_hundred_requests_at_once_are_all_answered() {
    let server = Server::with(Limits {
        connections: 50,
        ..Limits::default()
    })
    .await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..200 {
        // Clients of their own, so that there are as many connections.
        let client = server.client();
        tasks.spawn(async move {
            if number % 2 == 0 {
                client.health().await.map(|_| "ok".to_string())
            } else {
                Ok(client
                    .get("none")
                    .await
                    .expect_err("it does not exist")
                    .code()
                    .to_string())
            }
        });
    }
    let mut answers = tasks
        .join_all()
        .await
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .expect("answered");
    answers.sort();

    assert_eq!(answers.iter().filter(|answer| *answer == "ok").count(), 100);
    assert_eq!(
        answers
            .iter()
            .filter(|answer| *answer == "workspace_not_found")
            .count(),
        100
    );
}

#[tokio::test]
async fn connections_are_used_again_and_stale_ones_replaced() {
    let server = Server::start().await;
    let client = server.client();
    client.health().await.expect("answered");
    let text = client.metrics().await.expect("answered");
    assert!(text.contains("pyro_http_requests_in_flight 1"));

    // The same socket path, another daemon: what is kept is stale.
    let folder = server.stop().await;
    let error = client.health().await.expect_err("nobody listens");
    assert!(matches!(error, ClientError::Connect { .. }), "{error:?}");
    let server = Server::on(folder, Limits::default()).await;
    client.health().await.expect("a new connection");
    drop(server);
}

#[tokio::test]
async fn another_user_is_refused() {
    let uid = rustix::process::geteuid().as_raw() + 1;
    let server = Server::with(Limits {
        uid,
        ..Limits::default()
    })
    .await;

    let error = server.client().health().await.expect_err("refused");

    assert_eq!(error.code(), "peer_not_allowed");
    let answer = server.send("GET", "/v1/workspaces", "").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (403, "peer_not_allowed")
    );
}

#[tokio::test]
async fn the_sdk_and_the_engine_mean_the_same_socket() {
    let environments: [&[(&str, &str)]; 3] = [
        &[("PYRO_STATE_DIR", "/a")],
        &[("XDG_STATE_HOME", "/b"), ("HOME", "/c")],
        &[("HOME", "/c")],
    ];
    for environment in environments {
        let variable = |name: &str| {
            let found = environment.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| std::ffi::OsString::from(value))
        };
        let engine = pyro_engine::paths::Paths::from_variables(variable, None);

        assert_eq!(
            pyro_client::socket::from_variables(variable),
            engine.state.join(pyro_client::socket::FILE_NAME)
        );
    }
}
