//! The server as a host meets it, with a real daemon that has no workspaces.

mod common;

use std::ffi::OsString;
use std::sync::Arc;

use common::Session;
use pyro_client::Client;
use pyro_engine::paths::Paths;
use pyro_engine::{Engine, Options};
use pyro_mcp::{Profile, tools};
use pyro_server::{Limits, Listener, serve};
use serde_json::{Value, json};

const REVISION: &str = "2025-06-18";

/// A real daemon on a state directory of its own.
async fn daemon() -> (tempfile::TempDir, Client) {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().to_path_buf();
    let paths = Paths::from_variables(
        move |name| match name {
            "PYRO_STATE_DIR" => Some(OsString::from(&state)),
            "PYRO_IMAGE_DIR" => Some(OsString::from(state.join("images"))),
            _ => None,
        },
        None,
    );
    let engine = Engine::open(paths, Options::default())
        .await
        .expect("an engine");
    let socket = folder.path().join("api.sock");
    let listener = Listener::bind(&socket).expect("a socket");
    tokio::spawn(serve(
        Arc::clone(&engine),
        listener,
        Limits::default(),
        std::future::pending(),
    ));
    (folder, Client::new(socket))
}

#[tokio::test]
async fn every_supported_revision_is_agreed_on_and_older_ones_are_not() {
    let (_folder, client) = daemon().await;
    for revision in ["2025-06-18", "2025-11-25"] {
        let (session, answer) = Session::open(client.clone(), Profile::VmRun, revision).await;
        assert_eq!(answer["result"]["protocolVersion"], revision);
        session.close().await;
    }
    let (session, answer) = Session::open(client, Profile::WorkspaceCore, "2024-11-05").await;
    assert_ne!(
        answer["result"]["protocolVersion"], "2024-11-05",
        "{answer}"
    );
    assert_eq!(answer["result"]["serverInfo"]["name"], "pyro");
    let told = answer["result"]["instructions"]
        .as_str()
        .expect("instructions");
    for word in ["workspace_create", "next", "/host", "debian:12"] {
        assert!(told.contains(word), "{told}");
    }
    session.close().await;
}

#[tokio::test]
async fn each_profile_lists_its_tools_in_the_tables_order_every_time() {
    let (_folder, client) = daemon().await;
    for profile in Profile::ALL {
        let (mut session, _) = Session::open(client.clone(), profile, REVISION).await;
        let first = session.request("tools/list", json!({})).await;
        let again = session.request("tools/list", json!({})).await;
        assert_eq!(first["result"], again["result"]);
        let names: Vec<_> = first["result"]["tools"]
            .as_array()
            .expect("tools")
            .iter()
            .map(|tool| tool["name"].clone())
            .collect();
        let table: Vec<_> = tools::of(profile).map(|tool| json!(tool.name)).collect();
        assert_eq!(names, table);
        session.close().await;
    }
}

#[tokio::test]
async fn what_a_profile_lacks_cannot_be_called() {
    let (_folder, client) = daemon().await;
    let (mut session, _) = Session::open(client, Profile::WorkspaceCore, REVISION).await;
    for tool in ["shell_open", "snapshot_create", "nonsense"] {
        let answer = session
            .request("tools/call", json!({"name": tool, "arguments": {}}))
            .await;
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
        assert!(
            answer["error"]["message"]
                .as_str()
                .is_some_and(|text| text.contains("workspace_exec")),
            "{answer}"
        );
    }
    for (tool, arguments, field) in [
        (
            "workspace_create",
            json!({"network_policy": "egress"}),
            "network_policy",
        ),
        ("workspace_create", json!({"secrets": []}), "secrets"),
        (
            "workspace_exec",
            json!({"workspace": "a", "command": "x", "secret_env": {}}),
            "secret_env",
        ),
        (
            "workspace_reset",
            json!({"workspace": "a", "snapshot": "s"}),
            "snapshot",
        ),
        (
            "vm_run",
            json!({"command": "x", "network": "egress"}),
            "network",
        ),
    ] {
        let error = session.fail(tool, arguments).await;
        assert_eq!(error["code"], "invalid_request");
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| text.contains(field)),
            "{error}"
        );
    }
    session.close().await;
}

/// A value of the wrong type for a schema.
fn wrong(schema: &Value) -> Value {
    match schema["type"].as_str() {
        Some("string") => json!(7),
        Some("integer") => json!("many"),
        Some("boolean") => json!("yes"),
        _ => json!(true),
    }
}

/// Something of the right type.
fn right(name: &str, schema: &Value) -> Value {
    match (name, schema["type"].as_str()) {
        ("workspace", _) => json!("nowhere"),
        ("patch", _) => json!("--- a/f\n+++ b/f\n@@ -1 +1 @@\n-1\n+2\n"),
        ("output" | "source", _) => json!("/nonexistent/x"),
        (_, Some("integer")) => schema["default"].clone(),
        (_, Some("boolean")) => json!(false),
        (_, Some("object")) => json!({}),
        (_, Some("array")) => json!([]),
        _ => schema["enum"][0]
            .as_str()
            .map_or(json!("x"), |value| json!(value)),
    }
}

