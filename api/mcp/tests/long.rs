//! Calls that take long, are cancelled, or say much, with a daemon that a test speaks for.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Fake, Session, record};
use pyro_mcp::{Daemon, Profile, Server, stdio};
use serde_json::{Value, json};

const REVISION: &str = "2025-11-25";
const CORE: Profile = Profile::WorkspaceCore;

fn exec() -> Value {
    json!({"workspace": "a", "command": "make all"})
}

#[tokio::test]
async fn a_command_that_ends_is_given_with_its_output() {
    let fake = Fake::new(|line, _| {
        Some(record(
            if line.starts_with("POST") {
                "running"
            } else {
                "exited"
            },
            "hello\n",
        ))
    });
    let (mut session, _) = Session::open(fake.client(), CORE, REVISION).await;

    let result = session.works(CORE, "workspace_exec", exec()).await;

    assert_eq!(
        (&result["state"], &result["stdout"]),
        (&json!("exited"), &json!("hello\n"))
    );
    assert!(result["next"].is_null());
    let (_, body) = fake.expect("POST /v1/workspaces/a/exec").await;
    assert_eq!(body["command"], json!(["bash", "-c", "make all"]));
    assert_eq!(body["detach"], true);
    session.close().await;
    assert_eq!(
        fake.count("POST /v1/workspaces/ws-aaaaaaaaaaaa/exec/3/cancel"),
        0
    );
}

#[tokio::test]
async fn a_command_that_goes_on_is_a_handle_that_says_what_comes_next() {
    let fake = Fake::new(|_, _| Some(record("running", "so far")));
    let (mut session, _) = Session::open(fake.client(), CORE, REVISION).await;
    let mut arguments = exec();
    arguments["wait_seconds"] = json!(0);

    let result = session.works(CORE, "workspace_exec", arguments).await;

    assert_eq!(result["state"], "running");
    let next = result["next"].as_str().expect("a hint");
    assert!(
        next.contains("workspace_logs") && next.contains("sequence 3"),
        "{next}"
    );
    let logs = json!({"workspace": "a", "sequence": 3, "wait_seconds": 0});
    let logs = session.works(CORE, "workspace_logs", logs).await;
    assert_eq!(logs["entries"][0]["state"], "running");
    session.close().await;
    // Nobody cancelled it: it is to go on.
    assert_eq!(
        fake.count("POST /v1/workspaces/ws-aaaaaaaaaaaa/exec/3/cancel"),
        0
    );
}

#[tokio::test]
async fn cancelling_a_call_ends_its_command() {
    let fake = Fake::new(|line, _| match line {
        line if line.starts_with("POST") => Some(record("running", "")),
        // It never ends by itself.
        _ => None,
    });
    let (mut session, _) = Session::open(fake.client(), CORE, REVISION).await;
    let id = session
        .begin(
            "tools/call",
            json!({"name": "workspace_exec", "arguments": exec()}),
        )
        .await;
    fake.expect("GET /v1/workspaces/ws-aaaaaaaaaaaa/exec/3")
        .await;

    session.send(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}})).await;

    fake.expect("POST /v1/workspaces/ws-aaaaaaaaaaaa/exec/3/cancel")
        .await;
    session.close().await;
}

#[tokio::test]
async fn a_host_that_goes_away_ends_what_it_waited_for() {
    let fake = Fake::new(|line, _| line.starts_with("POST").then(|| record("running", "")));
    let (mut session, _) = Session::open(fake.client(), CORE, REVISION).await;
    session
        .begin(
            "tools/call",
            json!({"name": "workspace_exec", "arguments": exec()}),
        )
        .await;
    fake.expect("GET /v1/workspaces/ws-aaaaaaaaaaaa/exec/3")
        .await;

    session.close().await;

    fake.expect("POST /v1/workspaces/ws-aaaaaaaaaaaa/exec/3/cancel")
        .await;
}

#[test]
fn an_adapter_that_is_ended_ends_what_it_waited_for_before_it_goes() {
    // The daemon outlives the adapter's runtime, which ends as that of `pyro mcp serve` does.
    let daemon = tokio::runtime::Runtime::new().expect("a runtime");
    let _entered = daemon.enter();
    let fake = Fake::new(|line, _| {
        let cancels = line.ends_with("/cancel");
        (cancels || line.ends_with("/exec")).then(|| record("running", ""))
    });
    let adapter = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let server = Server::new(Daemon::At(fake.client()), CORE, "/host");
    adapter.block_on(async {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (from, to) = tokio::io::split(theirs);
        let call = async {
            let mut session = Session::on(ours);
            session.initialize(REVISION).await;
            let call = json!({"name": "workspace_exec", "arguments": exec()});
            session.begin("tools/call", call).await;
            fake.expect("GET /v1/workspaces/ws-aaaaaaaaaaaa/exec/3")
                .await;
            session
        };
        tokio::select! {
            ended = stdio::serve_on(server.clone(), from, to) => panic!("{ended:?}"),
            // Then a signal comes.
            session = call => drop(session),
        }
        server.end().await;
    });
    adapter.shutdown_background();

    assert_eq!(
        fake.count("POST /v1/workspaces/ws-aaaaaaaaaaaa/exec/3/cancel"),
        1
    );
}

