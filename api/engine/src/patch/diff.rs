//! Changes as a unified diff with Git's extended headers.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use similar::{Algorithm, DiffOp, DiffTag, capture_diff_slices_deadline, group_diff_ops};

use super::binary::{object_id, write_binary};
use super::quote::quote;
use super::{FileMode, lines};

/// How many unchanged lines are shown around a change.
const CONTEXT: usize = 3;

/// How far Git looks for a NUL to tell a binary file.
const BINARY_PROBE: usize = 8000;

/// Files with more lines than this are replaced from the first line that differs to the last.
const LINES_MAX: usize = 200_000;

/// How long the smallest difference of two files is looked for; a larger one is right too.
const SEARCH_MAX: Duration = Duration::from_secs(1);

/// What there is at a path before or after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side<'a> {
    /// A file or symbolic link, with content or target.
    File(FileMode, &'a [u8]),
    /// A file whose content is too large to compare, or is not looked at.
    Opaque(FileMode),
    /// Something that Git does not know, called what a person calls it: a directory, a device.
    Special(&'a str),
}

/// What changed at a path.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// The path, relative, components separated by `/`.
    pub path: &'a [u8],
    /// What was there.
    pub old: Option<Side<'a>>,
    /// What is there.
    pub new: Option<Side<'a>>,
}

/// How a changed binary file is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BinaryFiles {
    /// With both contents, so that `git apply` takes it.
    #[default]
    Whole,
    /// As one line that says that it differs, which `git apply` refuses; for people to read.
    Named,
}

/// How much changed; changes are added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiffCounts {
    /// Paths that were not there.
    pub added: u64,
    /// Paths that have another content, mode or type.
    pub modified: u64,
    /// Paths that are not there any more.
    pub deleted: u64,
    /// Lines put in.
    pub insertions: u64,
    /// Lines taken out.
    pub deletions: u64,
    /// Changed files that are no text.
    pub binary: u64,
}

/// Writes one change; nothing when there is none. A file that becomes a link, or the other
/// way round, is one that goes and one that comes, as Git does it. What Git does not know is one line
/// that it passes over.
///
/// # Errors
/// Those of `out`.
pub fn write_change(
    out: &mut impl Write,
    change: &Change<'_>,
    binary: BinaryFiles,
    counts: &mut DiffCounts,
) -> io::Result<()> {
    if change.old == change.new && !matches!(change.old, Some(Side::Opaque(_))) {
        return Ok(());
    }
    match (change.old, change.new) {
        (None, _) => counts.added += 1,
        (_, None) => counts.deleted += 1,
        _ => counts.modified += 1,
    }
    let file = |side: Option<Side<'_>>| match side {
        Some(Side::File(mode, _) | Side::Opaque(mode)) => Some(mode),
        _ => None,
    };
    let of = |side| Change {
        old: None,
        new: None,
        path: side,
    };
    if matches!(change.old, Some(Side::Special(_))) || matches!(change.new, Some(Side::Special(_)))
    {
        special(out, change)?;
        let rest = Change {
            old: change.old.filter(|_| file(change.old).is_some()),
            new: change.new.filter(|_| file(change.new).is_some()),
            ..of(change.path)
        };
        return match (rest.old, rest.new) {
            (None, None) => Ok(()),
            _ => entry(out, &rest, binary, counts),
        };
    }
    let is_link = |mode| mode == Some(FileMode::Symlink);
    if change.old.is_some()
        && change.new.is_some()
        && is_link(file(change.old)) != is_link(file(change.new))
    {
        let gone = Change {
            old: change.old,
            ..of(change.path)
        };
        let come = Change {
            new: change.new,
            ..of(change.path)
        };
        entry(out, &gone, binary, counts)?;
        return entry(out, &come, binary, counts);
    }
    entry(out, change, binary, counts)
}

fn special(out: &mut impl Write, change: &Change<'_>) -> io::Result<()> {
    let kind = |side: Option<Side<'_>>| match side {
        None => "nothing".to_owned(),
        Some(Side::Special(kind)) => kind.to_owned(),
        Some(Side::File(FileMode::Symlink, _) | Side::Opaque(FileMode::Symlink)) => {
            "symbolic link".to_owned()
        }
        Some(_) => "file".to_owned(),
    };
    out.write_all(b"Special ")?;
    out.write_all(&quote("", change.path))?;
    writeln!(out, ": {} -> {}", kind(change.old), kind(change.new))
}

