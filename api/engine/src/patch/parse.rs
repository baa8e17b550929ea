//! Reading a patch: headers of files, and their hunks.

use super::error::shown;
use super::hunks::{Hunk, parse_hunk};
use super::quote::unquote;
use super::{FILES_MAX, FileMode, NAME_MAX, PATCH_MAX, PATH_MAX, PatchError, lines};

/// A patch that was read: what it wants of which files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    pub(super) files: Vec<FilePatch>,
}

/// How a file gets its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It was there and has it still.
    Same,
    /// It is new.
    New,
    /// It had another one.
    Renamed,
    /// Another one stays.
    Copied,
    /// It goes.
    Deleted,
}

/// What a patch wants of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FilePatch {
    pub(super) origin: Origin,
    /// Where it is before; for a new file the same as `new`.
    pub(super) old: Vec<u8>,
    /// Where it is afterwards; for one that goes the same as `old`.
    pub(super) new: Vec<u8>,
    /// What the patch says it is before, if it does.
    pub(super) old_mode: Option<FileMode>,
    /// What it shall be, if the patch says so.
    pub(super) new_mode: Option<FileMode>,
    pub(super) hunks: Vec<Hunk>,
}

/// The lines of a patch and where in them the reader is.
pub(super) struct Reader<'a> {
    lines: Vec<&'a [u8]>,
    at: usize,
}

impl<'a> Reader<'a> {
    /// The next line with its end, which stays the next one.
    pub(super) fn peek(&self) -> Option<&'a [u8]> {
        self.lines.get(self.at).copied()
    }

    pub(super) fn advance(&mut self) {
        self.at += 1;
    }

    pub(super) fn error(&self, reason: &'static str) -> PatchError {
        PatchError::Syntax {
            line: self.at + 1,
            reason,
        }
    }

    /// The next line as a header: without its end.
    fn header(&self) -> Option<&'a [u8]> {
        self.peek().map(|line| {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            line.strip_suffix(b"\r").unwrap_or(line)
        })
    }

    /// Whether the next two lines name a file before and after.
    fn at_names(&self) -> bool {
        let next = self.lines.get(self.at + 1);
        self.peek().is_some_and(|line| line.starts_with(b"--- "))
            && next.is_some_and(|line| line.starts_with(b"+++ "))
    }
}

/// A name before and one after.
type Names = (Option<Vec<u8>>, Option<Vec<u8>>);

/// What the headers of a file say, piece by piece.
#[derive(Default)]
struct Header {
    /// Both names of "diff --git".
    git: Option<(Vec<u8>, Vec<u8>)>,
    /// Whether "diff --git" was there, whatever its names.
    is_git: bool,
    old_mode: Option<FileMode>,
    new_mode: Option<FileMode>,
    index_mode: Option<FileMode>,
    is_new: bool,
    is_deleted: bool,
    renamed: Names,
    copied: Names,
    /// Names of the "---" and "+++" lines; an inner `None` is /dev/null.
    names: Option<Names>,
}

impl Patch {
    /// Reads a patch. Text before, between and after the files of one is passed over, as mails have it.
    ///
    /// # Errors
    /// [`PatchError::Empty`], [`PatchError::TooLarge`], [`PatchError::Syntax`], [`PatchError::Path`].
    pub fn parse(text: &[u8]) -> Result<Self, PatchError> {
        if text.len() > PATCH_MAX {
            return Err(PatchError::TooLarge {
                limit: PATCH_MAX,
                unit: "bytes",
            });
        }
        let mut reader = Reader {
            lines: lines(text),
            at: 0,
        };
        let mut files = Vec::new();
        while let Some(line) = reader.peek() {
            if line.starts_with(b"diff --git ") || reader.at_names() {
                if files.len() == FILES_MAX {
                    return Err(PatchError::TooLarge {
                        limit: FILES_MAX,
                        unit: "files",
                    });
                }
                files.push(file(&mut reader)?);
            } else if line.starts_with(b"@@ -") {
                return Err(reader.error("a hunk without the names of its file before it"));
            } else {
                reader.advance();
            }
        }
        if files.is_empty() {
            return Err(PatchError::Empty);
        }
        Ok(Self { files })
    }

