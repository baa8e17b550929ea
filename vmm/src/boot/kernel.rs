//! An ELF `vmlinux`: what stays clean is mapped, what the guest writes at once is copied.
//!
//! Debian's kernels have page-aligned segments, so whole pages of a segment can be private
//! mappings of the file ([`memory::map_file`]): they cost nothing until touched and are shared
//! with every VM of the host until written. But a kernel patches nearly every page of its code
//! while it boots (ftrace, alternatives, static calls), and each first write to such a page would
//! be a fault that copies four kilobytes. So code and data are copied beforehand, into the huge
//! pages that are advised for RAM, and constants (strings, symbols, type and unwind
//! information) are mapped. Which is which, the section headers tell; a kernel without any is
//! mapped altogether. The last, partial page of a mapping is copied, since what follows it in RAM
//! must be zero.

use std::fs::File;
use std::os::unix::fs::FileExt;

use vm_memory::GuestAddress;

use super::{BootError, initramfs};
use crate::layout::HIGH_RAM_START;
use crate::memory;
use crate::virtio::device::GuestMemory;

const PAGE: u64 = 4096;

// ELF-64 (System V ABI, chapter 4): sizes, offsets and values of what is used here.
const EHDR_SIZE: usize = 64;
const PHDR_SIZE: usize = 56;
const EM_X86_64: u16 = 62;
const SHDR_SIZE: usize = 64;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// More program headers than any kernel has.
const PHDRS_MAX: u16 = 64;
/// More sections than any kernel has.
const SHDRS_MAX: u16 = 256;
const SHT_NOBITS: u32 = 8;
const SHF_WRITE: u64 = 1;
const SHF_ALLOC: u64 = 2;
const SHF_EXECINSTR: u64 = 4;
const PF_W: u32 = 2;
/// Writable sections larger than this are not copied: the one that there is (`.init.scratch`, for
/// encrypting memory in place) is never touched.
const COPY_MAX: u64 = 3 << 20;
/// More bytes of notes than any kernel has.
const NOTES_MAX: u64 = 64 << 10;
/// `XEN_ELFNOTE_PHYS32_ENTRY`: the PVH entry point (Xen `public/elfnote.h`).
const NOTE_PHYS32_ENTRY: u32 = 18;

/// A loaded kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// The ELF entry point, which is 64-bit code at a physical address.
    pub entry: u64,
    /// The PVH entry point, 32-bit code.
    pub pvh_entry: Option<u64>,
    /// First address behind the kernel and its zeroed data.
    pub end: u64,
}

#[derive(Debug, Clone, Copy)]
struct ProgramHeader {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    physical: u64,
    file_size: u64,
    memory_size: u64,
    alignment: u64,
}

/// Loads the kernel below `ram_end`.
///
/// # Errors
/// When it is not an x86-64 ELF, does not fit, or cannot be read.
pub fn load(memory: &GuestMemory, file: &File, ram_end: u64) -> Result<Kernel, BootError> {
    let mut header = [0; EHDR_SIZE];
    file.read_exact_at(&mut header, 0)
        .map_err(|_| BootError::Kernel("it is shorter than an ELF header"))?;
    // Class 64-bit, little-endian.
    if header[..6] != *b"\x7fELF\x02\x01" || u16_at(&header, 18) != EM_X86_64 {
        return Err(BootError::Kernel("it is not an x86-64 ELF file"));
    }
    let mut kernel = Kernel {
        entry: u64_at(&header, 24),
        pvh_entry: None,
        end: HIGH_RAM_START,
    };
    let sections = sections(file, &header);
    for header in program_headers(file, &header)? {
        match header.kind {
            PT_LOAD => {
                let end = load_segment(memory, file, header, &sections, ram_end)?;
                kernel.end = kernel.end.max(end);
            }
            PT_NOTE => kernel.pvh_entry = kernel.pvh_entry.or(find_pvh_entry(file, header)?),
            _ => {}
        }
    }
    if kernel.end == HIGH_RAM_START {
        return Err(BootError::Kernel("it has nothing to load"));
    }
    Ok(kernel)
}

