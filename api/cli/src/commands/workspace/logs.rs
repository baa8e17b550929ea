//! `pyro workspace logs`: the journal as one would have seen it.

use jiff::Timestamp;
use pyro_client::types::{ExecRecord, ExecState, WorkspaceLogs};

use super::show;
use crate::args::Of;
use crate::daemon;
use crate::output::{Colour, Failure, Paint, escape, hint, human, note};

pub(super) async fn logs(of: &Of) -> Result<(), Failure> {
    let logs = daemon::client().await?.logs(&of.workspace).await?;
    show(of.json.json, &logs, |logs| {
        words(logs, Timestamp::now(), Paint::stdout())
    })?;
    if !of.json.json && logs.entries.is_empty() {
        note("pyro: no command has run");
        hint(&format!(
            "pyro workspace exec {} -- ls -la",
            logs.workspace_id
        ));
    }
    Ok(())
}

fn words(logs: &WorkspaceLogs, now: Timestamp, paint: Paint) -> String {
    let mut text = String::new();
    let dropped = logs.count.saturating_sub(logs.entries.len() as u64);
    if dropped > 0 {
        let older = human::count(dropped, "older command");
        text.push_str(&paint.dim(&format!("({older} not kept any more)")));
        text.push_str("\n\n");
    }
    for (index, entry) in logs.entries.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        text.push_str(&heading(entry, now, paint));
        push_stream(
            &mut text,
            paint,
            "  ",
            &entry.stdout,
            entry.stdout_truncated.then_some(entry.stdout_bytes),
        );
        push_stream(
            &mut text,
            paint,
            &paint.colour(Colour::Red, "! "),
            &entry.stderr,
            entry.stderr_truncated.then_some(entry.stderr_bytes),
        );
        if let Some(error) = &entry.error {
            let error = escape::line(&error.message);
            text.push_str(&format!("  {}\n", paint.colour(Colour::Red, &error)));
        }
    }
    text
}

fn heading(entry: &ExecRecord, now: Timestamp, paint: Paint) -> String {
    let number = paint.bold(Colour::Blue, &format!("#{}", entry.sequence));
    let command = paint.strong(&escape::command(&entry.command));
    let (end, colour) = end(entry);
    let mut about = String::new();
    if let Some(millis) = entry.duration_ms {
        about.push_str(&format!(", {}", human::millis(millis)));
    }
    about.push_str(&format!(", {}", human::ago(entry.started_at, now)));
    if entry.cwd != pyro_client::types::WORKSPACE_ROOT {
        about.push_str(&format!(", in {}", escape::quoted(&entry.cwd)));
    }
    format!(
        "{number} {command}  [{}{}]\n",
        paint.colour(colour, &end),
        paint.dim(&about)
    )
}

/// How a command ended, in a few words.
fn end(entry: &ExecRecord) -> (String, Colour) {
    let code = entry
        .exit_code
        .map_or("?".to_string(), |code| code.to_string());
    match entry.state {
        ExecState::Running => ("running".into(), Colour::Yellow),
        ExecState::Exited if entry.exit_code == Some(0) => ("exit 0".into(), Colour::Green),
        ExecState::Exited => (format!("exit {code}"), Colour::Red),
        ExecState::Signalled => {
            let signal = entry
                .signal
                .map_or("?".to_string(), |signal| signal.to_string());
            (format!("signal {signal}"), Colour::Red)
        }
        ExecState::TimedOut => ("timed out".into(), Colour::Red),
        ExecState::Cancelled => ("cancelled".into(), Colour::Yellow),
        ExecState::NotStarted => (format!("not started, exit {code}"), Colour::Red),
        ExecState::Lost => ("lost".into(), Colour::Red),
    }
}

/// Adds a stream's lines, each after `before`. `total` is given when some of it is missing.
fn push_stream(text: &mut String, paint: Paint, before: &str, stream: &str, total: Option<u64>) {
    for line in stream.lines() {
        text.push_str(before);
        text.push_str(&escape::text(line));
        text.push('\n');
    }
    if let Some(total) = total {
        let line = format!("  (cut in the middle: it was {})", human::bytes(total));
        text.push_str(&paint.dim(&line));
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(sequence: u64) -> ExecRecord {
        ExecRecord {
            sequence,
            workspace_id: "ws-aaaaaaaaaaaa".into(),
            command: vec!["sh".into(), "-c".into(), "echo a b".into()],
            cwd: "/workspace".into(),
            state: ExecState::Exited,
            exit_code: Some(0),
            signal: None,
            stdout: "a b\n".into(),
            stderr: String::new(),
            stdout_bytes: 4,
            stderr_bytes: 0,
            stdout_truncated: false,
            stderr_truncated: false,
            started_at: Timestamp::UNIX_EPOCH,
            duration_ms: Some(12.0),
            error: None,
        }
    }

    #[test]
    fn a_journal_reads_like_a_terminal() {
        let failed = ExecRecord {
            exit_code: Some(7),
            stdout_truncated: true,
            stdout_bytes: 3 << 20,
            stderr: "bad\n".into(),
            cwd: "/tmp".into(),
            ..record(4)
        };
        let logs = WorkspaceLogs {
            workspace_id: "ws-aaaaaaaaaaaa".into(),
            count: 4,
            entries: vec![record(3), failed],
        };
        let now = Timestamp::from_second(120).unwrap();
        assert_eq!(
            words(&logs, now, Paint::fixed(false)),
            "(2 older commands not kept any more)\n\n\
             #3 sh -c 'echo a b'  [exit 0, 12 ms, 2 min ago]\n  a b\n\n\
             #4 sh -c 'echo a b'  [exit 7, 12 ms, 2 min ago, in /tmp]\n  a b\n\
             \x20 (cut in the middle: it was 3.0 MiB)\n! bad\n"
        );
    }

    #[test]
    fn output_cannot_move_the_cursor() {
        let logs = WorkspaceLogs {
            workspace_id: "ws-aaaaaaaaaaaa".into(),
            count: 1,
            entries: vec![ExecRecord {
                command: vec!["a\x1b[1A".into()],
                stdout: "\x1b]0;x\x07one\rtwo\u{202e}".into(),
                stderr: "\u{9b}1A".into(),
                ..record(1)
            }],
        };
        let text = words(&logs, Timestamp::UNIX_EPOCH, Paint::fixed(false));
        assert!(text.contains("\\x1b]0;x\\x07one\\rtwo\\u{202e}"), "{text}");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text}");
    }
}
