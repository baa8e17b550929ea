//! What commands ask a daemon for, and how they show what it answers.

#![allow(clippy::unwrap_used)] // nothing but tests

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use support::fake::Fake;
use support::{code, json, stderr, stdout};

fn workspace() -> Value {
    json!({
        "workspace_id": "ws-aaaaaaaaaaaa", "name": "a\u{1b}[2Jb", "labels": {"k": "v\u{202e}"},
        "environment": "debian:12", "state": "running", "failure": null, "vcpu_count": 1,
        "mem_mib": 1024, "network_policy": "off", "network_failure": null, "ttl_seconds": 600,
        "created_at": "2026-01-01T00:00:00Z", "last_activity_at": "2026-01-01T00:00:00Z",
        "expires_at": "2026-01-01T00:10:00Z", "workspace_path": "/workspace",
        "seed": {
            "kind": "directory", "path": "/src\u{1b}", "entries": 2, "bytes": 5,
            "skipped": [{"path": "x\u{1b}[1A", "reason": "ignored by Git"}], "skipped_count": 1,
        },
        "command_count": 0, "snapshot_count": 0, "reset_count": 0, "last_reset_at": null,
        "secrets": [], "service_count": 0, "shell_count": 0,
    })
}

fn transfer() -> Value {
    json!({
        "workspace_id": "ws-aaaaaaaaaaaa", "source": "/s", "dest": "/workspace\u{9b}", "path": "/w\u{1b}",
        "kind": "file", "output": "/o\u{202e}", "entries": 1, "bytes": 3,
        "skipped": [{"path": "p\u{7}", "reason": "r\u{8}"}], "skipped_count": 3,
    })
}

/// Every command with the end of its path and a hostile answer to it.
fn answers() -> Vec<(&'static [&'static str], &'static str, Value)> {
    let list = json!({"count": 1, "workspaces": [workspace()], "unreadable": [{
        "workspace_id": "ws-bbbbbbbbbbbb\u{1b}", "path": "/p\u{1b}",
        "error": {"code": "record_unreadable", "message": "m\u{1b}", "remedy": "r", "detail": null},
    }]});
    let files = json!({"workspace_id": "ws-aaaaaaaaaaaa", "path": "/workspace", "truncated": true, "entries": [{
        "path": "/workspace/\u{1b}[2J\n\u{202e}", "kind": "symlink", "size_bytes": 0, "mode": "0777",
        "link_target": "\u{1b}c",
    }]});
    let snapshot = json!({
        "name": "s\u{1b}", "created_at": "2026-01-01T00:00:00Z", "baseline": false,
    });
    let deleted =
        json!({"workspace_id": "ws-aaaaaaaaaaaa\u{1b}", "deleted": true, "name": "s\u{1b}"});
    let diff_applied = json!({
        "workspace_id": "ws-aaaaaaaaaaaa", "dry_run": false, "added": 1, "modified": 0, "deleted": 0,
        "entries": [{"path": "p\u{1b}", "change": "added", "renamed_from": "q\u{1b}"}],
    });
    let written = json!({
        "workspace_id": "ws-aaaaaaaaaaaa", "path": "/workspace/x\u{1b}", "size_bytes": 2,
        "sha256": "00", "created": true,
    });
    let disk = json!({
        "workspace_id": "ws-aaaaaaaaaaaa", "output": "/o\u{1b}", "format": "ext4", "size_bytes": 5,
    });
    vec![
        (&["create", "debian:12"], "/workspaces", workspace()),
        (&["list"], "/workspaces", list),
        (&["update", "w", "--clear-name"], "/w", workspace()),
        (&["status", "w"], "/w", workspace()),
        (&["stop", "w"], "/stop", workspace()),
        (&["start", "w"], "/start", workspace()),
        (&["reset", "w"], "/reset", workspace()),
        (&["delete", "w"], "/w", drop_name(&deleted)),
        (
            &["sync", "push", "w", "/s"],
            "/push",
            without(&transfer(), &["path", "kind", "output"]),
        ),
        (
            &["export", "w", "x", "--output", "/o"],
            "/export",
            without(&transfer(), &["source", "dest"]),
        ),
        (&["file", "list", "w"], "/files", files.clone()),
        (
            &["file", "write", "w", "x", "--text", "t"],
            "/content",
            written,
        ),
        (
            &["patch", "apply", "w", "--patch", "p"],
            "/patch",
            diff_applied,
        ),
        (
            &["snapshot", "create", "w", "s"],
            "/snapshots",
            snapshot.clone(),
        ),
        (
            &["snapshot", "list", "w"],
            "/snapshots",
            json!({"workspace_id": "ws-aaaaaaaaaaaa", "count": 1, "snapshots": [snapshot]}),
        ),
        (&["snapshot", "delete", "w", "s"], "/s", deleted),
        (&["disk", "export", "w", "--output", "/o"], "/export", disk),
        (&["disk", "list", "w"], "/files", files),
    ]
}

fn without(document: &Value, names: &[&str]) -> Value {
    let mut document = document.clone();
    for name in names {
        document.as_object_mut().unwrap().remove(*name);
    }
    document
}

fn drop_name(deleted: &Value) -> Value {
    without(deleted, &["name"])
}

