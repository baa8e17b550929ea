//! What a person would see of a terminal's output: the lines that changed, without control sequences.
//!
//! The emulator is `avt`, the one behind asciinema: it knows the alternate screen, scroll regions, wide
//! characters and line drawing, tells of every line that scrolls off, marks rows that wrap (a long line
//! is one line here), ignores what it does not know, keeps nothing of titles and clipboards, and its
//! memory is that of its two screens. Of the others that were looked at, `vt100` gives scrolled lines
//! only with their colours in escape sequences, `termwiz` and `alacritty_terminal` bring a window
//! system's worth of code.
//!
//! **The rule.** All that is kept of the output is printed on an empty terminal. Lines (scrolled off ones
//! included) that were not there, or were different, when the cursor's byte came are the answer; so are
//! empty lines between new ones. When a program holds the alternate screen (`less`, `top`), what
//! changed there follows. What was printed and overwritten or erased since is not there, as on a screen.
//!
//! Output is a guest's: it is bounded by what is kept of it, and so is the time that it is given here.
//! What takes longer than that is shown without its control sequences, and not rendered.

mod strip;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use avt::{Line, Observation, Observer, ScreenKind, Terminal};
use pyro_agent_protocol::{SECRET_MAX, TerminalSize};

use crate::redact::Redactor;

/// How long rendering may take. A megabyte of ordinary output takes a tenth of it.
const BUDGET: Duration = Duration::from_secs(2);
/// Bytes that are printed between two looks at the clock.
const STEP: usize = 1024;

/// A rendering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plain {
    /// Lines with newlines between them, and none at the end.
    pub(crate) text: String,
    /// Whether earlier lines were left out because of the bound.
    pub(crate) truncated: bool,
}

/// Renders `output` and gives what changed from its byte `cursor` on, at most the last `max_chars`
/// characters of it. The text passes `redactor` before it is cut, so that a cut leaves no end of a value
/// there. Takes up to some seconds of processor time: not for a thread of the runtime.
pub(crate) fn plain(
    size: TerminalSize,
    output: &[u8],
    cursor: usize,
    max_chars: usize,
    redactor: &Redactor,
) -> Plain {
    plain_within(size, output, cursor, max_chars, redactor, BUDGET)
}

fn plain_within(
    size: TerminalSize,
    output: &[u8],
    cursor: usize,
    max_chars: usize,
    redactor: &Redactor,
    budget: Duration,
) -> Plain {
    let cursor = cursor.min(output.len());
    let (text, cut) = render(size, output, cursor, max_chars, budget)
        .unwrap_or_else(|| (strip::strip(&output[cursor..]), false));
    // Control sequences within a value do not hide it here.
    last_of(redactor.text(&text), max_chars, cut)
}

/// What is shown, and whether earlier lines were left out. `None` when it takes too long.
fn render(
    size: TerminalSize,
    output: &[u8],
    cursor: usize,
    max_chars: usize,
    budget: Duration,
) -> Option<(String, bool)> {
    let began = Instant::now();
    let mut terminal = Terminal::new(size.cols().into(), size.rows().into()).ok()?;
    let mut scrolled = Scrolled::default();
    let print = |terminal: &mut Terminal, scrolled: &mut Scrolled, bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let mut rest = &text[..];
        while !rest.is_empty() {
            if began.elapsed() > budget {
                return None;
            }
            let now;
            (now, rest) = rest.split_at(rest.floor_char_boundary(STEP));
            terminal.feed_with(now, &mut *scrolled);
        }
        Some(())
    };
    // A character that the cursor goes through was not complete before.
    let mut cursor = cursor;
    while cursor > 0 && output.get(cursor).is_some_and(|byte| byte & 0xc0 == 0x80) {
        cursor -= 1;
    }
    print(&mut terminal, &mut scrolled, &output[..cursor])?;
    let before = Screens::of(&terminal);
    scrolled.begin(max_chars);
    print(&mut terminal, &mut scrolled, &output[cursor..])?;
    let after = Screens::of(&terminal);
    let cut = scrolled.dropped > 0;
    let first = scrolled.dropped;
    let rows = scrolled.rows.into_iter().chain(after.primary);
    let mut lines = changed(rows, first, &before.primary, before.cursor);
    if let Some(alternate) = after.alternate {
        let was = before.alternate.unwrap_or_default();
        lines.extend(changed(alternate.into_iter(), 0, &was, 0));
    }
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    Some((lines.join("\n"), cut))
}

