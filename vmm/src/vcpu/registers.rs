//! Initial register states.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::layout::{BOOT_GDT, BOOT_PML4, BOOT_STACK, PVH_START_INFO, ZERO_PAGE};
use crate::virtio::device::GuestMemory;

/// CR0.PE: protected mode (Intel SDM vol. 3 §2.5, as all of these).
pub const CR0_PE: u64 = 1 << 0;
/// CR0.MP.
pub const CR0_MP: u64 = 1 << 1;
/// CR0.ET: always one.
pub const CR0_ET: u64 = 1 << 4;
/// CR0.NE: x87 errors as exceptions.
pub const CR0_NE: u64 = 1 << 5;
/// CR0.PG: paging.
pub const CR0_PG: u64 = 1 << 31;
/// CR4.PAE.
pub const CR4_PAE: u64 = 1 << 5;
/// CR4.OSFXSR.
pub const CR4_OSFXSR: u64 = 1 << 9;
/// CR4.OSXSAVE.
pub const CR4_OSXSAVE: u64 = 1 << 18;
/// EFER.LME: long mode enabled.
pub const EFER_LME: u64 = 1 << 8;
/// EFER.LMA: long mode active.
pub const EFER_LMA: u64 = 1 << 10;

/// Selector of the code segment in the boot GDT (Linux `__BOOT_CS`).
pub const CODE_SELECTOR: u16 = 0x10;
/// Selector of the data segment in the boot GDT (Linux `__BOOT_DS`).
pub const DATA_SELECTOR: u16 = 0x18;
const TSS_SELECTOR: u16 = 0x20;

/// Descriptor table entries in their memory format, for segments with base 0.
const GDT_CODE_32: u64 = 0x00cf_9b00_0000_ffff;
const GDT_CODE_64: u64 = 0x00af_9b00_0000_ffff;
const GDT_DATA: u64 = 0x00cf_9300_0000_ffff;
const GDT_TSS: u64 = 0x0000_8b00_0000_0067;

/// The width of the code that the processor starts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// 32-bit protected mode without paging, as PVH asks for.
    Protected,
    /// 64-bit mode with the page tables of [`write_page_tables`].
    Long,
}

/// A flat code segment.
pub fn code_segment(mode: Mode) -> kvm_segment {
    let long = mode == Mode::Long;
    kvm_segment {
        limit: 0xffff_ffff,
        selector: CODE_SELECTOR,
        type_: 0xb, // execute, read, accessed
        present: 1,
        db: u8::from(!long),
        s: 1,
        l: u8::from(long),
        g: 1,
        ..Default::default()
    }
}

/// A flat data segment.
pub fn data_segment() -> kvm_segment {
    kvm_segment {
        limit: 0xffff_ffff,
        selector: DATA_SELECTOR,
        type_: 0x3, // read, write, accessed
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    }
}

/// A busy task state segment, which KVM wants on Intel.
pub fn task_segment() -> kvm_segment {
    kvm_segment {
        limit: 0x67,
        selector: TSS_SELECTOR,
        type_: 0xb,
        present: 1,
        ..Default::default()
    }
}

/// Writes the descriptor table that the segments of `mode` came from.
///
/// # Errors
/// When the guest has no memory there.
pub fn write_gdt(memory: &GuestMemory, mode: Mode) -> Result<(), GuestMemoryError> {
    let code = if mode == Mode::Long {
        GDT_CODE_64
    } else {
        GDT_CODE_32
    };
    for (index, entry) in (0u64..).zip([0, 0, code, GDT_DATA, GDT_TSS, 0]) {
        memory.write_obj(entry, GuestAddress(BOOT_GDT + index * 8))?;
    }
    Ok(())
}

/// Writes an identity map of the first 4 GiB with 2 MiB pages at [`BOOT_PML4`].
///
/// # Errors
/// When the guest has no memory there.
pub fn write_page_tables(memory: &GuestMemory) -> Result<(), GuestMemoryError> {
    /// Present and writable.
    const TABLE: u64 = 0x3;
    /// Present, writable, 2 MiB page.
    const PAGE: u64 = 0x83;
    let pdpt = BOOT_PML4 + 0x1000;
    memory.write_obj(pdpt | TABLE, GuestAddress(BOOT_PML4))?;
    for gib in 0..4u64 {
        let directory = pdpt + 0x1000 * (1 + gib);
        memory.write_obj(directory | TABLE, GuestAddress(pdpt + gib * 8))?;
        for index in 0..512u64 {
            let page = (gib << 30) | (index << 21) | PAGE;
            memory.write_obj(page, GuestAddress(directory + index * 8))?;
        }
    }
    Ok(())
}

/// Changes the reset state in `sregs` to that of `mode`.
pub fn enter_mode(sregs: &mut kvm_sregs, mode: Mode) {
    sregs.cs = code_segment(mode);
    let data = data_segment();
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = task_segment();
    sregs.gdt.base = BOOT_GDT;
    sregs.gdt.limit = 6 * 8 - 1;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cr0 = CR0_PE | CR0_ET;
    sregs.cr4 = 0;
    sregs.efer = 0;
    if mode == Mode::Long {
        sregs.cr3 = BOOT_PML4;
        sregs.cr4 = CR4_PAE;
        sregs.cr0 |= CR0_PG;
        sregs.efer = EFER_LME | EFER_LMA;
    }
}

/// General registers at the kernel's entry. PVH wants the start info in `rbx`; the 64-bit boot
/// protocol wants the zero page in `rsi`.
pub fn entry_registers(mode: Mode, entry: u64) -> kvm_regs {
    let common = kvm_regs {
        rip: entry,
        rflags: 0x2,
        ..Default::default()
    };
    match mode {
        Mode::Protected => kvm_regs {
            rbx: PVH_START_INFO,
            ..common
        },
        Mode::Long => kvm_regs {
            rsi: ZERO_PAGE,
            rsp: BOOT_STACK,
            rbp: BOOT_STACK,
            ..common
        },
    }
}
