//! Reading what a shell wrote.

use std::time::Duration;

use pyro_agent_protocol::{ExitStatus, JobId, TerminalSize};
use pyro_client::types::{MAX_IDLE_WAIT_MS, MAX_READ_CHARS, ReadShell, ShellOutput};
use tokio::time::Instant;

use super::failed;
use crate::agent::AgentError;
use crate::engine::jobs::{self, Attached, Next};
use crate::engine::{Engine, blocking};
use crate::error::{Code, Error, Result};
use crate::machine::guest::Guest;
use crate::redact::{MARK, Redacted, Redactor};
use crate::terminal;

/// Longest quiet that is waited for.
const MAX_IDLE: Duration = Duration::from_secs(10);
/// Most bytes of a read that are held: what the agent keeps, and what comes meanwhile.
const MAX_HELD: usize = 4 << 20;

impl Engine {
    /// What a shell wrote since a cursor.
    ///
    /// # Errors
    /// [`Code::ShellNotFound`], [`Code::InvalidRequest`].
    pub async fn shell_read(
        &self,
        workspace: &str,
        shell: &str,
        request: ReadShell,
    ) -> Result<ShellOutput> {
        let idle = Duration::from_millis(request.wait_for_idle_ms);
        if idle > MAX_IDLE || !(1..=MAX_READ_CHARS).contains(&request.max_chars) {
            return Err(Error::new(
                Code::InvalidRequest,
                "a read of a shell has a bound that is not possible",
                "pass 1 to 4194304 characters, and at most 10000 ms to wait for",
            ));
        }
        let slot = self.find(workspace)?;
        let sheet = slot.living.shells.find(&slot, shell)?;
        let guest = slot.guest()?;
        let kept = match gather(&guest, &sheet.job, idle).await {
            Ok(kept) => kept,
            Err(error) => return Err(failed(&slot, &guest, shell, error).await),
        };
        slot.living.shells.refresh(&kept.info);
        let redactor = slot.living.redactor();
        let id = (slot.id().to_string(), shell.to_string());
        // Rendering takes a while.
        blocking(move || {
            let size = kept
                .info
                .terminal
                .or(TerminalSize::new(sheet.shell.cols, sheet.shell.rows));
            let read = kept.read(&redactor, &request, size);
            Ok(ShellOutput {
                workspace_id: id.0,
                shell_id: id.1,
                output: read.output,
                plain: request.plain,
                cursor: read.cursor,
                dropped_bytes: read.dropped,
                truncated: read.truncated,
                closed: kept.ended.is_some(),
                exit_code: kept.ended.map(|status| jobs::exit(status).0),
            })
        })
        .await
    }
}

/// What is kept of a shell's output.
struct Kept {
    info: pyro_agent_protocol::JobInfo,
    /// Where `bytes` start.
    start: u64,
    bytes: Vec<u8>,
    ended: Option<ExitStatus>,
}

/// What a read gives.
struct Read {
    output: String,
    cursor: u64,
    dropped: u64,
    truncated: bool,
}

/// Takes all that is kept, and waits until it has been quiet for so long.
async fn gather(
    guest: &Guest,
    job: &JobId,
    idle: Duration,
) -> std::result::Result<Kept, AgentError> {
    let waits = !idle.is_zero();
    let mut attached = Attached::to(guest, job, 0, waits).await?;
    let mut kept = Kept {
        info: attached.info.clone(),
        start: 0,
        bytes: Vec::new(),
        ended: None,
    };
    let there = kept.info.stdout.written;
    let mut quiet = Instant::now() + idle;
    let most = Instant::now() + Duration::from_millis(MAX_IDLE_WAIT_MS);
    loop {
        let caught_up = kept.end() >= there;
        // One that never lets us wait is not read for ever.
        if Instant::now() > most + jobs::ANSWER {
            return match caught_up {
                true => Ok(kept),
                false => Err(AgentError::Lost(std::io::ErrorKind::TimedOut.into())),
            };
        }
        let until = match (waits, caught_up) {
            (true, true) => quiet.min(most),
            // What is there comes at once.
            _ => Instant::now() + jobs::ANSWER,
        };
        let next = match tokio::time::timeout_at(until, attached.next()).await {
            Ok(next) => next?,
            Err(_) if waits && caught_up => return Ok(kept),
            Err(_) => return Err(AgentError::Lost(std::io::ErrorKind::TimedOut.into())),
        };
        match next {
            Next::Output(bytes) => {
                kept.take(&bytes);
                quiet = Instant::now() + idle;
            }
            Next::Gap(missing) => kept.skip(missing),
            Next::Running => return Ok(kept),
            Next::Exited(status) => {
                kept.ended = Some(status);
                return Ok(kept);
            }
        }
    }
}

impl Kept {
    /// Where `bytes` end. A guest may say anything of what is missing before them.
    fn end(&self) -> u64 {
        self.at(self.bytes.len())
    }

