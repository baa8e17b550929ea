//! The terminal in raw mode, and back whatever happens.
//!
//! It is set back when the guard goes, and by a panic, which ends the process without unwinding. A signal
//! that ends us goes through the guard: whoever attaches takes the signals over. Only SIGKILL leaves it
//! raw; `reset` helps then.

use std::io::{self, Write};
use std::sync::{Mutex, Once, PoisonError};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// How the terminal was before.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);
static HOOK: Once = Once::new();

/// What a program in the shell may have asked of the terminal, taken back: alternate screen, mouse,
/// bracketed paste, application keys, colours, and the cursor shown.
const USUAL: &[u8] = b"\x1b[?1049l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?1l\x1b>\x1b[0m\x1b[?25h";

/// Standard input's terminal in raw mode.
#[derive(Debug)]
pub(super) struct Raw(());

impl Raw {
    /// Goes to raw mode.
    pub(super) fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        *slot() = Some(before.clone());
        HOOK.call_once(|| {
            let tell = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore();
                tell(info);
            }));
        });
        let mut raw = before;
        raw.make_raw();
        // From here on it is set back.
        let guard = Self(());
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(guard)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn slot() -> std::sync::MutexGuard<'static, Option<Termios>> {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets it back, once.
fn restore() {
    let Some(before) = slot().take() else {
        return;
    };
    let mut out = io::stdout().lock();
    let _ = out.write_all(USUAL).and_then(|()| out.flush());
    let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
}

/// Columns and rows of standard output's terminal, as far as a shell's may have them.
pub(super) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    let fits = |count: u16| (1..=1000).contains(&count);
    (fits(size.ws_col) && fits(size.ws_row)).then_some((size.ws_col, size.ws_row))
}
