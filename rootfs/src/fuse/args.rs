//! Reading a request: every byte is copied out of the transport once, into types of our own, and
//! only the copy is looked at after that.

use rustix::io::Errno;
use zerocopy::{FromBytes, IntoBytes};

use super::abi::InHeader;
use super::transport::{Request, Short};
use crate::tree::{Ino, Name};

/// Longest body of a request other than WRITE and BATCH_FORGET: SETXATTR with a value of 64 KiB
/// (`XATTR_SIZE_MAX`, Linux `limits.h`), its fixed part and a name, rounded up.
pub(super) const BODY_MAX: usize = 68 * 1024;

/// The header of a request, and how long its body is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) opcode: u32,
    pub(super) unique: u64,
    pub(super) node: Ino,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Bytes after the header, or the reason why their number cannot be believed.
    pub(super) body: Result<usize, Errno>,
}

/// Reads the header. Without a whole header there is nothing that an answer could refer to.
pub(super) fn read_head(request: &mut impl Request) -> Result<Head, Short> {
    let header: InHeader = read_struct(request)?;
    let body = usize::try_from(header.len)
        .ok()
        .and_then(|len| len.checked_sub(size_of::<InHeader>()))
        .filter(|len| *len <= request.remaining())
        .ok_or(Errno::INVAL);
    Ok(Head {
        opcode: header.opcode,
        unique: header.unique,
        node: Ino(header.nodeid),
        uid: header.uid,
        gid: header.gid,
        body,
    })
}

/// Reads one structure of the protocol from the front of what is left.
pub(super) fn read_struct<T: FromBytes + IntoBytes>(
    request: &mut impl Request,
) -> Result<T, Short> {
    let mut value = T::new_zeroed();
    request.read_exact(value.as_mut_bytes())?;
    Ok(value)
}

/// Reads the whole body of a request into `buffer`, which is reused from request to request.
pub(super) fn read_body(
    request: &mut impl Request,
    len: usize,
    buffer: &mut Vec<u8>,
) -> Result<(), Errno> {
    if len > BODY_MAX {
        return Err(Errno::TOOBIG);
    }
    buffer.clear();
    buffer.resize(len, 0);
    request.read_exact(buffer).map_err(|Short| Errno::INVAL)
}

/// A body, taken apart from front to back. Bytes after what a request needs are ignored: kernels
/// append extensions there.
#[derive(Debug)]
pub(super) struct Args<'a> {
    rest: &'a [u8],
}

impl<'a> Args<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// The next structure.
    pub(super) fn fixed<T: FromBytes>(&mut self) -> Result<T, Errno> {
        let (value, rest) = T::read_from_prefix(self.rest).map_err(|_| Errno::INVAL)?;
        self.rest = rest;
        Ok(value)
    }

    /// The next NUL-terminated string, without its NUL.
    pub(super) fn string(&mut self) -> Result<&'a [u8], Errno> {
        let end = self.rest.iter().position(|b| *b == 0).ok_or(Errno::INVAL)?;
        let (string, rest) = self.rest.split_at(end);
        self.rest = rest.get(1..).unwrap_or_default();
        Ok(string)
    }

    /// The next string, which has to be one component of a path.
    pub(super) fn name(&mut self) -> Result<Name<'a>, Errno> {
        Name::new(self.string()?)
    }

    /// The next `len` bytes.
    pub(super) fn bytes(&mut self, len: u32) -> Result<&'a [u8], Errno> {
        let len = usize::try_from(len).map_err(|_| Errno::INVAL)?;
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(Errno::INVAL)?;
        self.rest = rest;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_without_its_end_is_refused() {
        assert_eq!(Args::new(b"name").string(), Err(Errno::INVAL));
        assert_eq!(Args::new(b"").string(), Err(Errno::INVAL));
    }

    #[test]
    fn strings_follow_each_other() {
        let mut args = Args::new(b"old\0new\0");
        assert_eq!(args.string(), Ok(&b"old"[..]));
        assert_eq!(args.string(), Ok(&b"new"[..]));
        assert_eq!(args.string(), Err(Errno::INVAL));
    }

    #[test]
    fn a_name_is_one_component() {
        for bad in [&b"\0"[..], b".\0", b"..\0", b"a/b\0", b"/\0"] {
            assert_eq!(Args::new(bad).name(), Err(Errno::INVAL), "{bad:?}");
        }
        let mut long = vec![b'x'; 256];
        long.push(0);
        assert_eq!(Args::new(&long).name(), Err(Errno::NAMETOOLONG));
        assert!(Args::new(&long[1..]).name().is_ok());
    }

    #[test]
    fn more_bytes_than_there_are_is_refused() {
        assert_eq!(Args::new(b"abc").bytes(4), Err(Errno::INVAL));
        assert_eq!(Args::new(b"abc").bytes(u32::MAX), Err(Errno::INVAL));
        assert_eq!(Args::new(b"abc").bytes(3), Ok(&b"abc"[..]));
    }
}
