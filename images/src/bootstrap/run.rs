//! Running the bootstrap: its tar stream is packed while it comes, its words become progress.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use pyro_rootfs::pack::{self, PackError, PackLimits, PackSummary};

use super::failure;
use super::talk::Talk;
use crate::Error;
use crate::pull::progress::Progress;

/// How many of the last lines are kept to explain a failure, and how long one may be.
const LINES: usize = 400;
const LINE: u64 = 4096;

/// The files that a root is packed into: empty, open for reading and writing.
pub(crate) struct RootFiles {
    pub(crate) index: File,
    pub(crate) data: File,
}

/// What a failure is explained with.
pub(crate) struct Context<'a> {
    pub(crate) suite: &'a str,
    pub(crate) mirror: &'a str,
    pub(crate) scratch: &'a Path,
}

enum Event {
    Said(String),
    Packed(u64),
}

/// Runs `command` to its end. Its output is packed into `root`, or must be empty without one.
pub(crate) fn run(
    mut command: Command,
    root: Option<&RootFiles>,
    context: &Context<'_>,
    progress: &mut dyn Progress,
) -> Result<Option<PackSummary>, Error> {
    let mut child = Running(
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Error::Bootstrap {
                detail: error.to_string(),
            })?,
    );
    let stdout = child
        .0
        .stdout
        .take()
        .expect("stdout was asked for as a pipe");
    let stderr = child
        .0
        .stderr
        .take()
        .expect("stderr was asked for as a pipe");
    let (events, heard) = mpsc::sync_channel(64);
    let mut said = Vec::new();
    let packed = thread::scope(|scope| {
        let lines = events.clone();
        scope.spawn(move || forward_lines(stderr, &lines));
        let packing = scope.spawn(move || pack_root(stdout, root, &events));
        let mut talk = Talk::default();
        for event in heard {
            match event {
                Event::Said(line) => {
                    talk.hear(&line, progress);
                    if said.len() == LINES {
                        said.remove(0);
                    }
                    said.push(line);
                }
                Event::Packed(bytes) => progress.advance(bytes, None),
            }
        }
        packing.join().unwrap_or(Err(PackError::Empty))
    });
    let status = child.0.wait().map_err(|error| Error::Bootstrap {
        detail: error.to_string(),
    })?;
    match packed {
        // A packer that gave up ends the bootstrap as well, so its reason is the reason.
        Err(
            error @ (PackError::Write(_) | PackError::TooLarge { .. } | PackError::Member { .. }),
        ) => Err(pack_failure(error, context)),
        _ if !status.success() => Err(failure::explain(
            &said,
            context.suite,
            context.mirror,
            context.scratch,
        )),
        Err(error) => Err(pack_failure(error, context)),
        Ok(summary) => Ok(summary),
    }
}

/// A child that does not outlive a panic or an early return.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended and was waited for, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn pack_failure(error: PackError, context: &Context<'_>) -> Error {
    match error {
        PackError::Write(source) => Error::store("write a layer in", context.scratch, source),
        error => Error::Pack {
            source: Box::new(error),
        },
    }
}

fn forward_lines(stderr: impl Read, events: &mpsc::SyncSender<Event>) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                if events.send(Event::Said(text)).is_err() {
                    return;
                }
            }
        }
    }
}

fn pack_root(
    mut stdout: impl Read,
    root: Option<&RootFiles>,
    events: &mpsc::SyncSender<Event>,
) -> Result<Option<PackSummary>, PackError> {
    let Some(root) = root else {
        let mut rest = Vec::new();
        stdout
            .by_ref()
            .take(LINE)
            .read_to_end(&mut rest)
            .map_err(PackError::Read)?;
        return Ok(None);
    };
    let mut tell = |bytes| {
        let _ = events.send(Event::Packed(bytes));
    };
    let stream = BufReader::with_capacity(1 << 20, &mut stdout);
    let summary = pack::pack_tar(
        stream,
        &root.index,
        &root.data,
        PackLimits::default(),
        &mut tell,
    )?;
    // What follows the archive's end is padding; the writer must not see a closed pipe.
    std::io::copy(&mut stdout, &mut std::io::sink()).map_err(PackError::Read)?;
    Ok(Some(summary))
}
