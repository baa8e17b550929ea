//! Changes of the delta as the journal keeps them.
//!
//! A change says a new state, not a step from an old one, so applying one twice, or over a
//! checkpoint that has it already, is the same as applying it once. Numbers are little-endian.

use super::node::{Node, NodeContent, NodeEntry, Xattrs};
use crate::tree::packed::format::{MAX_COOKIE, MAX_INO, MAX_SIZE};
use crate::tree::{Attr, Cookie, FileType, Ino, Name, Timestamp};

/// Why bytes of the journal are no changes.
pub(super) type Reason = &'static str;

/// One change of the delta, as it is read back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// An inode's whole state.
    Inode(Box<Node>),
    /// An inode has no name and no user any more.
    Gone(Ino),
    /// What a directory says of a name.
    Entry(Ino, Vec<u8>, NodeEntry),
    /// A directory says nothing of a name any more; that of layers beneath counts.
    EntryGone(Ino, Vec<u8>),
    /// The lowest inode number that was never given.
    NextIno(Ino),
}

const INODE: u8 = 1;
const GONE: u8 = 2;
const ENTRY: u8 = 3;
const WHITEOUT: u8 = 4;
const ENTRY_GONE: u8 = 5;
const NEXT_INO: u8 = 6;

/// Appends [`Change::Inode`].
pub(super) fn put_inode(out: &mut Vec<u8>, node: &Node) {
    let attr = &node.attr;
    out.push(INODE);
    put_u64(out, attr.ino.0);
    put_u32(out, attr.file_type.mode_bits() | u32::from(attr.mode));
    for number in [attr.nlink, attr.uid, attr.gid, attr.rdev] {
        put_u32(out, number);
    }
    put_u64(out, attr.size);
    put_u64(out, attr.blocks);
    for time in [attr.atime, attr.mtime, attr.ctime] {
        put_u64(out, time.secs.cast_unsigned());
        put_u32(out, time.nanos);
    }
    put_u64(out, node.parent.0);
    out.push(match node.content {
        NodeContent::Hole => 0,
        NodeContent::Own => 1,
        NodeContent::Beneath => 2,
    });
    put_bytes(out, &node.target);
    put_u32(
        out,
        u32::try_from(node.xattrs.len()).expect("bounded by XATTR_LIST_MAX"),
    );
    for (name, value) in &node.xattrs {
        put_bytes(out, name);
        put_bytes(out, value);
    }
}

/// Appends [`Change::Gone`].
pub(super) fn put_gone(out: &mut Vec<u8>, ino: Ino) {
    out.push(GONE);
    put_u64(out, ino.0);
}

/// Appends [`Change::Entry`].
pub(super) fn put_entry(out: &mut Vec<u8>, dir: Ino, name: &[u8], entry: NodeEntry) {
    match entry {
        NodeEntry::Child {
            ino,
            file_type,
            cookie,
        } => {
            out.push(ENTRY);
            put_u64(out, dir.0);
            put_bytes(out, name);
            put_u64(out, ino.0);
            put_u32(out, file_type.mode_bits());
            put_u64(out, cookie);
        }
        NodeEntry::Whiteout => {
            out.push(WHITEOUT);
            put_u64(out, dir.0);
            put_bytes(out, name);
        }
    }
}

/// Appends [`Change::EntryGone`].
pub(super) fn put_entry_gone(out: &mut Vec<u8>, dir: Ino, name: &[u8]) {
    out.push(ENTRY_GONE);
    put_u64(out, dir.0);
    put_bytes(out, name);
}

/// Appends [`Change::NextIno`].
pub(super) fn put_next_ino(out: &mut Vec<u8>, ino: Ino) {
    out.push(NEXT_INO);
    put_u64(out, ino.0);
}

fn put_u32(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(
        out,
        u32::try_from(bytes.len()).expect("names, targets and values are short"),
    );
    out.extend_from_slice(bytes);
}