#[tokio::test]
async fn bad_arguments_of_every_tool_are_told_by_name_and_harm_nobody() {
    let (_folder, client) = daemon().await;
    let profile = Profile::WorkspaceFull;
    let (mut session, _) = Session::open(client, profile, REVISION).await;
    let mut attempts = 0;
    for tool in tools::of(profile) {
        let schema = Value::Object(tool.input(profile));
        let properties = schema["properties"]
            .as_object()
            .expect("properties")
            .clone();
        let required: Vec<&str> = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let mut good = json!({});
        for name in &required {
            good[*name] = right(name, &properties[*name]);
        }
        let mut bad = vec![("surprise".to_string(), json!({"surprise": 1}))];
        for name in &required {
            bad.push(((*name).to_string(), json!({*name: "REMOVE"})));
        }
        for (name, schema) in &properties {
            bad.push((name.clone(), json!({name.as_str(): wrong(schema)})));
            if schema["type"] == "integer" {
                bad.push((name.clone(), json!({name.as_str(): -1})));
                bad.push((name.clone(), json!({name.as_str(): 1.5})));
            }
            if let Some(most) = schema["maximum"].as_u64() {
                bad.push((name.clone(), json!({name.as_str(): most + 1})));
            }
        }
        for (field, change) in bad {
            let mut arguments = good.clone();
            for (name, value) in change.as_object().expect("an object") {
                if value == "REMOVE" {
                    arguments.as_object_mut().expect("an object").remove(name);
                } else {
                    arguments[name] = value.clone();
                }
            }
            let error = session.fail(tool.name, arguments.clone()).await;
            let message = error["message"].as_str().expect("a message");
            assert_eq!(
                error["code"], "invalid_request",
                "{} {arguments}: {error}",
                tool.name
            );
            assert!(
                message.contains(&format!("`{field}")),
                "{} {arguments}: {error}",
                tool.name
            );
            assert!(
                error["remedy"]
                    .as_str()
                    .is_some_and(|text| text.contains(tool.name)),
                "{error}"
            );
            attempts += 1;
        }
        if required.contains(&"workspace") {
            if tool.name == "workspace_update" {
                // Without a change it is refused, whatever the workspace.
                good["name"] = json!("x");
            }
            let error = session.fail(tool.name, good).await;
            assert_eq!(
                error["code"], "workspace_not_found",
                "{}: {error}",
                tool.name
            );
            assert!(
                !error["remedy"]
                    .as_str()
                    .is_some_and(|text| text.contains("pyro workspace")),
                "{error}"
            );
        }
    }
    assert!(attempts > 300, "{attempts}");
    session.close().await;
}

#[tokio::test]
async fn what_needs_no_guest_gives_what_its_schema_says() {
    let (_folder, client) = daemon().await;
    let profile = Profile::WorkspaceFull;
    let (mut session, _) = Session::open(client, profile, REVISION).await;

    let list = session.works(profile, "workspace_list", json!({})).await;
    assert_eq!(list["count"], 0);
    let environments = session
        .works(profile, "vm_list_environments", json!({}))
        .await;
    let names: Vec<_> = environments["environments"]
        .as_array()
        .expect("some")
        .iter()
        .map(|e| e["name"].clone())
        .collect();
    assert!(names.contains(&json!("debian:12")), "{names:?}");
    let reaped = session.works(profile, "vm_reap_expired", json!({})).await;
    assert_eq!(reaped["workspace_ids"], json!([]));
    for (tool, arguments) in [
        (
            "vm_run",
            json!({"command": "true", "environment": "debain:12"}),
        ),
        ("workspace_create", json!({"environment": "debain:12"})),
    ] {
        let error = session.fail(tool, arguments).await;
        assert_eq!(error["code"], "unknown_environment");
        assert!(
            error["remedy"]
                .as_str()
                .is_some_and(|text| text.contains("debian:12")),
            "{error}"
        );
    }
    session.close().await;
}

#[tokio::test]
async fn a_client_of_the_sdk_gets_along() {
    use rmcp::ServiceExt;
    let (_folder, client) = daemon().await;
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let (from, to) = tokio::io::split(theirs);
    let server = pyro_mcp::Server::new(
        pyro_mcp::Daemon::At(client),
        Profile::WorkspaceCore,
        "/host",
    );
    let served = tokio::spawn(pyro_mcp::stdio::serve_on(server, from, to));
    let host = ().serve(ours).await.expect("agreed");
    let listed = host.list_all_tools().await.expect("listed");
    assert_eq!(listed.len(), tools::of(Profile::WorkspaceCore).count());
    let call = rmcp::model::CallToolRequestParams::new("workspace_list");
    let result = host.call_tool(call).await.expect("answered");
    assert_eq!(result.structured_content.expect("structured")["count"], 0);
    host.cancel().await.expect("closed");
    served.await.expect("no panic").expect("in order");
}
