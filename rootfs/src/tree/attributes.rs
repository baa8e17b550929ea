//! Attributes: changing them, and what follows from that for privileges and content.

use rustix::io::Errno;

use super::packed::format::MAX_SIZE;
use super::writable::{Node, NodeContent};
use super::{Attr, FileType, Ino, SetAttr, Tree};

const S_ISUID: u16 = 0o4000;
const S_ISGID: u16 = 0o2000;
const S_IXGRP: u16 = 0o0010;

/// Where Linux keeps the capabilities of an executable (capabilities(7)).
const CAPABILITY: &[u8] = b"security.capability";

impl Tree {
    /// Changes attributes of `ino`. Content is copied only by a new size below the old one, and
    /// only the part that stays.
    ///
    /// # Errors
    /// With a size: `ISDIR` or `INVAL` for what is no regular file, `FBIG`, `NOSPC`. `STALE`,
    /// `IO`, and the host's own.
    pub fn set_attr(&mut self, ino: Ino, change: &SetAttr) -> Result<Attr, Errno> {
        self.writable.before_change()?;
        if let Some(size) = change.size {
            self.file_attr(ino)?;
            self.resize(ino, size)?;
        }
        let now = self.now();
        self.update(ino, |node| {
            let attr = &mut node.attr;
            attr.uid = change.uid.unwrap_or(attr.uid);
            attr.gid = change.gid.unwrap_or(attr.gid);
            attr.atime = change.atime.unwrap_or(attr.atime);
            let mtime = if change.size.is_some() {
                now
            } else {
                attr.mtime
            };
            attr.mtime = change.mtime.unwrap_or(mtime);
            attr.ctime = change.ctime.unwrap_or(now);
            let chown = change.uid.is_some() || change.gid.is_some();
            match change.mode {
                Some(mode) => attr.mode = mode & 0o7777,
                None if chown => clear_privileges(node),
                None => {}
            }
            node.attr
        })
    }

    /// Clears set-user-id, set-group-id (of group-executable files) and file capabilities, as a
    /// write or truncation by one without privilege does (`FUSE_HANDLE_KILLPRIV_V2`).
    ///
    /// # Errors
    /// `STALE`, `IO`.
    pub fn kill_privileges(&mut self, ino: Ino) -> Result<(), Errno> {
        let attr = self.attr(ino)?;
        let capable = match self.get_xattr(ino, CAPABILITY) {
            Ok(_) => true,
            Err(Errno::NODATA) => false,
            Err(error) => return Err(error),
        };
        if attr.file_type == FileType::Directory
            || (unprivileged(attr.mode) == attr.mode && !capable)
        {
            return Ok(());
        }
        self.writable.before_change()?;
        let now = self.now();
        self.update(ino, |node| {
            clear_privileges(node);
            node.attr.ctime = now;
        })
    }

    /// Gives regular file `ino` a new size.
    fn resize(&mut self, ino: Ino, size: u64) -> Result<(), Errno> {
        if size > MAX_SIZE {
            return Err(Errno::FBIG);
        }
        self.own(ino)?;
        let node = self.writable.delta().node(ino).ok_or(Errno::STALE)?;
        let (before, content, journaled) = (node.attr.size, node.content, node.journaled);
        match content {
            NodeContent::Beneath if size == 0 => {
                self.update(ino, |node| {
                    node.content = NodeContent::Hole;
                    node.attr.blocks = 0;
                })?;
            }
            NodeContent::Beneath if size < before => self.copy_up(ino, size)?,
            NodeContent::Own if size < before => {
                self.set_size(ino, size)?;
                if journaled {
                    // If the process ends between these two, the size counts, not the file's
                    // length. When the journal cannot be written this is no worse than a crash.
                    let _ = self.writable.flush();
                }
                if let Err(error) = self.writable.trim_content(ino) {
                    self.set_size(ino, before)?;
                    return Err(error);
                }
                self.writable.wrote_content(ino);
                self.refresh_blocks(ino)?;
            }
            NodeContent::Own if size > before => self.writable.trim_content(ino)?,
            NodeContent::Own | NodeContent::Beneath | NodeContent::Hole => {}
        }
        self.set_size(ino, size)
    }

    fn set_size(&mut self, ino: Ino, size: u64) -> Result<(), Errno> {
        self.update(ino, |node| node.attr.size = size)
    }
}

fn clear_privileges(node: &mut Node) {
    if node.attr.file_type != FileType::Directory {
        node.attr.mode = unprivileged(node.attr.mode);
        node.xattrs.remove(CAPABILITY);
    }
}

/// `mode` without what gives privileges. Set-group-id without execution by the group means
/// mandatory locking and stays (inode(7)).
fn unprivileged(mode: u16) -> u16 {
    let mode = mode & !S_ISUID;
    if mode & S_IXGRP != 0 {
        mode & !S_ISGID
    } else {
        mode
    }
}
