//! `pyro workspace shell attach` on a terminal, against a daemon that a test plays.

#![allow(clippy::unwrap_used)] // nothing but tests

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::{Value, json};
use support::fake::Fake;
use support::{code, stderr};

const ATTACH: &[&str] = &["workspace", "shell", "attach", "w", "sh-aaaaaaaa"];

fn shell(closed: bool) -> Value {
    json!({
        "workspace_id": "ws-aaaaaaaaaaaa", "shell_id": "sh-aaaaaaaa", "cwd": "/workspace",
        "cols": 80, "rows": 24, "opened_at": "2026-01-01T00:00:00Z", "closed": closed,
        "exit_code": closed.then_some(3),
    })
}

fn output(bytes: &[u8]) -> Value {
    json!({"event": "output", "data": BASE64.encode(bytes)})
}

fn fake(more: Vec<Value>) -> Fake {
    let mut events = vec![json!({"event": "attached", "shell": shell(false)})];
    events.extend(more);
    let before = json!({
        "workspace_id": "ws-aaaaaaaaaaaa", "shell_id": "sh-aaaaaaaa", "output": "one\ntwo",
        "plain": true, "cursor": 7, "dropped_bytes": 0, "truncated": false, "closed": false,
        "exit_code": null,
    });
    let written = json!({
        "workspace_id": "ws-aaaaaaaaaaaa", "shell_id": "sh-aaaaaaaa", "bytes_written": 1,
    });
    let answers = vec![
        ("/output", before),
        ("/input", written),
        ("/resize", shell(false)),
    ];
    Fake::new(events, answers)
}

/// A terminal with `pyro` on it.
struct Terminal {
    ours: File,
    theirs: File,
    shown: Receiver<Vec<u8>>,
    seen: String,
    child: Child,
}

impl Terminal {
    fn attach(fake: &Fake) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let theirs: File = rustix::fs::open(name, flags, Mode::empty()).unwrap().into();
        let size = Winsize {
            ws_row: 33,
            ws_col: 99,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&theirs, size).unwrap();
        let end = || Stdio::from(theirs.try_clone().unwrap());
        let child = fake
            .host
            .command(ATTACH)
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let ours = File::from(ours);
        let mut reader = ours.try_clone().unwrap();
        let (sender, shown) = channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n) = reader.read(&mut bytes) {
                if n == 0 || sender.send(bytes[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            ours,
            theirs,
            shown,
            seen: String::new(),
            child,
        }
    }

    /// Waits until this was shown.
    fn until(&mut self, wanted: &str) {
        while !self.seen.contains(wanted) {
            let bytes = self.shown.recv().unwrap();
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.theirs).unwrap().local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// The status with which it ends.
    fn ends(&mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap()
    }
}

#[test]
fn keys_go_to_the_shell_its_output_comes_and_the_detach_key_leaves() {
    let fake = fake(vec![output(b"\x1b[31mhello")]);
    let mut terminal = Terminal::attach(&fake);

    terminal.until("\x1b[31mhello");

    assert!(terminal.seen.contains("one\r\ntwo"), "{}", terminal.seen);
    assert!(terminal.is_raw());
    // Once smaller, so that what runs there draws itself anew.
    assert_eq!(fake.expect("/resize"), json!({"cols": 99, "rows": 32}));
    assert_eq!(fake.expect("/resize"), json!({"cols": 99, "rows": 33}));
    terminal.ours.write_all(b"\x03").unwrap();
    let typed = fake.expect("/input");
    assert_eq!(typed["input"], BASE64.encode(b"\x03"));
    assert_eq!(
        (&typed["encoding"], &typed["newline"]),
        (&json!("base64"), &json!(false))
    );
    terminal.ours.write_all(b"\x1d").unwrap();
    assert_eq!(terminal.ends(), 0);
    assert!(!terminal.is_raw());
    terminal.until("detached");
    assert!(terminal.seen.contains("\x1b[?1049l"), "{}", terminal.seen);
}

#[test]
fn the_shells_end_is_ours() {
    let closed = json!({"event": "closed", "shell": shell(true)});
    let fake = fake(vec![output(b"bye"), closed]);
    let mut terminal = Terminal::attach(&fake);

    assert_eq!(terminal.ends(), 0);
    terminal.until("status 3");
    assert!(!terminal.is_raw());
}

#[test]
fn a_signal_and_a_failure_leave_the_terminal_as_it_was() {
    let fake_one = fake(vec![output(b"hello")]);
    let mut terminal = Terminal::attach(&fake_one);
    terminal.until("hello");
    assert!(terminal.is_raw());
    let pid = Pid::from_raw(i32::try_from(terminal.child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(terminal.ends(), 143);
    assert!(!terminal.is_raw());

    let error = json!({"code": "guest_ended", "message": "m", "remedy": "r", "detail": null});
    let failed = json!({"event": "failed", "error": error});
    let fake_two = fake(vec![failed]);
    let mut terminal = Terminal::attach(&fake_two);
    assert_eq!(terminal.ends(), 1);
    assert!(!terminal.is_raw());
}

#[test]
fn without_a_terminal_it_is_refused() {
    let fake = fake(Vec::new());

    let refused = fake.host.run(ATTACH);

    assert_eq!(code(&refused), 2);
    assert!(
        stderr(&refused).contains("needs a terminal"),
        "{}",
        stderr(&refused)
    );
}