fn program_headers(file: &File, header: &[u8; EHDR_SIZE]) -> Result<Vec<ProgramHeader>, BootError> {
    let (offset, size, count) = (u64_at(header, 32), u16_at(header, 54), u16_at(header, 56));
    if usize::from(size) != PHDR_SIZE || count > PHDRS_MAX {
        return Err(BootError::Kernel(
            "its program headers have an unknown shape",
        ));
    }
    let mut table = vec![0; PHDR_SIZE * usize::from(count)];
    file.read_exact_at(&mut table, offset)
        .map_err(|_| BootError::Kernel("its program headers are cut off"))?;
    let parse = |raw: &[u8]| ProgramHeader {
        kind: u32_at(raw, 0),
        flags: u32_at(raw, 4),
        offset: u64_at(raw, 8),
        address: u64_at(raw, 16),
        physical: u64_at(raw, 24),
        file_size: u64_at(raw, 32),
        memory_size: u64_at(raw, 40),
        alignment: u64_at(raw, 48),
    };
    Ok(table.chunks_exact(PHDR_SIZE).map(parse).collect())
}

/// Loads one segment and returns its end in memory.
fn load_segment(
    memory: &GuestMemory,
    file: &File,
    segment: ProgramHeader,
    sections: &[Section],
    ram_end: u64,
) -> Result<u64, BootError> {
    let ProgramHeader {
        offset,
        physical,
        file_size,
        memory_size,
        ..
    } = segment;
    let end = physical
        .checked_add(memory_size)
        .filter(|_| physical >= HIGH_RAM_START && file_size <= memory_size)
        .ok_or(BootError::Kernel(
            "a segment has an impossible address or size",
        ))?;
    if end > ram_end {
        return Err(BootError::TooLittleMemory {
            ram_mib: ram_end >> 20,
        });
    }
    let available = file
        .metadata()
        .map_err(|source| BootError::Read {
            what: "kernel",
            source,
        })?
        .len();
    if offset
        .checked_add(file_size)
        .is_none_or(|end| end > available)
    {
        return Err(BootError::Kernel("a segment is cut off"));
    }
    let aligned = offset % PAGE == 0 && physical % PAGE == 0;
    for (from, to, piece) in pieces(segment, sections) {
        // Whole pages can be mapped; what is around them is copied.
        let (first, last) = match piece {
            Piece::Clean if aligned => (from.next_multiple_of(PAGE).min(to), to / PAGE * PAGE),
            Piece::Clean | Piece::Written => (to, to),
            Piece::Zero => continue,
        };
        if first < last {
            let len = usize::try_from(last - first)
                .map_err(|_| BootError::Kernel("a segment has an impossible address or size"))?;
            let guest = GuestAddress(physical + first);
            memory::map_file(memory, guest, len, file, offset + first).map_err(BootError::Map)?;
        }
        for (from, to) in [(from, first), (last.max(first), to)] {
            let guest = GuestAddress(physical + from);
            initramfs::copy(memory, file, offset + from, guest, to - from).map_err(|source| {
                BootError::Read {
                    what: "kernel",
                    source,
                }
            })?;
        }
    }
    Ok(end)
}

/// What becomes of a piece of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// The guest will hardly write to it.
    Clean,
    /// The guest writes to it while it boots.
    Written,
    /// Zero, whatever the file says.
    Zero,
}

/// A section that is in memory: addresses are virtual.
#[derive(Debug, Clone, Copy)]
struct Section {
    kind: u32,
    flags: u64,
    address: u64,
    size: u64,
}

/// The file's sections; none when the table is not usable, since a kernel can be loaded without.
fn sections(file: &File, header: &[u8; EHDR_SIZE]) -> Vec<Section> {
    let (offset, size, count) = (u64_at(header, 40), u16_at(header, 58), u16_at(header, 60));
    if usize::from(size) != SHDR_SIZE || count > SHDRS_MAX {
        return Vec::new();
    }
    let mut table = vec![0; SHDR_SIZE * usize::from(count)];
    if file.read_exact_at(&mut table, offset).is_err() {
        return Vec::new();
    }
    let parse = |raw: &[u8]| Section {
        kind: u32_at(raw, 4),
        flags: u64_at(raw, 8),
        address: u64_at(raw, 16),
        size: u64_at(raw, 32),
    };
    let mut sections: Vec<_> = table
        .chunks_exact(SHDR_SIZE)
        .map(parse)
        .filter(|section| section.flags & SHF_ALLOC != 0)
        .collect();
    sections.sort_by_key(|section| section.address);
    sections
}

/// The pieces of a segment's part of the file, in order, without gap or overlap, by their offsets
/// in it.
fn pieces(segment: ProgramHeader, sections: &[Section]) -> Vec<(u64, u64, Piece)> {
    let mut pieces: Vec<(u64, u64, Piece)> = Vec::new();
    let mut done = 0;
    let mut add = |from: &mut u64, to: u64, piece: Piece| {
        if *from < to {
            match pieces.last_mut() {
                Some(last) if last.2 == piece => last.1 = to,
                _ => pieces.push((*from, to, piece)),
            }
            *from = to;
        }
    };
    for section in sections {
        let Some(from) = section.address.checked_sub(segment.address) else {
            continue;
        };
        let to = from.saturating_add(section.size).min(segment.file_size);
        // What is between sections is padding, and stays clean.
        add(&mut done, from.min(to), Piece::Clean);
        add(&mut done, to, piece(segment, section));
    }
    add(&mut done, segment.file_size, Piece::Clean);
    pieces
}

