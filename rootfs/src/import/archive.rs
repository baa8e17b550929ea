//! A tar stream as a seed.

use std::io::{self, BufReader, Read};

use flate2::read::MultiGzDecoder;
use tar::EntryType;

use super::target::{FileError, Meta, Target};
use super::{ImportError, ImportLimits, ImportSummary};
use crate::pack::tar::members::{Member, Members};
use crate::tree::{FileType, Ino, Name, Tree};

/// How a gzip stream begins (RFC 1952, 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The longest path that a member may have (`PATH_MAX` of Linux, `limits.h`).
const PATH_MAX: usize = 4096;

/// What an archive may hold besides contents, for each entry that it may have.
const ENTRY_BYTES: u64 = 8192;

/// The same, for archives with few entries.
const ANY_BYTES: u64 = 64 << 20;

/// Imports a tar stream, plain or compressed with gzip, into directory `dest`. Blocks as long as `reader` does.
///
/// # Errors
/// See [`ImportError`]. Part of the archive may be in the tree then.
pub fn import_tar(
    tree: &mut Tree,
    dest: Ino,
    reader: impl Read,
    limits: ImportLimits,
) -> Result<ImportSummary, ImportError> {
    let mut reader = BufReader::with_capacity(128 << 10, reader);
    let mut begin = Vec::with_capacity(GZIP.len());
    (&mut reader)
        .take(GZIP.len() as u64)
        .read_to_end(&mut begin)
        .map_err(ImportError::Archive)?;
    let reader = begin.as_slice().chain(reader);
    let most = limits
        .bytes
        .saturating_add(limits.entries.saturating_mul(ENTRY_BYTES))
        .saturating_add(ANY_BYTES);
    if begin == GZIP {
        unpack(
            tree,
            dest,
            Bounded::new(MultiGzDecoder::new(reader), most),
            limits,
        )
    } else {
        unpack(tree, dest, Bounded::new(reader, most), limits)
    }
}

fn unpack(
    tree: &mut Tree,
    dest: Ino,
    source: Bounded<impl Read>,
    limits: ImportLimits,
) -> Result<ImportSummary, ImportError> {
    let mut members = Members::new(source);
    let mut target = Target::new(tree, dest, limits);
    while let Some(member) = members.next()? {
        add(&mut target, &member, &mut members)?;
        members.skip_rest()?;
    }
    members.drain()?;
    target.finish()
}

fn add(
    target: &mut Target<'_>,
    member: &Member,
    members: &mut Members<impl Read>,
) -> Result<(), ImportError> {
    let path = member.path.as_slice();
    let components = components(path, path)?;
    let is_file = matches!(
        member.entry_type,
        EntryType::Regular | EntryType::Continuous
    );
    if member.size > 0 && !is_file {
        return Err(member
            .refuse("it has content, which its type does not allow")
            .into());
    }
    let mode = member.header.mode();
    let meta = Meta {
        mode: mode.map_err(|_| member.refuse("its mode is no number"))?,
        mtime: member.mtime,
    };
    // Before POSIX, a directory was a file with a name that ends in a slash.
    let is_dir = member.entry_type == EntryType::Directory
        || (member.entry_type == EntryType::Regular && path.ends_with(b"/") && member.size == 0);
    let Some((&name, parents)) = components.split_last() else {
        return match is_dir {
            true => Ok(()),
            false => Err(member
                .refuse("the destination can only be a directory")
                .into()),
        };
    };
    let mut dir = target.root();
    for &parent in parents {
        dir = target.directory(dir, parent, None, path)?;
    }
    match member.entry_type {
        _ if is_dir => target.directory(dir, name, Some(meta), path).map(|_| ()),
        EntryType::Regular | EntryType::Continuous => {
            match target.file(
                dir,
                name,
                meta,
                &mut Exactly::new(members, member.size),
                path,
            ) {
                Ok(_) => Ok(()),
                Err(FileError::Import(error)) => Err(error),
                Err(FileError::Source(error)) => Err(ImportError::Archive(error)),
            }
        }
        EntryType::Symlink => target.symlink(dir, name, meta, &member.link, path),
        EntryType::Link => {
            let ino = linked(target, member)?;
            target.hard_link(dir, name, ino, path)
        }
        EntryType::Char | EntryType::Block => Err(member.refuse("it is a device node").into()),
        EntryType::Fifo => Err(member.refuse("it is a named pipe").into()),
        EntryType::GNUSparse => Err(member.refuse("sparse members are not understood").into()),
        _ => Err(member
            .refuse("members of its type are not understood")
            .into()),
    }
}

/// What a hard link links to.
fn linked(target: &Target<'_>, member: &Member) -> Result<Ino, ImportError> {
    let missing = || member.refuse("the target of the hard link is not in the archive before it");
    let mut dir = target.root();
    let mut file = None;
    for name in components(&member.link, &member.path)? {
        if file.is_some() {
            return Err(missing().into());
        }
        let attr = target.there(dir, name, &member.path)?.ok_or_else(missing)?;
        match attr.file_type {
            FileType::Directory => dir = attr.ino,
            FileType::Regular | FileType::Symlink => file = Some(attr.ino),
            _ => return Err(missing().into()),
        }
    }
    file.ok_or_else(|| member.refuse("a hard link to a directory").into())
}

/// The components of `path`, which member `of` says.
fn components<'p>(path: &'p [u8], of: &[u8]) -> Result<Vec<Name<'p>>, ImportError> {
    if path.first() == Some(&b'/') {
        return Err(ImportError::member(of, "its path is absolute"));
    }
    if path.len() > PATH_MAX {
        return Err(ImportError::member(
            of,
            "its path is longer than 4096 bytes",
        ));
    }
    let mut components = Vec::new();
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err(ImportError::member(of, "its path leaves the tree with ..")),
            name => components.push(Name::new(name).map_err(|_| {
                ImportError::member(of, "a component of its path is too long or holds a NUL")
            })?),
        }
    }
    Ok(components)
}

/// A source that has no more than it may: what comes after is an error, not an end.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Bounded<R> {
    fn new(inner: R, left: u64) -> Self {
        Self { inner, left }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::FileTooLarge,
                "it unpacks to more than a workspace may hold",
            )
        })?;
        Ok(n)
    }
}

/// Content of a length that is known: an end before that is an error.
struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Exactly<R> {
    fn new(inner: R, left: u64) -> Self {
        Self { inner, left }
    }
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if n == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left = self.left.saturating_sub(n as u64);
        Ok(n)
    }
}