    /// Where one of `bytes` is in the whole output.
    fn at(&self, index: usize) -> u64 {
        self.start.saturating_add(index as u64)
    }

    fn take(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        let excess = self.bytes.len().saturating_sub(MAX_HELD);
        self.bytes.drain(..excess);
        self.start = self.at(excess);
    }

    fn skip(&mut self, missing: u64) {
        self.start = self.end().saturating_add(missing);
        self.bytes.clear();
    }

    fn read(&self, redactor: &Redactor, request: &ReadShell, size: Option<TerminalSize>) -> Read {
        let redacted = redactor.find(&self.bytes, self.start > 0, self.ended.is_some());
        let dropped = self.start.saturating_sub(request.cursor);
        let from = usize::try_from(request.cursor.saturating_sub(self.start))
            .unwrap_or(usize::MAX)
            .min(redacted.certain);
        let most = usize::try_from(request.max_chars).unwrap_or(usize::MAX);
        match (request.plain, size) {
            (true, Some(size)) => self.plain(redactor, &redacted, from, most, size, dropped),
            _ => self.raw(&redacted, from, most, dropped),
        }
    }

    fn plain(
        &self,
        redactor: &Redactor,
        redacted: &Redacted,
        from: usize,
        most: usize,
        size: TerminalSize,
        dropped: u64,
    ) -> Read {
        let mut output = redacted.bytes(&self.bytes, 0..from);
        let cursor = output.len();
        output.extend(redacted.bytes(&self.bytes, from..redacted.certain));
        let plain = terminal::plain(size, &output, cursor, most, redactor);
        Read {
            output: plain.text,
            cursor: self.at(redacted.certain),
            dropped,
            truncated: plain.truncated,
        }
    }

    fn raw(&self, redacted: &Redacted, from: usize, most: usize, dropped: u64) -> Read {
        let mut read = Read {
            output: String::new(),
            cursor: 0,
            dropped,
            truncated: false,
        };
        let mut at = from;
        let mut chars = 0;
        let mark = MARK.chars().count();
        'all: while at < redacted.certain {
            if let Some(range) = redacted.covers(at) {
                if chars > 0 && chars + mark > most {
                    read.truncated = true;
                    break;
                }
                read.output.push_str(MARK);
                chars += mark;
                at = range.end;
                continue;
            }
            let end = redacted.next(at).min(redacted.certain);
            for chunk in self.bytes[at..end].utf8_chunks() {
                for char in chunk.valid().chars() {
                    if chars >= most {
                        read.truncated = true;
                        break 'all;
                    }
                    read.output.push(char);
                    chars += 1;
                    at += char.len_utf8();
                }
                let invalid = chunk.invalid();
                let torn = at + invalid.len() == redacted.certain
                    && std::str::from_utf8(invalid).is_err_and(|e| e.error_len().is_none());
                if invalid.is_empty() {
                    continue;
                }
                if torn && self.ended.is_none() {
                    // The rest of the character is yet to come.
                    break 'all;
                }
                if chars >= most {
                    read.truncated = true;
                    break 'all;
                }
                read.output.push('\u{fffd}');
                chars += 1;
                at += invalid.len();
            }
        }
        read.cursor = self.at(at);
        read
    }
}

#[cfg(test)]
mod tests {
    use pyro_agent_protocol::{Captured, JobInfo, JobState};

    use super::*;

    fn kept(bytes: &[u8], start: u64, ended: bool) -> Kept {
        Kept {
            info: JobInfo {
                job: "sh-a".parse().expect("a name"),
                pid: 1,
                state: JobState::Running,
                cancelled: false,
                stdout: Captured::default(),
                stderr: Captured::default(),
                terminal: None,
            },
            start,
            bytes: bytes.to_vec(),
            ended: ended.then_some(ExitStatus::Code { code: 0 }),
        }
    }

    fn read(kept: &Kept, redactor: &Redactor, cursor: u64, max_chars: u64, plain: bool) -> Read {
        let request = ReadShell {
            cursor,
            max_chars,
            plain,
            wait_for_idle_ms: 0,
        };
        kept.read(redactor, &request, TerminalSize::new(80, 24))
    }

    fn secret() -> Redactor {
        Redactor::new([&b"s3cr3t"[..]])
    }

    #[test]
    fn reads_of_any_size_together_are_the_whole() {
        let text = "aé日s3cr3t🦀 s3cr3ts3cr3t \u{1b}[31mz";
        let kept = kept(text.as_bytes(), 1000, true);
        for max_chars in 1..40 {
            let mut whole = String::new();
            let mut cursor = 1000;
            loop {
                let read = read(&kept, &secret(), cursor, max_chars, false);
                whole.push_str(&read.output);
                assert!(read.cursor > cursor || !read.truncated);
                cursor = read.cursor;
                if !read.truncated {
                    break;
                }
            }
            assert_eq!(whole, text.replace("s3cr3t", MARK), "{max_chars}");
            assert_eq!(cursor, 1000 + text.len() as u64);
        }
    }

