//! A few words to the console: the agent is silent unless something is wrong, since every line
//! costs a guest that boots in milliseconds dearly.

use std::error::Error;
use std::fmt::{Arguments, Write as _};
use std::io::Write as _;

use rustix::fs::{Mode, OFlags, open};

/// Reports something that goes wrong while the guest can go on.
pub(crate) fn warning(what: Arguments<'_>) {
    // `<4>` is a warning to the kernel's log, syslog(2).
    line(4, what);
}

/// Reports what ends the agent.
pub(crate) fn fatal(what: Arguments<'_>) {
    line(2, what);
}

/// An error and its causes, as one sentence.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

fn line(level: u8, what: Arguments<'_>) {
    if rustix::process::getpid().is_init() {
        let text = format!("<{level}>pyro-agent: {what}\n");
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
        if let Ok(kmsg) = open(c"/dev/kmsg", flags, Mode::empty()) {
            let _ = rustix::io::write(&kmsg, text.as_bytes());
            return;
        }
    }
    let _ = writeln!(std::io::stderr(), "pyro-agent: {what}");
}