#[test]
fn a_document_is_the_daemons_answer_with_sorted_keys() {
    for (args, path, answer) in answers() {
        let fake = Fake::new(Vec::new(), vec![(path, answer.clone())]);
        let output = fake.host.run(&[&["workspace"], args, &["--json"]].concat());
        assert_eq!(code(&output), 0, "{args:?}: {output:?}");
        // Maps of this type are sorted.
        assert_eq!(stdout(&output), format!("{answer:#}\n"), "{args:?}");
        assert_eq!(stderr(&output), "", "{args:?}");
    }
}

#[test]
fn words_never_carry_what_a_guest_chose_to_a_terminal() {
    for (args, path, answer) in answers() {
        let fake = Fake::new(Vec::new(), vec![(path, answer)]);
        let output = fake.host.run(&[&["workspace"], args].concat());
        assert_eq!(code(&output), 0, "{args:?}: {output:?}");
        let all = stdout(&output) + &stderr(&output);
        let hides = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!all.contains(hides), "{args:?}: {all:?}");
        assert!(!all.trim().is_empty(), "{args:?}");
    }
}

#[test]
fn a_new_workspace_is_its_id_for_a_script_and_hints_for_a_person() {
    let fake = Fake::new(Vec::new(), vec![("/workspaces", workspace())]);
    let output = fake
        .host
        .run(&["workspace", "create", "debian:12", "--id-only"]);
    assert_eq!(stdout(&output), "ws-aaaaaaaaaaaa\n");
    assert_eq!(stderr(&output), "");

    let create = [
        "workspace",
        "create",
        "debian:12",
        "--seed-path",
        "here",
        "--label",
        "a=b",
    ];
    let output = fake.host.run(&create);
    assert!(stdout(&output).contains("ws-aaaaaaaaaaaa"), "{output:?}");
    assert!(stderr(&output).contains("pyro workspace exec ws-aaaaaaaaaaaa"));
    fake.expect("POST /v1/workspaces ");
    let request = fake.expect("POST /v1/workspaces ");
    let here = std::env::current_dir().unwrap().join("here");
    assert_eq!(request["seed_path"], here.to_str().unwrap());
    assert_eq!(request["labels"], json!({"a": "b"}));
    assert_eq!(request["network_policy"], "off");
}

#[test]
fn a_pipe_gets_a_files_very_bytes() {
    let bytes = b"\x1b[2J\xff\0";
    let content = json!({
        "workspace_id": "ws-aaaaaaaaaaaa", "path": "/workspace/x", "size_bytes": 9, "offset": 0,
        "bytes_read": 6, "truncated": true, "encoding": "base64", "content": BASE64.encode(bytes),
        "sha256": null,
    });
    let fake = Fake::new(Vec::new(), vec![("/content", content)]);
    for args in [&["file", "read", "w", "x"][..], &["disk", "read", "w", "x"]] {
        let output = fake.host.run(&[&["workspace"], args].concat());
        assert_eq!(output.stdout, bytes);
        assert!(stderr(&output).contains("bytes 0 to 6 of 9"), "{output:?}");
    }
    let output = fake
        .host
        .run(&["workspace", "file", "read", "w", "x", "--content-only"]);
    assert_eq!((output.stdout, output.stderr), (bytes.to_vec(), Vec::new()));
}

#[test]
fn a_file_that_is_no_text_is_written_byte_by_byte() {
    let written = json!({
        "workspace_id": "ws-aaaaaaaaaaaa", "path": "/workspace/x", "size_bytes": 2,
        "sha256": "00", "created": false,
    });
    let fake = Fake::new(Vec::new(), vec![("/content", written)]);
    let file = fake.host.path("binary");
    std::fs::write(&file, b"\xff\0").unwrap();
    let file = file.to_str().unwrap();
    let output = fake
        .host
        .run(&["workspace", "file", "write", "w", "x", "--text-file", file]);
    assert_eq!(code(&output), 0, "{output:?}");
    let request = fake.expect("PUT ");
    assert_eq!(request["encoding"], "base64");
    assert_eq!(request["content"], BASE64.encode(b"\xff\0"));
    assert_eq!(request["expect_sha256"], Value::Null);
}

#[test]
fn a_diff_in_a_pipe_is_counts_and_the_patch_itself() {
    let patch = "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+\u{1b}b\n";
    let diff = json!({
        "workspace_id": "ws-aaaaaaaaaaaa", "changed": true, "added": 0, "modified": 1, "deleted": 0,
        "metadata": 0, "non_text": 1, "entries": [], "patch": patch, "patch_truncated": false,
    });
    let fake = Fake::new(Vec::new(), vec![("/diff", diff)]);
    let output = fake.host.run(&["workspace", "diff", "w"]);
    let expected = format!("0 added, 1 modified, 0 deleted (1 not text)\n{patch}");
    assert_eq!(stdout(&output), expected);
}

#[test]
fn an_interrupt_ends_the_waiting_and_says_that_the_daemon_goes_on() {
    for json_too in [false, true] {
        let fake = Fake::new(Vec::new(), vec![("/stop", Value::Null)]);
        let mut args = vec!["workspace", "stop", "w"];
        args.extend(json_too.then_some("--json"));
        let child = fake.spawn(&args);
        fake.expect("/stop");
        kill_process(
            Pid::from_raw(child.id().cast_signed()).unwrap(),
            Signal::INT,
        )
        .unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(&output), 130, "{output:?}");
        if json_too {
            assert_eq!(json(&output)["error"]["code"], "interrupted");
        } else {
            assert!(
                stderr(&output).contains("the daemon finishes"),
                "{output:?}"
            );
        }
    }
}
