//! Hardware-reduced ACPI (ACPI 6.5 §4.1): what a stock kernel needs to find its processors, its
//! interrupt controller, our devices, and the way to power off.
//!
//! `HW_REDUCED_ACPI` is not optional: without it a kernel with so few tables boots but never
//! looks at the devices of the DSDT.

use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, aml};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::layout::{
    ACPI_RSDP, ACPI_TABLES, IOAPIC, LOCAL_APIC, RESET_PORT, SLEEP_CONTROL_PORT, SLEEP_STATUS_PORT,
    SLOT_SIZE, Slot,
};
use crate::virtio::device::GuestMemory;

const OEM_ID: [u8; 6] = *b"PYRO  ";
const OEM_TABLE_ID: [u8; 8] = *b"PYROVMM ";
const OEM_REVISION: u32 = 1;
/// Header of every table but the RSDP.
const SDT_HEADER: u32 = 36;

/// `IAPC_BOOT_ARCH` (ACPI 6.5 table 5.11): no VGA to probe.
const NO_VGA: u16 = 1 << 2;
/// `IAPC_BOOT_ARCH`: no CMOS clock. That bit 1 is clear says that there is no 8042 either.
const NO_CMOS_RTC: u16 = 1 << 5;

/// What the guest writes to the reset register.
pub const RESET_VALUE: u8 = 0x01;
/// Sleep type of S5, soft off, in the sleep control register.
pub const SLEEP_TYPE_OFF: u8 = 5;

/// Hardware id of a virtio-mmio device (virtio 1.2 leaves it to firmware; Linux binds this one).
const VIRTIO_MMIO_HID: &str = "LNRO0005";

/// Writes all tables; the guest looks for devices in these slots alone.
pub(super) fn write(
    memory: &GuestMemory,
    vcpus: u8,
    slots: &[Slot],
) -> Result<(), GuestMemoryError> {
    let mut place = Place {
        memory,
        next: ACPI_TABLES,
    };
    let dsdt = place.put(dsdt(slots).as_slice())?;
    let fadt = place.put(&bytes(&fadt(dsdt)))?;
    let madt = place.put(&bytes(&madt(vcpus)))?;
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = place.put(&bytes(&xsdt))?;
    debug_assert!(place.next <= ACPI_RSDP);
    memory.write_slice(&bytes(&Rsdp::new(OEM_ID, xsdt)), GuestAddress(ACPI_RSDP))
}

/// Lays tables one after the other.
struct Place<'a> {
    memory: &'a GuestMemory,
    next: u64,
}

impl Place<'_> {
    fn put(&mut self, table: &[u8]) -> Result<u64, GuestMemoryError> {
        let address = self.next;
        self.memory.write_slice(table, GuestAddress(address))?;
        self.next = (address + table.len() as u64).next_multiple_of(16);
        Ok(address)
    }
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

fn port(address: u16) -> GAS {
    GAS::new(
        AddressSpace::SystemIo,
        8,
        0,
        AccessSize::ByteAccess,
        u64::from(address),
    )
}

fn fadt(dsdt: u64) -> acpi_tables::fadt::FADT {
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::ResetRegSup);
    fadt.iapc_boot_arch = (NO_VGA | NO_CMOS_RTC).into();
    fadt.reset_reg = port(RESET_PORT);
    fadt.reset_value = RESET_VALUE;
    fadt.sleep_control_reg = port(SLEEP_CONTROL_PORT);
    fadt.sleep_status_reg = port(SLEEP_STATUS_PORT);
    fadt.finalize()
}

fn madt(vcpus: u8) -> MADT {
    let mut madt = MADT::new(
        OEM_ID,
        OEM_TABLE_ID,
        OEM_REVISION,
        LocalInterruptController::Address(LOCAL_APIC),
    );
    for id in 0..vcpus {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(vcpus, IOAPIC, 0));
    madt
}

