//! The PVH boot protocol (Xen `public/arch-x86/hvm/start_info.h`): a kernel is entered in 32-bit
//! protected mode with the address of this structure in `rbx`.

use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::initramfs::Placed;
use super::memory_map;
use crate::layout::{ACPI_RSDP, COMMAND_LINE, PVH_MEMORY_MAP, PVH_MODULE_LIST, PVH_START_INFO};
use crate::virtio::device::GuestMemory;

/// `XEN_HVM_START_MAGIC_VALUE`.
const MAGIC: u32 = 0x336e_c578;

/// Writes start info, module list and memory map.
pub(super) fn write(
    memory: &GuestMemory,
    ram: u64,
    initramfs: Placed,
) -> Result<(), GuestMemoryError> {
    let map = memory_map(ram);
    for (index, (addr, size, kind)) in (0u64..).zip(&map) {
        let entry = hvm_memmap_table_entry {
            addr: *addr,
            size: *size,
            type_: *kind as u32,
            reserved: 0,
        };
        let at = PVH_MEMORY_MAP + index * size_of::<hvm_memmap_table_entry>() as u64;
        memory.write_obj(entry, GuestAddress(at))?;
    }
    let module = hvm_modlist_entry {
        paddr: initramfs.address,
        size: initramfs.len,
        ..Default::default()
    };
    memory.write_obj(module, GuestAddress(PVH_MODULE_LIST))?;
    let start_info = hvm_start_info {
        magic: MAGIC,
        version: 1, // with a memory map
        flags: 0,
        nr_modules: u32::from(initramfs.len > 0),
        modlist_paddr: PVH_MODULE_LIST,
        cmdline_paddr: COMMAND_LINE,
        rsdp_paddr: ACPI_RSDP,
        memmap_paddr: PVH_MEMORY_MAP,
        memmap_entries: u32::try_from(map.len()).expect("a handful of entries"),
        reserved: 0,
    };
    memory.write_obj(start_info, GuestAddress(PVH_START_INFO))
}
