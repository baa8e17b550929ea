//! One request in, one reply out.
//!
//! [`Server::handle`] reads the header, takes the arguments apart, lets [`Tree`] do the work and
//! writes the reply. What a request does to the tree is done when `handle` returns; between two
//! calls the server holds no lock, no borrowed buffer and no thread.

mod attributes;
mod contents;
mod listing;
mod names;
mod session;
#[cfg(test)]
mod tests;
mod xattrs;

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use zerocopy::{Immutable, IntoBytes};

use super::abi::{Opcode, OutHeader};
use super::args::{Args, Head, read_body, read_head};
use super::transport::{OUT_HEADER_SIZE, Outcome, Reply, Request, Short};
use crate::tree::{FreezeError, Tree};
use session::Session;

pub use session::MAX_WRITE;

/// A FUSE server over one tree.
///
/// It serves one mount at a time: INIT begins a session, DESTROY (or the next INIT, after a guest
/// was reset) ends it and drops every reference that the kernel held.
#[derive(Debug)]
pub struct Server {
    tree: Tree,
    session: Option<Session>,
    caching: Caching,
    /// Bodies of requests; kept from one to the next.
    body: Vec<u8>,
    /// Listings under construction; likewise.
    listing: Vec<u8>,
}

/// Where the kernel may keep what programs write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Caching {
    /// In its page cache until it is written back, or synced. What a guest gets.
    #[default]
    WriteBack,
    /// Nowhere: each write(2) is a request, and its error is the request's.
    WriteThrough,
}

impl Server {
    /// A server of `tree` that waits for INIT.
    #[must_use]
    pub fn new(tree: Tree) -> Self {
        Self {
            tree,
            session: None,
            caching: Caching::default(),
            body: Vec::new(),
            listing: Vec::new(),
        }
    }

    /// The same with another kind of caching, from the next INIT on.
    #[must_use]
    pub fn with_caching(self, caching: Caching) -> Self {
        Self { caching, ..self }
    }

    /// The tree, to be looked at between requests.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Makes everything durable that requests have changed so far. Call it when the mount ends
    /// without DESTROY.
    ///
    /// # Errors
    /// What the host said.
    pub fn sync(&mut self) -> Result<(), Errno> {
        self.tree.sync()
    }

    /// Freezes the tree's writable layer between two requests; see [`Tree::freeze`].
    ///
    /// # Errors
    /// Those of [`Tree::freeze`].
    pub fn freeze(&mut self, dir: OwnedFd) -> Result<(), FreezeError> {
        self.tree.freeze(dir)
    }

    /// Gives the tree back; ends the session.
    #[must_use]
    pub fn into_tree(mut self) -> Tree {
        self.end_session();
        self.tree
    }

    /// Answers one request.
    ///
    /// Whatever the bytes say, this neither panics nor blocks on anything but the tree's own files;
    /// a request that makes no sense gets an error (`EINVAL`, `ENOSYS`, `EIO`), and one too short
    /// to have a header gets no reply.
    pub fn handle(&mut self, request: &mut impl Request, reply: &mut impl Reply) -> Outcome {
        let Ok(head) = read_head(request) else {
            return Outcome::NoReply;
        };
        let opcode = Opcode::from_raw(head.opcode);
        if let Some(opcode) = opcode.filter(|opcode| !opcode.has_reply()) {
            self.handle_silently(opcode, &head, request);
            return Outcome::NoReply;
        }
        if reply.capacity() < OUT_HEADER_SIZE {
            return Outcome::NoReply;
        }
        let result = match opcode {
            Some(opcode) => self.dispatch(opcode, &head, request, reply),
            None => Err(Errno::NOSYS),
        };
        if result.is_err() {
            reply.truncate(0);
        }
        finish(head.unique, result, reply)
    }

    fn dispatch(
        &mut self,
        opcode: Opcode,
        head: &Head,
        request: &mut impl Request,
        reply: &mut impl Reply,
    ) -> Result<(), Errno> {
        let len = head.body?;
        if self.session.is_none() && opcode != Opcode::Init {
            return Err(Errno::IO);
        }
        if opcode == Opcode::Write {
            return self.write(head.node, len, request, reply);
        }
        let mut body = std::mem::take(&mut self.body);
        let result = read_body(request, len, &mut body)
            .and_then(|()| self.dispatch_body(opcode, head, &mut Args::new(&body), reply));
        self.body = body;
        result
    }

