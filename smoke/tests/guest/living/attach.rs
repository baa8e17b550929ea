//! `shell attach` on a terminal: keys, the detach key, and the terminal as it was.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::shells::Terminal;
use crate::daemon::Daemon;
use crate::pyro::{PATIENCE, kill};

/// The detach key: Ctrl-].
const DETACH: &[u8] = b"\x1d";

pub(super) fn test(daemon: &Daemon, id: &str) {
    let shell = Terminal::open(daemon, id);
    shell.write("echo bef''ore");

    let mut attached = Attached::new(daemon, id, &shell.shell);
    attached.until("before");
    attached.keys(b"stty size; echo a''ttached\r");
    attached.until("33 99\r\nattached");
    assert!(attached.is_raw());
    // Ctrl-C is the shell's.
    attached.keys(b"echo begu''n; sleep 1000\r");
    attached.until("begun\r\n");
    attached.keys(b"\x03");
    attached.keys(b"echo onc''e more\r");
    attached.until("once more");
    attached.keys(DETACH);
    assert_eq!(attached.ends(), Some(0));
    assert!(!attached.is_raw());

    let mut attached = Attached::new(daemon, id, &shell.shell);
    attached.until("once more");
    kill("TERM", attached.child.id());
    assert_eq!(attached.ends(), Some(143));
    assert!(!attached.is_raw());

    assert_eq!(shell.json(&["read"])["closed"], false);
    let mut attached = Attached::new(daemon, id, &shell.shell);
    attached.until("once more");
    attached.keys(b"exit 5\r");
    assert_eq!(attached.ends(), Some(0));
    attached.until("status 5");
    assert!(!attached.is_raw());
    assert_eq!(shell.json(&["close"])["closed"], true);
}

/// A terminal with `pyro` on it.
struct Attached {
    ours: File,
    theirs: File,
    shown: Receiver<Vec<u8>>,
    seen: String,
    child: Child,
}

impl Attached {
    fn new(daemon: &Daemon, id: &str, shell: &str) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags).expect("a terminal");
        grantpt(&ours).expect("ours");
        unlockpt(&ours).expect("ours");
        let name = ptsname(&ours, Vec::new()).expect("a name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let theirs = rustix::fs::open(name, flags, Mode::empty()).expect("the other end");
        let size = Winsize {
            ws_row: 33,
            ws_col: 99,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&theirs, size).expect("a size");
        let theirs = File::from(theirs);
        let end = || Stdio::from(theirs.try_clone().expect("a descriptor"));
        let child = daemon
            .command(&["shell", "attach", id, shell])
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("pyro starts");
        let ours = File::from(ours);
        let mut reader = ours.try_clone().expect("a descriptor");
        let (sender, shown) = channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length) = reader.read(&mut bytes) {
                if length == 0 || sender.send(bytes[..length].to_vec()).is_err() {
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

    fn keys(&mut self, keys: &[u8]) {
        self.ours.write_all(keys).expect("typed");
    }

    /// Waits until this was shown.
    fn until(&mut self, wanted: &str) {
        while !self.seen.contains(wanted) {
            let bytes = self.shown.recv_timeout(PATIENCE);
            let bytes = bytes.unwrap_or_else(|_| panic!("no {wanted:?} in {:?}", self.seen));
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.theirs).expect("a terminal").local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// The status with which it ends.
    fn ends(&mut self) -> Option<i32> {
        self.child.wait().expect("ours").code()
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
