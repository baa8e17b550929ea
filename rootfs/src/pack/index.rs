//! The index file of a layer: numbers for the nodes of a finished tree, and its bytes.

use std::mem;

use sha2::{Digest, Sha256};
use zerocopy::IntoBytes;

use super::PackError;
use super::writer::{Kind, Node};
use crate::tree::packed::format::{
    CONTENT_HERE, CONTENT_HOLE, DATA_ALIGN, ENTRY_LEN, EntryRecord, HEADER_LEN, Header, INODE_LEN,
    InodeRecord, MAGIC, Section, VERSION, push_xattr,
};
use crate::tree::{Cookie, FileType};

/// What directories say as their size.
const DIR_SIZE: u64 = DATA_ALIGN;

/// The index of the tree whose root is the first of `nodes`, and how many inodes it has.
pub(super) fn build(
    nodes: &[Node],
    data_bytes: u64,
    data_sha256: [u8; 32],
) -> Result<(Vec<u8>, u64), PackError> {
    let layout = number(nodes);
    let inodes = layout.order.len() as u64;
    let sections = Sections::build(nodes, &layout)?;
    Ok((sections.into_index(data_bytes, data_sha256, inodes), inodes))
}

/// The numbers that nodes get: the root 1, then breadth first in the order of names, so that a
/// listing's inodes are neighbours and the order of the archive does not matter.
struct Layout {
    /// Node of each number, from 1.
    order: Vec<usize>,
    /// Number of each node, 0 when it has no name.
    ino: Vec<u64>,
    nlink: Vec<u32>,
    /// Number of each directory's parent, by node.
    parent: Vec<u64>,
}

fn number(nodes: &[Node]) -> Layout {
    let mut layout = Layout {
        order: vec![0],
        ino: vec![0; nodes.len()],
        nlink: vec![0; nodes.len()],
        parent: vec![0; nodes.len()],
    };
    layout.ino[0] = 1;
    layout.nlink[0] = 2;
    layout.parent[0] = 1;
    let mut next = 0;
    while let Some(&node) = layout.order.get(next) {
        next += 1;
        let Kind::Directory(entries) = &nodes[node].kind else {
            continue;
        };
        for &child in entries.values() {
            if layout.ino[child] == 0 {
                layout.order.push(child);
                layout.ino[child] = layout.order.len() as u64;
            }
            if matches!(nodes[child].kind, Kind::Directory(_)) {
                layout.nlink[child] = 2;
                layout.nlink[node] = layout.nlink[node].saturating_add(1);
                layout.parent[child] = layout.ino[node];
            } else {
                layout.nlink[child] = layout.nlink[child].saturating_add(1);
            }
        }
    }
    layout
}

struct Sections {
    inodes: Vec<u8>,
    entries: Vec<u8>,
    bytes: Vec<u8>,
}

impl Sections {
    fn build(nodes: &[Node], layout: &Layout) -> Result<Self, PackError> {
        let mut sections = Self {
            inodes: Vec::new(),
            entries: Vec::new(),
            bytes: Vec::new(),
        };
        for &node in &layout.order {
            sections.push_inode(nodes, layout, node)?;
        }
        Ok(sections)
    }

