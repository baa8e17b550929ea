//! Names and the nodes behind them: LOOKUP and its opposite FORGET, and all that makes, moves or
//! removes a name.
//!
//! Lookup counts are exact: each reply that tells the kernel a node (LOOKUP, the makers, LINK,
//! READDIRPLUS) counts one, and only after it is certain that the reply fits; FORGET takes back.

use rustix::io::Errno;

use super::super::abi::{
    BatchForgetIn, CreateIn, EntryOut, ForgetIn, ForgetOne, LinkIn, MkdirIn, MknodIn, O_EXCL,
    OpenOut, RENAME_EXCHANGE, RENAME_NOREPLACE, Rename2In, RenameIn,
};
use super::super::args::{Args, Head, read_struct};
use super::super::transport::{Reply, Request, Short};
use super::session::opened;
use super::{Server, expect_room, put};
use crate::tree::{Attr, FileType, Ino, Name, NewNode, Owner, RenameMode};

/// How long names, their absence and attributes stay true, in seconds: 136 years.
pub(super) const FOREVER: u64 = u32::MAX as u64;

/// Most nodes that one BATCH_FORGET forgets: more than fit the largest request that a kernel has
/// room for, its largest WRITE.
const BATCH_MAX: usize = super::MAX_WRITE as usize / size_of::<ForgetOne>() + 1024;

/// What the kernel is told about a name.
pub(super) fn entry(attr: Attr) -> EntryOut {
    EntryOut {
        nodeid: attr.ino.0,
        // Inode numbers are never used twice.
        generation: 0,
        entry_valid: FOREVER,
        attr_valid: FOREVER,
        entry_valid_nsec: 0,
        attr_valid_nsec: 0,
        attr: attr.into(),
    }
}

/// "No such name", to be remembered.
fn negative_entry() -> EntryOut {
    EntryOut {
        entry_valid: FOREVER,
        ..EntryOut::default()
    }
}

/// A node to be made for the caller of `head`. The kernel has applied the umask.
fn new_node<'a>(head: &Head, name: Name<'a>, mode: u32) -> NewNode<'a> {
    NewNode {
        parent: head.node,
        name,
        owner: Owner {
            uid: head.uid,
            gid: head.gid,
        },
        mode: permissions(mode),
    }
}

/// The permission bits of a `st_mode`.
pub(super) fn permissions(mode: u32) -> u16 {
    // The mask leaves 12 bits.
    (mode & 0o7777) as u16
}

impl Server {
    /// Tells the kernel about a node, which from now on it knows once more.
    fn put_entry(&mut self, attr: Attr, reply: &mut impl Reply) -> Result<(), Errno> {
        put(reply, &entry(attr))?;
        self.tree.retain(attr.ino);
        Ok(())
    }

    /// LOOKUP.
    pub(super) fn lookup(
        &mut self,
        parent: Ino,
        args: &mut Args<'_>,
        reply: &mut impl Reply,
    ) -> Result<(), Errno> {
        match self.tree.lookup(parent, args.name()?) {
            Ok(attr) => self.put_entry(attr, reply),
            Err(Errno::NOENT) => put(reply, &negative_entry()),
            Err(errno) => Err(errno),
        }
    }

    /// FORGET.
    pub(super) fn forget(&mut self, node: Ino, request: &mut impl Request) {
        if let Ok(forget) = read_struct::<ForgetIn>(request) {
            self.tree.forget(node, forget.nlookup);
        }
    }

    /// BATCH_FORGET: bounded by the bytes that are there, whatever its count says, and by
    /// [`BATCH_MAX`].
    pub(super) fn batch_forget(&mut self, len: usize, request: &mut impl Request) {
        let Ok(batch) = read_struct::<BatchForgetIn>(request) else {
            return;
        };
        let present = len.saturating_sub(size_of::<BatchForgetIn>()) / size_of::<ForgetOne>();
        let count = usize::try_from(batch.count).unwrap_or(usize::MAX);
        for _ in 0..present.min(count).min(BATCH_MAX) {
            let Ok(one) = read_struct::<ForgetOne>(request) else {
                return;
            };
            self.tree.forget(Ino(one.nodeid), one.nlookup);
        }
    }

    /// READLINK.
    pub(super) fn readlink(&self, node: Ino, reply: &mut impl Reply) -> Result<(), Errno> {
        let target = self.tree.readlink(node)?;
        reply.write(&target).map_err(|Short| Errno::NAMETOOLONG)
    }