    /// The paths that the patch names, before and after; some of them twice.
    pub fn paths(&self) -> impl Iterator<Item = &[u8]> {
        self.files
            .iter()
            .flat_map(|file| [file.old.as_slice(), file.new.as_slice()])
    }
}

fn file(reader: &mut Reader<'_>) -> Result<FilePatch, PatchError> {
    let mut header = Header::default();
    if let Some(names) = reader
        .header()
        .and_then(|line| line.strip_prefix(b"diff --git "))
    {
        header.is_git = true;
        header.git = git_names(names);
        reader.advance();
        while !reader.at_names() {
            let Some(line) = reader.header() else { break };
            if !header.extended(line, reader)? {
                break;
            }
            reader.advance();
        }
    }
    if reader.at_names() {
        let old = name(reader, b"--- ")?;
        reader.advance();
        let new = name(reader, b"+++ ")?;
        reader.advance();
        header.names = Some((old, new));
    }
    let mut patch = header.finish(reader)?;
    let mut end = 0;
    while reader.peek().is_some_and(|line| line.starts_with(b"@@ -")) {
        let hunk = parse_hunk(reader)?;
        if hunk.old_start < end {
            return Err(reader.error("the hunk before this overlaps the one before that"));
        }
        end = hunk.old_start + hunk.old.len();
        patch.hunks.push(hunk);
    }
    let text = header_has_text(&patch, reader)?;
    debug_assert!(text || patch.hunks.is_empty());
    Ok(patch)
}

/// Whether there are hunks; what looks like a line of one where there is none is an error.
fn header_has_text(patch: &FilePatch, reader: &Reader<'_>) -> Result<bool, PatchError> {
    if patch.hunks.is_empty() {
        return Ok(false);
    }
    let Some(line) = reader.peek() else {
        return Ok(true);
    };
    // Mails end with a line of "-- ".
    let signature = matches!(line, b"-- \n" | b"-- " | b"-- \r\n");
    let more = matches!(line.first(), Some(b' ' | b'+' | b'-' | b'\\'));
    if more && !signature && !reader.at_names() {
        return Err(reader.error("the hunk has more lines than its @@ line says"));
    }
    Ok(true)
}

impl Header {
    /// Takes a line between "diff --git" and the names; whether it is one.
    fn extended(&mut self, line: &[u8], reader: &Reader<'_>) -> Result<bool, PatchError> {
        let mode = |text: &[u8]| {
            FileMode::parse(text).ok_or_else(|| reader.error("a mode of no file or symbolic link"))
        };
        let path = |text: &[u8]| {
            let path = match unquote(text) {
                Some((path, b"")) => path,
                _ => text.to_vec(),
            };
            check(&path).map(|()| Some(path))
        };
        if let Some(text) = line.strip_prefix(b"old mode ") {
            self.old_mode = Some(mode(text)?);
        } else if let Some(text) = line.strip_prefix(b"new mode ") {
            self.new_mode = Some(mode(text)?);
        } else if let Some(text) = line.strip_prefix(b"new file mode ") {
            self.new_mode = Some(mode(text)?);
            self.is_new = true;
        } else if let Some(text) = line.strip_prefix(b"deleted file mode ") {
            self.old_mode = Some(mode(text)?);
            self.is_deleted = true;
        } else if let Some(text) = line.strip_prefix(b"rename from ") {
            self.renamed.0 = path(text)?;
        } else if let Some(text) = line.strip_prefix(b"rename to ") {
            self.renamed.1 = path(text)?;
        } else if let Some(text) = line.strip_prefix(b"copy from ") {
            self.copied.0 = path(text)?;
        } else if let Some(text) = line.strip_prefix(b"copy to ") {
            self.copied.1 = path(text)?;
        } else if let Some(text) = line.strip_prefix(b"index ") {
            if let Some(space) = text.iter().position(|&byte| byte == b' ') {
                self.index_mode = Some(mode(&text[space + 1..])?);
            }
        } else if line.starts_with(b"Binary files ") || line.starts_with(b"GIT binary patch") {
            return Err(reader.error("binary files cannot be patched; write them whole"));
        } else {
            return Ok(
                line.starts_with(b"similarity index ") || line.starts_with(b"dissimilarity index ")
            );
        }
        Ok(true)
    }

