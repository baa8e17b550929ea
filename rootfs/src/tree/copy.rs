//! Copying bytes between host files, inside the kernel where it can.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{SeekFrom, copy_file_range, seek};
use rustix::io::Errno;

/// How much is copied at a time where the kernel does not do it.
const BUFFER: usize = 128 << 10;

/// Copies `len` bytes, or as many as there are; how many that was.
pub(super) fn copy(
    from: &File,
    from_offset: u64,
    to: &File,
    to_offset: u64,
    len: u64,
) -> Result<u64, Errno> {
    let mut done = 0;
    while done < len {
        let (mut at_from, mut at_to) = (from_offset + done, to_offset + done);
        let ask = usize::try_from(len - done)
            .unwrap_or(usize::MAX)
            .min(1 << 30);
        match copy_file_range(from, Some(&mut at_from), to, Some(&mut at_to), ask) {
            // Some file systems answer 0 where there is more.
            Ok(0) => {
                return Ok(
                    done + by_hand(from, from_offset + done, to, to_offset + done, len - done)?
                );
            }
            Ok(n) => done += n as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
                return Ok(
                    done + by_hand(from, from_offset + done, to, to_offset + done, len - done)?
                );
            }
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

fn by_hand(
    from: &File,
    from_offset: u64,
    to: &File,
    to_offset: u64,
    len: u64,
) -> Result<u64, Errno> {
    let errno = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let mut buffer = vec![0; usize::try_from(len).unwrap_or(BUFFER).min(BUFFER)];
    let mut done = 0;
    while done < len {
        let ask = usize::try_from(len - done)
            .unwrap_or(BUFFER)
            .min(buffer.len());
        let n = match from.read_at(&mut buffer[..ask], from_offset + done) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(errno(error)),
        };
        to.write_all_at(&buffer[..n], to_offset + done)
            .map_err(errno)?;
        done += n as u64;
    }
    Ok(done)
}

/// Copies `len` bytes from `from_offset` to the beginning of the empty file `to`; holes stay
/// holes. What the source does not have stays a hole too.
pub(super) fn copy_sparse(from: &File, from_offset: u64, to: &File, len: u64) -> Result<(), Errno> {
    let end = from_offset.checked_add(len).ok_or(Errno::FBIG)?;
    let mut at = from_offset;
    while at < end {
        let start = match seek(from, SeekFrom::Data(at)) {
            Ok(start) if start < end => start,
            Ok(_) | Err(Errno::NXIO) => break,
            // No holes can be asked for here: all is data.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
            Err(error) => return Err(error),
        };
        let stop = match seek(from, SeekFrom::Hole(start)) {
            Ok(stop) => stop.min(end),
            Err(_) => end,
        };
        if stop <= start {
            break;
        }
        copy(from, start, to, start - from_offset, stop - start)?;
        at = stop;
    }
    Ok(())
}
