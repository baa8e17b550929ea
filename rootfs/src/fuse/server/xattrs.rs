//! Extended attributes (xattr(7)).
//!
//! `user.`, `trusted.` and `security.` are stored as the guest gives them; whether a caller may
//! set them is its kernel's decision. `system.` is not: POSIX ACLs that are stored but not
//! enforced would pretend a protection that is not there, so they are refused as on any file
//! system without them.

use rustix::io::Errno;

use super::super::abi::{GetxattrIn, GetxattrOut, SetxattrIn, XATTR_CREATE, XATTR_REPLACE};
use super::super::args::Args;
use super::super::transport::{Reply, Short};
use super::{Server, put};
use crate::tree::{Ino, XattrMode};

/// `XATTR_NAME_MAX` of Linux, `limits.h`.
const NAME_MAX: usize = 255;

/// `XATTR_SIZE_MAX` of Linux, `limits.h`.
const VALUE_MAX: u32 = 65536;

const NAMESPACES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

/// Checks a name: a known namespace and something in it.
fn checked(name: &[u8]) -> Result<&[u8], Errno> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(Errno::RANGE);
    }
    match NAMESPACES
        .iter()
        .find_map(|space| name.strip_prefix(*space))
    {
        None => Err(Errno::OPNOTSUPP),
        Some(b"") => Err(Errno::INVAL),
        Some(_) => Ok(name),
    }
}

/// Answers with a value, or with its size when that is what was asked for.
fn put_sized(reply: &mut impl Reply, size: u32, value: &[u8]) -> Result<(), Errno> {
    let len = u32::try_from(value.len()).map_err(|_| Errno::TOOBIG)?;
    if size == 0 {
        return put(
            reply,
            &GetxattrOut {
                size: len,
                padding: 0,
            },
        );
    }
    if len > size {
        return Err(Errno::RANGE);
    }
    reply.write(value).map_err(|Short| Errno::RANGE)
}

impl Server {
    /// SETXATTR.
    pub(super) fn setxattr(&mut self, node: Ino, args: &mut Args<'_>) -> Result<(), Errno> {
        let set: SetxattrIn = args.fixed()?;
        let name = checked(args.string()?)?;
        if set.size > VALUE_MAX {
            return Err(Errno::TOOBIG);
        }
        let value = args.bytes(set.size)?;
        let mode = match set.flags {
            0 => XattrMode::Any,
            XATTR_CREATE => XattrMode::Create,
            XATTR_REPLACE => XattrMode::Replace,
            _ => return Err(Errno::INVAL),
        };
        self.tree.set_xattr(node, name, value, mode)
    }

    /// GETXATTR.
    pub(super) fn getxattr(
        &self,
        node: Ino,
        args: &mut Args<'_>,
        reply: &mut impl Reply,
    ) -> Result<(), Errno> {
        let get: GetxattrIn = args.fixed()?;
        let name = checked(args.string()?)?;
        put_sized(reply, get.size, &self.tree.get_xattr(node, name)?)
    }

    /// LISTXATTR.
    pub(super) fn listxattr(
        &self,
        node: Ino,
        args: &mut Args<'_>,
        reply: &mut impl Reply,
    ) -> Result<(), Errno> {
        let list: GetxattrIn = args.fixed()?;
        put_sized(reply, list.size, &self.tree.list_xattr(node)?)
    }

    /// REMOVEXATTR.
    pub(super) fn removexattr(&mut self, node: Ino, args: &mut Args<'_>) -> Result<(), Errno> {
        let name = checked(args.string()?)?;
        self.tree.remove_xattr(node, name)
    }
}
