//! Every guest-physical address, port and interrupt line, with its reason.
//!
//! ```text
//! 0x0000_0000  page tables of the 64-bit entry, PVH start info, memory map, command line
//! 0x0009_fc00  reserved to the end of the first MiB: ACPI tables, RSDP
//! 0x0010_0000  the kernel (Debian links it at 16 MiB), then free RAM; initramfs at its end
//! 0xd000_0000  device slots: one page of virtio-mmio registers each
//! 0xfec0_0000  IOAPIC, then local APICs, KVM's own pages
//! 0x1_0000_0000  RAM beyond the gap
//! 0x80_0000_0000 (512 GiB) kept free for DAX windows
//! ```

/// One MiB.
pub const MIB: u64 = 1 << 20;

/// First address of the MMIO gap; RAM below 4 GiB ends here at the latest (3.25 GiB).
pub const MMIO_GAP_START: u64 = 0xd000_0000;
/// First address behind the MMIO gap; RAM goes on here.
pub const MMIO_GAP_END: u64 = 1 << 32;
/// DAX windows will start here, far above any RAM; RAM must end below.
pub const DAX_START: u64 = 1 << 39;

/// `struct hvm_start_info` (PVH; the boot protocol leaves the place to us).
pub const PVH_START_INFO: u64 = 0x6000;
/// `struct hvm_modlist_entry` of the initramfs.
pub const PVH_MODULE_LIST: u64 = 0x6040;
/// `struct hvm_memmap_table_entry` array.
pub const PVH_MEMORY_MAP: u64 = 0x6100;
/// `struct boot_params`, the "zero page" of the 64-bit entry.
pub const ZERO_PAGE: u64 = 0x7000;
/// Global descriptor table while the kernel has none.
pub const BOOT_GDT: u64 = 0x500;
/// Initial stack of the 64-bit entry, growing down.
pub const BOOT_STACK: u64 = 0x8ff0;
/// Page map level 4 of the 64-bit entry's identity map; the lower levels follow it.
pub const BOOT_PML4: u64 = 0x9000;
/// The kernel's command line.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// Longest command line with its terminating zero (x86 `COMMAND_LINE_SIZE`).
pub const COMMAND_LINE_MAX: usize = 2048;

/// End of usable RAM in the first MiB, as on a PC (the EBDA begins here).
pub const LOW_RAM_END: u64 = 0x9_fc00;
/// ACPI tables, in memory that the memory map calls reserved.
pub const ACPI_TABLES: u64 = 0xa_0000;
/// The RSDP, where a search for it would look first (ACPI 6.5 §5.2.5.1).
pub const ACPI_RSDP: u64 = 0xe_0000;
/// Usable RAM begins again here.
pub const HIGH_RAM_START: u64 = MIB;

/// KVM's three-page task state segment for real mode on Intel (KVM_SET_TSS_ADDR).
pub const KVM_TSS: u64 = 0xfffb_d000;
/// In-kernel IOAPIC.
pub const IOAPIC: u32 = 0xfec0_0000;
/// In-kernel local APICs.
pub const LOCAL_APIC: u32 = 0xfee0_0000;

/// Sleep control register (ACPI 6.5 §4.8.3.7): the guest powers off here.
pub const SLEEP_CONTROL_PORT: u16 = 0x600;
/// Sleep status register.
pub const SLEEP_STATUS_PORT: u16 = 0x601;
/// Reset register (ACPI 6.5 §4.8.3.6).
pub const RESET_PORT: u16 = 0x604;
/// First serial port, the kernel's early console.
pub const SERIAL_PORT: u16 = 0x3f8;
/// Its interrupt line.
pub const SERIAL_GSI: u32 = 4;

/// Base of the device slots.
pub const SLOT_BASE: u64 = MMIO_GAP_START;
/// Size of one slot.
pub const SLOT_SIZE: u64 = 0x1000;
/// Interrupt line of slot 0; each slot has one of its own (the IOAPIC has 24).
pub const SLOT_FIRST_GSI: u32 = 5;

/// A device slot. Numbers never change: the guest finds the same device at the same place, and a
/// saved VM fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Slot {
    /// The root file system.
    Root = 0,
    /// vsock.
    Vsock = 1,
    /// Entropy.
    Rng = 2,
    /// Network; empty without a policy that allows one.
    Net = 3,
}

impl Slot {
    /// All slots that this version may fill.
    pub const ALL: [Self; 4] = [Self::Root, Self::Vsock, Self::Rng, Self::Net];

    /// Guest-physical address of the slot's registers.
    pub const fn base(self) -> u64 {
        SLOT_BASE + self as u64 * SLOT_SIZE
    }

    /// The slot's interrupt line.
    pub const fn gsi(self) -> u32 {
        SLOT_FIRST_GSI + self as u32
    }

    /// The slot that holds this address, and the offset in it.
    pub fn at(address: u64) -> Option<(Self, u64)> {
        let offset = address.checked_sub(SLOT_BASE)?;
        let slot = *Self::ALL.get(usize::try_from(offset / SLOT_SIZE).ok()?)?;
        Some((slot, offset % SLOT_SIZE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_found_by_each_of_its_addresses_and_by_no_other() {
        for slot in Slot::ALL {
            assert_eq!(Slot::at(slot.base()), Some((slot, 0)));
            assert_eq!(
                Slot::at(slot.base() + SLOT_SIZE - 1),
                Some((slot, SLOT_SIZE - 1))
            );
        }
        assert_eq!(Slot::at(SLOT_BASE - 1), None);
        assert_eq!(Slot::at(Slot::Net.base() + SLOT_SIZE), None);
        assert_eq!(Slot::at(u64::MAX), None);
    }
}
