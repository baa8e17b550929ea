//! Services: readiness of all kinds, logs, failures that say why, a stop.

use serde_json::Value;

use super::SECONDS;
use super::secrets::REDACTED;
use crate::daemon::Daemon;

pub(super) fn test(daemon: &Daemon, id: &str) {
    by_http(daemon, id);
    let up = [
        "--ready-file",
        "up",
        "--",
        "sh",
        "-c",
        "touch up; exec sleep 1000",
    ];
    let file = start(daemon, id, "file", &up);
    assert_eq!(
        (&file["state"], &file["ready"]),
        (&"running".into(), &true.into())
    );
    let probe = "test -e up && test \"$PWD\" = /workspace";
    let command = ["--ready-command", probe, "--", "sleep", "1000"];
    assert_eq!(start(daemon, id, "command", &command)["ready"], true);
    failures(daemon, id);
    let stopped = daemon.json(&["service", "stop", id, "file"]);
    assert_eq!(
        (&stopped["state"], &stopped["stop_reason"]),
        (&"stopped".into(), &"requested".into())
    );
    assert_eq!(stopped["ready"], false);
    // One that does not want to.
    let script = "trap '' TERM; touch deaf; while :; do sleep 1; done";
    start(
        daemon,
        id,
        "deaf",
        &["--ready-file", "deaf", "--", "sh", "-c", script],
    );
    let deaf = daemon.json(&["service", "stop", id, "deaf"]);
    assert_eq!(
        (&deaf["state"], &deaf["signal"]),
        (&"stopped".into(), &9.into())
    );
    assert_eq!(
        daemon.sh(id, "pgrep -f 'trap .. TERM' | grep -v $$ || echo none"),
        "none\n"
    );
    let running = ["service", "start", id, "web", "--", "true"];
    assert_eq!(daemon.error(&running), "service_running");
    let list = daemon.json(&["service", "list", id]);
    assert_eq!(list["count"], 5);
    daemon.json(&["service", "stop", id, "web"]);
    daemon.json(&["service", "stop", id, "command"]);
    daemon.sh(id, "rm up deaf");
}

/// Starts a service that must become ready.
pub(super) fn start(daemon: &Daemon, id: &str, name: &str, words: &[&str]) -> Value {
    let ready = [
        "service",
        "start",
        id,
        name,
        "--ready-timeout-seconds",
        SECONDS,
    ];
    daemon.json(&[&ready[..], words].concat())
}

fn by_http(daemon: &Daemon, id: &str) {
    let script = "echo $TOKEN; cat /run/pyro-secrets/CERT; exec python3 -u -m http.server";
    let url = "http://localhost:8000/";
    let words = [
        "--ready-http",
        url,
        "--secret-env",
        "TOKEN",
        "--",
        "sh",
        "-c",
        script,
    ];
    let web = start(daemon, id, "web", &words);
    assert_eq!(
        (&web["state"], &web["ready"]),
        (&"running".into(), &true.into())
    );
    let logs = daemon.said(&["service", "logs", id, "web"]);
    assert!(
        logs.starts_with(&format!("{REDACTED}\n{REDACTED}")),
        "{logs}"
    );
    assert!(logs.contains("GET / "), "{logs}");
}

fn failures(daemon: &Daemon, id: &str) {
    let script = "echo the last words; echo $TOKEN; exit 4";
    let bad = [
        "service",
        "start",
        id,
        "bad",
        "--ready-tcp",
        "localhost:9",
        "--secret-env",
        "TOKEN",
        "--",
        "sh",
        "-c",
        script,
    ];
    let error = daemon.refusal(&bad);
    assert_eq!(error["code"], "service_not_ready");
    let words = format!("the last words\n{REDACTED}");
    assert_eq!(error["detail"], words.as_str());
    let bad = daemon.json(&["service", "status", id, "bad"]);
    assert_eq!(
        (&bad["state"], &bad["exit_code"]),
        (&"failed".into(), &4.into())
    );
    assert_eq!(bad["stop_reason"], "exited_before_ready");
    let late = [
        "service",
        "start",
        id,
        "bad",
        "--ready-timeout-seconds",
        "1",
        "--ready-tcp",
        "localhost:9",
        "--",
        "sleep",
        "1000",
    ];
    assert_eq!(daemon.error(&late), "service_not_ready");
    let late = daemon.json(&["service", "status", id, "bad"]);
    assert_eq!(
        (&late["state"], &late["stop_reason"]),
        (&"failed".into(), &"not_ready".into())
    );
    let none = ["service", "start", id, "bad", "--", "no-such-program"];
    assert_eq!(daemon.error(&none), "command_not_found");
}
