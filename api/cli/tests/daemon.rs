//! The real binary with a real daemon of its own: starting it, its errors, exit statuses and JSON.
//! Needs no guest.

#![allow(clippy::unwrap_used)] // nothing but tests

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{Host, code, json, stderr, stdout};

/// Fails with `expected`, in words on standard error and as a document.
fn assert_fails(host: &Host, args: &[&str], status: i32, expected: &str) {
    let output = host.run(args);
    assert_eq!(code(&output), status, "{args:?}: {output:?}");
    assert_eq!(stdout(&output), "", "{args:?}");
    let words = stderr(&output);
    let start = format!("error[{expected}]: ");
    assert!(words.starts_with(&start), "{args:?}: {words}");
    assert!(words.contains("\n  fix: "), "{args:?}: {words}");

    let mut with_json = args.to_vec();
    let dashes = args.iter().position(|arg| *arg == "--");
    with_json.insert(dashes.unwrap_or(args.len()), "--json");
    let output = host.run(&with_json);
    assert_eq!(code(&output), status, "{with_json:?}: {output:?}");
    let error = &json(&output)["error"];
    assert_eq!(error["code"], expected, "{with_json:?}");
    assert!(!error["message"].as_str().unwrap().is_empty());
    assert!(!error["remedy"].as_str().unwrap().is_empty());
}

