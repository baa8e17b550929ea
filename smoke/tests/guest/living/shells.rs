//! Shells: what a person would see, what was really written, signals, sizes, two at once.

use pyro_client::types::{ResizeShell, Shell};

use super::leaks;
use super::secrets::{LITERAL, REDACTED};
use crate::daemon::Daemon;
use crate::pyro::{text, wait_until};

pub(super) fn test(daemon: &Daemon, id: &str) {
    let shell = Terminal::open(daemon, id);
    let other = Terminal::open(daemon, id);
    rendered(&shell);
    let raw = shell.json(&["read"]);
    let output = raw["output"].as_str().expect("text");
    assert!(output.contains("\u{1b}[31mred"), "{output}");
    // Also what is typed comes back; bash would keep it for the next one.
    shell.write("unset HISTFILE");
    shell.write(&format!("echo {}", LITERAL.concat()));
    wait_until("it is echoed", || {
        shell
            .plain()
            .contains(&format!("echo {REDACTED}\n{REDACTED}\n"))
    });
    leaks::none(daemon, id);
    cursors(&shell);
    resized(daemon, id, &shell);
    programs(&shell);
    signals(&shell);
    assert!(!other.plain().contains("red"), "its own only");
    much(&other);
    shell.write("exit 9");
    wait_until("it ends", || shell.json(&["read"])["exit_code"] == 9);
    assert_eq!(shell.refused(&["write", "--input", "x"]), "shell_closed");
    for shell in [&shell, &other] {
        assert_eq!(shell.json(&["close"])["closed"], true);
    }
    assert_eq!(shell.refused(&["read"]), "shell_not_found");
    assert_eq!(daemon.json(&["shell", "list", id])["count"], 0);
    assert_eq!(daemon.sh(id, "pgrep -x bash || echo none"), "none\n");
}

/// A shell of a workspace.
pub(super) struct Terminal<'a> {
    daemon: &'a Daemon,
    id: &'a str,
    pub(super) shell: String,
}

impl<'a> Terminal<'a> {
    pub(super) fn open(daemon: &'a Daemon, id: &'a str) -> Self {
        let shell = daemon.said(&["shell", "open", id, "--secret-env", "TOKEN", "--id-only"]);
        let shell = shell.trim().to_string();
        Self { daemon, id, shell }
    }

    fn words<'b>(&'b self, words: &[&'b str]) -> Vec<&'b str> {
        [&["shell", words[0], self.id, &self.shell], &words[1..]].concat()
    }

    pub(super) fn json(&self, words: &[&str]) -> serde_json::Value {
        self.daemon.json(&self.words(words))
    }

    fn refused(&self, words: &[&str]) -> String {
        self.daemon.error(&self.words(words))
    }

    fn sh(&self, script: &str) -> String {
        self.daemon.sh(self.id, script)
    }

    pub(super) fn write(&self, input: &str) {
        self.json(&["write", "--input", input]);
    }

    /// What a person would see of all that is kept.
    pub(super) fn plain(&self) -> String {
        let words = ["read", "--plain", "--wait-for-idle-ms", "300"];
        text(&self.daemon.output(&self.words(&words)).stdout)
    }
}

/// Colours, a line that is drawn over, a secret.
fn rendered(shell: &Terminal) {
    let bar = "printf '\\033[31mred\\033[0m 10%%\\rRED 99%%\\n'";
    shell.write(&format!("echo \"it is $TOKEN\"; {bar}; stty size"));
    let wanted = format!("it is {REDACTED}\nRED 99%\n30 120\n");
    wait_until("it is rendered", || shell.plain().contains(&wanted));
}

/// A reader gets what is new.
fn cursors(shell: &Terminal) {
    let cursor = shell.json(&["read", "--wait-for-idle-ms", "300"])["cursor"].to_string();
    shell.write("echo ne''w");
    wait_until("what is new comes", || {
        let read = shell.json(&["read", "--cursor", &cursor]);
        let output = read["output"].as_str().expect("text");
        assert!(!output.contains("10%"), "{output}");
        output.contains("new\r\n") && read["dropped_bytes"] == 0
    });
}

/// The last megabyte is kept; of what is not, a reader is told.
fn much(shell: &Terminal) {
    shell.write("seq 300000; echo don''e");
    wait_until("much comes", || {
        let read = shell.json(&["read", "--max-chars", "4000000"]);
        let output = read["output"].as_str().expect("text");
        let done = output.contains("300000\r\ndone\r\n");
        let dropped = read["dropped_bytes"].as_u64();
        assert!(!done || dropped > Some(500_000), "{dropped:?}");
        done
    });
}

fn resized(daemon: &Daemon, id: &str, shell: &Terminal) {
    let size = ResizeShell { cols: 77, rows: 22 };
    let resized: Shell = daemon.block_on(async |client| {
        let resized = client.shell_resize(id, &shell.shell, &size).await;
        resized.expect("it is there")
    });
    assert_eq!((resized.cols, resized.rows), (77, 22));
    shell.write("stty size");
    wait_until("the shell knows", || shell.plain().contains("22 77\n"));
}

/// Programs that have the whole screen.
fn programs(shell: &Terminal) {
    shell.write("top -d 2");
    wait_until("top draws", || shell.plain().contains("load average"));
    shell.write("q");
    shell.write("stty size; echo on''ly me");
    wait_until("it has left", || shell.plain().contains("only me\n"));
}

fn signals(shell: &Terminal) {
    for (signal, status) in [("INT", 130), ("HUP", 129), ("TERM", 143), ("KILL", 137)] {
        shell.write("sleep 1000");
        let sleeps = || shell.sh("pgrep -x sleep || echo none") != "none\n";
        wait_until("it runs", sleeps);
        shell.json(&["signal", "--signal", signal]);
        wait_until("it ends", || !sleeps());
        shell.write("echo status $?");
        let wanted = format!("status {status}\n");
        wait_until("the shell goes on", || shell.plain().contains(&wanted));
    }
}
