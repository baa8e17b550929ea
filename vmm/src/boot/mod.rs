//! From an ELF kernel and archives to a processor that can be started: no firmware.
//!
//! [`load`] puts everything into fresh guest RAM; [`Entry::prepare`] sets the boot processor's
//! registers. Nothing here comes from a guest, but a damaged kernel file must give an error.

pub mod acpi;
pub mod command_line;
pub mod initramfs;
pub mod kernel;
pub mod linux64;
pub mod pvh;

use std::fs::File;

use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::layout::{self, Slot};
use crate::memory::{MemoryError, ram_ranges};
use crate::vcpu::registers::{self, Mode};
use crate::virtio::device::GuestMemory;

/// Why a VM could not be prepared for its boot.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The kernel file is not one that can be booted.
    #[error("the kernel cannot be booted: {0}")]
    Kernel(&'static str),
    /// A file could not be read.
    #[error("cannot read the {what}")]
    Read {
        /// Which file.
        what: &'static str,
        /// What the host said.
        #[source]
        source: std::io::Error,
    },
    /// Kernel and initial RAM file system need more RAM.
    #[error("{ram_mib} MiB of memory are too few for this kernel and initial ram file system")]
    TooLittleMemory {
        /// RAM the guest has below 4 GiB.
        ram_mib: u64,
    },
    /// Guest RAM could not be mapped.
    #[error("cannot map the kernel into guest memory")]
    Map(#[source] MemoryError),
    /// Guest RAM could not be written.
    #[error("cannot write boot data into guest memory")]
    Write(#[from] GuestMemoryError),
    /// KVM refused registers.
    #[error("kvm refused the initial registers")]
    Registers(#[source] kvm_ioctls::Error),
}

/// What is to be booted.
#[derive(Debug)]
pub struct Source<'a> {
    /// The unpacked `vmlinux`.
    pub kernel: &'a File,
    /// The initial RAM file system, in pieces.
    pub initramfs: &'a [File],
    /// RAM in bytes.
    pub ram: u64,
    /// Processors.
    pub vcpus: u8,
    /// The slots that hold a device.
    pub slots: &'a [Slot],
    /// A full serial console instead of the silent early one.
    pub debug_console: bool,
}

/// Where the boot processor starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Physical address.
    pub address: u64,
    /// Processor mode.
    pub mode: Mode,
}

impl Entry {
    /// Sets the boot processor's registers.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn prepare(self, vcpu: &VcpuFd) -> Result<(), BootError> {
        let mut sregs = vcpu.get_sregs().map_err(BootError::Registers)?;
        registers::enter_mode(&mut sregs, self.mode);
        vcpu.set_sregs(&sregs).map_err(BootError::Registers)?;
        vcpu.set_regs(&registers::entry_registers(self.mode, self.address))
            .map_err(BootError::Registers)
    }
}

/// Loads kernel, initramfs, command line, ACPI tables and boot information into `memory`, which
/// is all zero.
///
/// # Errors
/// When something does not fit or cannot be read.
pub fn load(memory: &GuestMemory, source: &Source<'_>) -> Result<Entry, BootError> {
    let low_ram_end = ram_ranges(source.ram)[0].1;
    let kernel = kernel::load(memory, source.kernel, low_ram_end)?;
    let initramfs = initramfs::load(memory, source.initramfs, kernel.end..low_ram_end)?;
    let mut command_line = command_line::build(source.debug_console).into_bytes();
    command_line.push(0);
    memory.write_slice(&command_line, GuestAddress(layout::COMMAND_LINE))?;
    acpi::write(memory, source.vcpus, source.slots)?;
    let entry = match kernel.pvh_entry {
        Some(address) => {
            pvh::write(memory, source.ram, initramfs)?;
            Entry {
                address,
                mode: Mode::Protected,
            }
        }
        None => {
            linux64::write(memory, source.ram, initramfs, command_line.len())?;
            registers::write_page_tables(memory)?;
            Entry {
                address: kernel.entry,
                mode: Mode::Long,
            }
        }
    };
    registers::write_gdt(memory, entry.mode)?;
    Ok(entry)
}

/// Kinds of memory in the maps that kernels get (e820; PVH uses the same numbers).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum MemoryKind {
    /// Usable RAM.
    Ram = 1,
    /// Not to be touched.
    Reserved = 2,
}

/// The memory map: address, length and kind of each piece.
pub fn memory_map(ram: u64) -> Vec<(u64, u64, MemoryKind)> {
    use layout::{HIGH_RAM_START, LOW_RAM_END};
    let ranges = ram_ranges(ram);
    let mut map = vec![
        (0, LOW_RAM_END, MemoryKind::Ram),
        (
            LOW_RAM_END,
            HIGH_RAM_START - LOW_RAM_END,
            MemoryKind::Reserved,
        ),
        (
            HIGH_RAM_START,
            ranges[0].1 - HIGH_RAM_START,
            MemoryKind::Ram,
        ),
    ];
    map.extend(
        ranges[1..]
            .iter()
            .map(|(start, len)| (*start, *len, MemoryKind::Ram)),
    );
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_map_covers_all_ram_without_overlap() {
        for ram in [128 << 20, 4 << 30] {
            let map = memory_map(ram);
            let total: u64 = map.iter().map(|(_, len, _)| len).sum();
            assert_eq!(total, ram);
            assert!(
                map.windows(2)
                    .all(|pair| pair[0].0 + pair[0].1 <= pair[1].0)
            );
        }
    }
}
