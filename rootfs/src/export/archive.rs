//! A tar archive that depends on nothing but the tree: members in the order of their names, root as
//! the owner, times in whole seconds. The format is GNU's, for long names and large files.

use std::io::{self, Write};

use tar::{EntryType, Header};

use super::read::read_data;
use super::walk::{Item, MODE, Output, walk};
use super::{ExportError, ExportLimits, ExportSummary, ReadTree};
use crate::tree::{Ino, Name};

/// A tar archive is made of blocks of this size (POSIX pax, "ustar Interchange Format").
const BLOCK: u64 = 512;

/// Holes are written in pieces of this size.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Name of the member before one whose path, or target, its header has no room for (GNU tar).
const LONG_LINK: &[u8] = b"././@LongLink";

/// Writes the file or directory `ino` as a tar archive whose paths begin with `name`. Hard links stay
/// those; holes become zeros. `writer` is flushed at the end; to sync it is its owner's business. Blocks as long as it does.
///
/// # Errors
/// See [`ExportError`]; what was written then is no archive.
pub fn export_tar(
    tree: &mut impl ReadTree,
    ino: Ino,
    name: Name<'_>,
    writer: impl Write,
    limits: ExportLimits,
) -> Result<ExportSummary, ExportError> {
    let mut archive = Archive {
        writer,
        prefix: name.as_bytes(),
    };
    let summary = walk(tree, ino, limits, &mut archive)?;
    // Two blocks of zeros end an archive.
    archive
        .zeros(2 * BLOCK)
        .and_then(|()| archive.writer.flush())
        .map_err(ExportError::write(b""))?;
    Ok(summary)
}

struct Archive<'a, W> {
    writer: W,
    prefix: &'a [u8],
}

impl<W: Write> Archive<'_, W> {
    fn full(&self, path: &[u8]) -> Vec<u8> {
        match path {
            b"" => self.prefix.to_vec(),
            path => [self.prefix, b"/", path].concat(),
        }
    }

    fn member(
        &mut self,
        item: &Item<'_>,
        entry_type: EntryType,
        size: u64,
        target: &[u8],
    ) -> io::Result<()> {
        let mut path = self.full(item.path);
        if entry_type == EntryType::Directory {
            path.push(b'/');
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(entry_type);
        header.set_mode(u32::from(item.attr.mode & MODE));
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(size);
        // The field has no sign.
        header.set_mtime(u64::try_from(item.attr.mtime.secs).unwrap_or(0));
        let old = header.as_old_mut();
        for (field, long, bytes) in [
            (&mut old.linkname, EntryType::GNULongLink, target),
            (&mut old.name, EntryType::GNULongName, &path),
        ] {
            let n = bytes.len().min(field.len());
            field[..n].copy_from_slice(&bytes[..n]);
            if bytes.len() > field.len() {
                self.long(long, bytes)?;
            }
        }
        header.set_cksum();
        self.writer.write_all(header.as_bytes())
    }

    /// Says a path that a header has no room for, ended by NUL.
    fn long(&mut self, entry_type: EntryType, bytes: &[u8]) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(entry_type);
        header.as_old_mut().name[..LONG_LINK.len()].copy_from_slice(LONG_LINK);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let size = bytes.len() as u64 + 1;
        header.set_size(size);
        header.set_cksum();
        self.writer.write_all(header.as_bytes())?;
        self.writer.write_all(bytes)?;
        self.zeros(1 + padding(size))
    }

    fn zeros(&mut self, mut len: u64) -> io::Result<()> {
        while len > 0 {
            let n = usize::try_from(len).map_or(ZEROS.len(), |len| len.min(ZEROS.len()));
            self.writer.write_all(&ZEROS[..n])?;
            len -= n as u64;
        }
        Ok(())
    }
}

fn padding(size: u64) -> u64 {
    (BLOCK - size % BLOCK) % BLOCK
}

impl<W: Write> Output for Archive<'_, W> {
    fn enter(&mut self, item: &Item<'_>) -> Result<(), ExportError> {
        self.member(item, EntryType::Directory, 0, b"")
            .map_err(ExportError::write(item.path))
    }

    fn leave(&mut self, _: &Item<'_>) -> Result<(), ExportError> {
        Ok(())
    }

    fn file(
        &mut self,
        tree: &mut impl ReadTree,
        item: &Item<'_>,
        first: Option<&[u8]>,
    ) -> Result<(), ExportError> {
        if let Some(first) = first {
            let target = self.full(first);
            return self
                .member(item, EntryType::Link, 0, &target)
                .map_err(ExportError::write(item.path));
        }
        let size = item.attr.size;
        self.member(item, EntryType::Regular, size, b"")
            .map_err(ExportError::write(item.path))?;
        let mut at = 0;
        let copied = read_data(tree, &item.attr, &mut |offset, bytes| {
            self.zeros(offset - at)?;
            at = offset + bytes.len() as u64;
            self.writer.write_all(bytes)
        });
        copied.map_err(|error| error.at(item.path))?;
        self.zeros(size - at + padding(size))
            .map_err(ExportError::write(item.path))
    }

    fn symlink(&mut self, item: &Item<'_>, target: &[u8]) -> Result<(), ExportError> {
        self.member(item, EntryType::Symlink, 0, target)
            .map_err(ExportError::write(item.path))
    }
}