/// Takes one change off the front of `rest`.
pub(super) fn next(rest: &mut &[u8]) -> Result<Change, Reason> {
    let mut reader = Reader(rest);
    let change = match reader.u8()? {
        INODE => Change::Inode(Box::new(reader.node()?)),
        GONE => Change::Gone(reader.ino()?),
        ENTRY => {
            let (dir, name) = (reader.ino()?, reader.name()?);
            let (ino, mode) = (reader.ino()?, reader.u32()?);
            let file_type = FileType::from_mode(mode).ok_or("unknown file type")?;
            let cookie = reader.u64()?;
            if !(Cookie::FIRST_NAMED..MAX_COOKIE).contains(&cookie) {
                return Err("cookie out of range");
            }
            Change::Entry(
                dir,
                name,
                NodeEntry::Child {
                    ino,
                    file_type,
                    cookie,
                },
            )
        }
        WHITEOUT => Change::Entry(reader.ino()?, reader.name()?, NodeEntry::Whiteout),
        ENTRY_GONE => Change::EntryGone(reader.ino()?, reader.name()?),
        NEXT_INO => Change::NextIno(reader.ino()?),
        _ => return Err("unknown change"),
    };
    *rest = reader.0;
    Ok(change)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Reason> {
        let (head, tail) = self.0.split_at_checked(n).ok_or("change cut short")?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Reason> {
        self.take(N)?.try_into().map_err(|_| "change cut short")
    }

    fn u8(&mut self) -> Result<u8, Reason> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, Reason> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Reason> {
        self.array().map(u64::from_le_bytes)
    }

    fn bytes(&mut self) -> Result<&'a [u8], Reason> {
        let len = usize::try_from(self.u32()?).map_err(|_| "change cut short")?;
        self.take(len)
    }

    fn ino(&mut self) -> Result<Ino, Reason> {
        match self.u64()? {
            0 => Err("inode number zero"),
            ino if ino > MAX_INO => Err("inode number out of range"),
            ino => Ok(Ino(ino)),
        }
    }

    fn name(&mut self) -> Result<Vec<u8>, Reason> {
        let name = Name::new(self.bytes()?).map_err(|_| "not a name")?;
        Ok(name.as_bytes().to_vec())
    }

    fn time(&mut self) -> Result<Timestamp, Reason> {
        let (secs, nanos) = (self.u64()?.cast_signed(), self.u32()?);
        if nanos >= 1_000_000_000 {
            return Err("nanoseconds out of range");
        }
        Ok(Timestamp { secs, nanos })
    }

    fn node(&mut self) -> Result<Node, Reason> {
        let ino = self.ino()?;
        let mode = self.u32()?;
        let attr = Attr {
            ino,
            file_type: FileType::from_mode(mode).ok_or("unknown file type")?,
            mode: (mode & 0o7777) as u16,
            nlink: self.u32()?,
            uid: self.u32()?,
            gid: self.u32()?,
            rdev: self.u32()?,
            size: self.u64()?,
            blocks: self.u64()?,
            atime: self.time()?,
            mtime: self.time()?,
            ctime: self.time()?,
        };
        if attr.size > MAX_SIZE || attr.blocks > MAX_SIZE / 512 {
            return Err("size out of range");
        }
        let parent = self.ino()?;
        let content = match self.u8()? {
            0 => NodeContent::Hole,
            1 => NodeContent::Own,
            2 => NodeContent::Beneath,
            _ => return Err("unknown place of content"),
        };
        let target = self.bytes()?.into();
        let mut xattrs = Xattrs::new();
        for _ in 0..self.u32()? {
            let name = self.bytes()?.into();
            xattrs.insert(name, self.bytes()?.into());
        }
        Ok(Node {
            attr,
            parent,
            content,
            target,
            xattrs,
            journaled: true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        let time = |secs| Timestamp { secs, nanos: 5 };
        Node {
            attr: Attr {
                ino: Ino(77),
                file_type: FileType::Symlink,
                mode: 0o4755,
                nlink: 3,
                uid: 1,
                gid: 2,
                rdev: 0,
                size: 4,
                blocks: 8,
                atime: time(-1),
                mtime: time(2),
                ctime: time(3),
            },
            parent: Ino(1),
            content: NodeContent::Own,
            target: b"away"[..].into(),
            xattrs: [(b"user.k"[..].into(), b"v"[..].into())].into(),
            journaled: true,
        }
    }

    fn all() -> (Vec<u8>, Vec<Change>) {
        let entry = NodeEntry::Child {
            ino: Ino(9),
            file_type: FileType::Fifo,
            cookie: 4,
        };
        let mut bytes = Vec::new();
        put_inode(&mut bytes, &node());
        put_gone(&mut bytes, Ino(5));
        put_entry(&mut bytes, Ino(1), b"pipe", entry);
        put_entry(&mut bytes, Ino(1), b"gone", NodeEntry::Whiteout);
        put_entry_gone(&mut bytes, Ino(2), b"name");
        put_next_ino(&mut bytes, Ino(100));
        let changes = vec![
            Change::Inode(Box::new(node())),
            Change::Gone(Ino(5)),
            Change::Entry(Ino(1), b"pipe".to_vec(), entry),
            Change::Entry(Ino(1), b"gone".to_vec(), NodeEntry::Whiteout),
            Change::EntryGone(Ino(2), b"name".to_vec()),
            Change::NextIno(Ino(100)),
        ];
        (bytes, changes)
    }

    #[test]
    fn changes_come_back_as_they_were_put() {
        let (bytes, changes) = all();
        let mut rest = bytes.as_slice();
        let read: Vec<_> =
            std::iter::from_fn(|| (!rest.is_empty()).then(|| next(&mut rest).unwrap())).collect();
        assert_eq!(read, changes);
    }

    #[test]
    fn bytes_cut_or_changed_anywhere_never_panic() {
        let (bytes, _) = all();
        for at in 0..bytes.len() {
            let mut rest = &bytes[..at];
            while !rest.is_empty() && next(&mut rest).is_ok() {}
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                let mut rest = changed.as_slice();
                while !rest.is_empty() && next(&mut rest).is_ok() {}
            }
        }
    }
}