/// Writes a change of what Git knows.
fn entry(
    out: &mut impl Write,
    change: &Change<'_>,
    binary: BinaryFiles,
    counts: &mut DiffCounts,
) -> io::Result<()> {
    let parts = |side: Option<Side<'_>>| match side {
        Some(Side::File(mode, _) | Side::Opaque(mode)) => Some(mode),
        _ => None,
    };
    let (before, after) = (quote("a/", change.path), quote("b/", change.path));
    out.write_all(b"diff --git ")?;
    out.write_all(&before)?;
    out.write_all(b" ")?;
    out.write_all(&after)?;
    out.write_all(b"\n")?;
    match (parts(change.old), parts(change.new)) {
        (None, Some(mode)) => writeln!(out, "new file mode {}", mode.as_str())?,
        (Some(mode), None) => writeln!(out, "deleted file mode {}", mode.as_str())?,
        // Of a link it is said always, so that no reader takes its target for a file's content.
        (Some(old), Some(new)) if old != new || old == FileMode::Symlink => {
            writeln!(out, "old mode {}", old.as_str())?;
            writeln!(out, "new mode {}", new.as_str())?;
        }
        _ => {}
    }
    let content = |side: Option<Side<'_>>| match side {
        Some(Side::File(_, content)) => Some(content.to_vec()),
        Some(Side::Opaque(_)) => None,
        _ => Some(Vec::new()),
    };
    let (old, new) = (content(change.old), content(change.new));
    if let (Some(old), Some(new)) = (&old, &new) {
        if old == new {
            return Ok(());
        }
        if !is_binary(old) && !is_binary(new) {
            let name = |out: &mut dyn Write, sign: &str, side: Option<Side<'_>>, name: &[u8]| {
                write!(out, "{sign} ")?;
                let name = if side.is_some() { name } else { b"/dev/null" };
                out.write_all(name)?;
                // A reader takes what follows a space for a time, unless a tab ends the name.
                let tab = name.contains(&b' ') && !name.starts_with(b"\"");
                out.write_all(if tab { b"\t\n" } else { b"\n" })
            };
            name(out, "---", change.old, &before)?;
            name(out, "+++", change.new, &after)?;
            return text(out, &lines(old), &lines(new), counts);
        }
    }
    counts.binary += 1;
    if let (BinaryFiles::Whole, Some(old), Some(new)) = (binary, &old, &new) {
        let id = |side: Option<Side<'_>>, content: &[u8]| object_id(side.map(|_| content));
        writeln!(
            out,
            "index {}..{}",
            id(change.old, old),
            id(change.new, new)
        )?;
        return write_binary(out, old, new);
    }
    let name = |side: Option<Side<'_>>, name: Vec<u8>| match side {
        Some(_) => name,
        None => b"/dev/null".to_vec(),
    };
    out.write_all(b"Binary files ")?;
    out.write_all(&name(change.old, before))?;
    out.write_all(b" and ")?;
    out.write_all(&name(change.new, after))?;
    out.write_all(b" differ\n")
}

fn is_binary(content: &[u8]) -> bool {
    content[..content.len().min(BINARY_PROBE)].contains(&0)
}

/// Writes the hunks.
fn text(
    out: &mut impl Write,
    old: &[&[u8]],
    new: &[&[u8]],
    counts: &mut DiffCounts,
) -> io::Result<()> {
    for group in group_diff_ops(operations(old, new), CONTEXT) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else {
            continue;
        };
        let olds = first.old_range().start..last.old_range().end;
        let news = first.new_range().start..last.new_range().end;
        writeln!(
            out,
            "@@ -{} +{} @@",
            range(olds.start, olds.len()),
            range(news.start, news.len())
        )?;
        for op in &group {
            if op.tag() == DiffTag::Equal {
                put(out, b' ', &old[op.old_range()])?;
                continue;
            }
            counts.deletions += op.old_range().len() as u64;
            counts.insertions += op.new_range().len() as u64;
            put(out, b'-', &old[op.old_range()])?;
            put(out, b'+', &new[op.new_range()])?;
        }
    }
    Ok(())
}

/// What is the same, and what is not, from the first line to the last.
fn operations(old: &[&[u8]], new: &[&[u8]]) -> Vec<DiffOp> {
    let mut operations = Vec::new();
    let (mut old_index, mut new_index) = (0, 0);
    let end = (old.len(), new.len(), 0);
    for (old_at, new_at, len) in same(old, new).into_iter().chain([end]) {
        // The search moves what is gone and what came along repeated lines, and does not always tell the
        // other side. What it says to be the same decides, when that is so; all else follows from it.
        let olds = old.get(old_at..old_at + len);
        if old_at < old_index || new_at < new_index || olds != new.get(new_at..new_at + len) {
            continue;
        }
        let (old_len, new_len) = (old_at - old_index, new_at - new_index);
        operations.extend(match (old_len, new_len) {
            (0, 0) => None,
            (0, _) => Some(DiffOp::Insert {
                old_index,
                new_index,
                new_len,
            }),
            (_, 0) => Some(DiffOp::Delete {
                old_index,
                old_len,
                new_index,
            }),
            _ => Some(DiffOp::Replace {
                old_index,
                old_len,
                new_index,
                new_len,
            }),
        });
        if len > 0 {
            operations.push(DiffOp::Equal {
                old_index: old_at,
                new_index: new_at,
                len,
            });
        }
        (old_index, new_index) = (old_at + len, new_at + len);
    }
    operations
}

/// Runs of lines that are the same: where before, where after, how many.
fn same(old: &[&[u8]], new: &[&[u8]]) -> Vec<(usize, usize, usize)> {
    if old.len().max(new.len()) <= LINES_MAX {
        let deadline = Instant::now().checked_add(SEARCH_MAX);
        let found = capture_diff_slices_deadline(Algorithm::Myers, old, new, deadline);
        let equal = |op: DiffOp| match op {
            DiffOp::Equal {
                old_index,
                new_index,
                len,
            } => Some((old_index, new_index, len)),
            _ => None,
        };
        return found.into_iter().filter_map(equal).collect();
    }
    let same = |(a, b): &(&&[u8], &&[u8])| a == b;
    let head = old.iter().zip(new).take_while(same).count();
    let rest = (old[head..].iter().rev()).zip(new[head..].iter().rev());
    let tail = rest.take_while(same).count();
    vec![(0, 0, head), (old.len() - tail, new.len() - tail, tail)]
}

/// Begin and length of a range as a hunk says them: an empty one is after the line that it says.
fn range(start: usize, len: usize) -> String {
    match len {
        0 => format!("{start},0"),
        1 => format!("{}", start + 1),
        _ => format!("{},{len}", start + 1),
    }
}

fn put(out: &mut impl Write, sign: u8, lines: &[&[u8]]) -> io::Result<()> {
    for line in lines {
        out.write_all(&[sign])?;
        out.write_all(line)?;
        if !line.ends_with(b"\n") {
            out.write_all(b"\n\\ No newline at end of file\n")?;
        }
    }
    Ok(())
}