    fn finish(self, reader: &Reader<'_>) -> Result<FilePatch, PatchError> {
        let error = |reason| Err(reader.error(reason));
        let (old, new) = match self.names {
            Some((None, None)) => return error("a file that is nowhere before and after"),
            Some((old, new)) => (old, new),
            None => match self.git.clone() {
                Some((old, new)) => (
                    (!self.is_new).then_some(old),
                    (!self.is_deleted).then_some(new),
                ),
                None => (None, None),
            },
        };
        let (origin, old, new) = match (self.renamed, self.copied) {
            ((Some(from), Some(to)), (None, None)) => (Origin::Renamed, from, to),
            ((None, None), (Some(from), Some(to))) => (Origin::Copied, from, to),
            ((None, None), (None, None)) => match (old, new) {
                (None, Some(new)) => (Origin::New, new.clone(), new),
                (Some(old), None) => (Origin::Deleted, old.clone(), old),
                (Some(old), Some(new)) if old == new => (Origin::Same, old, new),
                (Some(_), Some(_)) => return error("the two names of the file differ"),
                (None, None) => return error("the names of the file cannot be told apart"),
            },
            _ => return error("a rename or copy with one name only"),
        };
        if (self.is_new && origin != Origin::New) || (self.is_deleted && origin != Origin::Deleted)
        {
            return error("its headers contradict each other");
        }
        check(&old)?;
        check(&new)?;
        Ok(FilePatch {
            origin,
            old,
            new,
            old_mode: self.old_mode.or(self.index_mode),
            new_mode: self.new_mode,
            hunks: Vec::new(),
        })
    }
}

/// The name on a "---" or "+++" line; `None` for /dev/null.
fn name(reader: &Reader<'_>, sign: &[u8]) -> Result<Option<Vec<u8>>, PatchError> {
    let text = reader
        .header()
        .and_then(|line| line.strip_prefix(sign))
        .ok_or_else(|| reader.error("the name of the file is missing"))?;
    let path = match unquote(text) {
        Some((path, _)) => path,
        // What follows a tab is a time.
        None => text
            .split(|&byte| byte == b'\t')
            .next()
            .unwrap_or_default()
            .to_vec(),
    };
    if path == b"/dev/null" {
        return Ok(None);
    }
    let path = strip(&path);
    check(path)?;
    Ok(Some(path.to_vec()))
}

/// Takes the "a/" or "b/" off.
fn strip(path: &[u8]) -> &[u8] {
    path.strip_prefix(b"a/")
        .or_else(|| path.strip_prefix(b"b/"))
        .unwrap_or(path)
}

/// The names of "diff --git", when they can be told apart: they are the same, or quoted.
fn git_names(text: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let own = |path: &[u8]| strip(path).to_vec();
    if let Some((old, rest)) = unquote(text) {
        let rest = rest.strip_prefix(b" ")?;
        let new = unquote(rest).map_or_else(|| rest.to_vec(), |(new, _)| new);
        return Some((own(&old), own(&new)));
    }
    if text.ends_with(b"\"") {
        let quote = text.iter().position(|&byte| byte == b'"')?;
        let (new, _) = unquote(&text[quote..])?;
        return Some((own(text[..quote].strip_suffix(b" ")?), own(&new)));
    }
    // "a/NAME b/NAME": the space in the middle.
    let middle = text.len() / 2;
    let (old, new) = (text.get(..middle)?, text.get(middle + 1..)?);
    (text.get(middle) == Some(&b' ') && strip(old) == strip(new)).then(|| (own(old), own(new)))
}

/// Refuses paths that lead somewhere else.
fn check(path: &[u8]) -> Result<(), PatchError> {
    let component = |part: &[u8]| match part {
        b"" => Some("a component of the path is empty"),
        b"." | b".." => Some("the path has a component that is . or .."),
        part if part.len() > NAME_MAX => Some("a component of the path is too long"),
        _ => None,
    };
    let reason = match path {
        [] => Some("the path is empty"),
        [b'/', ..] => Some("the path is absolute"),
        path if path.contains(&0) => Some("the path holds a NUL"),
        path if path.len() > PATH_MAX => Some("the path is too long"),
        path => path.split(|&byte| byte == b'/').find_map(component),
    };
    match reason {
        None => Ok(()),
        Some(reason) => Err(PatchError::Path {
            path: shown(path),
            reason,
        }),
    }
}
