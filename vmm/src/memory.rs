//! Guest RAM: private anonymous memory, so that `fork(2)` forks it.
//!
//! The host mapping is aligned to huge pages at the same offset as the guest sees, since KVM can
//! map a huge page only where both agree, and huge pages are advised. RAM is never unmapped: the
//! process ends with its VM.
#![allow(unsafe_code)] // maps memory and tells KVM about it; every block says why it is sound

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
    MmapRegion,
};

use crate::layout::{DAX_START, MMIO_GAP_END, MMIO_GAP_START};
use crate::virtio::device::GuestMemory;

/// Size of a huge page on x86-64.
const HUGE_PAGE: usize = 2 << 20;

/// Why guest RAM could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// More than the guest-physical address space has room for.
    #[error("{bytes} bytes of guest memory do not fit the address space")]
    TooLarge {
        /// Bytes asked for.
        bytes: u64,
    },
    /// The host refused a mapping.
    #[error("cannot map {bytes} bytes of guest memory")]
    Map {
        /// Bytes asked for.
        bytes: u64,
        /// What the host said.
        #[source]
        source: rustix::io::Errno,
    },
    /// The mapping does not make a region.
    #[error("guest memory regions do not fit together")]
    Regions(#[source] vm_memory::GuestRegionCollectionError),
    /// KVM refused a memory slot.
    #[error("kvm refused guest memory slot {slot}")]
    Slot {
        /// The slot's number.
        slot: u32,
        /// What KVM said.
        #[source]
        source: kvm_ioctls::Error,
    },
}

/// Where RAM of this size lies: start and length of each region.
pub fn ram_ranges(bytes: u64) -> Vec<(u64, u64)> {
    if bytes <= MMIO_GAP_START {
        vec![(0, bytes)]
    } else {
        vec![(0, MMIO_GAP_START), (MMIO_GAP_END, bytes - MMIO_GAP_START)]
    }
}

/// Makes guest RAM of `bytes` (a multiple of the page size). No page of it is touched.
///
/// # Errors
/// When the host refuses, or it is larger than the address space.
pub fn allocate(bytes: u64) -> Result<GuestMemory, MemoryError> {
    if bytes >= DAX_START - MMIO_GAP_END {
        return Err(MemoryError::TooLarge { bytes });
    }
    let mut regions = Vec::new();
    for (start, len) in ram_ranges(bytes) {
        let size = usize::try_from(len).map_err(|_| MemoryError::TooLarge { bytes })?;
        let host = map_aligned(size).map_err(|source| MemoryError::Map { bytes: len, source })?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: `host` is a fresh mapping of `size` bytes that nobody unmaps.
        let region = unsafe { MmapRegion::build_raw(host.cast(), size, prot, flags) }
            .map_err(|_| MemoryError::TooLarge { bytes })?;
        let region = GuestRegionMmap::new(region, GuestAddress(start))
            .ok_or(MemoryError::TooLarge { bytes })?;
        regions.push(region);
    }
    let memory = GuestMemoryMmap::from_regions(regions).map_err(MemoryError::Regions)?;
    Ok(Arc::new(memory))
}

/// Maps `size` bytes at a multiple of [`HUGE_PAGE`] and advises huge pages.
fn map_aligned(size: usize) -> rustix::io::Result<*mut c_void> {
    let padded = size
        .checked_add(HUGE_PAGE)
        .ok_or(rustix::io::Errno::NOMEM)?;
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing of ours.
    let raw = unsafe {
        rustix::mm::mmap_anonymous(
            ptr::null_mut(),
            padded,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE | MapFlags::NORESERVE,
        )?
    };
    let lead = (HUGE_PAGE - raw as usize % HUGE_PAGE) % HUGE_PAGE;
    let tail = HUGE_PAGE - lead;
    let aligned = raw.wrapping_byte_add(lead);
    // SAFETY: both ranges are parts of the mapping just made (page-aligned, as `size` is), and
    // nobody has seen an address in them.
    unsafe {
        if lead > 0 {
            rustix::mm::munmap(raw, lead)?;
        }
        rustix::mm::munmap(aligned.wrapping_byte_add(size), tail)?;
        // Advice only: a host without huge pages refuses it, and that is fine.
        let _ = rustix::mm::madvise(aligned, size, Advice::LinuxHugepage);
    }
    Ok(aligned)
}

