//! This process's signals, passed on to the command in the host.
//!
//! The command decides what they mean, as if it ran here. But a person who wants to end it can:
//! asked once, it has half a minute; asked again, or when that is over, everything of it is killed; and
//! when even that brings no answer, this process ends without one, which kills the command too as
//! soon as its host notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;

use super::terminal;
use crate::flow::Outbox;
use crate::wire::Control;

/// How long a command may go on after it was asked to end.
const GRACE: Duration = Duration::from_secs(30);
/// How long a host may take to tell the end of a command that it was told to kill.
const LAST: Duration = Duration::from_secs(10);

/// Starts passing signals on. Until `started` is set there is no command, and a signal does here
/// what it does by default.
///
/// # Errors
/// When a handler or a thread cannot be had.
pub fn forward(outbox: &Outbox, terminal: bool, started: &Arc<AtomicBool>) -> Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH])?;
    // Sending may block for as long as the host does not read: it has a thread of its own.
    let (to_send, sending) = mpsc::channel();
    let outbox = outbox.clone();
    thread::Builder::new().spawn(move || {
        for control in sending {
            if outbox.message::<Control>(&control).is_err() {
                return; // the reading thread sees it too
            }
        }
    })?;
    let started = Arc::clone(started);
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let mut asked = 0;
            for signal in signals.forever() {
                if signal == SIGWINCH {
                    if terminal && let Some(size) = terminal::size() {
                        let _ = to_send.send(Control::Resize(size));
                    }
                    continue;
                }
                if !started.load(Ordering::Relaxed) {
                    end(signal);
                }
                if !matches!(signal, SIGINT | SIGTERM | SIGHUP | SIGQUIT) {
                    let _ = to_send.send(Control::Signal(signal));
                    continue;
                }
                asked += 1;
                match asked {
                    1 => {
                        let _ = to_send.send(Control::Signal(signal));
                        kill_after(GRACE, signal, &to_send);
                    }
                    2 => kill_after(Duration::ZERO, signal, &to_send),
                    _ => end(signal),
                }
            }
        })?;
    Ok(())
}

/// Kills the command after a while, and ends without an answer when none comes.
fn kill_after(delay: Duration, signal: i32, to_send: &Sender<Control>) {
    let to_send = to_send.clone();
    let spawned = thread::Builder::new().spawn(move || {
        thread::sleep(delay);
        let _ = to_send.send(Control::Kill);
        thread::sleep(LAST);
        end(signal);
    });
    if spawned.is_err() {
        end(signal);
    }
}

/// What the signal does to a process that does not handle it.
fn end(signal: i32) {
    let _ = signal_hook::low_level::emulate_default_handler(signal);
}
