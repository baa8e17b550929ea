//! Where the value of a secret must not be found, whatever was done with it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use super::secrets::{FILE, LITERAL};
use crate::daemon::Daemon;
use crate::pyro::text;

/// Looks at everything that is kept, and that is said to whoever asks.
pub(super) fn none(daemon: &Daemon, id: &str) {
    // Records, journal, logs of services, the daemon's log, layers.
    assert_eq!(holders(daemon, &daemon.path("state")), "");
    let out = daemon.path("exported");
    let path = out.to_str().expect("UTF-8");
    daemon.said(&["export", id, "/workspace", "--output", path, "--force"]);
    assert_eq!(holders(daemon, &out), "");
    let said: [&[&str]; 7] = [
        &["list", "--json"],
        &["status", id, "--json"],
        &["logs", id, "--json"],
        &["diff", id, "--json"],
        &["service", "list", id, "--json"],
        &["shell", "list", id, "--json"],
        &["file", "list", id, "--recursive", "--json"],
    ];
    for words in said {
        assert_clean(&format!("{words:?}"), daemon.said(words).as_bytes());
    }
    assert_clean("metrics", &metrics(daemon));
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let own = Path::new("/proc/self").canonicalize().expect("ourselves");
        for file in ["cmdline", "environ"].map(|name| entry.path().join(name)) {
            // It may have ended; what is no process has neither.
            if !file.starts_with(&own) {
                let words = fs::read(&file).unwrap_or_default();
                assert_clean(&file.display().to_string(), &words);
            }
        }
    }
}

/// The files at or below a path that hold a value, but for the store of secrets itself.
pub(super) fn holders(daemon: &Daemon, path: &Path) -> String {
    let patterns = daemon.path("patterns");
    let values = [LITERAL, FILE].map(|halves| halves.concat());
    // Of the one with two lines, the second.
    let lines = values.iter().filter_map(|value| value.lines().last());
    fs::write(&patterns, lines.collect::<Vec<_>>().join("\n")).expect("a file");
    let output = Command::new("grep")
        .args(["-rlaF", "-D", "skip", "--exclude=secrets.json", "-f"])
        .args([&patterns, path])
        .output()
        .expect("grep starts");
    // 1 when nothing was found; other processes may take files away meanwhile.
    assert!(matches!(output.status.code(), Some(0..=2)), "{output:?}");
    text(&output.stdout)
}

fn assert_clean(what: &str, bytes: &[u8]) {
    for value in [LITERAL, FILE].map(|halves| halves.concat()) {
        let value = value.trim_end();
        assert!(!text(bytes).contains(value), "{what} holds a secret");
    }
}

fn metrics(daemon: &Daemon) -> Vec<u8> {
    let mut stream = UnixStream::connect(daemon.path("state/api.sock")).expect("a daemon");
    let request = "GET /metrics HTTP/1.1\r\nHost: pyro\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("asked");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("answered");
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", text(&answer));
    answer
}
