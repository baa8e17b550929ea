//! CPUID as the guest sees it: what KVM supports, with the guest's own topology.

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::Kvm;

/// Leaf 1, ECX bit 24: the local APIC's timer has a TSC deadline mode.
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1, ECX bit 26: XSAVE.
const XSAVE: u32 = 1 << 26;
/// Leaf 1, ECX bit 31: running under a hypervisor.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1, EDX bit 28: the package holds more than one logical processor.
const HTT: u32 = 1 << 28;

/// What KVM supports here.
///
/// # Errors
/// When KVM does not tell.
pub fn supported(kvm: &Kvm) -> Result<CpuId, kvm_ioctls::Error> {
    kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
}

/// Whether the guest has XSAVE.
pub fn has_xsave(cpuid: &CpuId) -> bool {
    cpuid
        .as_slice()
        .iter()
        .any(|entry| entry.function == 1 && entry.ecx & XSAVE != 0)
}

/// Makes the supported CPUID that of processor `index` of `count`, each a core of one package.
///
/// KVM's answer holds the host processor's APIC id and topology, which differ from run to run;
/// what the guest sees must not.
pub fn for_vcpu(supported: &CpuId, index: u8, count: u8) -> CpuId {
    let mut cpuid = supported.clone();
    let (index, count) = (u32::from(index), u32::from(count));
    // Bits of the APIC id that number the processors of the package.
    let id_bits = count.next_power_of_two().trailing_zeros();
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            0x1 => {
                // Bits 31-24: initial APIC id; 23-16: logical processors; 15-8: CLFLUSH line.
                let logical = if count > 1 { 1 << id_bits } else { 1 };
                entry.ebx = (entry.ebx & 0x0000_ffff) | (index << 24) | (logical << 16);
                entry.ecx |= TSC_DEADLINE | HYPERVISOR;
                if count > 1 {
                    entry.edx |= HTT;
                } else {
                    entry.edx &= !HTT;
                }
            }
            0x4 => {
                // Bits 31-26: cores in the package less one; 25-14: processors that share the
                // cache less one (the last level is shared by all, the others by none).
                let level = (entry.eax >> 5) & 0x7;
                let sharing = if level >= 3 { count - 1 } else { 0 };
                entry.eax = (entry.eax & 0x3fff) | (sharing << 14) | (((1 << id_bits) - 1) << 26);
            }
            0xb | 0x1f => {
                // Extended topology: one thread a core, all cores in one package.
                entry.edx = index;
                let (shift, processors, kind) = match entry.index {
                    0 => (0, 1, 1),
                    1 => (id_bits, count, 2),
                    _ => (0, 0, 0),
                };
                entry.eax = shift;
                entry.ebx = processors;
                entry.ecx = (entry.index & 0xff) | (kind << 8);
            }
            0x8000_0008 => {
                // AMD: bits 7-0 cores less one; 15-12 bits of the APIC id that number them.
                entry.ecx = (entry.ecx & !0xf0ff) | (count - 1) | (id_bits << 12);
            }
            0x8000_001e => {
                // AMD: extended APIC id; one thread a core; one node.
                entry.eax = index;
                entry.ebx = index & 0xff;
                entry.ecx = 0;
            }
            _ => {}
        }
    }
    cpuid
}

#[cfg(test)]
mod tests {
    use kvm_bindings::kvm_cpuid_entry2;

    use super::*;

    fn leaf(function: u32, index: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            index,
            ebx: 0xab00_0800,
            edx: HTT,
            ..Default::default()
        }
    }

    #[test]
    fn each_processor_has_its_own_apic_id() {
        let supported = CpuId::from_entries(&[leaf(1, 0), leaf(0xb, 0), leaf(0xb, 1)]).unwrap();
        for index in 0..3 {
            let cpuid = for_vcpu(&supported, index, 3);
            let entries = cpuid.as_slice();
            assert_eq!(
                entries[0].ebx,
                (u32::from(index) << 24) | (4 << 16) | 0x0800
            );
            assert_eq!(entries[1].edx, u32::from(index));
            assert_eq!((entries[2].eax, entries[2].ebx), (2, 3));
        }
    }

    #[test]
    fn a_single_processor_is_no_multi_core() {
        let supported = CpuId::from_entries(&[leaf(1, 0)]).unwrap();
        let cpuid = for_vcpu(&supported, 0, 1);
        assert_eq!(cpuid.as_slice()[0].edx & HTT, 0);
        assert_eq!(cpuid.as_slice()[0].ebx, 0x0001_0800);
    }
}
