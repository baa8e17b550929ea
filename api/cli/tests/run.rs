//! `pyro run` against a daemon that says what a test tells it to: bytes, statuses, signals, input.

#![allow(clippy::unwrap_used)] // nothing but tests

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use support::fake::Fake;
use support::{code, json, stderr, stdout};

fn run_fake(events: Vec<Value>) -> Fake {
    Fake::new(events, Vec::new())
}

fn command(fake: &Fake, flags: &[&str]) -> Command {
    let args = [&["run", "debian:12"], flags, &["--", "ls", "-l"]].concat();
    fake.host.command(&args)
}

fn run(fake: &Fake, flags: &[&str]) -> Output {
    command(fake, flags).output().unwrap()
}

fn result(state: &str, exit_code: u8, error: Option<Value>) -> Value {
    json!({
        "environment": "debian:12", "command": ["ls", "-l"], "state": state, "exit_code": exit_code,
        "signal": null, "timed_out": state == "timed_out", "stdout": "x", "stderr": "",
        "stdout_bytes": 1, "stderr_bytes": 0, "stdout_truncated": false, "stderr_truncated": false,
        "vcpu_count": 1, "mem_mib": 1024, "kernel_release": "6.1.0", "boot_ms": 430.5,
        "command_ms": 1.5, "total_ms": 484.25, "error": error,
    })
}

fn started() -> Value {
    json!({"event": "started", "kernel_release": "6.1.0", "boot_ms": 430.5})
}

fn output(stream: &str, bytes: &[u8]) -> Value {
    json!({"event": stream, "data": BASE64.encode(bytes)})
}

fn ended(result: Value) -> Value {
    json!({"event": "ended", "result": result})
}

fn error(code: &str) -> Value {
    json!({"code": code, "message": "it \u{1b}[2J broke", "remedy": "mend it", "detail": null})
}

#[test]
fn both_streams_come_through_byte_by_byte_and_the_flags_go_out() {
    let all: Vec<u8> = (0..=255).collect();
    let fake = run_fake(vec![
        started(),
        output("stdout", &all),
        output("stderr", b"\xff\x1b[0m"),
        ended(result("exited", 7, None)),
    ]);
    let flags = [
        "--vcpu-count",
        "2",
        "--mem-mib",
        "512",
        "--timeout-seconds",
        "5",
        "--ttl-seconds",
        "50",
    ];
    let output = run(&fake, &flags);
    assert_eq!(code(&output), 7);
    assert_eq!(output.stdout, all);
    assert_eq!(output.stderr, b"\xff\x1b[0m");
    let expected = json!({
        "environment": "debian:12", "pull": false, "command": ["ls", "-l"], "vcpu_count": 2,
        "mem_mib": 512, "timeout_seconds": 5, "ttl_seconds": 50, "network": "off",
    });
    assert_eq!(fake.expect("POST /v1/runs"), expected);
}

#[test]
fn statuses_are_the_guests_and_the_document_is_the_apis() {
    let cases = [
        (result("exited", 0, None), 0, ""),
        (result("signalled", 137, None), 137, ""),
        (result("timed_out", 124, None), 124, "after 30 s"),
        (
            result("timed_out", 124, Some(error("ttl_expired"))),
            124,
            "600 s (--ttl-seconds)",
        ),
        (
            result("not_started", 127, Some(error("command_not_found"))),
            127,
            r"pyro: it \x1b[2J broke",
        ),
    ];
    for (result, status, words) in cases {
        let fake = run_fake(vec![
            started(),
            output("stdout", b"x"),
            ended(result.clone()),
        ]);
        let output = run(&fake, &[]);
        assert_eq!(code(&output), status, "{result}");
        assert!(stderr(&output).contains(words), "{output:?}");
        assert!(!stderr(&output).contains('\x1b'));

        let output = run(&fake, &["--json"]);
        assert_eq!(code(&output), status, "{result}");
        assert_eq!(json(&output), result);
        assert_eq!(stderr(&output), "");
    }
}

#[test]
fn a_failure_of_the_product_is_told_after_the_output() {
    let fake = run_fake(vec![
        started(),
        output("stdout", b"half"),
        json!({"event": "failed", "error": error("guest_crashed")}),
    ]);
    let output = run(&fake, &[]);
    assert_eq!((code(&output), stdout(&output).as_str()), (125, "half"));
    assert!(stderr(&output).starts_with("error[guest_crashed]: "));
    let output = run(&fake, &["--json"]);
    assert_eq!(code(&output), 125);
    assert_eq!(json(&output)["error"]["code"], "guest_crashed");
}

#[test]
fn standard_input_goes_with_the_request_and_ends() {
    let bytes: Vec<u8> = (0..500_000u32).map(|n| (n / 3) as u8).collect();
    // It runs for ever; the input is what ends this.
    let fake = run_fake(vec![started()]);
    let mut child = command(&fake, &[]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    assert!(fake.input() == bytes);
    // The daemon is gone before the run's end.
    assert_eq!(child.wait().unwrap().code(), Some(125));
}

#[test]
fn a_signal_ends_it_with_its_status() {
    for (flags, signal, status) in [
        (&[][..], Signal::INT, 130),
        (&["--json"], Signal::TERM, 143),
    ] {
        let fake = run_fake(vec![started(), output("stdout", b"ready\n")]);
        let mut child = command(&fake, flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // From when the request is there, signals are taken.
        fake.expect("POST /v1/runs");
        let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
        if flags.is_empty() {
            let mut ready = [0; 6];
            child
                .stdout
                .as_mut()
                .unwrap()
                .read_exact(&mut ready)
                .unwrap();
        }
        kill_process(pid, signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(&output), status);
        if flags.is_empty() {
            assert_eq!(stderr(&output), "");
        } else {
            assert_eq!(json(&output)["error"]["code"], "interrupted");
        }
    }
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let chunk = output("stdout", &[b'x'; 60_000]);
    let fake = run_fake([vec![started()], vec![chunk; 20]].concat());
    let mut child = command(&fake, &[])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 141, "{output:?}");
    assert_eq!(stderr(&output), "");
}

#[test]
fn the_demonstration_tells_what_the_guest_said() {
    let mut told = result("exited", 0, None);
    told["stdout"] = "system:  Debian \u{1b}[2J\nLinux 6.1\n".into();
    let fake = run_fake(vec![started(), ended(told)]);
    let output = fake
        .host
        .command(&["demo"])
        .stdin(File::open("/dev/zero").unwrap())
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{output:?}");
    let words = stdout(&output);
    assert!(words.contains("[3/4] It is up after 0.43 s."), "{words}");
    assert!(words.contains("| Linux 6.1\n"), "{words}");
    assert!(!words.contains('\x1b'));
}
