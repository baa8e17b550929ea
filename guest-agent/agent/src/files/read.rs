//! Reading a file, piece by piece.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use pyro_agent_protocol::{FileEvent, FrameKind, Read, Sha256, encode_into};
use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, pread};
use sha2::Digest;

use super::FileError;
use super::resolve::{Base, Found, as_it_is, kind, reopen};

/// Bytes that one step reads.
const PIECE: usize = 128 << 10;

/// See the [module](self).
pub(crate) struct Reader {
    file: OwnedFd,
    path: Vec<u8>,
    offset: u64,
    sent: u64,
    most: u64,
    /// While everything so far was sent.
    digest: Option<sha2::Sha256>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Reader")
    }
}

impl Reader {
    pub(super) fn open(request: &Read) -> Result<(Self, FileEvent), FileError> {
        let path = request.path.as_bytes();
        let system = |errno| FileError::system(path, "cannot be opened", errno);
        let base = Base::open(&request.beneath)?;
        let place = base.walk(&request.path, true, &as_it_is)?;
        let Found::Real(looked_at) = place.found else {
            return Err(FileError::NotFound {
                path: request.path.clone(),
            });
        };
        let stat = fstat(&looked_at).map_err(system)?;
        if kind(&stat) != FileType::RegularFile {
            return Err(FileError::NotAFile {
                path: request.path.clone(),
                found: described(kind(&stat)),
            });
        }
        let file = reopen(&looked_at).map_err(system)?;
        let reader = Self {
            file,
            path: path.to_vec(),
            offset: request.offset,
            sent: 0,
            most: request.max_bytes,
            digest: (request.offset == 0).then(sha2::Sha256::new),
        };
        let event = FileEvent::Reading {
            path: base.absolute(&place.path),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mode: stat.st_mode & 0o7777,
        };
        Ok((reader, event))
    }

    /// Reads a piece. Gives frames, and whether they are the last.
    pub(super) fn step(&mut self) -> Result<(Vec<u8>, bool), FileError> {
        let mut piece = vec![MaybeUninit::<u8>::uninit(); PIECE];
        let most = usize::try_from(self.most - self.sent).map_or(PIECE, |left| left.min(PIECE));
        // One byte more than is wanted, to see whether the file goes on.
        let most = most.max(1);
        let system = |errno| FileError::system(&self.path, "cannot be read", errno);
        let bytes: &[u8] = loop {
            // No file has bytes beyond this.
            if i64::try_from(self.offset).is_err() {
                break &[];
            }
            match pread(&self.file, &mut piece[..most], self.offset) {
                Ok((bytes, _)) => break bytes,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(system(errno)),
            }
        };
        let mut frames = Vec::with_capacity(bytes.len() + 128);
        let full = self.sent == self.most;
        if bytes.is_empty() || full {
            let truncated = !bytes.is_empty();
            let digest = self.digest.take().filter(|_| !truncated);
            frames.extend(super::message(&FileEvent::Read {
                bytes: self.sent,
                truncated,
                sha256: digest.map(|digest| Sha256(digest.finalize().into())),
            }));
            return Ok((frames, true));
        }
        if let Some(digest) = &mut self.digest {
            digest.update(bytes);
        }
        encode_into(&mut frames, FrameKind::Stdout, bytes)
            .expect("a piece is shorter than a frame");
        self.sent += bytes.len() as u64;
        self.offset = self.offset.saturating_add(bytes.len() as u64);
        Ok((frames, false))
    }
}

/// What something is that is no regular file.
pub(super) fn described(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        _ => "a device",
    }
}