    fn push_inode(
        &mut self,
        nodes: &[Node],
        layout: &Layout,
        node: usize,
    ) -> Result<(), PackError> {
        let Node { kind, meta } = &nodes[node];
        let file_type = file_type(kind);
        let mut record = InodeRecord {
            ino: layout.ino[node].into(),
            mode: (file_type.mode_bits() | u32::from(meta.mode & 0o7777)).into(),
            uid: meta.uid.into(),
            gid: meta.gid.into(),
            nlink: layout.nlink[node].into(),
            rdev: 0.into(),
            content: CONTENT_HOLE.into(),
            size: 0.into(),
            blocks: 0.into(),
            start: 0.into(),
            count: 0.into(),
            first_cookie: 0.into(),
            parent: layout.parent[node].into(),
            atime: meta.mtime.secs.into(),
            mtime: meta.mtime.secs.into(),
            ctime: meta.mtime.secs.into(),
            atime_nanos: meta.mtime.nanos.into(),
            mtime_nanos: meta.mtime.nanos.into(),
            ctime_nanos: meta.mtime.nanos.into(),
            xattrs_len: 0.into(),
            xattrs_start: 0.into(),
        };
        match kind {
            Kind::Directory(entries) => {
                record.size = DIR_SIZE.into();
                record.blocks = (DIR_SIZE / 512).into();
                record.start = ((self.entries.len() / ENTRY_LEN) as u64).into();
                record.count = (entries.len() as u64).into();
                record.first_cookie = Cookie::FIRST_NAMED.into();
                for (name, &child) in entries {
                    self.push_entry(name, layout.ino[child], file_type_of(nodes, child))?;
                }
            }
            Kind::File(extent) => {
                record.size = extent.len.into();
                record.blocks = extent.blocks.into();
                record.start = extent.offset.into();
                record.count = extent.len.into();
                if extent.len > 0 {
                    record.content = CONTENT_HERE.into();
                }
            }
            Kind::Symlink(target) => {
                record.size = (target.len() as u64).into();
                record.start = (self.bytes.len() as u64).into();
                record.count = (target.len() as u64).into();
                self.bytes.extend_from_slice(target);
            }
            Kind::Node(_, rdev) => record.rdev = (*rdev).into(),
        }
        if !meta.xattrs.is_empty() {
            let start = self.bytes.len();
            for (name, value) in &meta.xattrs {
                push_xattr(&mut self.bytes, name, value);
            }
            record.xattrs_start = (start as u64).into();
            record.xattrs_len = fits_u32(self.bytes.len() - start)?.into();
        }
        self.inodes.extend_from_slice(record.as_bytes());
        Ok(())
    }

    fn push_entry(&mut self, name: &[u8], ino: u64, ty: FileType) -> Result<(), PackError> {
        let record = EntryRecord {
            ino: ino.into(),
            name_start: fits_u32(self.bytes.len())?.into(),
            name_len: u16::try_from(name.len())
                .expect("names have at most 255 bytes")
                .into(),
            file_type: u8::try_from(ty.dirent_type()).expect("types have four bits"),
            reserved: 0,
        };
        self.bytes.extend_from_slice(name);
        self.entries.extend_from_slice(record.as_bytes());
        Ok(())
    }

    fn into_index(mut self, data_len: u64, data_sha256: [u8; 32], inodes: u64) -> Vec<u8> {
        debug_assert_eq!(self.inodes.len() as u64, inodes * INODE_LEN as u64);
        let mut end = HEADER_LEN as u64;
        let mut section = |bytes: &Vec<u8>| {
            let section = Section {
                offset: end.into(),
                len: (bytes.len() as u64).into(),
            };
            end += bytes.len() as u64;
            section
        };
        let mut header = Header {
            magic: MAGIC,
            version: VERSION.into(),
            header_len: (HEADER_LEN as u32).into(),
            layer_id: [0; 32],
            beneath: [0; 32],
            data_sha256,
            first_ino: 1.into(),
            next_ino: (inodes + 1).into(),
            data_len: data_len.into(),
            inodes: section(&self.inodes),
            entries: section(&self.entries),
            bytes: section(&self.bytes),
        };
        let mut index = header.as_bytes().to_vec();
        for part in [&mut self.inodes, &mut self.entries, &mut self.bytes] {
            index.append(&mut mem::take(part));
        }
        header.layer_id = Sha256::digest(&index).into();
        index[..HEADER_LEN].copy_from_slice(header.as_bytes());
        index
    }
}

fn file_type(kind: &Kind) -> FileType {
    match kind {
        Kind::Directory(_) => FileType::Directory,
        Kind::File(_) => FileType::Regular,
        Kind::Symlink(_) => FileType::Symlink,
        Kind::Node(file_type, _) => *file_type,
    }
}

fn file_type_of(nodes: &[Node], node: usize) -> FileType {
    file_type(&nodes[node].kind)
}

fn fits_u32(len: usize) -> Result<u32, PackError> {
    u32::try_from(len).map_err(|_| PackError::TooLarge {
        limit: u64::from(u32::MAX),
        unit: "bytes of names",
    })
}
