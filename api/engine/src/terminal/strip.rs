//! Text without control sequences (ECMA-48), of which nothing is obeyed but the ends of lines.

/// The text in it.
pub(super) fn strip(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\u{1b}' => match chars.next() {
                // CSI: parameters and intermediates, then a final byte.
                Some('[') => skip(&mut chars, |char| ('\u{40}'..='\u{7e}').contains(&char)),
                // Strings, which end with BEL or ST.
                Some(']' | 'P' | 'X' | '^' | '_') => {
                    let mut last = ' ';
                    skip(&mut chars, |char| {
                        let ends = char == '\u{7}'
                            || char == '\u{9c}'
                            || (last == '\u{1b}' && char == '\\');
                        last = char;
                        ends
                    });
                }
                // Intermediates, then a final byte.
                Some(' '..='/') => skip(&mut chars, |char| ('\u{30}'..='\u{7e}').contains(&char)),
                _ => {}
            },
            '\n' | '\t' => out.push(char),
            char if char.is_control() => {}
            char => out.push(char),
        }
    }
    out
}

fn skip(chars: &mut impl Iterator<Item = char>, mut is_last: impl FnMut(char) -> bool) {
    for char in chars {
        if is_last(char) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_go_and_lines_stay() {
        let text =
            strip(b"\x1b[1;31mred\x1b[0m\r\n\x1b]0;title\x07a\x1b(0b\x1bP q\x1b\\c\td\x08\n");
        assert_eq!(text, "red\nabc\td\n");
        assert_eq!(strip(b"a\x1b"), "a");
        assert_eq!(strip(b"a\x1b[12"), "a");
    }
}
