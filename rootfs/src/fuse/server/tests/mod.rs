//! A kernel for the server: a client that speaks the protocol over plain memory.

mod contents;
mod fuzz;
mod hostile;
mod names;
mod session;

use std::fs::File;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use tempfile::TempDir;
use zerocopy::{FromBytes, IntoBytes};

use super::super::abi::*;
use super::super::buffer::{SliceReply, SliceRequest};
use super::super::transport::Outcome;
use super::Server;
use crate::pack::{Metadata, PackLimits, PackedWriter};
use crate::tree::{FileType, PackedFiles, Quota, StackFiles, Tree};

/// The root directory's node id.
const ROOT: u64 = 1;

/// Room that is enough for every reply these tests ask for.
const ROOMY: usize = 1 << 17;

/// What the kernel of a guest offers in INIT: everything.
const OFFERED: u32 = u32::MAX;

/// Contents of `/file` in the lowest layer.
const FILE: &[u8] = b"from the layer below\n";

/// A mounted server, seen from the kernel's side.
struct Client {
    server: Server,
    unique: u64,
    #[allow(dead_code)] // Holds the directory until the end.
    dir: TempDir,
}

impl Client {
    /// A client whose session is begun, over a small layer.
    fn new() -> Self {
        let mut client = Self::before_init(Quota::UNLIMITED);
        client.init(OFFERED).unwrap();
        client
    }

    fn with_quota(quota: Quota) -> Self {
        let mut client = Self::before_init(quota);
        client.init(OFFERED).unwrap();
        client
    }

    fn before_init(quota: Quota) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let create = |name| {
            let path = dir.path().join(name);
            File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(path)
                .unwrap()
        };
        let (index, data) = (create("index"), create("data"));
        pack(&index, &data);
        std::fs::create_dir(dir.path().join("top")).unwrap();
        let top = dir.path().join("top");
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let writable = rustix::fs::open(top, flags, Mode::empty()).unwrap();
        let mut stack = StackFiles::new(vec![PackedFiles { index, data }], writable);
        stack.quota = quota;
        let server = Server::new(Tree::open(stack).unwrap());
        Self {
            server,
            unique: 0,
            dir,
        }
    }

    fn init(&mut self, flags: u32) -> Result<InitOut, Errno> {
        let init = InitIn {
            major: 7,
            minor: 38,
            max_readahead: 128 << 10,
            flags,
        };
        self.call(Opcode::Init, 0, &[init.as_bytes(), &[0; 48]])
            .map(|body| parse(&body))
    }

    /// Sends `message` as it is, with room for a reply of `capacity` bytes; what came back.
    fn raw(&mut self, message: &[u8], capacity: usize) -> Option<Vec<u8>> {
        let mut reply = vec![0xaa; capacity];
        let request = &mut SliceRequest::new(message);
        match self
            .server
            .handle(request, &mut SliceReply::new(&mut reply))
        {
            Outcome::Replied { len } => Some(reply[..len].to_vec()),
            Outcome::NoReply => None,
        }
    }

    /// A whole message as the kernel would send it.
    fn message(&mut self, opcode: u32, node: u64, parts: &[&[u8]]) -> Vec<u8> {
        self.unique += 2;
        let body = parts.concat();
        let header = InHeader {
            len: (size_of::<InHeader>() + body.len()) as u32,
            opcode,
            unique: self.unique,
            nodeid: node,
            uid: 1000,
            gid: 1001,
            pid: 1,
            ..InHeader::default()
        };
        [header.as_bytes(), &body].concat()
    }

    /// Sends a request and takes its reply apart: the body, or the error.
    fn call(&mut self, opcode: Opcode, node: u64, parts: &[&[u8]]) -> Result<Vec<u8>, Errno> {
        let message = self.message(opcode as u32, node, parts);
        let reply = self.raw(&message, ROOMY).expect("this request has a reply");
        self.taken_apart(&reply)
    }

    fn taken_apart(&self, reply: &[u8]) -> Result<Vec<u8>, Errno> {
        let (header, body) = OutHeader::read_from_prefix(reply).unwrap();
        assert_eq!(header.len as usize, reply.len());
        assert_eq!(header.unique, self.unique);
        if header.error == 0 {
            return Ok(body.to_vec());
        }
        assert!(body.is_empty(), "an error has a body");
        assert!(
            (-511..0).contains(&header.error),
            "the kernel would not take {}",
            header.error
        );
        Err(Errno::from_raw_os_error(-header.error))
    }

    fn lookup(&mut self, parent: u64, name: impl AsRef<[u8]>) -> Result<EntryOut, Errno> {
        let parts = [name.as_ref(), b"\0"];
        let entry: EntryOut = parse(&self.call(Opcode::Lookup, parent, &parts)?);
        if entry.nodeid == 0 {
            Err(Errno::NOENT)
        } else {
            Ok(entry)
        }
    }

    fn forget(&mut self, node: u64, nlookup: u64) {
        let message = self.message(
            Opcode::Forget as u32,
            node,
            &[ForgetIn { nlookup }.as_bytes()],
        );
        assert_eq!(self.raw(&message, 0), None);
    }

    fn getattr(&mut self, node: u64) -> Result<Attr, Errno> {
        let get = GetattrIn::default();
        let out: AttrOut = parse(&self.call(Opcode::Getattr, node, &[get.as_bytes()])?);
        Ok(out.attr)
    }

    fn setattr(&mut self, node: u64, set: SetattrIn) -> Result<Attr, Errno> {
        let out: AttrOut = parse(&self.call(Opcode::Setattr, node, &[set.as_bytes()])?);
        Ok(out.attr)
    }

    fn create(&mut self, parent: u64, name: &str) -> Result<EntryOut, Errno> {
        let mknod = MknodIn {
            mode: 0o100_644,
            ..MknodIn::default()
        };
        Ok(parse(&self.call(
            Opcode::Mknod,
            parent,
            &[mknod.as_bytes(), &nul(name)],
        )?))
    }

    fn mkdir(&mut self, parent: u64, name: &str) -> Result<EntryOut, Errno> {
        let mkdir = MkdirIn {
            mode: 0o755,
            umask: 0,
        };
        Ok(parse(&self.call(
            Opcode::Mkdir,
            parent,
            &[mkdir.as_bytes(), &nul(name)],
        )?))
    }

    fn write(&mut self, node: u64, offset: u64, bytes: &[u8]) -> Result<u32, Errno> {
        self.write_flagged(node, offset, bytes, WriteFlags::CACHE)
    }

    fn write_flagged(
        &mut self,
        node: u64,
        offset: u64,
        bytes: &[u8],
        flags: WriteFlags,
    ) -> Result<u32, Errno> {
        let size = bytes.len() as u32;
        let write = WriteIn {
            offset,
            size,
            write_flags: flags.bits(),
            ..WriteIn::default()
        };
        let out: WriteOut = parse(&self.call(Opcode::Write, node, &[write.as_bytes(), bytes])?);
        Ok(out.size)
    }

    fn read(&mut self, node: u64, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        let read = ReadIn {
            offset,
            size,
            ..ReadIn::default()
        };
        self.call(Opcode::Read, node, &[read.as_bytes()])
    }

    /// Names in a directory, in the order listed, with READDIR.
    fn list(&mut self, node: u64) -> Vec<String> {
        let names = self.list_bytes(node).into_iter();
        names.map(|name| String::from_utf8(name).unwrap()).collect()
    }

    fn list_bytes(&mut self, node: u64) -> Vec<Vec<u8>> {
        let mut names = Vec::new();
        let mut offset = 0;
        loop {
            let read = ReadIn {
                offset,
                size: 4096,
                ..ReadIn::default()
            };
            let body = self
                .call(Opcode::Readdir, node, &[read.as_bytes()])
                .unwrap();
            let mut rest = &body[..];
            if rest.is_empty() {
                return names;
            }
            while !rest.is_empty() {
                let (dirent, name);
                (dirent, name, rest) = dirent_of(rest);
                offset = dirent.off;
                names.push(name);
            }
        }
    }

    /// Everything that can be seen of the tree, to find out whether something changed it.
    fn snapshot(&mut self) -> Vec<(Vec<u8>, u64, u32, u64)> {
        let mut seen = Vec::new();
        let mut todo = vec![(Vec::new(), ROOT)];
        while let Some((path, node)) = todo.pop() {
            let attr = self.getattr(node).unwrap();
            seen.push((path.clone(), node, attr.mode, attr.size));
            if attr.mode & 0o170_000 != 0o040_000 {
                continue;
            }
            for name in self.list_bytes(node) {
                if name != b"." && name != b".." {
                    let child = self.lookup(node, &name).unwrap().nodeid;
                    self.forget(child, 1);
                    todo.push(([&path[..], b"/", &name].concat(), child));
                }
            }
        }
        seen.sort();
        seen
    }
}

