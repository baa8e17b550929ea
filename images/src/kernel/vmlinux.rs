//! What our monitor needs of an ELF kernel, checked once when it is unpacked.
//!
//! The monitor maps the file's segments into guest memory instead of copying them, and enters at
//! the address in the PVH note (Xen, docs/misc/pvh.pandoc; `XEN_ELFNOTE_PHYS32_ENTRY`). So every
//! loadable segment must begin at a page both in the file and in memory, and the note must be
//! there. Behind the ELF file the build leaves relocations for a kernel that moves itself; nobody
//! needs them here, and they are cut off.

use object::elf::{FileHeader64, PT_LOAD, PT_NOTE};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use object::{Endianness, ReadRef};

use super::KernelError;

/// Xen, public/elfnote.h: `XEN_ELFNOTE_PHYS32_ENTRY`.
const PHYS32_ENTRY: u32 = 18;
const PAGE: u64 = 4096;

/// Checks `kernel` and returns the length of its ELF part.
pub fn check(kernel: &[u8]) -> Result<usize, KernelError> {
    let bad = |_| KernelError::Vmlinux("its headers do not parse");
    let header = FileHeader64::<Endianness>::parse(kernel).map_err(bad)?;
    let endian = header.endian().map_err(bad)?;
    if endian != Endianness::Little || header.e_machine(endian) != object::elf::EM_X86_64 {
        return Err(KernelError::Vmlinux("it is not for x86-64"));
    }
    let segments = header.program_headers(endian, kernel).map_err(bad)?;
    let mut end = extent_of_sections(header, endian, kernel)?;
    let (mut loadable, mut entry) = (false, false);
    for segment in segments {
        let (offset, size) = segment.file_range(endian);
        let segment_end = offset
            .checked_add(size)
            .filter(|&end| end <= kernel.len() as u64)
            .ok_or(KernelError::Vmlinux("a segment is outside the file"))?;
        end = end.max(segment_end);
        match segment.p_type(endian) {
            PT_LOAD => {
                loadable = true;
                if offset % PAGE != 0 || segment.p_paddr(endian) % PAGE != 0 {
                    return Err(KernelError::Vmlinux("a segment does not begin at a page"));
                }
            }
            PT_NOTE => {
                let notes = segment.notes(endian, kernel).map_err(bad)?;
                for note in notes.into_iter().flatten() {
                    let note = note.map_err(bad)?;
                    entry |= note.name() == b"Xen" && note.n_type(endian) == PHYS32_ENTRY;
                }
            }
            _ => {}
        }
    }
    if !loadable {
        return Err(KernelError::Vmlinux("it has no loadable segment"));
    }
    if !entry {
        return Err(KernelError::Vmlinux("it has no PVH entry"));
    }
    usize::try_from(end).map_err(|_| KernelError::Vmlinux("it is too large"))
}

/// Where the section table and what it describes end.
fn extent_of_sections(
    header: &FileHeader64<Endianness>,
    endian: Endianness,
    kernel: &[u8],
) -> Result<u64, KernelError> {
    let outside = KernelError::Vmlinux("a section is outside the file");
    let sections = header
        .section_headers(endian, kernel)
        .map_err(|_| KernelError::Vmlinux("its section headers do not parse"))?;
    let table = size_of_val(sections) as u64;
    let mut end = if sections.is_empty() {
        0
    } else {
        header.e_shoff(endian).saturating_add(table)
    };
    for section in sections {
        if let Some((offset, size)) = section.file_range(endian) {
            end = end.max(offset.saturating_add(size));
        }
    }
    if end > ReadRef::len(kernel).unwrap_or(0) {
        return Err(outside);
    }
    Ok(end)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An ELF kernel with one page of code and a note of type `note`, loaded from `offset`.
    pub(crate) fn kernel(offset: u64, note: u32) -> Vec<u8> {
        let mut elf = vec![0; 2 * PAGE as usize];
        elf[..8].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0]);
        let mut put = |at: usize, bytes: &[u8]| elf[at..][..bytes.len()].copy_from_slice(bytes);
        put(16, &2_u16.to_le_bytes()); // e_type: ET_EXEC
        put(18, &62_u16.to_le_bytes()); // e_machine: EM_X86_64
        put(20, &1_u32.to_le_bytes()); // e_version
        put(32, &64_u64.to_le_bytes()); // e_phoff
        put(52, &64_u16.to_le_bytes()); // e_ehsize
        put(54, &56_u16.to_le_bytes()); // e_phentsize
        put(56, &2_u16.to_le_bytes()); // e_phnum
        for (at, kind, offset, address, size) in [
            (64, PT_LOAD, offset, 0x100_0000_u64, PAGE),
            (120, PT_NOTE, 512, 0, 24),
        ] {
            put(at, &kind.to_le_bytes());
            put(at + 8, &offset.to_le_bytes());
            put(at + 24, &address.to_le_bytes());
            put(at + 32, &size.to_le_bytes());
            put(at + 40, &size.to_le_bytes());
            put(at + 48, &4_u64.to_le_bytes());
        }
        put(512, &4_u32.to_le_bytes()); // n_namesz
        put(516, &8_u32.to_le_bytes()); // n_descsz
        put(520, &note.to_le_bytes());
        put(524, b"Xen\0");
        put(528, &0x100_0000_u64.to_le_bytes());
        elf
    }

    #[test]
    fn a_kernel_with_a_pvh_entry_passes_and_what_follows_it_is_cut() {
        let mut kernel = kernel(PAGE, PHYS32_ENTRY);
        kernel.extend_from_slice(b"relocations");

        assert_eq!(check(&kernel).unwrap(), 2 * PAGE as usize);
    }

    #[test]
    fn a_kernel_without_a_pvh_entry_is_refused() {
        let error = check(&kernel(PAGE, PHYS32_ENTRY + 1)).unwrap_err();

        assert!(matches!(error, KernelError::Vmlinux("it has no PVH entry")));
    }

    #[test]
    fn a_segment_that_cannot_be_mapped_is_refused() {
        let error = check(&kernel(PAGE - 512, PHYS32_ENTRY)).unwrap_err();

        assert!(matches!(
            error,
            KernelError::Vmlinux("a segment does not begin at a page")
        ));
    }

    #[test]
    fn a_kernel_cut_anywhere_is_refused() {
        let kernel = kernel(PAGE, PHYS32_ENTRY);
        for length in 0..kernel.len() {
            assert!(check(&kernel[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn a_corrupt_header_never_panics() {
        let kernel = kernel(PAGE, PHYS32_ENTRY);
        for at in 0..176 {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut kernel = kernel.clone();
                kernel[at] = value;
                let _ = check(&kernel);
            }
        }
    }
}