#[tokio::test]
async fn what_a_cancelled_call_makes_is_taken_away_again() {
    let fake = Fake::new(|line, _| {
        if line == "POST /v1/workspaces" {
            let workspace = json!({
                "workspace_id": "ws-aaaaaaaaaaaa", "name": null, "labels": {}, "environment": "debian:12", "state": "running",
                "failure": null, "vcpu_count": 1, "mem_mib": 1024, "network_policy": "off", "network_failure": null, "ttl_seconds": 600,
                "created_at": "2026-01-01T00:00:00Z", "last_activity_at": "2026-01-01T00:00:00Z",
                "expires_at": "2026-01-01T00:10:00Z", "workspace_path": "/workspace",
                "seed": {"kind": "empty", "path": null, "entries": 0, "bytes": 0, "skipped": [], "skipped_count": 0},
                "secrets": [], "command_count": 0, "service_count": 0, "shell_count": 0, "snapshot_count": 0,
                "reset_count": 0, "last_reset_at": null,
            });
            return Some(workspace);
        }
        Some(json!({"workspace_id": "ws-aaaaaaaaaaaa", "deleted": true}))
    });
    let (mut session, _) = Session::open(fake.client(), CORE, REVISION).await;
    fake.answers(false);
    let call = json!({"name": "workspace_create", "arguments": {}});
    let id = session.begin("tools/call", call).await;
    // The daemon is at it when it is cancelled.
    fake.expect("POST /v1/workspaces").await;
    session.send(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}})).await;
    session.request("ping", json!({})).await;
    fake.answers(true);

    fake.expect("DELETE /v1/workspaces/ws-aaaaaaaaaaaa").await;
    session.close().await;
}

#[tokio::test]
async fn a_cancelled_start_stops_its_service_and_none_that_was_there() {
    for ready in [false, true] {
        let fake = Fake::new(move |line, _| {
            let service = json!({
                "workspace_id": "ws-aaaaaaaaaaaa", "name": "s", "command": ["x"], "cwd": "/workspace",
                "state": if ready { "running" } else { "starting" }, "ready": ready, "readiness": null, "published": [],
                "started_at": "2026-01-01T00:00:00Z", "ready_at": null, "ended_at": null,
                "exit_code": null, "signal": null, "stop_reason": null, "error": null,
            });
            // It never becomes ready.
            (line != "POST /v1/workspaces/a/services").then_some(service)
        });
        let (mut session, _) = Session::open(fake.client(), Profile::WorkspaceFull, REVISION).await;
        let arguments = json!({"workspace": "a", "name": "s", "command": "x"});
        let call = json!({"name": "service_start", "arguments": arguments});
        let id = session.begin("tools/call", call).await;
        fake.expect("POST /v1/workspaces/a/services").await;
        session.send(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}})).await;

        fake.expect("GET /v1/workspaces/a/services/s").await;
        // The end waits for what is being undone.
        session.close().await;
        let stops = fake.count("POST /v1/workspaces/a/services/s/stop");
        assert_eq!(stops, usize::from(!ready));
    }
}

#[tokio::test]
async fn who_asks_for_progress_is_told_the_last_line() {
    let done = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&done);
    let fake = Fake::new(move |line, _| {
        let over = end.load(Ordering::SeqCst);
        // The daemon answers a wait at once here; what is under test is who hears of it.
        std::thread::sleep(std::time::Duration::from_millis(20));
        Some(record(
            if over && line.starts_with("GET") {
                "exited"
            } else {
                "running"
            },
            "one\nstep 7 of 9\n",
        ))
    });
    let (mut session, _) = Session::open(fake.client(), CORE, REVISION).await;
    let params =
        json!({"name": "workspace_exec", "arguments": exec(), "_meta": {"progressToken": "p"}});
    let id = session.begin("tools/call", params).await;
    let progress = loop {
        let ping = session.request("ping", json!({})).await;
        assert!(ping["error"].is_null());
        if let Some(told) = session
            .notifications
            .iter()
            .find(|told| told["method"] == "notifications/progress")
        {
            break told["params"].clone();
        }
        tokio::task::yield_now().await;
    };
    done.store(true, Ordering::SeqCst);

    assert_eq!(progress["progressToken"], "p");
    assert!(
        progress["message"]
            .as_str()
            .is_some_and(|text| text.ends_with("step 7 of 9")),
        "{progress}"
    );
    let answer = session.answer(id).await;
    assert_eq!(answer["result"]["structuredContent"]["state"], "exited");
    session.close().await;
}

