//! GETATTR, SETATTR, STATFS.

use rustix::io::Errno;

use super::super::abi::{AttrOut, GetattrIn, SetattrIn, SetattrValid, StatfsOut};
use super::super::args::Args;
use super::super::transport::Reply;
use super::names::{FOREVER, permissions};
use super::{Server, expect_room, put};
use crate::tree::{Attr, Ino, SetAttr, Timestamp};

/// What the kernel is told about a node it knows.
fn attributes(attr: Attr) -> AttrOut {
    AttrOut {
        attr_valid: FOREVER,
        attr: attr.into(),
        ..AttrOut::default()
    }
}

/// A time from the kernel.
fn time(secs: i64, nanos: u32) -> Result<Timestamp, Errno> {
    if nanos < 1_000_000_000 {
        Ok(Timestamp { secs, nanos })
    } else {
        Err(Errno::INVAL)
    }
}

/// What SETATTR asks for. Fields that are not said to be valid are not looked at.
fn change(args: &SetattrIn, valid: SetattrValid) -> Result<SetAttr, Errno> {
    // (uid_t)-1 means "leave it" in chown(2) and can be nobody's.
    let id = |flag, id| match valid.contains(flag) {
        true if id == u32::MAX => Err(Errno::INVAL),
        given => Ok(given.then_some(id)),
    };
    let moment = |set, now, secs, nanos| match (valid.contains(now), valid.contains(set)) {
        (true, _) => Ok(Some(Timestamp::now())),
        (false, true) => time(secs, nanos).map(Some),
        (false, false) => Ok(None),
    };
    let size = valid.contains(SetattrValid::SIZE).then_some(args.size);
    if size.is_some_and(|size| i64::try_from(size).is_err()) {
        return Err(Errno::FBIG);
    }
    Ok(SetAttr {
        mode: valid
            .contains(SetattrValid::MODE)
            .then(|| permissions(args.mode)),
        uid: id(SetattrValid::UID, args.uid)?,
        gid: id(SetattrValid::GID, args.gid)?,
        size,
        atime: moment(
            SetattrValid::ATIME,
            SetattrValid::ATIME_NOW,
            args.atime,
            args.atimensec,
        )?,
        mtime: moment(
            SetattrValid::MTIME,
            SetattrValid::MTIME_NOW,
            args.mtime,
            args.mtimensec,
        )?,
        ctime: match valid.contains(SetattrValid::CTIME) {
            true => Some(time(args.ctime, args.ctimensec)?),
            false => None,
        },
    })
}

impl Server {
    /// GETATTR.
    pub(super) fn getattr(
        &self,
        node: Ino,
        args: &mut Args<'_>,
        reply: &mut impl Reply,
    ) -> Result<(), Errno> {
        let _: GetattrIn = args.fixed()?;
        put(reply, &attributes(self.tree.attr(node)?))
    }

    /// SETATTR. Chown and truncation take set-id bits away as `FUSE_HANDLE_KILLPRIV_V2` wants it:
    /// chown always (the tree does), truncation when the kernel says so.
    pub(super) fn setattr(
        &mut self,
        node: Ino,
        args: &mut Args<'_>,
        reply: &mut impl Reply,
    ) -> Result<(), Errno> {
        let args: SetattrIn = args.fixed()?;
        let valid = SetattrValid::from_bits_truncate(args.valid);
        let change = change(&args, valid)?;
        expect_room::<AttrOut>(reply)?;
        let mut attr = self.tree.with_room(|tree| tree.set_attr(node, &change))?;
        if valid.contains(SetattrValid::KILL_SUIDGID) {
            self.tree.kill_privileges(node)?;
            attr = self.tree.attr(node)?;
        }
        put(reply, &attributes(attr))
    }

    /// STATFS.
    pub(super) fn statfs(&self, reply: &mut impl Reply) -> Result<(), Errno> {
        let stat = self.tree.stat_fs()?;
        put(
            reply,
            &StatfsOut {
                blocks: stat.blocks,
                bfree: stat.blocks_free,
                bavail: stat.blocks_available,
                files: stat.files,
                ffree: stat.files_free,
                bsize: stat.block_size,
                namelen: stat.name_max,
                frsize: stat.block_size,
                ..StatfsOut::default()
            },
        )
    }
}
