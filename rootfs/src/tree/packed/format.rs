//! The index file of a packed layer, byte by byte.
//!
//! ```text
//! Header | InodeRecord, by number | EntryRecord, by directory and name | bytes
//! ```
//!
//! All numbers are little-endian, nothing needs alignment. *Bytes* holds names, targets of
//! symbolic links and extended attributes; records say where in it, so nothing in it needs an
//! order. The layer's other file, its data, is contents only, each from a multiple of
//! [`DATA_ALIGN`], so that it could be mapped into a guest page by page.

use rustix::io::Errno;
use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::tree::{Attr, FileType, Ino, Timestamp};

/// The first bytes of every index.
pub(crate) const MAGIC: [u8; 8] = *b"PYROLAYR";

/// Version of the format; a reader takes exactly its own.
pub(crate) const VERSION: u32 = 1;

/// Every content in the data file begins at a multiple of this, a page of the guest.
pub(crate) const DATA_ALIGN: u64 = 4096;

/// The highest inode number that any layer may give away, far from where sums overflow.
pub(crate) const MAX_INO: u64 = 1 << 62;

/// The highest cookie that any layer may give away.
pub(crate) const MAX_COOKIE: u64 = 1 << 62;

/// The largest file: what `off_t` can say.
pub(crate) const MAX_SIZE: u64 = i64::MAX as u64;

/// A part of the index file.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Section {
    /// Where it begins in the file.
    pub(crate) offset: U64,
    /// How many bytes it has.
    pub(crate) len: U64,
}

/// The beginning of the index file.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) magic: [u8; 8],
    pub(crate) version: U32,
    /// Size of this header.
    pub(crate) header_len: U32,
    /// What layers above call this one: SHA-256 over the index with this field zero. It covers
    /// the contents too, by their digest.
    pub(crate) layer_id: [u8; 32],
    /// `layer_id` of the layer beneath, zeros in the lowest.
    pub(crate) beneath: [u8; 32],
    /// SHA-256 of the data file.
    pub(crate) data_sha256: [u8; 32],
    /// The lowest number that this layer could give: that of the root in the lowest layer.
    pub(crate) first_ino: U64,
    /// The lowest number that the layer above may give.
    pub(crate) next_ino: U64,
    /// Length of the data file.
    pub(crate) data_len: U64,
    pub(crate) inodes: Section,
    pub(crate) entries: Section,
    pub(crate) bytes: Section,
}

/// Where a regular file's content is, in [`InodeRecord::content`].
pub(crate) const CONTENT_HOLE: u32 = 0;
/// In this layer's data file.
pub(crate) const CONTENT_HERE: u32 = 1;
/// Where the layers beneath say.
pub(crate) const CONTENT_BENEATH: u32 = 2;

/// One inode of the layer.
///
/// What `start`, `count` and `first_cookie` mean depends on its type. Regular files: offset and
/// length in the data file. Directories: index and number of their entries in this layer, and the
/// cookie of the first; the others' follow by one each. Symbolic links: offset and length in
/// *bytes*. Otherwise 0.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct InodeRecord {
    pub(crate) ino: U64,
    /// `st_mode`: type and permissions.
    pub(crate) mode: U32,
    pub(crate) uid: U32,
    pub(crate) gid: U32,
    pub(crate) nlink: U32,
    pub(crate) rdev: U32,
    pub(crate) content: U32,
    pub(crate) size: U64,
    pub(crate) blocks: U64,
    pub(crate) start: U64,
    pub(crate) count: U64,
    pub(crate) first_cookie: U64,
    /// Of directories: the directory that holds it.
    pub(crate) parent: U64,
    pub(crate) atime: I64,
    pub(crate) mtime: I64,
    pub(crate) ctime: I64,
    pub(crate) atime_nanos: U32,
    pub(crate) mtime_nanos: U32,
    pub(crate) ctime_nanos: U32,
    /// Length in *bytes* of the extended attributes, 0 when there are none.
    pub(crate) xattrs_len: U32,
    /// Offset in *bytes* of the extended attributes.
    pub(crate) xattrs_start: U64,
}

/// One name in a directory; [`WHITEOUT`] hides one of the layers beneath.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct EntryRecord {
    pub(crate) ino: U64,
    /// Offset in *bytes* of the name.
    pub(crate) name_start: U32,
    pub(crate) name_len: U16,
    /// `DT_*` of the inode.
    pub(crate) file_type: u8,
    pub(crate) reserved: u8,
}

