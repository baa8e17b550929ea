//! One hunk: reading it, finding its place.

use super::PatchError;
use super::parse::Reader;

/// No file has more lines than a number of this size says.
const NUMBER_MAX: usize = 1 << 31;

/// A hunk: lines of the file before, and what they become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hunk {
    /// Where its first line is in the file before, from 0.
    pub(super) old_start: usize,
    /// The lines before, each with what ends it.
    pub(super) old: Vec<Vec<u8>>,
    /// The lines after.
    pub(super) new: Vec<Vec<u8>>,
}

/// Reads the hunk whose "@@" line is next.
pub(super) fn parse_hunk(reader: &mut Reader<'_>) -> Result<Hunk, PatchError> {
    let bad = "no \"@@ -LINE,COUNT +LINE,COUNT @@\" line";
    let ranges = reader.peek().and_then(ranges);
    let ((old_line, mut old_left), (_, mut new_left)) = ranges.ok_or_else(|| reader.error(bad))?;
    if old_line == 0 && old_left > 0 {
        return Err(reader.error("lines are counted from 1"));
    }
    reader.advance();
    let mut hunk = Hunk {
        // A range without lines is after the line that it says.
        old_start: if old_left == 0 {
            old_line
        } else {
            old_line - 1
        },
        old: Vec::new(),
        new: Vec::new(),
    };
    while old_left > 0 || new_left > 0 {
        let early = "the hunk has fewer lines than its @@ line says";
        let line = reader.peek().ok_or_else(|| reader.error(early))?;
        // Editors and models take the space off a line that is empty.
        let (sign, text) = match line {
            b"\n" | b"\r\n" => (b' ', line),
            line => (line[0], &line[1..]),
        };
        let (in_old, in_new) = match sign {
            b' ' => (true, true),
            b'-' => (true, false),
            b'+' => (false, true),
            _ => return Err(reader.error(early)),
        };
        if (in_old && old_left == 0) || (in_new && new_left == 0) {
            return Err(reader.error("the hunk has other lines than its @@ line says"));
        }
        reader.advance();
        let mut text = text.to_vec();
        if reader.peek().is_some_and(|line| line.starts_with(b"\\ ")) {
            if text.pop() != Some(b'\n') {
                return Err(reader.error("a line that has no end twice"));
            }
            reader.advance();
        } else if !text.ends_with(b"\n") {
            // The patch itself ends without one; the file does not.
            text.push(b'\n');
        }
        if in_old {
            old_left -= 1;
            hunk.old.push(text.clone());
        }
        if in_new {
            new_left -= 1;
            hunk.new.push(text);
        }
    }
    let open = |lines: &[Vec<u8>]| {
        lines
            .iter()
            .rev()
            .skip(1)
            .any(|line| !line.ends_with(b"\n"))
    };
    if open(&hunk.old) || open(&hunk.new) {
        return Err(reader.error("a line in the middle of the hunk above has no end"));
    }
    Ok(hunk)
}

type Range = (usize, usize);

/// The two ranges of "@@ -LINE,COUNT +LINE,COUNT @@"; a count that is not there is 1.
fn ranges(line: &[u8]) -> Option<(Range, Range)> {
    let text = std::str::from_utf8(line.get(..line.len().min(200))?)
        .or_else(|error| std::str::from_utf8(&line[..error.valid_up_to()]))
        .ok()?;
    let (ranges, _) = text.strip_prefix("@@ -")?.split_once(" @@")?;
    let (old, new) = ranges.split_once(" +")?;
    let range = |text: &str| {
        let (line, count) = text.split_once(',').unwrap_or((text, "1"));
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let number = digits.then(|| text.parse().ok())??;
            (number < NUMBER_MAX).then_some(number)
        };
        Some((number(line)?, number(count)?))
    };
    Some((range(old)?, range(new)?))
}

impl Hunk {
    /// Whether the file's lines from `at` are those before.
    fn fits(&self, file: &[&[u8]], at: usize, budget: &mut u64) -> bool {
        let there = at
            .checked_add(self.old.len())
            .and_then(|end| file.get(at..end));
        there.is_some_and(|there| {
            there.iter().zip(&self.old).all(|(there, old)| {
                *budget = budget.saturating_sub(1);
                *there == old.as_slice()
            })
        })
    }

    /// Where the hunk fits, from line `from` on and as near to `expected` as can be.
    pub(super) fn place(
        &self,
        file: &[&[u8]],
        from: usize,
        expected: usize,
        budget: &mut u64,
    ) -> Option<usize> {
        if self.old.is_empty() {
            // Nothing to find: it is where it says or nowhere.
            return (expected >= from && expected <= file.len()).then_some(expected);
        }
        let last = file.len().checked_sub(self.old.len())?;
        let expected = expected.clamp(from.min(last), last);
        for distance in 0..=last.max(expected) {
            if *budget == 0 {
                return None;
            }
            let before = expected.checked_sub(distance).filter(|&at| at >= from);
            let after = expected
                .checked_add(distance)
                .filter(|&at| at <= last && at >= from);
            for at in [after, before].into_iter().flatten() {
                if self.fits(file, at, budget) {
                    return Some(at);
                }
            }
            if before.is_none() && after.is_none() {
                break;
            }
        }
        None
    }

    /// The first line from `at` that differs: its number from 0, what the hunk has, what the file has.
    pub(super) fn difference<'a>(
        &'a self,
        file: &[&'a [u8]],
        at: usize,
    ) -> (usize, &'a [u8], Option<&'a [u8]>) {
        let differs = self.old.iter().enumerate().find_map(|(i, old)| {
            let there = file.get(at + i).copied();
            (there != Some(old.as_slice())).then_some((at + i, old.as_slice(), there))
        });
        differs.unwrap_or((at, b"", file.get(at).copied()))
    }
}
