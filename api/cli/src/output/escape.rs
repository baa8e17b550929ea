//! Text that somebody else wrote, made harmless for a terminal.
//!
//! A guest chooses its file names, its output and its errors; a program may have chosen a label. None
//! of that may move the cursor, recolour, retitle, reorder or hide what we print. What a program
//! reads (`--json`, a pipe, a command's own output) is not changed.

use std::borrow::Cow;
use std::fmt::Write;

/// The text in one line: every character that is not plainly visible is shown by its number.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |c| !hides(c))
}

/// The text with its lines and tabs: everything else as in [`line`].
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    escaped(text, |c| matches!(c, '\n' | '\t') || !hides(c))
}

/// Bytes as text, as in [`text`]; what is not UTF-8 is shown byte by byte.
pub(crate) fn bytes(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        shown.push_str(&text(chunk.valid()));
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

/// Program and arguments as one would type them in a shell, in one line.
pub(crate) fn command<S: AsRef<str>>(words: &[S]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| quoted(word.as_ref())).collect();
    quoted.join(" ")
}

/// One word as one would type it in a shell, in one line.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_string();
    }
    format!("'{}'", line(&word.replace('\'', r"'\''")))
}

fn escaped(text: &str, passes: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.chars().all(&passes) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            c if passes(c) => shown.push(c),
            '\n' => shown.push_str("\\n"),
            '\t' => shown.push_str("\\t"),
            '\r' => shown.push_str("\\r"),
            // Writing to a string does not fail.
            c if c.is_ascii() => {
                let _ = write!(shown, "\\x{:02x}", u32::from(c));
            }
            c => {
                let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
            }
        }
    }
    Cow::Owned(shown)
}

/// Whether a character does something else than show itself: controls, line and paragraph
/// separators, directional marks and overrides, invisible characters, tags, private use.
fn hides(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{e000}'..='\u{f8ff}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{e0000}'..='\u{10ffff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_could_confuse_is_shown_by_its_number() {
        assert_eq!(line("\x1b[2Jgone\r\n\t"), r"\x1b[2Jgone\r\n\t");
        assert_eq!(line("a\u{9b}31m\u{7f}"), r"a\u{9b}31m\x7f");
        assert_eq!(
            line("txt\u{202e}gpj.exe\u{2066}"),
            r"txt\u{202e}gpj.exe\u{2066}"
        );
        assert_eq!(
            line("a\u{200b}\u{2028}b\u{e0041}"),
            r"a\u{200b}\u{2028}b\u{e0041}"
        );
        assert_eq!(text("a\n\tb\r\x08"), "a\n\tb\\r\\x08");
        assert_eq!(bytes(b"a\xffb\n\x00"), "a\\xffb\n\\x00");
    }

    #[test]
    fn what_shows_itself_stays() {
        for text in ["plain", "größe", "ディレクトリ", "עברית", "🦀 ok", r"a\b"] {
            assert!(matches!(line(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn commands_can_be_typed_again() {
        assert_eq!(command(&["ls", "-la", "/a=b"]), "ls -la /a=b");
        assert_eq!(
            command(&["sh", "-c", "echo 'a b'"]),
            r"sh -c 'echo '\''a b'\'''"
        );
        assert_eq!(command(&["", "a\nb"]), r"'' 'a\nb'");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn nothing_that_hides_gets_through(input in any::<Vec<char>>()) {
            let input: String = input.into_iter().collect();
            prop_assert!(!line(&input).chars().any(hides));
            prop_assert!(!quoted(&input).chars().any(hides));
            let lines = text(&input).into_owned();
            prop_assert!(!lines.chars().any(|c| hides(c) && c != '\n' && c != '\t'));
        }
    }
}