/// The inode number of an entry that hides one.
pub(crate) const WHITEOUT: u64 = 0;

/// Sizes as offsets see them.
pub(crate) const HEADER_LEN: usize = size_of::<Header>();
pub(crate) const INODE_LEN: usize = size_of::<InodeRecord>();
pub(crate) const ENTRY_LEN: usize = size_of::<EntryRecord>();

impl InodeRecord {
    /// Its type.
    pub(crate) fn file_type(&self) -> Result<FileType, Errno> {
        FileType::from_mode(self.mode.get()).ok_or(Errno::IO)
    }

    /// What stat(2) says of it; `IO` when a field is not what this format allows.
    pub(crate) fn attr(&self) -> Result<Attr, Errno> {
        let size = self.size.get();
        if size > MAX_SIZE {
            return Err(Errno::IO);
        }
        Ok(Attr {
            ino: Ino(self.ino.get()),
            file_type: self.file_type()?,
            mode: (self.mode.get() & 0o7777) as u16,
            nlink: self.nlink.get(),
            uid: self.uid.get(),
            gid: self.gid.get(),
            rdev: self.rdev.get(),
            size,
            blocks: self.blocks.get(),
            atime: timestamp(self.atime, self.atime_nanos)?,
            mtime: timestamp(self.mtime, self.mtime_nanos)?,
            ctime: timestamp(self.ctime, self.ctime_nanos)?,
        })
    }
}

fn timestamp(secs: I64, nanos: U32) -> Result<Timestamp, Errno> {
    let nanos = nanos.get();
    if nanos >= 1_000_000_000 {
        return Err(Errno::IO);
    }
    Ok(Timestamp {
        secs: secs.get(),
        nanos,
    })
}

/// Appends one extended attribute in the form that [`XattrIter`] reads.
pub(crate) fn push_xattr(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let name_len = u16::try_from(name.len()).expect("names are checked against XATTR_NAME_MAX");
    let value_len = u32::try_from(value.len()).expect("values are checked against XATTR_SIZE_MAX");
    out.extend_from_slice(&name_len.to_le_bytes());
    out.extend_from_slice(&value_len.to_le_bytes());
    out.extend_from_slice(name);
    out.extend_from_slice(value);
}

/// Name and value of an extended attribute.
pub(crate) type Xattr<'a> = (&'a [u8], &'a [u8]);

/// Extended attributes as [`push_xattr`] wrote them; ends after the first that is damaged.
#[derive(Clone, Debug)]
pub(crate) struct XattrIter<'a>(&'a [u8]);

impl<'a> XattrIter<'a> {
    /// Those in `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], Errno> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(Errno::IO)?;
        self.0 = tail;
        Ok(head)
    }

    fn take_xattr(&mut self) -> Result<Xattr<'a>, Errno> {
        let name_len = U16::read_from_bytes(self.take(2)?)
            .map_err(|_| Errno::IO)?
            .get();
        let value_len = U32::read_from_bytes(self.take(4)?)
            .map_err(|_| Errno::IO)?
            .get();
        let name = self.take(usize::from(name_len))?;
        let value = self.take(usize::try_from(value_len).map_err(|_| Errno::IO)?)?;
        Ok((name, value))
    }
}

impl<'a> Iterator for XattrIter<'a> {
    type Item = Result<Xattr<'a>, Errno>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let xattr = self.take_xattr();
        if xattr.is_err() {
            self.0 = &[];
        }
        Some(xattr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_the_sizes_that_the_format_says() {
        assert_eq!(INODE_LEN, 128);
        assert_eq!(ENTRY_LEN, 16);
        assert_eq!(HEADER_LEN, 184);
    }

    #[test]
    fn xattrs_come_back_as_they_were_put() {
        let mut bytes = Vec::new();
        push_xattr(&mut bytes, b"user.a", b"1");
        push_xattr(&mut bytes, b"user.b", b"");
        let read: Vec<_> = XattrIter::new(&bytes).collect();
        assert_eq!(
            read,
            [
                Ok((&b"user.a"[..], &b"1"[..])),
                Ok((&b"user.b"[..], &b""[..]))
            ]
        );
    }

    #[test]
    fn xattrs_cut_short_are_an_error() {
        let mut bytes = Vec::new();
        push_xattr(&mut bytes, b"user.a", b"12345");
        for len in 1..bytes.len() {
            let read: Vec<_> = XattrIter::new(&bytes[..len]).collect();
            assert_eq!(read, [Err(Errno::IO)]);
        }
    }
}
