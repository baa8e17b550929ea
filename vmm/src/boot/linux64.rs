//! The 64-bit Linux boot protocol (Linux `Documentation/arch/x86/boot.rst` §1.16), for kernels
//! without a PVH note: entered in long mode with the "zero page" in `rsi`.

use linux_loader::bootparam::{boot_e820_entry, boot_params};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::initramfs::Placed;
use super::memory_map;
use crate::layout::{ACPI_RSDP, COMMAND_LINE, ZERO_PAGE};
use crate::virtio::device::GuestMemory;

/// `boot_flag` of every setup header.
const BOOT_FLAG: u16 = 0xaa55;
/// `header`: "HdrS".
const HEADER: u32 = 0x5372_6448;
/// `type_of_loader`: undefined.
const LOADER_UNDEFINED: u8 = 0xff;

/// Writes the zero page.
pub(super) fn write(
    memory: &GuestMemory,
    ram: u64,
    initramfs: Placed,
    command_line_len: usize,
) -> Result<(), GuestMemoryError> {
    let low = |address: u64| u32::try_from(address).expect("boot data lies below 4 GiB");
    let mut params = boot_params {
        acpi_rsdp_addr: ACPI_RSDP,
        ..Default::default()
    };
    params.hdr.boot_flag = BOOT_FLAG;
    params.hdr.header = HEADER;
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.cmd_line_ptr = low(COMMAND_LINE);
    params.hdr.cmdline_size = u32::try_from(command_line_len).expect("at most 2 KiB");
    params.hdr.ramdisk_image = low(initramfs.address);
    params.hdr.ramdisk_size = low(initramfs.len);
    params.hdr.kernel_alignment = 0x20_0000;
    let map = memory_map(ram);
    for (entry, (addr, size, kind)) in params.e820_table.iter_mut().zip(&map) {
        *entry = boot_e820_entry {
            addr: *addr,
            size: *size,
            r#type: *kind as u32,
        };
    }
    params.e820_entries = u8::try_from(map.len()).expect("a handful of entries");
    memory.write_obj(params, GuestAddress(ZERO_PAGE))
}
