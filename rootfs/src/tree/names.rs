//! Names: making, linking, removing.

use rustix::io::Errno;

use super::packed::format::{MAX_COOKIE, MAX_INO};
use super::writable::{Node, NodeContent, NodeEntry, Xattrs};
use super::xattrs::LAYER_BYTES_MAX;
use super::{Attr, Cookie, FileType, Ino, Name, NewNode, SYMLINK_MAX, Timestamp, Tree};

/// The most names that an inode may have, as in ext4 (`EXT4_LINK_MAX`).
const LINK_MAX: u32 = 65_000;

/// Set-group-id: of a directory, that what is made in it gets its group (inode(7)).
const S_ISGID: u16 = 0o2000;

/// What a directory says as its size, and its blocks of 512 bytes.
const DIR_SIZE: u64 = 4096;

impl Tree {
    /// Makes an empty regular file.
    ///
    /// # Errors
    /// `EXIST` when the name is taken, `NOENT` when the directory is removed, `NOSPC` beyond the
    /// quota; `NOTDIR`, `STALE`, `IO`.
    pub fn create_file(&mut self, node: NewNode<'_>) -> Result<Attr, Errno> {
        self.make(node, FileType::Regular, 0, &[])
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// Those of [`Tree::create_file`].
    pub fn mkdir(&mut self, node: NewNode<'_>) -> Result<Attr, Errno> {
        self.make(node, FileType::Directory, 0, &[])
    }

    /// Makes a regular file, device node, FIFO or socket.
    ///
    /// # Errors
    /// Those of [`Tree::create_file`]; `INVAL` for other types.
    pub fn mknod(
        &mut self,
        node: NewNode<'_>,
        file_type: FileType,
        rdev: u32,
    ) -> Result<Attr, Errno> {
        match file_type {
            FileType::Directory | FileType::Symlink => Err(Errno::INVAL),
            FileType::CharDevice | FileType::BlockDevice => self.make(node, file_type, rdev, &[]),
            FileType::Regular | FileType::Fifo | FileType::Socket => {
                self.make(node, file_type, 0, &[])
            }
        }
    }

    /// Makes a symbolic link; its mode is 0777 whatever `node` says.
    ///
    /// # Errors
    /// Those of [`Tree::create_file`]; `NOENT` for an empty target, `NAMETOOLONG`, `INVAL` for
    /// one with a NUL.
    pub fn symlink(&mut self, node: NewNode<'_>, target: &[u8]) -> Result<Attr, Errno> {
        if target.is_empty() {
            return Err(Errno::NOENT);
        }
        if target.len() > SYMLINK_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        if target.contains(&0) {
            return Err(Errno::INVAL);
        }
        self.make(
            NewNode {
                mode: 0o777,
                ..node
            },
            FileType::Symlink,
            0,
            target,
        )
    }

    fn make(
        &mut self,
        new: NewNode<'_>,
        file_type: FileType,
        rdev: u32,
        target: &[u8],
    ) -> Result<Attr, Errno> {
        self.writable.before_change()?;
        let parent = self.free_name(new.parent, new.name)?;
        let counts = self.counts();
        if counts.inodes >= self.quota.inodes
            || self.writable.delta().next_ino().0 >= MAX_INO
            || (!target.is_empty() && counts.held_bytes + target.len() as u64 > LAYER_BYTES_MAX)
        {
            return Err(Errno::NOSPC);
        }
        self.own(new.parent)?;
        let is_dir = file_type == FileType::Directory;
        let ino = self.writable.delta().next_ino();
        let entry = self.plan_entry(new.parent, new.name, ino, file_type)?;
        let now = self.now();
        let mut mode = new.mode & 0o7777;
        let mut gid = new.owner.gid;
        if parent.mode & S_ISGID != 0 {
            gid = parent.gid;
            if is_dir {
                mode |= S_ISGID;
            }
        }
        let attr = Attr {
            ino: self.writable.take_ino(),
            file_type,
            mode,
            nlink: if is_dir { 2 } else { 1 },
            uid: new.owner.uid,
            gid,
            rdev,
            size: if is_dir {
                DIR_SIZE
            } else {
                target.len() as u64
            },
            blocks: if is_dir { DIR_SIZE / 512 } else { 0 },
            atime: now,
            mtime: now,
            ctime: now,
        };
        self.writable.put_node(Node {
            attr,
            parent: if is_dir { new.parent } else { Ino::ROOT },
            content: NodeContent::Hole,
            target: target.into(),
            xattrs: Xattrs::new(),
            journaled: false,
        });
        self.writable
            .set_entry(new.parent, new.name.as_bytes(), Some(entry));
        self.touch_dir(new.parent, now, i32::from(is_dir));
        Ok(attr)
    }

    /// Attributes of directory `parent`, which lives and where `name` and one name more are free.
    fn free_name(&self, parent: Ino, name: Name<'_>) -> Result<Attr, Errno> {
        let attr = self.dir_attr(parent)?;
        if attr.nlink == 0 {
            return Err(Errno::NOENT);
        }
        if self.entry(parent, name)?.is_some() {
            return Err(Errno::EXIST);
        }
        if self.counts().names >= self.quota.inodes {
            return Err(Errno::NOSPC);
        }
        Ok(attr)
    }

    /// Gives `ino` one more name.
    ///
    /// # Errors
    /// `PERM` for directories, `NOENT` for an inode that has no name any more, `MLINK`; those of
    /// [`Tree::create_file`].
    pub fn link(&mut self, ino: Ino, parent: Ino, name: Name<'_>) -> Result<Attr, Errno> {
        self.writable.before_change()?;
        let attr = self.attr(ino)?;
        self.free_name(parent, name)?;
        match (attr.file_type, attr.nlink) {
            (FileType::Directory, _) => return Err(Errno::PERM),
            (_, 0) => return Err(Errno::NOENT),
            (_, LINK_MAX..) => return Err(Errno::MLINK),
            _ => {}
        }
        self.own(parent)?;
        let entry = self.plan_entry(parent, name, ino, attr.file_type)?;
        let now = self.now();
        let attr = self.update(ino, |node| {
            node.attr.nlink += 1;
            node.attr.ctime = now;
            node.attr
        })?;
        self.writable
            .set_entry(parent, name.as_bytes(), Some(entry));
        self.touch_dir(parent, now, 0);
        Ok(attr)
    }

    /// Removes the name of anything but a directory. The inode lives on while it has other
    /// names or is retained.
    ///
    /// # Errors
    /// `NOENT`, `ISDIR`, `NOTDIR`, `STALE`, `IO`.
    pub fn unlink(&mut self, parent: Ino, name: Name<'_>) -> Result<(), Errno> {
        // Removing has to work on a full disk too.
        let _ = self.writable.before_change();
        let (ino, _) = self.entry(parent, name)?.ok_or(Errno::NOENT)?;
        if self.named_attr(ino)?.file_type == FileType::Directory {
            return Err(Errno::ISDIR);
        }
        self.remove_name(parent, name, ino)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `NOENT`, `NOTDIR`, `NOTEMPTY`, `STALE`, `IO`.
    pub fn rmdir(&mut self, parent: Ino, name: Name<'_>) -> Result<(), Errno> {
        let _ = self.writable.before_change();
        let (ino, _) = self.entry(parent, name)?.ok_or(Errno::NOENT)?;
        if self.named_attr(ino)?.file_type != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        if !self.is_empty(ino)? {
            return Err(Errno::NOTEMPTY);
        }
        self.remove_name(parent, name, ino)
    }

    fn remove_name(&mut self, parent: Ino, name: Name<'_>, ino: Ino) -> Result<(), Errno> {
        self.own(parent)?;
        self.own(ino)?;
        let entry = self.plan_absence(parent, name)?;
        let now = self.now();
        let is_dir = self.attr(ino)?.file_type == FileType::Directory;
        self.writable.set_entry(parent, name.as_bytes(), entry);
        self.touch_dir(parent, now, -i32::from(is_dir));
        self.drop_name(ino, now);
        Ok(())
    }

    /// Says of `ino`, which the writable layer has, that it has one name less.
    pub(super) fn drop_name(&mut self, ino: Ino, now: Timestamp) {
        let is_dir = self.writable.update(ino, |node| {
            let is_dir = node.attr.file_type == FileType::Directory;
            node.attr.nlink = if is_dir {
                0
            } else {
                node.attr.nlink.saturating_sub(1)
            };
            node.attr.ctime = now;
            is_dir
        });
        if is_dir == Some(true) {
            self.writable.remove_dir(ino);
        }
        self.free_if_unused(ino);
    }

    /// The entry that makes `name` in `dir` mean `ino`. One that replaces an entry of the writable layer
    /// takes its place in listings.
    pub(super) fn plan_entry(
        &self,
        dir: Ino,
        name: Name<'_>,
        ino: Ino,
        file_type: FileType,
    ) -> Result<NodeEntry, Errno> {
        let delta = self.writable.delta();
        let changed = delta.dir(dir);
        if let Some(NodeEntry::Child { cookie, .. }) =
            changed.and_then(|changed| changed.get(name.as_bytes()))
        {
            return Ok(NodeEntry::Child {
                ino,
                file_type,
                cookie,
            });
        }
        let beneath = match delta.made(dir) {
            true => Cookie::FIRST_NAMED,
            false => self.beneath().next_cookie(dir)?,
        };
        let cookie = changed
            .map_or(0, |changed| changed.next_cookie())
            .max(beneath);
        if cookie >= MAX_COOKIE - 1 {
            return Err(Errno::NOSPC);
        }
        Ok(NodeEntry::Child {
            ino,
            file_type,
            cookie,
        })
    }

    /// The entry, if one is needed, that makes `name` in `dir` mean nothing.
    pub(super) fn plan_absence(
        &self,
        dir: Ino,
        name: Name<'_>,
    ) -> Result<Option<NodeEntry>, Errno> {
        let hides = !self.writable.delta().made(dir) && self.beneath().entry(dir, name)?.is_some();
        Ok(hides.then_some(NodeEntry::Whiteout))
    }

    /// Says of directory `dir`, which the writable layer has, that its names changed, and that it
    /// has `subdirs` more directories in it.
    pub(super) fn touch_dir(&mut self, dir: Ino, now: Timestamp, subdirs: i32) {
        self.writable.update(dir, |node| {
            node.attr.mtime = now;
            node.attr.ctime = now;
            node.attr.nlink = node.attr.nlink.saturating_add_signed(subdirs);
        });
    }
}