    #[test]
    fn a_secret_that_comes_between_two_reads_is_in_neither() {
        let text = b"$ echo s3cr3t\r\ns3cr3t\r\n$ ";
        for plain in [false, true] {
            for cut in 0..=text.len() {
                let first = kept(&text[..cut], 0, false);
                let one = read(&first, &secret(), 0, 1000, plain);
                let second = kept(text, 0, false);
                let two = read(&second, &secret(), one.cursor, 1000, plain);
                let both = format!("{}|{}", one.output, two.output);
                assert!(!both.contains("s3c"), "{cut} {plain}: {both}");
                if !plain {
                    let all = [one.output, two.output].concat();
                    assert_eq!(all, "$ echo [REDACTED]\r\n[REDACTED]\r\n$ ", "{cut}");
                }
            }
        }
    }

    #[test]
    fn a_secret_in_colours_is_not_in_the_rendering() {
        let kept = kept(b"\x1b[31ms3c\x1b[0mr3t end\r\n", 0, false);
        let shown = read(&kept, &secret(), 0, 1000, true);
        assert_eq!(shown.output, "[REDACTED] end");
    }

    #[test]
    fn a_bound_that_goes_through_a_secret_in_colours_leaves_no_end_of_it() {
        let coloured = kept(b"\x1b[31ms3c\x1b[0mr3t end\r\n", 0, false);
        for max_chars in 1..20 {
            let shown = read(&coloured, &secret(), 0, max_chars, true);
            let whole = "[REDACTED] end";
            assert!(
                whole.ends_with(&shown.output),
                "{max_chars}: {}",
                shown.output
            );
        }
        // Its first row has scrolled off, and most of what follows is beyond the bound.
        let mut bytes = format!("{}s3\x1b[0mc", " ".repeat(77)).into_bytes();
        bytes.extend_from_slice(b"r3t");
        bytes.extend(b"\r\n".repeat(30));
        let wrapped = kept(&bytes, 0, false);
        for max_chars in 1..20 {
            let shown = read(&wrapped, &secret(), 0, max_chars, true);
            assert!(
                !shown.output.contains("r3t"),
                "{max_chars}: {}",
                shown.output
            );
        }
    }

    #[test]
    fn what_was_dropped_is_said_and_the_end_of_a_secret_there_is_not_shown() {
        let kept = kept(b"cr3t rest", 500, false);
        let shown = read(&kept, &secret(), 100, 1000, false);
        assert_eq!((shown.dropped, shown.cursor), (400, 509));
        assert_eq!(shown.output, "[REDACTED] rest");
        let shown = read(&kept, &secret(), 10_000, 1000, false);
        assert_eq!(
            (shown.dropped, shown.cursor, shown.output.as_str()),
            (0, 509, "")
        );
    }

    #[test]
    fn whatever_a_guest_says_is_missing_a_read_ends() {
        let mut kept = kept(b"before", u64::MAX - 3, false);
        kept.skip(u64::MAX);
        kept.take(b"after");
        kept.skip(7);
        kept.take(b"s3cr3t on");
        for cursor in [0, u64::MAX] {
            for plain in [false, true] {
                let shown = read(&kept, &secret(), cursor, 1000, plain);
                assert_eq!(shown.cursor, u64::MAX);
                assert_eq!(
                    (shown.output.as_str(), shown.dropped),
                    ("[REDACTED] on", u64::MAX - cursor)
                );
            }
        }
    }

    #[test]
    fn what_may_begin_a_secret_or_a_character_waits_for_its_end() {
        let open = kept(b"ok s3cr", 0, false);
        let shown = read(&open, &secret(), 0, 1000, false);
        assert_eq!((shown.output.as_str(), shown.cursor), ("ok ", 3));
        let open = kept(b"ok \xe6\x97", 0, false);
        let shown = read(&open, &secret(), 0, 1000, false);
        assert_eq!((shown.output.as_str(), shown.cursor), ("ok ", 3));
        let over = kept(b"ok \xe6\x97", 0, true);
        let shown = read(&over, &secret(), 0, 1000, false);
        assert_eq!((shown.output.as_str(), shown.cursor), ("ok \u{fffd}", 5));
        let over = kept(b"ok s3cr", 0, true);
        assert_eq!(read(&over, &secret(), 0, 1000, false).output, "ok s3cr");
    }

    #[test]
    fn every_cursor_works() {
        let text = "aé s3cr3t 日\u{1b}[0m".as_bytes();
        let kept = kept(text, 0, false);
        for cursor in 0..text.len() as u64 + 5 {
            for plain in [false, true] {
                let shown = read(&kept, &secret(), cursor, 1000, plain);
                assert_eq!(shown.cursor, text.len() as u64, "{cursor} {plain}");
                assert!(!shown.output.contains("s3cr3t"));
            }
        }
    }
}