/// The last so many characters, from the beginning of a line where there is one.
fn last_of(text: String, max_chars: usize, truncated: bool) -> Plain {
    let Some((start, _)) = max_chars
        .checked_sub(1)
        .and_then(|last| text.char_indices().nth_back(last))
        .filter(|(start, _)| *start > 0)
    else {
        let text = if max_chars == 0 { String::new() } else { text };
        return Plain { text, truncated };
    };
    let whole = text.as_bytes()[start - 1] == b'\n';
    let start = match text[start..].find('\n') {
        Some(end) if !whole => start + end + 1,
        _ => start,
    };
    Plain {
        text: text[start..].to_string(),
        truncated: true,
    }
}

/// A row of the terminal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Row {
    text: String,
    /// The next row goes on with the same line.
    wrapped: bool,
}

impl Row {
    fn of(line: &Line) -> Self {
        let wrapped = line.is_wrapped();
        let mut text = line.text();
        if !wrapped {
            text.truncate(text.trim_end().len());
        }
        Self { text, wrapped }
    }
}

/// What the terminal shows.
#[derive(Debug)]
struct Screens {
    primary: Vec<Row>,
    /// Row of the cursor on the primary screen, as far as it is known.
    cursor: usize,
    alternate: Option<Vec<Row>>,
}

impl Screens {
    fn of(terminal: &Terminal) -> Self {
        let rows = |screen: avt::Screen<'_>| screen.visible_lines().map(Row::of).collect();
        let alternate = terminal.active_screen_kind() == ScreenKind::Alternate;
        Self {
            primary: rows(terminal.primary_screen()),
            cursor: if alternate { 0 } else { terminal.cursor().row },
            alternate: alternate.then(|| rows(terminal.screen())),
        }
    }
}

/// Lines that scrolled off the primary screen since it was told to begin.
#[derive(Debug, Default)]
struct Scrolled {
    rows: VecDeque<Row>,
    bytes: usize,
    dropped: usize,
    /// Most bytes that are kept; `None` before the beginning.
    most: Option<usize>,
}

impl Scrolled {
    fn begin(&mut self, max_chars: usize) {
        // Every character is at most four bytes long; a line's end counts as one. And a value that the
        // bound goes through is kept as a whole.
        let whole = usize::try_from(SECRET_MAX).unwrap_or(usize::MAX);
        self.most = Some(max_chars.saturating_mul(4).saturating_add(whole));
    }
}

impl Observer for Scrolled {
    type Output = ();

    fn evicted(&mut self, _: &mut Observation<'_>, line: &Line) {
        let Some(most) = self.most else {
            return;
        };
        let row = Row::of(line);
        self.bytes += row.text.len() + 1;
        self.rows.push_back(row);
        while self.bytes > most {
            let Some(row) = self.rows.pop_front() else {
                break;
            };
            self.bytes -= row.text.len() + 1;
            self.dropped += 1;
        }
    }

    fn end(&mut self, _: &mut Observation<'_>) {}
}

/// The lines of `rows`, the first of which has the number `first`, that differ from `before`, and empty
/// ones between them from the row of the cursor on.
fn changed(
    rows: impl Iterator<Item = Row>,
    first: usize,
    before: &[Row],
    cursor: usize,
) -> Vec<String> {
    let mut out = Vec::new();
    let mut blank = 0;
    let mut line = String::new();
    let mut differs = false;
    for (number, row) in (first..).zip(rows) {
        differs |= match before.get(number) {
            Some(was) => *was != row,
            None => true,
        };
        line.push_str(&row.text);
        if row.wrapped {
            continue;
        }
        let text = std::mem::take(&mut line);
        let text = text.trim_end();
        if std::mem::take(&mut differs) {
            out.extend(std::iter::repeat_n(
                String::new(),
                std::mem::take(&mut blank),
            ));
            out.push(text.to_string());
        } else if text.is_empty() && number > cursor && !out.is_empty() {
            blank += 1;
        } else {
            blank = 0;
        }
    }
    if differs {
        out.push(line.trim_end().to_string());
    }
    out
}