fn piece(segment: ProgramHeader, section: &Section) -> Piece {
    // Linux flags its constants as writable too, but puts them into a segment that is not.
    let data =
        section.flags & SHF_WRITE != 0 && segment.flags & PF_W != 0 && section.size <= COPY_MAX;
    if section.kind == SHT_NOBITS {
        Piece::Zero
    } else if data || section.flags & SHF_EXECINSTR != 0 {
        Piece::Written
    } else {
        Piece::Clean
    }
}

/// Looks for the PVH entry in a segment of notes.
fn find_pvh_entry(file: &File, segment: ProgramHeader) -> Result<Option<u64>, BootError> {
    let cut_off = || BootError::Kernel("its notes are cut off");
    if segment.file_size > NOTES_MAX {
        return Err(BootError::Kernel("its notes are too long"));
    }
    let size = usize::try_from(segment.file_size).map_err(|_| cut_off())?;
    let mut notes = vec![0; size];
    file.read_exact_at(&mut notes, segment.offset)
        .map_err(|_| cut_off())?;
    let alignment = if segment.alignment == 8 { 8 } else { 4 };
    let mut rest = notes.as_slice();
    // Each note: name size, descriptor size, type, name, descriptor, the last two padded.
    while rest.len() >= 12 {
        let (name_size, descriptor_size) = (u32_at(rest, 0) as usize, u32_at(rest, 4) as usize);
        let kind = u32_at(rest, 8);
        let name_end = 12usize.checked_add(name_size).ok_or_else(cut_off)?;
        let start = name_end
            .checked_next_multiple_of(alignment)
            .ok_or_else(cut_off)?;
        let end = start.checked_add(descriptor_size).ok_or_else(cut_off)?;
        let name = rest.get(12..name_end).ok_or_else(cut_off)?;
        let descriptor = rest.get(start..end).ok_or_else(cut_off)?;
        if kind == NOTE_PHYS32_ENTRY && name == b"Xen\0" {
            let entry = match descriptor.len() {
                4 => u64::from(u32_at(descriptor, 0)),
                8 => u64_at(descriptor, 0),
                _ => return Err(BootError::Kernel("its PVH note has an unknown size")),
            };
            return Ok(Some(entry));
        }
        let next = end
            .checked_next_multiple_of(alignment)
            .ok_or_else(cut_off)?;
        rest = rest.get(next..).unwrap_or_default();
    }
    Ok(None)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;
    use vm_memory::Bytes;

    use super::*;
    use crate::memory::allocate;

    const RAM: u64 = 8 << 20;
    const BASE: u64 = 2 << 20;

    /// An ELF file with a PVH note and one segment of `content` at `BASE`, page-aligned.
    fn elf(content: &[u8], memory_size: u64) -> Vec<u8> {
        let mut note = Vec::new();
        for word in [4u32, 4, NOTE_PHYS32_ENTRY] {
            note.extend(word.to_le_bytes());
        }
        note.extend(b"Xen\0");
        note.extend(0x20_0050u32.to_le_bytes());
        let mut file = vec![0; 4096];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[18..20].copy_from_slice(&EM_X86_64.to_le_bytes());
        file[24..32].copy_from_slice(&BASE.to_le_bytes());
        file[32..40].copy_from_slice(&64u64.to_le_bytes());
        file[54..56].copy_from_slice(&56u16.to_le_bytes());
        file[56..58].copy_from_slice(&2u16.to_le_bytes());
        let headers = [
            [1, 4096, BASE, content.len() as u64, memory_size],
            [4, 512, 0, note.len() as u64, 0],
        ];
        for (header, [kind, offset, physical, size, memory]) in
            file[64..].chunks_exact_mut(56).zip(headers)
        {
            header[..8].copy_from_slice(&kind.to_le_bytes());
            header[8..16].copy_from_slice(&offset.to_le_bytes());
            header[24..32].copy_from_slice(&physical.to_le_bytes());
            header[32..40].copy_from_slice(&size.to_le_bytes());
            header[40..48].copy_from_slice(&memory.to_le_bytes());
        }
        file[512..512 + note.len()].copy_from_slice(&note);
        file.extend(content);
        file
    }

    fn load_bytes(bytes: &[u8]) -> Result<(GuestMemory, Kernel), BootError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let memory = allocate(RAM).unwrap();
        load(&memory, &file, RAM).map(|kernel| (memory, kernel))
    }

    #[test]
    fn whole_pages_and_the_partial_last_one_arrive_and_zeroes_follow() {
        let content: Vec<u8> = (0..10_000u32).map(|byte| byte as u8 | 1).collect();
        // The file goes on behind the segment; none of that may be seen.
        let mut bytes = elf(&content, 20_000);
        bytes.extend([0xff; 8192]);
        let (memory, kernel) = load_bytes(&bytes).unwrap();
        let mut loaded = vec![0xaa; 20_000];
        memory.read_slice(&mut loaded, GuestAddress(BASE)).unwrap();
        assert_eq!(loaded[..10_000], content);
        assert!(loaded[10_000..].iter().all(|byte| *byte == 0));
        let expected = Kernel {
            entry: BASE,
            pvh_entry: Some(0x20_0050),
            end: BASE + 20_000,
        };
        assert_eq!(kernel, expected);
    }

    fn section(kind: u32, flags: u64, address: u64, size: u64) -> Section {
        Section {
            kind,
            flags,
            address,
            size,
        }
    }

    fn segment(flags: u32, address: u64, file_size: u64) -> ProgramHeader {
        ProgramHeader {
            kind: PT_LOAD,
            flags,
            offset: 0,
            address,
            physical: BASE,
            file_size,
            memory_size: file_size,
            alignment: PAGE,
        }
    }

    #[test]
    fn code_and_data_are_copied_constants_mapped_and_zeroes_left_alone() {
        let sections = [
            section(1, SHF_EXECINSTR, 0x1000, 0x1800),
            section(1, SHF_WRITE, 0x3000, 0x1000),
            section(1, SHF_WRITE, 0x10000, 0x1000),
            section(1, 0, 0x11000, 0x1000),
            section(SHT_NOBITS, SHF_WRITE, 0x12000, 0x9000),
            section(1, SHF_WRITE, 0x14000, 0x1000),
        ];
        use Piece::{Clean, Written, Zero};
        assert_eq!(
            pieces(segment(5, 0x1000, 0x4000), &sections),
            [(0, 0x1800, Written), (0x1800, 0x4000, Clean)]
        );
        assert_eq!(
            pieces(segment(6, 0x10000, 0x5000), &sections),
            [
                (0, 0x1000, Written),
                (0x1000, 0x2000, Clean),
                (0x2000, 0x5000, Zero)
            ]
        );
        assert_eq!(
            pieces(segment(6, 0x90000, 0x5000), &sections),
            [(0, 0x5000, Clean)]
        );
    }

    #[test]
    fn sections_that_lie_anywhere_make_pieces_without_gap_or_overlap() {
        proptest!(|(
            raw in proptest::collection::vec(
                (0u32..10, 0u64..8, prop_oneof![0u64..0x9000, any::<u64>()],
                 prop_oneof![0u64..0x9000, any::<u64>()]), 0..8),
            address in prop_oneof![0u64..0x9000, any::<u64>()],
            size in 0u64..0x9000,
        )| {
            let mut sections: Vec<_> = raw
                .into_iter()
                .map(|(kind, flags, address, size)| section(kind, flags, address, size))
                .collect();
            sections.sort_by_key(|section| section.address);
            let mut done = 0;
            for (from, to, _) in pieces(segment(7, address, size), &sections) {
                prop_assert_eq!(from, done);
                prop_assert!(to > from);
                done = to;
            }
            prop_assert_eq!(done, size);
        });
    }

    #[test]
    fn a_kernel_larger_than_ram_needs_more_memory() {
        let error = load_bytes(&elf(b"x", RAM)).unwrap_err();
        assert!(matches!(error, BootError::TooLittleMemory { ram_mib: 8 }));
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        assert!(matches!(
            load_bytes(b"#!/bin/sh"),
            Err(BootError::Kernel(_))
        ));
        assert!(matches!(load_bytes(&[0; 4096]), Err(BootError::Kernel(_))));
        let mut cut = elf(&[1; 8192], 8192);
        cut.truncate(4096 + 100);
        assert!(matches!(
            load_bytes(&cut),
            Err(BootError::Kernel("a segment is cut off"))
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn damaged_headers_give_errors_and_no_panic(
            changes in proptest::collection::vec((0usize..600, any::<u8>()), 1..8)
        ) {
            let mut bytes = elf(&[1; 5000], 9000);
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            let _ = load_bytes(&bytes);
        }
    }
}
