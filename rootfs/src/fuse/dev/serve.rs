//! The loop between `/dev/fuse` and the server (fuse(4)): one read is one request, one write is
//! one reply.

use std::io;

use rustix::io::{Errno, read, write};
use zerocopy::IntoBytes;

use super::super::abi::{InHeader, OutHeader, WriteIn};
use super::super::server::MAX_WRITE;
use super::super::transport::{OUT_HEADER_SIZE, Outcome};
use super::mount::Mount;

/// Room for the largest request: the kernel refuses to be read into less.
const REQUEST_MAX: usize = MAX_WRITE as usize + size_of::<InHeader>() + size_of::<WriteIn>();

/// Room for the largest reply.
const REPLY_MAX: usize = MAX_WRITE as usize + OUT_HEADER_SIZE;

/// Why a mount is no longer served, other than that it was unmounted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Reading from or writing to the device failed.
    #[error("cannot {action} /dev/fuse")]
    Device {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What was done in the life of a mount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Served {
    /// Requests read.
    pub requests: u64,
    /// Replies that the kernel would not take as malformed; always 0 but for a bug.
    pub refused: u64,
}

impl Mount {
    /// Hands each request to `answer`, with room for its reply, until the file system is
    /// unmounted. Nothing is made durable at the end: DESTROY does not come when the mount ends
    /// otherwise.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub fn serve(
        &self,
        mut answer: impl FnMut(&[u8], &mut [u8]) -> Outcome,
    ) -> Result<Served, ServeError> {
        let mut request = vec![0; REQUEST_MAX];
        let mut reply = vec![0; REPLY_MAX];
        let mut served = Served::default();
        while let Some(len) = self.read_request(&mut request)? {
            served.requests += 1;
            let bytes = request.get(..len).unwrap_or_default();
            if let Outcome::Replied { len } = answer(bytes, &mut reply) {
                served.refused += self.write_reply(reply.get(..len).unwrap_or_default())?;
            }
        }
        Ok(served)
    }

    /// Reads one request; `None` once the file system is unmounted.
    fn read_request(&self, buffer: &mut [u8]) -> Result<Option<usize>, ServeError> {
        loop {
            match read(&self.device, &mut *buffer) {
                Ok(len) => return Ok(Some(len)),
                // Interrupted, or the request was withdrawn before it was read.
                Err(Errno::INTR | Errno::NOENT | Errno::AGAIN) => {}
                Err(Errno::NODEV) => return Ok(None),
                Err(errno) => {
                    return Err(ServeError::Device {
                        action: "read",
                        source: errno.into(),
                    });
                }
            }
        }
    }

    /// Writes one reply; 1 when the kernel called it malformed. The caller who waits for it then
    /// gets `EIO` instead of waiting for ever.
    fn write_reply(&self, reply: &[u8]) -> Result<u64, ServeError> {
        match write(&self.device, reply) {
            // `ENOENT`: nobody waits for this reply any more. `ENODEV`: unmounted; the next read
            // says so too.
            Ok(_) | Err(Errno::NOENT | Errno::NODEV) => Ok(0),
            Err(Errno::INVAL) => {
                if let Some((header, _)) = reply.split_at_checked(OUT_HEADER_SIZE) {
                    let mut failed = OutHeader::default();
                    failed.as_mut_bytes().copy_from_slice(header);
                    failed.len = OUT_HEADER_SIZE as u32;
                    failed.error = -Errno::IO.raw_os_error();
                    // It is refused as well when nobody waits for it.
                    let _ = write(&self.device, failed.as_bytes());
                }
                Ok(1)
            }
            Err(errno) => Err(ServeError::Device {
                action: "write to",
                source: errno.into(),
            }),
        }
    }
}
