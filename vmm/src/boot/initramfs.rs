//! The initial RAM file system: newc archives one after the other at the end of low RAM.

use std::fs::File;
use std::ops::Range;

use vm_memory::{GuestAddress, GuestMemoryBackend};

use super::BootError;
use crate::virtio::device::GuestMemory;

/// Archives begin at multiples of this (Linux `Documentation/driver-api/early-userspace`).
const ALIGNMENT: u64 = 4;
const PAGE: u64 = 4096;

/// Where the initial RAM file system lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// First address.
    pub address: u64,
    /// Length in bytes.
    pub len: u64,
}

/// Copies the archives to the end of `room`.
///
/// # Errors
/// When they do not fit or cannot be read.
pub fn load(
    memory: &GuestMemory,
    archives: &[File],
    room: Range<u64>,
) -> Result<Placed, BootError> {
    let read = |source| BootError::Read {
        what: "initial ram file system",
        source,
    };
    let mut pieces = Vec::new();
    let mut len = 0u64;
    for archive in archives {
        let size = archive.metadata().map_err(read)?.len();
        pieces.push((archive, len, size));
        len = size
            .checked_next_multiple_of(ALIGNMENT)
            .and_then(|padded| len.checked_add(padded))
            .ok_or(BootError::TooLittleMemory {
                ram_mib: room.end >> 20,
            })?;
    }
    let address = room
        .end
        .checked_sub(len)
        .map(|address| address / PAGE * PAGE)
        .filter(|address| *address >= room.start)
        .ok_or(BootError::TooLittleMemory {
            ram_mib: room.end >> 20,
        })?;
    for (archive, offset, size) in pieces {
        copy(memory, archive, 0, GuestAddress(address + offset), size).map_err(read)?;
    }
    Ok(Placed { address, len })
}

/// Copies `len` bytes of `file` from `offset` to `guest`; the file must hold them.
pub(super) fn copy(
    memory: &GuestMemory,
    file: &File,
    offset: u64,
    guest: GuestAddress,
    len: u64,
) -> std::io::Result<()> {
    let len = usize::try_from(len).map_err(std::io::Error::other)?;
    let mut done = 0;
    while done < len {
        let slice = memory
            .get_slice(guest, len)
            .and_then(|whole| Ok(whole.offset(done)?))
            .map_err(std::io::Error::other)?;
        match crate::virtio::iovec::read_at(file, offset + done as u64, std::iter::once(slice))? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => done += count,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use vm_memory::Bytes;

    use super::*;
    use crate::memory::allocate;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn archives_follow_each_other_aligned_to_four() {
        let memory = allocate(4 << 20).unwrap();
        let placed = load(&memory, &[file(b"hello"), file(b"you")], 0x10_0000..4 << 20).unwrap();
        assert_eq!(placed.address % PAGE, 0);
        assert_eq!(placed.len, 12);
        let mut bytes = [0; 12];
        memory
            .read_slice(&mut bytes, GuestAddress(placed.address))
            .unwrap();
        assert_eq!(&bytes, b"hello\0\0\0you\0");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let memory = allocate(4 << 20).unwrap();
        let large = file(&[1; 8192]);
        let room = (4 << 20) - 4096..4 << 20;
        assert!(matches!(
            load(&memory, &[large], room),
            Err(BootError::TooLittleMemory { ram_mib: 4 })
        ));
    }
}