/// Gives all of `memory` to the VM, one slot a region.
///
/// # Errors
/// When KVM refuses a slot.
pub fn register(vm: &VmFd, memory: &GuestMemory) -> Result<(), MemoryError> {
    for (slot, region) in (0u32..).zip(memory.iter()) {
        let description = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the region is mapped for the whole life of the process and overlaps no other.
        unsafe { vm.set_user_memory_region(description) }
            .map_err(|source| MemoryError::Slot { slot, source })?;
    }
    Ok(())
}

/// Replaces whole pages of RAM by a private mapping of `file`: the pages are shared with the page
/// cache, and so with every other VM, until the guest writes to them.
///
/// `guest`, `offset` and `len` are multiples of the page size. The file must not be changed or
/// truncated while the VM lives; files of the image store never are.
///
/// # Errors
/// When the range is not in RAM or the host refuses the mapping.
pub fn map_file(
    memory: &GuestMemory,
    guest: GuestAddress,
    len: usize,
    file: &std::fs::File,
    offset: u64,
) -> Result<(), MemoryError> {
    let refuse = |source| MemoryError::Map {
        bytes: len as u64,
        source,
    };
    let slice = memory
        .get_slice(guest, len)
        .map_err(|_| refuse(rustix::io::Errno::FAULT))?;
    let address = slice.ptr_guard_mut().as_ptr().cast::<c_void>();
    // SAFETY: `MAP_FIXED` replaces exactly a range of our own guest RAM, which Rust code only
    // reaches through volatile accesses. It stays readable, writable and private.
    let mapped = unsafe {
        rustix::mm::mmap(
            address,
            len,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
            file,
            offset,
        )
    };
    mapped.map(drop).map_err(refuse)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use vm_memory::Bytes;

    use super::*;

    #[test]
    fn ram_leaves_the_mmio_gap_free() {
        assert_eq!(ram_ranges(128 << 20), [(0, 128 << 20)]);
        assert_eq!(ram_ranges(MMIO_GAP_START), [(0, MMIO_GAP_START)]);
        assert_eq!(
            ram_ranges(4 << 30),
            [
                (0, MMIO_GAP_START),
                (MMIO_GAP_END, (4 << 30) - MMIO_GAP_START)
            ]
        );
    }

    #[test]
    fn regions_are_aligned_to_huge_pages_and_zero() {
        let memory = allocate(MMIO_GAP_START + (6 << 20)).unwrap();
        for region in memory.iter() {
            assert_eq!(region.as_ptr() as usize % HUGE_PAGE, 0);
        }
        assert_eq!(
            memory.read_obj::<u64>(GuestAddress(MMIO_GAP_END)).unwrap(),
            0
        );
        let last = GuestAddress(MMIO_GAP_END + (6 << 20) - 8);
        memory.write_obj(7u64, last).unwrap();
        assert!(
            memory
                .write_obj(7u64, GuestAddress(MMIO_GAP_START))
                .is_err()
        );
    }

    #[test]
    fn memory_beyond_the_address_space_is_refused() {
        assert!(matches!(
            allocate(DAX_START),
            Err(MemoryError::TooLarge { .. })
        ));
    }

    #[test]
    fn a_mapped_file_is_seen_by_the_guest_and_never_written() {
        let memory = allocate(4 << 20).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 8192]).unwrap();
        map_file(&memory, GuestAddress(0x1000), 4096, &file, 4096).unwrap();
        assert_eq!(memory.read_obj::<u8>(GuestAddress(0x1000)).unwrap(), 7);
        assert_eq!(memory.read_obj::<u8>(GuestAddress(0xfff)).unwrap(), 0);
        assert_eq!(memory.read_obj::<u8>(GuestAddress(0x2000)).unwrap(), 0);
        memory.write_obj(9u8, GuestAddress(0x1000)).unwrap();
        let mut byte = [0];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut byte, 4096).unwrap();
        assert_eq!(byte, [7]);
    }

    #[test]
    fn a_file_outside_ram_is_refused() {
        let memory = allocate(4 << 20).unwrap();
        let file = tempfile::tempfile().unwrap();
        assert!(map_file(&memory, GuestAddress(4 << 20), 4096, &file, 0).is_err());
    }
}
