//! The local APIC's two interrupt pins, wired as on a PC.

use kvm_bindings::kvm_lapic_state;
use kvm_ioctls::VcpuFd;

/// LVT LINT0 (Intel SDM vol. 3 §11.5.1).
const LVT_LINT0: usize = 0x350;
/// LVT LINT1.
const LVT_LINT1: usize = 0x360;
/// Delivery mode field, bits 8 to 10.
const DELIVERY_MODE_MASK: u32 = 0x700;
/// Delivery mode: non-maskable interrupt.
const NMI: u32 = 4 << 8;
/// Delivery mode: from an external interrupt controller.
const EXTERNAL: u32 = 7 << 8;

/// Wires LINT0 to the 8259 and LINT1 to NMI.
///
/// # Errors
/// When KVM refuses.
pub fn wire_pins(vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    let mut lapic = vcpu.get_lapic()?;
    set_delivery_mode(&mut lapic, LVT_LINT0, EXTERNAL);
    set_delivery_mode(&mut lapic, LVT_LINT1, NMI);
    vcpu.set_lapic(&lapic)
}

fn set_delivery_mode(lapic: &mut kvm_lapic_state, register: usize, mode: u32) {
    let bytes = &mut lapic.regs[register..register + 4];
    let mut word = [0; 4];
    word.iter_mut()
        .zip(bytes.iter())
        .for_each(|(to, from)| *to = from.cast_unsigned());
    let value = u32::from_le_bytes(word) & !DELIVERY_MODE_MASK | mode;
    bytes
        .iter_mut()
        .zip(value.to_le_bytes())
        .for_each(|(to, from)| *to = from.cast_signed());
}