    fn dispatch_body(
        &mut self,
        opcode: Opcode,
        head: &Head,
        args: &mut Args<'_>,
        reply: &mut impl Reply,
    ) -> Result<(), Errno> {
        let node = head.node;
        match opcode {
            Opcode::Init => self.init(args, reply),
            Opcode::Destroy => self.destroy(),

            Opcode::Lookup => self.lookup(node, args, reply),
            Opcode::Readlink => self.readlink(node, reply),
            Opcode::Symlink => self.symlink(head, args, reply),
            Opcode::Mknod => self.mknod(head, args, reply),
            Opcode::Mkdir => self.mkdir(head, args, reply),
            Opcode::Create => self.create(head, args, reply),
            Opcode::Link => self.link(node, args, reply),
            Opcode::Unlink => self.tree.unlink(node, args.name()?),
            Opcode::Rmdir => self.tree.rmdir(node, args.name()?),
            Opcode::Rename => self.rename(node, args),
            Opcode::Rename2 => self.rename2(node, args),

            Opcode::Getattr => self.getattr(node, args, reply),
            Opcode::Setattr => self.setattr(node, args, reply),
            Opcode::Statfs => self.statfs(reply),

            Opcode::Setxattr => self.setxattr(node, args),
            Opcode::Getxattr => self.getxattr(node, args, reply),
            Opcode::Listxattr => self.listxattr(node, args, reply),
            Opcode::Removexattr => self.removexattr(node, args),

            Opcode::Open => self.open(reply),
            Opcode::Opendir => self.opendir(reply),
            // Nothing is open, so nothing is closed.
            Opcode::Release | Opcode::Releasedir => Ok(()),
            // The kernel has sent all dirty pages before it asks, and need not ask again.
            Opcode::Flush => Err(Errno::NOSYS),
            Opcode::Read => self.read(node, args, reply),
            Opcode::Fallocate => self.fallocate(node, args),
            // The kernel does not send its dirty pages before it asks for data or holes (Linux,
            // fs/fuse/file.c, fuse_lseek), so what we know here may be a hole where a program has
            // just written. Without an answer it takes the whole file for data, which is true.
            Opcode::Lseek => Err(Errno::NOSYS),
            Opcode::CopyFileRange => self.copy_file_range(node, args, reply),
            Opcode::Fsync | Opcode::Fsyncdir => self.fsync(node, args),
            Opcode::Syncfs => self.tree.sync(),

            Opcode::Readdir => self.readdir(node, args, reply),
            Opcode::Readdirplus => self.readdirplus(node, args, reply),

            // Taken care of before a body is read.
            Opcode::Write | Opcode::Forget | Opcode::BatchForget | Opcode::Interrupt => {
                Err(Errno::NOSYS)
            }
        }
    }

    /// The requests without a reply. What is wrong with them is nobody's to hear.
    fn handle_silently(&mut self, opcode: Opcode, head: &Head, request: &mut impl Request) {
        let Ok(len) = head.body else { return };
        if self.session.is_none() {
            return;
        }
        match opcode {
            Opcode::Forget => self.forget(head.node, request),
            Opcode::BatchForget => self.batch_forget(len, request),
            // Requests are answered in their order, before the next is read: one that could be
            // interrupted has been answered already.
            _ => {}
        }
    }
}

/// Puts the header before the body that is there.
fn finish(unique: u64, result: Result<(), Errno>, reply: &mut impl Reply) -> Outcome {
    let error = match result {
        Ok(()) => 0,
        // The kernel takes errors below 512 only (fs/fuse/dev.c, fuse_dev_do_write).
        Err(errno) if (1..512).contains(&errno.raw_os_error()) => -errno.raw_os_error(),
        Err(_) => -Errno::IO.raw_os_error(),
    };
    let len = OUT_HEADER_SIZE + reply.body_len();
    let header = OutHeader {
        len: u32::try_from(len).unwrap_or(u32::MAX),
        error,
        unique,
    };
    let mut bytes = [0; OUT_HEADER_SIZE];
    bytes.copy_from_slice(header.as_bytes());
    match reply.commit(&bytes) {
        Ok(()) => Outcome::Replied { len },
        Err(Short) => Outcome::NoReply,
    }
}

/// How many bytes the body may still take.
fn room(reply: &impl Reply) -> usize {
    reply
        .capacity()
        .saturating_sub(OUT_HEADER_SIZE)
        .saturating_sub(reply.body_len())
}

/// Makes sure that a reply of `T` fits, before anything is done that could not be told.
fn expect_room<T>(reply: &impl Reply) -> Result<(), Errno> {
    if room(reply) < size_of::<T>() {
        Err(Errno::INVAL)
    } else {
        Ok(())
    }
}

/// Appends a structure of the protocol.
fn put<T: IntoBytes + Immutable>(reply: &mut impl Reply, value: &T) -> Result<(), Errno> {
    reply.write(value.as_bytes()).map_err(|Short| Errno::INVAL)
}