#[tokio::test]
async fn much_output_is_cut_in_the_middle_and_all_of_it_can_be_read() {
    let text: String = (0..20_000)
        .map(|number| format!("line {number}\n"))
        .collect();
    let whole = text.clone();
    let fake = Fake::new(move |_, _| Some(record("exited", &whole)));
    let (mut session, _) = Session::open(fake.client(), CORE, REVISION).await;

    let result = session.works(CORE, "workspace_exec", exec()).await;
    assert!(result.to_string().len() < 20_000);
    assert_eq!(result["stdout_truncated"], true);
    let shown = result["stdout"].as_str().expect("text");
    assert!(
        shown.starts_with("line 0\n") && shown.ends_with("line 19999\n"),
        "{shown}"
    );
    assert!(
        result["next"]
            .as_str()
            .is_some_and(|next| next.contains("offset"))
    );

    let (mut read, mut offset) = (String::new(), 0);
    loop {
        let arguments =
            json!({"workspace": "a", "sequence": 3, "offset": offset, "max_output_bytes": 65536});
        let logs = session.works(CORE, "workspace_logs", arguments).await;
        read.push_str(logs["entries"][0]["stdout"].as_str().expect("text"));
        let Some(next) = logs["next"].as_str() else {
            break;
        };
        let words = next
            .split_whitespace()
            .skip_while(|word| *word != "offset")
            .nth(1);
        offset = words.expect("an offset").parse().expect("a number");
    }
    assert_eq!(read, text);
    session.close().await;
}

#[tokio::test]
async fn narrow_records_say_nothing_of_what_the_profile_lacks() {
    let workspace = json!({
        "workspace_id": "ws-aaaaaaaaaaaa", "name": "a", "labels": {}, "environment": "debian:12", "state": "running",
        "failure": null, "vcpu_count": 1, "mem_mib": 1024, "network_policy": "off", "network_failure": null, "ttl_seconds": 600,
        "created_at": "2026-01-01T00:00:00Z", "last_activity_at": "2026-01-01T00:00:00Z",
        "expires_at": "2026-01-01T00:10:00Z", "workspace_path": "/workspace",
        "seed": {"kind": "empty", "path": null, "entries": 0, "bytes": 0, "skipped": [], "skipped_count": 0},
        "command_count": 0, "snapshot_count": 0, "reset_count": 0, "last_reset_at": null, "secrets": [],
        "service_count": 0, "shell_count": 0,
    });
    let whole = workspace.clone();
    let fake = Fake::new(move |line, _| {
        Some(match line {
            line if line.contains("/services") => {
                json!({"workspace_id": "ws-aaaaaaaaaaaa", "count": 0, "services": []})
            }
            line if line.contains("/shells") => {
                json!({"workspace_id": "ws-aaaaaaaaaaaa", "count": 0, "shells": []})
            }
            "GET /v1/workspaces" => {
                json!({"count": 30, "workspaces": vec![whole.clone(); 30], "unreadable": []})
            }
            line if line.starts_with("DELETE") => {
                json!({"workspace_id": "ws-aaaaaaaaaaaa", "deleted": true})
            }
            _ => whole.clone(),
        })
    });
    for profile in [CORE, Profile::WorkspaceFull] {
        let (mut session, _) = Session::open(fake.client(), profile, REVISION).await;
        let mut calls = vec![
            ("workspace_create", json!({"seed_path": "seed"})),
            ("workspace_status", json!({"workspace": "a"})),
            ("workspace_update", json!({"workspace": "a", "name": "b"})),
            ("workspace_reset", json!({"workspace": "a"})),
            ("workspace_delete", json!({"workspace": "a"})),
            ("workspace_list", json!({})),
        ];
        if profile == Profile::WorkspaceFull {
            for tool in [
                "vm_start",
                "vm_stop",
                "vm_status",
                "vm_network_info",
                "vm_delete",
                "workspace_start",
                "workspace_stop",
                "service_list",
            ] {
                calls.push((tool, json!({"workspace": "a"})));
            }
        }
        for (tool, arguments) in calls {
            let result = session.works(profile, tool, arguments).await;
            if profile == CORE {
                for word in ["secrets", "network", "shell", "service", "snapshot"] {
                    assert!(!result.to_string().contains(word), "{tool}: {result}");
                }
            }
            if tool == "workspace_list" {
                assert_eq!(result["workspaces"].as_array().map(Vec::len), Some(20));
                assert!(
                    result["next"]
                        .as_str()
                        .is_some_and(|next| next.contains("offset 20")),
                    "{result}"
                );
            }
        }
        session.close().await;
    }
    // Relative paths of the host start at the server's folder.
    assert_eq!(
        fake.expect("POST /v1/workspaces").await.1["seed_path"],
        "/host/seed"
    );
}

#[tokio::test]
async fn an_error_of_the_daemon_arrives_with_advice_for_tools() {
    let fake = Fake::new(|_, _| {
        Some(json!({"error": {
        "code": "workspace_not_running", "message": "the workspace a is stopped",
        "remedy": "start it with `pyro workspace start a`", "detail": "the end"}}))
    });
    let (mut session, _) = Session::open(fake.client(), Profile::WorkspaceFull, REVISION).await;

    let error = session.fail("workspace_exec", exec()).await;

    assert_eq!(error["remedy"], "start it with `workspace_start a`");
    assert_eq!(error["detail"], "the end");
    session.close().await;
}
