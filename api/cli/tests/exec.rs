//! `pyro workspace exec` against a daemon that says what a test tells it to: bytes, statuses, signals.

#![allow(clippy::unwrap_used)] // nothing but tests

mod support;

use std::io::Read;
use std::process::Output;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use support::fake::Fake;
use support::{code, json, stderr, stdout};

/// A daemon whose execs say this.
fn exec_fake(events: Vec<Value>) -> Fake {
    let cancelled = record("cancelled", Value::Null, None);
    Fake::new(events, vec![("/cancel", cancelled)])
}

fn exec(fake: &Fake, flags: &[&str]) -> Output {
    let args = [&["workspace", "exec", "w"], flags, &["--", "ls"]].concat();
    fake.host.run(&args)
}

fn record(state: &str, exit_code: impl Into<Value>, error: Option<Value>) -> Value {
    json!({
        "sequence": 7, "workspace_id": "ws-aaaaaaaaaaaa", "command": ["ls"], "cwd": "/workspace",
        "state": state, "exit_code": exit_code.into(), "signal": null, "stdout": "x", "stderr": "",
        "stdout_bytes": 1, "stderr_bytes": 0, "stdout_truncated": false, "stderr_truncated": false,
        "started_at": "2026-01-01T00:00:00Z", "duration_ms": 1.5, "error": error,
    })
}

fn started() -> Value {
    json!({"event": "started", "sequence": 7})
}

fn output(stream: &str, bytes: &[u8]) -> Value {
    json!({"event": stream, "data": BASE64.encode(bytes)})
}

fn ended(record: Value) -> Value {
    json!({"event": "ended", "record": record})
}

fn error(code: &str) -> Value {
    json!({"code": code, "message": "it \u{1b}[2J broke", "remedy": "mend it", "detail": null})
}

#[test]
fn both_streams_come_through_byte_by_byte() {
    let all: Vec<u8> = (0..=255).collect();
    let fake = exec_fake(vec![
        started(),
        output("stdout", &all),
        output("stderr", b"\xff\x1b[0m"),
        output("stdout", b"end"),
        ended(record("exited", 7, None)),
    ]);
    let output = exec(&fake, &[]);
    assert_eq!(code(&output), 7);
    assert_eq!(output.stdout, [&all[..], b"end"].concat());
    assert_eq!(output.stderr, b"\xff\x1b[0m");
}

#[test]
fn statuses_are_the_guests_or_say_that_there_is_none() {
    let cases = [
        (record("exited", 0, None), 0, ""),
        (record("exited", 255, None), 255, ""),
        (record("signalled", 137, None), 137, ""),
        (record("timed_out", 124, None), 124, "after 30 s"),
        (
            record("not_started", 127, Some(error("command_not_found"))),
            127,
            r"pyro: it \x1b[2J broke",
        ),
        (
            record("not_started", 126, Some(error("command_not_executable"))),
            126,
            "pyro: it",
        ),
        (
            record("lost", Value::Null, Some(error("command_lost"))),
            125,
            "error[command_lost]",
        ),
        (record("cancelled", Value::Null, None), 125, "cancelled"),
    ];
    for (record, status, words) in cases {
        let fake = exec_fake(vec![started(), ended(record.clone())]);
        let output = exec(&fake, &[]);
        assert_eq!(code(&output), status, "{record}");
        assert!(stderr(&output).contains(words), "{output:?}");
        assert!(!stderr(&output).contains('\x1b'));

        let output = exec(&fake, &["--json"]);
        assert_eq!(code(&output), status, "{record}");
        assert_eq!(json(&output), record);
        assert_eq!(stderr(&output), "");
    }
}

#[test]
fn a_failure_of_the_product_is_told_after_the_output() {
    let fake = exec_fake(vec![
        started(),
        output("stdout", b"half"),
        json!({"event": "failed", "error": error("agent_failed")}),
    ]);
    let output = exec(&fake, &[]);
    assert_eq!(code(&output), 125);
    assert_eq!(stdout(&output), "half");
    assert!(stderr(&output).starts_with("error[agent_failed]: "));
    let output = exec(&fake, &["--json"]);
    assert_eq!(json(&output)["error"]["code"], "agent_failed");
}

#[test]
fn a_detached_command_is_its_number() {
    let running = record("running", Value::Null, None);
    let fake = Fake::new(Vec::new(), vec![("/exec", running.clone())]);
    let output = exec(&fake, &["--detach"]);
    assert_eq!((code(&output), stdout(&output).as_str()), (0, "7\n"));
    assert!(stderr(&output).contains("pyro workspace logs ws-aaaaaaaaaaaa"));
    let output = exec(&fake, &["--detach", "--json"]);
    assert_eq!(json(&output), running);
}

#[test]
fn an_interrupt_cancels_in_the_guest_and_keeps_its_status() {
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        // It says something and then runs for ever.
        let fake = exec_fake(vec![started(), output("stdout", b"ready\n")]);
        let mut child = fake.spawn(&["workspace", "exec", "w", "--", "ls"]);
        let mut ready = [0; 6];
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut ready).unwrap();
        let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
        fake.expect("/exec/7/cancel");
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(&output), status);
        assert!(stderr(&output).contains("cancelled"), "{output:?}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let chunk = output("stdout", &[b'x'; 60_000]);
    let fake = exec_fake([vec![started()], vec![chunk; 20]].concat());
    let mut child = fake.spawn(&["workspace", "exec", "w", "--", "ls"]);
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 141, "{output:?}");
    assert_eq!(stderr(&output), "");
}

#[test]
fn a_daemon_that_vanishes_is_a_failure_of_the_product() {
    let fake = exec_fake(vec![json!({"event": "nonsense"})]);
    let output = exec(&fake, &["--json"]);
    assert_eq!(code(&output), 125);
    assert_eq!(json(&output)["error"]["code"], "daemon_answer_invalid");
}