/// The lowest layer: `/file`, `/dir/{one,two,three}`, `/setuid`, `/link`, `/null`.
fn pack(index: &File, data: &File) {
    let mut layer = PackedWriter::new(index, data, PackLimits::default()).unwrap();
    let meta = |mode| Metadata {
        mode,
        ..Metadata::default()
    };
    layer.add_directory(b"", meta(0o755)).unwrap();
    layer
        .add_file(b"file", meta(0o644), &mut &FILE[..], FILE.len() as u64)
        .unwrap();
    layer.add_directory(b"dir", meta(0o755)).unwrap();
    for name in ["dir/one", "dir/two", "dir/three"] {
        layer
            .add_file(
                name.as_bytes(),
                meta(0o600),
                &mut name.as_bytes(),
                name.len() as u64,
            )
            .unwrap();
    }
    layer
        .add_file(b"setuid", meta(0o6755), &mut &b"#!"[..], 2)
        .unwrap();
    layer.add_symlink(b"link", meta(0o777), b"file").unwrap();
    layer
        .add_node(b"null", meta(0o666), FileType::CharDevice, 0x103)
        .unwrap();
    layer.finish().unwrap();
}

/// A string with its NUL.
fn nul(string: &str) -> Vec<u8> {
    [string.as_bytes(), b"\0"].concat()
}

/// The structure that a reply begins with.
fn parse<T: FromBytes>(body: &[u8]) -> T {
    T::read_from_prefix(body)
        .expect("the reply is long enough")
        .0
}

/// The first entry of a listing, its name, and the rest.
fn dirent_of(listing: &[u8]) -> (Dirent, Vec<u8>, &[u8]) {
    let (dirent, rest) = Dirent::read_from_prefix(listing).unwrap();
    let name = rest[..dirent.namelen as usize].to_vec();
    let len = (size_of::<Dirent>() + name.len()).next_multiple_of(8);
    (dirent, name, &listing[len..])
}
