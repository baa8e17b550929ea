//! What a mount obeys while it is served: a line on standard input is a command, a line on standard
//! output its answer, `ok` or what is wrong. A test freezes a root in use this way, and has a disk
//! that fails when it wants it to.

use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use pyro_rootfs::fuse::abi::Opcode;
use rustix::io::Errno;

use super::mount::{Served, lock};
use super::open_writable;

/// Requests that are answered with an error instead of being served.
#[derive(Default)]
pub(crate) struct Faults(Vec<Fault>);

struct Fault {
    opcode: Opcode,
    errno: Errno,
    /// How many more of them are served first.
    skip: u64,
}

impl Faults {
    /// The error that `request` is to have, if any.
    pub(crate) fn next(&mut self, request: &[u8]) -> Option<Errno> {
        // `fuse_in_header.opcode`.
        let opcode = *request.get(4..)?.first_chunk()?;
        let opcode = Opcode::from_raw(u32::from_ne_bytes(opcode))?;
        let fault = self.0.iter_mut().find(|fault| fault.opcode == opcode)?;
        if fault.skip > 0 {
            fault.skip -= 1;
            return None;
        }
        Some(fault.errno)
    }
}

/// Obeys until standard input ends.
pub(crate) fn obey(served: &Mutex<Served>) {
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        let answer = match command(served, &line) {
            Ok(()) => "ok".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{answer}")
            .and_then(|()| out.flush())
            .is_err()
        {
            return;
        }
    }
}

fn command(served: &Mutex<Served>, line: &str) -> Result<()> {
    let words: Vec<_> = line.split_whitespace().collect();
    match words.as_slice() {
        ["freeze", dir] => {
            let dir = open_writable(Path::new(dir))?;
            lock(served).server.freeze(dir)?;
        }
        ["fail", request, errno, skip @ ..] => {
            let skip = match skip {
                [] => 0,
                [skip] => skip.parse().context("not a number")?,
                _ => bail!("too many words"),
            };
            let fault = Fault {
                opcode: opcode(request)?,
                errno: self::errno(errno)?,
                skip,
            };
            lock(served).faults.0.push(fault);
        }
        ["heal"] => lock(served).faults.0.clear(),
        _ => bail!("not a command: {line}"),
    }
    Ok(())
}

fn opcode(name: &str) -> Result<Opcode> {
    Ok(match name {
        "write" => Opcode::Write,
        "fsync" => Opcode::Fsync,
        "fsyncdir" => Opcode::Fsyncdir,
        "setattr" => Opcode::Setattr,
        "create" => Opcode::Create,
        "unlink" => Opcode::Unlink,
        "rename" => Opcode::Rename,
        "rename2" => Opcode::Rename2,
        "fallocate" => Opcode::Fallocate,
        _ => bail!("not a request that can fail: {name}"),
    })
}

fn errno(name: &str) -> Result<Errno> {
    Ok(match name {
        "EIO" => Errno::IO,
        "ENOSPC" => Errno::NOSPC,
        _ => bail!("not an error: {name}"),
    })
}