#[test]
fn a_command_starts_the_daemon_and_the_next_finds_it() {
    let host = Host::new();
    assert_eq!(host.daemon(), None);

    let output = host.run(&["workspace", "list", "--json"]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert_eq!(
        stdout(&output),
        "{\n  \"count\": 0,\n  \"unreadable\": [],\n  \"workspaces\": []\n}\n"
    );
    let pid = host.daemon();
    assert!(pid.is_some());

    let output = host.run(&["ws", "list"]);
    assert_eq!(code(&output), 0);
    assert_eq!(stdout(&output), "");
    assert!(stderr(&output).contains("pyro workspace create debian:12"));
    assert_eq!(host.daemon(), pid);
}

#[test]
fn commands_at_the_same_time_share_one_daemon() {
    let host = Host::new();
    let children: Vec<Child> = (0..4)
        .map(|_| {
            let mut command = host.command(&["workspace", "list", "--json"]);
            command.stdout(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert_eq!(json(&output)["count"], 0, "{output:?}");
    }
}

#[test]
fn a_workspace_that_is_not_there_is_said_so_by_every_command() {
    let host = Host::new();
    let patch = "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n";
    fs::write(host.path("seed"), "").unwrap();
    let seed = host.path("seed").to_str().unwrap().to_string();
    fs::create_dir(host.path("tree")).unwrap();
    let tree = host.path("tree").to_str().unwrap().to_string();
    let out = host.path("out").to_str().unwrap().to_string();
    for args in [
        &["status", "nobody"][..],
        &["status", "ws-aaaaaaaaaaaa"],
        &["logs", "nobody"],
        &["start", "nobody"],
        &["stop", "nobody"],
        &["delete", "nobody"],
        &["update", "nobody", "--name", "somebody"],
        &["diff", "nobody"],
        &["sync", "push", "nobody", &tree],
        &["export", "nobody", "x", "--output", &out],
        &["file", "list", "nobody"],
        &["file", "read", "nobody", "x"],
        &["file", "write", "nobody", "x", "--text", "y"],
        &["file", "write", "nobody", "x", "--text-file", &seed],
        &["patch", "apply", "nobody", "--patch", patch],
        &["snapshot", "list", "nobody"],
        &["snapshot", "create", "nobody", "s"],
        &["snapshot", "delete", "nobody", "s"],
        &["reset", "nobody"],
        &["disk", "list", "nobody"],
        &["disk", "read", "nobody", "/etc/hostname"],
        &["disk", "export", "nobody", "--output", &out],
    ] {
        let args = [&["workspace"], args].concat();
        assert_fails(&host, &args, 1, "workspace_not_found");
    }
    let exec = ["workspace", "exec", "nobody", "--", "ls", "--json"];
    assert_fails(&host, &exec, 125, "workspace_not_found");
    let exec = ["workspace", "exec", "nobody", "--detach", "--", "ls"];
    assert_fails(&host, &exec, 125, "workspace_not_found");
    assert!(!host.path("out").exists());
}

#[test]
fn a_name_cannot_forge_what_is_printed() {
    let host = Host::new();
    let output = host.run(&["workspace", "status", "a\x1b[2J\n\u{202e}b"]);
    assert_eq!(code(&output), 1);
    let words = stderr(&output);
    assert!(
        !words.contains('\x1b') && !words.contains('\u{202e}'),
        "{words}"
    );
    assert_eq!(words.lines().count(), 2, "{words}");
}

#[test]
fn a_workspace_that_can_never_be_is_a_usage_error() {
    let host = Host::new();
    let create = |extra: &[&'static str]| [&["workspace", "create", "debian:12"], extra].concat();
    let cases = [
        (&["--vcpu-count", "0"], "vcpu_count_out_of_range"),
        (&["--mem-mib", "1"], "memory_out_of_range"),
        (&["--ttl-seconds", "0"], "time_out_of_range"),
        (&["--label", "a b=c"], "invalid_label"),
        (&["--name", "a\nb"], "invalid_name"),
    ];
    for (flags, expected) in cases {
        assert_fails(&host, &create(flags), 2, expected);
    }
    // What is wrong on any host is found before a daemon is asked.
    let fresh = Host::new();
    assert_fails(
        &fresh,
        &create(&["--label", "a=1", "--label", "a=2"]),
        2,
        "invalid_label",
    );
    assert!(fresh.is_untouched());
}

#[test]
fn a_workspace_that_cannot_be_made_here_is_a_failure() {
    let host = Host::new();
    let unknown = ["workspace", "create", "debain:12"];
    assert_fails(&host, &unknown, 1, "unknown_environment");
    let list = json(&host.run(&["workspace", "list", "--json"]));
    assert_eq!(list["count"], 0);
}

#[test]
fn input_that_cannot_be_read_is_found_before_the_daemon_is_asked() {
    let host = Host::new();
    let write = [
        "workspace",
        "file",
        "write",
        "w",
        "x",
        "--text-file",
        "/nonexistent",
    ];
    assert_fails(&host, &write, 1, "io");
    let apply = [
        "workspace",
        "patch",
        "apply",
        "w",
        "--patch-file",
        "/nonexistent",
    ];
    assert_fails(&host, &apply, 1, "io");
    assert!(host.is_untouched());
}

#[test]
fn standard_input_is_content_and_patch() {
    let host = Host::new();
    for args in [
        &[
            "workspace",
            "file",
            "write",
            "nobody",
            "x",
            "--text-file",
            "-",
        ][..],
        &["workspace", "patch", "apply", "nobody", "--patch", "-"],
        &["workspace", "patch", "apply", "nobody", "--patch-file", "-"],
    ] {
        let mut command = host.command(args);
        let mut child = command
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Larger than a pipe: whoever does not read it would leave us here.
        let line = "--- a/x\n+++ b/x\n".repeat(20_000);
        child
            .stdin
            .take()
            .unwrap()
            .write_all(line.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(&output), 1, "{output:?}");
        assert!(
            stderr(&output).starts_with("error[workspace_not_found]"),
            "{output:?}"
        );
    }
}

#[test]
fn a_daemon_that_cannot_start_says_why() {
    let host = Host::new();
    fs::write(host.path("file"), "").unwrap();
    for (args, status) in [
        (&["workspace", "list", "--json"][..], 1),
        (&["workspace", "exec", "w", "--json", "--", "ls"], 125),
    ] {
        let mut command = host.command(args);
        let output = command
            .env("PYRO_STATE_DIR", host.path("file/state"))
            .output()
            .unwrap();
        assert_eq!(code(&output), status, "{output:?}");
        let error = &json(&output)["error"];
        assert!(
            ["state_unwritable", "daemon_unreachable"].contains(&error["code"].as_str().unwrap()),
            "{error}"
        );
        assert!(!error["remedy"].as_str().unwrap().is_empty());
    }
}

#[test]
fn a_state_directory_with_a_long_name_works() {
    let host = Host::new();
    let long = host.path(&"long-".repeat(40));
    let mut command = host.command(&["workspace", "list", "--json"]);
    let output = command.env("PYRO_STATE_DIR", &long).output().unwrap();
    assert_eq!(json(&output)["count"], 0, "{output:?}");
    // It lives in another place than `Host` looks at: end it by the same way that it is found.
    let mut again = host.command(&["serve"]);
    let output = again.env("PYRO_STATE_DIR", &long).output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).starts_with("error[state_locked]"),
        "{output:?}"
    );
    fs::create_dir_all(host.path("state")).unwrap();
    std::os::unix::fs::symlink(long.join("api.sock"), host.socket()).unwrap();
}

/// A daemon in the foreground.
fn serve(host: &Host) -> (Child, String) {
    let mut command = host.command(&["serve"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stderr = child.stderr.take().unwrap();
    BufReader::new(stderr).read_line(&mut line).unwrap();
    (child, line)
}

#[test]
fn a_daemon_in_the_foreground_says_where_it_listens_and_ends_when_told() {
    let host = Host::new();
    let (child, line) = serve(&host);
    assert!(line.contains("state/api.sock"), "{line}");
    assert_eq!(host.daemon(), Some(child.id()));

    let second = host.run(&["serve"]);
    assert_eq!(code(&second), 1, "{second:?}");
    assert!(
        stderr(&second).starts_with("error[state_locked]"),
        "{second:?}"
    );
    let listed = host.run(&["workspace", "list", "--json"]);
    assert_eq!(json(&listed)["count"], 0);
    assert_eq!(host.daemon(), Some(child.id()));

    kill_process(
        Pid::from_raw(child.id().cast_signed()).unwrap(),
        Signal::TERM,
    )
    .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 0);
    assert_eq!(stdout(&output), "");
    assert_eq!(host.daemon(), None);
}

#[test]
fn a_record_that_cannot_be_read_is_shown_and_kept() {
    let host = Host::new();
    let folder = host.path("state/workspaces/ws-aaaaaaaaaaaa");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("record.json"), "{").unwrap();

    let output = host.run(&["workspace", "list"]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(stderr(&output).contains("ws-aaaaaaaaaaaa"), "{output:?}");
    let list: Value = json(&host.run(&["workspace", "list", "--json"]));
    assert_eq!(list["unreadable"][0]["workspace_id"], "ws-aaaaaaaaaaaa");
    assert!(folder.join("record.json").exists());
}

#[test]
fn an_exec_without_dashes_is_told_where_they_go() {
    let host = Host::new();
    for words in [&["workspace", "exec", "w", "ls"][..], &["ws", "exec", "w"]] {
        let output = host.run(words);
        assert_eq!(code(&output), 2);
        assert!(stderr(&output).contains("after `--`"), "{output:?}");
        let document = json(&host.run(&[words, &["--json"]].concat()));
        let remedy = document["error"]["remedy"].as_str().unwrap().to_string();
        assert!(remedy.contains("pyro workspace exec"), "{document}");
    }
    assert!(host.is_untouched());
}