fn dsdt(slots: &[Slot]) -> Sdt {
    let mut dsdt = Sdt::new(*b"DSDT", SDT_HEADER, 2, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    let mut code = Vec::new();
    for slot in slots {
        device(*slot, &mut code);
    }
    // \_S5_: what to write to the sleep control register to power off.
    let off = aml::Package::new(vec![&SLEEP_TYPE_OFF, &aml::ZERO, &aml::ZERO, &aml::ZERO]);
    aml::Name::new("_S5_".into(), &off).to_aml_bytes(&mut code);
    dsdt.append_slice(&code);
    dsdt
}

fn device(slot: Slot, code: &mut Vec<u8>) {
    let number = slot as u8;
    let base = u32::try_from(slot.base()).expect("slots lie below 4 GiB");
    let length = u32::try_from(SLOT_SIZE).expect("one page");
    aml::Device::new(
        format!("\\_SB_.V{number:03}").as_str().into(),
        vec![
            &aml::Name::new("_HID".into(), &VIRTIO_MMIO_HID),
            &aml::Name::new("_UID".into(), &number),
            // The device sees the processors' caches.
            &aml::Name::new("_CCA".into(), &aml::ONE),
            &aml::Name::new(
                "_CRS".into(),
                &aml::ResourceTemplate::new(vec![
                    &aml::Memory32Fixed::new(true, base, length),
                    // Consumer, edge-triggered, active-high, exclusive.
                    &aml::Interrupt::new(true, true, false, false, slot.gsi()),
                ]),
            ),
        ],
    )
    .to_aml_bytes(code);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::allocate;

    fn read(memory: &GuestMemory, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        memory
            .read_slice(&mut bytes, GuestAddress(address))
            .unwrap();
        bytes
    }

    fn table(memory: &GuestMemory, address: u64) -> Vec<u8> {
        let len = memory.read_obj::<u32>(GuestAddress(address + 4)).unwrap();
        read(memory, address, len as usize)
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn every_table_is_reached_from_the_rsdp_and_has_a_right_checksum() {
        let memory = allocate(4 << 20).unwrap();
        let slots = [Slot::Root, Slot::Vsock, Slot::Rng];
        write(&memory, 32, &slots).unwrap();
        let rsdp = read(&memory, ACPI_RSDP, 36);
        assert_eq!(&rsdp[..8], b"RSD PTR ");
        assert_eq!((sum(&rsdp[..20]), sum(&rsdp)), (0, 0));
        let xsdt = table(
            &memory,
            u64::from_le_bytes(rsdp[24..32].try_into().unwrap()),
        );
        assert_eq!((&xsdt[..4], sum(&xsdt)), (&b"XSDT"[..], 0));
        let mut found = Vec::new();
        for pointer in xsdt[36..].chunks_exact(8) {
            let table = table(&memory, u64::from_le_bytes(pointer.try_into().unwrap()));
            assert_eq!(sum(&table), 0);
            found.push(table);
        }
        assert_eq!(&found[0][..4], b"FACP");
        assert_eq!(&found[1][..4], b"APIC");
        let dsdt = table(
            &memory,
            u64::from_le_bytes(found[0][140..148].try_into().unwrap()),
        );
        assert_eq!((&dsdt[..4], sum(&dsdt)), (&b"DSDT"[..], 0));
        let count = |name: &[u8]| dsdt.windows(name.len()).filter(|at| *at == name).count();
        assert_eq!(count(b"LNRO0005"), slots.len());
        // An empty slot is not there to be found.
        assert_eq!((count(b"V002"), count(b"V003")), (1, 0));
    }

    #[test]
    fn the_fadt_says_hardware_reduced() {
        let flags = bytes(&fadt(0x1234))[112..116]
            .try_into()
            .map(u32::from_le_bytes)
            .unwrap();
        assert_ne!(flags & Flags::HwReducedAcpi as u32, 0);
        assert_ne!(flags & Flags::ResetRegSup as u32, 0);
    }
}