    /// SYMLINK.
    pub(super) fn symlink(
        &mut self,
        head: &Head,
        args: &mut Args<'_>,
        reply: &mut impl Reply,
    ) -> Result<(), Errno> {
        let name = args.name()?;
        let target = args.string()?;
        expect_room::<EntryOut>(reply)?;
        let attr = self.tree.symlink(new_node(head, name, 0o777), target)?;
        self.put_entry(attr, reply)
    }

    /// MKNOD: regular files, device nodes, FIFOs, sockets.
    pub(super) fn mknod(
        &mut self,
        head: &Head,
        args: &mut Args<'_>,
        reply: &mut impl Reply,
    ) -> Result<(), Errno> {
        let mknod: MknodIn = args.fixed()?;
        let node = new_node(head, args.name()?, mknod.mode);
        expect_room::<EntryOut>(reply)?;
        let attr = match FileType::from_mode(mknod.mode) {
            Some(FileType::Regular) => self.tree.create_file(node)?,
            Some(
                kind @ (FileType::CharDevice
                | FileType::BlockDevice
                | FileType::Fifo
                | FileType::Socket),
            ) => self.tree.mknod(node, kind, mknod.rdev)?,
            Some(FileType::Directory | FileType::Symlink) | None => return Err(Errno::INVAL),
        };
        self.put_entry(attr, reply)
    }

    /// MKDIR.
    pub(super) fn mkdir(
        &mut self,
        head: &Head,
        args: &mut Args<'_>,
        reply: &mut impl Reply,
    ) -> Result<(), Errno> {
        let mkdir: MkdirIn = args.fixed()?;
        let node = new_node(head, args.name()?, mkdir.mode);
        expect_room::<EntryOut>(reply)?;
        let attr = self.tree.mkdir(node)?;
        self.put_entry(attr, reply)
    }

    /// CREATE: MKNOD of a regular file and OPEN in one.
    pub(super) fn create(
        &mut self,
        head: &Head,
        args: &mut Args<'_>,
        reply: &mut impl Reply,
    ) -> Result<(), Errno> {
        let create: CreateIn = args.fixed()?;
        let name = args.name()?;
        expect_room::<[u8; size_of::<EntryOut>() + size_of::<OpenOut>()]>(reply)?;
        let attr = match self.tree.create_file(new_node(head, name, create.mode)) {
            Err(Errno::EXIST) if create.flags & O_EXCL == 0 => {
                let attr = self.tree.lookup(head.node, name)?;
                match attr.file_type {
                    FileType::Regular => attr,
                    FileType::Directory => return Err(Errno::ISDIR),
                    _ => return Err(Errno::EXIST),
                }
            }
            other => other?,
        };
        self.put_entry(attr, reply)?;
        put(reply, &opened())
    }

    /// LINK.
    pub(super) fn link(
        &mut self,
        parent: Ino,
        args: &mut Args<'_>,
        reply: &mut impl Reply,
    ) -> Result<(), Errno> {
        let link: LinkIn = args.fixed()?;
        let name = args.name()?;
        expect_room::<EntryOut>(reply)?;
        let attr = self.tree.link(Ino(link.oldnodeid), parent, name)?;
        self.put_entry(attr, reply)
    }

    /// RENAME.
    pub(super) fn rename(&mut self, parent: Ino, args: &mut Args<'_>) -> Result<(), Errno> {
        let rename: RenameIn = args.fixed()?;
        let (old, new) = (args.name()?, args.name()?);
        self.tree
            .rename(parent, old, Ino(rename.newdir), new, RenameMode::Replace)
    }

    /// RENAME2. Whiteouts (`RENAME_WHITEOUT`) are ours alone to make.
    pub(super) fn rename2(&mut self, parent: Ino, args: &mut Args<'_>) -> Result<(), Errno> {
        let rename: Rename2In = args.fixed()?;
        let (old, new) = (args.name()?, args.name()?);
        let mode = match rename.flags {
            0 => RenameMode::Replace,
            RENAME_NOREPLACE => RenameMode::NoReplace,
            RENAME_EXCHANGE => RenameMode::Exchange,
            _ => return Err(Errno::INVAL),
        };
        self.tree.rename(parent, old, Ino(rename.newdir), new, mode)
    }
}
