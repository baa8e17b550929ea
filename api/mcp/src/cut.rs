//! Cutting text to a size, between characters.
//!
//! Sizes are those that the text has inside a JSON string, where a control character takes six bytes:
//! that is what a host counts.

/// Bytes of a character inside a JSON string.
fn cost(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        other => other.len_utf8(),
    }
}

/// The longest beginning that fits.
pub(crate) fn front(text: &str, most: usize) -> &str {
    let mut size = 0;
    for (at, character) in text.char_indices() {
        size += cost(character);
        if size > most {
            return &text[..at];
        }
    }
    text
}

/// The longest end that fits.
pub(crate) fn back(text: &str, most: usize) -> &str {
    let mut size = 0;
    for (at, character) in text.char_indices().rev() {
        size += cost(character);
        if size > most {
            return &text[at + character.len_utf8()..];
        }
    }
    text
}

/// The longest beginning of whole lines that fits, or of a line when even the first is too long.
pub(crate) fn lines(text: &str, most: usize) -> &str {
    let front = front(text, most);
    if front.len() == text.len() {
        return text;
    }
    match front.rfind('\n') {
        Some(end) => &front[..=end],
        None => front,
    }
}

/// What is left when the middle is taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Middle {
    /// The text, with a line in the place of what was taken out.
    pub(crate) text: String,
    /// Where that was.
    pub(crate) gap: Option<usize>,
}

/// Takes out so much of the middle that the rest fits: errors are at the end, and the beginning says
/// what it was about.
pub(crate) fn middle(text: &str, most: usize) -> Middle {
    let whole = front(text, most).len() == text.len();
    if whole {
        return Middle {
            text: text.to_string(),
            gap: None,
        };
    }
    let start = front(text, most / 2);
    let end = back(&text[start.len()..], most - most / 2);
    let missing = text.len() - start.len() - end.len();
    Middle {
        text: format!("{start}\n[{missing} bytes left out]\n{end}"),
        gap: Some(start.len()),
    }
}

/// What follows a position, which is moved back to the start of a character.
pub(crate) fn from(text: &str, offset: usize) -> (usize, &str) {
    let mut at = offset.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    (at, &text[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_never_cut() {
        let text = "aß\u{1F525}\u{1}\n\"z";
        for most in 0..40 {
            for part in [front(text, most), back(text, most), lines(text, most)] {
                let json = serde_json::to_string(part).unwrap();
                assert!(json.len() - 2 <= most, "{part:?} in {most}");
            }
        }
        assert_eq!(front(text, 100), text);
        assert_eq!(back(text, 100), text);
        for offset in 0..40 {
            let (at, rest) = from(text, offset);
            assert_eq!(&text[at..], rest);
            assert!(at <= offset);
        }
    }

    #[test]
    fn the_middle_goes_and_is_counted() {
        assert_eq!(middle("abc", 3).gap, None);
        let cut = middle("0123456789", 6);
        assert_eq!(cut.text, "012\n[4 bytes left out]\n789");
        assert_eq!(cut.gap, Some(3));
    }

    #[test]
    fn whole_lines_are_preferred() {
        assert_eq!(lines("ab\ncd\n", 5), "ab\n");
        assert_eq!(lines("abcdef", 3), "abc");
    }
}
