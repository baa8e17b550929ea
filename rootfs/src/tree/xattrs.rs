//! Extended attributes: opaque bytes of the guest, bounded as Linux bounds them.

use rustix::io::Errno;

use super::{Ino, Tree, XATTR_LIST_MAX, XATTR_NAME_MAX, XATTR_SIZE_MAX, XattrMode};

/// Name spaces that are stored (xattr(7)); who may use which is the guest kernel's business.
const NAMESPACES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

/// The two that have no name space of free names (acl(5)).
const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// The most bytes of names and values that one inode may have.
const INODE_BYTES_MAX: u64 = 2 * XATTR_SIZE_MAX as u64;

/// The most bytes of names and values, and of symbolic links' targets, in all layers above the
/// packed ones: they are in the monitor's memory.
pub(super) const LAYER_BYTES_MAX: u64 = 64 << 20;

impl Tree {
    /// Value of an extended attribute.
    ///
    /// # Errors
    /// `NODATA` when there is none of that name; `STALE`, `IO`.
    pub fn get_xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, Errno> {
        self.layers().get_xattr(ino, name)
    }

    /// Names of all extended attributes, each followed by NUL, as listxattr(2) gives them.
    ///
    /// # Errors
    /// `STALE`, `IO`.
    pub fn list_xattr(&self, ino: Ino) -> Result<Vec<u8>, Errno> {
        self.layers().list_xattr(ino)
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// `EXIST` or `NODATA` as `mode` asks, `OPNOTSUPP` for other name spaces than `user.`,
    /// `trusted.`, `security.` and POSIX ACLs, `RANGE` for names, `TOOBIG` for values beyond
    /// Linux' limits, `NOSPC` when there are too many; `STALE`, `IO`.
    pub fn set_xattr(
        &mut self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), Errno> {
        check_name(name)?;
        if value.len() > XATTR_SIZE_MAX {
            return Err(Errno::TOOBIG);
        }
        self.writable.before_change()?;
        self.own(ino)?;
        let node = self.writable.delta().node(ino).ok_or(Errno::STALE)?;
        let old = node.xattrs.get(name);
        match (mode, old) {
            (XattrMode::Create, Some(_)) => return Err(Errno::EXIST),
            (XattrMode::Replace, None) => return Err(Errno::NODATA),
            _ => {}
        }
        let added = (name.len() + value.len()) as u64;
        let freed = old.map_or(0, |old| (name.len() + old.len()) as u64);
        let names: usize = node.xattrs.keys().map(|name| name.len() + 1).sum();
        let total = self.counts().held_bytes;
        if node.xattr_bytes() + added - freed > INODE_BYTES_MAX
            || (added > freed && total + added - freed > LAYER_BYTES_MAX)
            || (old.is_none() && names + name.len() + 1 > XATTR_LIST_MAX)
        {
            return Err(Errno::NOSPC);
        }
        let now = self.now();
        self.update(ino, |node| {
            node.xattrs.insert(name.into(), value.into());
            node.attr.ctime = now;
        })
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// `NODATA` when there is none of that name; `STALE`, `IO`.
    pub fn remove_xattr(&mut self, ino: Ino, name: &[u8]) -> Result<(), Errno> {
        self.get_xattr(ino, name)?;
        self.writable.before_change()?;
        let now = self.now();
        self.update(ino, |node| {
            node.xattrs.remove(name);
            node.attr.ctime = now;
        })
    }
}

fn check_name(name: &[u8]) -> Result<(), Errno> {
    if name.is_empty() || name.len() > XATTR_NAME_MAX {
        return Err(Errno::RANGE);
    }
    if name.contains(&0) {
        return Err(Errno::INVAL);
    }
    let known = ACLS.contains(&name)
        || NAMESPACES
            .iter()
            .any(|space| name.len() > space.len() && name.starts_with(space));
    if known { Ok(()) } else { Err(Errno::OPNOTSUPP) }
}
