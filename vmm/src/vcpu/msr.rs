//! Model-specific registers that differ from their reset values when a kernel is entered.
//!
//! Set CPUID first: KVM answers for registers that depend on it according to what CPUID says.

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;

/// `IA32_TSC` (Intel SDM vol. 4 table 2-2, as all of these).
const TSC: u32 = 0x10;
/// `IA32_MISC_ENABLE`.
const MISC_ENABLE: u32 = 0x1a0;
/// `IA32_MISC_ENABLE` bit 0: fast string instructions.
const FAST_STRINGS: u64 = 1 << 0;
/// `IA32_MTRR_DEF_TYPE`.
const MTRR_DEF_TYPE: u32 = 0x2ff;
/// MTRRs enabled; memory is write-back unless they say otherwise, and they say nothing.
const MTRR_WRITE_BACK: u64 = (1 << 11) | 6;

/// What could not be set.
#[derive(Debug, thiserror::Error)]
pub enum MsrError {
    /// KVM failed.
    #[error("kvm refused model-specific registers")]
    Kvm(#[from] kvm_ioctls::Error),
    /// KVM does not know one of them.
    #[error("kvm does not know model-specific register {index:#x}")]
    Unknown {
        /// Its number.
        index: u32,
    },
}

/// Sets the registers of a processor that has its CPUID.
///
/// # Errors
/// When KVM refuses one.
pub fn set_initial(vcpu: &VcpuFd) -> Result<(), MsrError> {
    let entries = [
        (TSC, 0),
        (MISC_ENABLE, FAST_STRINGS),
        (MTRR_DEF_TYPE, MTRR_WRITE_BACK),
    ]
    .map(|(index, data)| kvm_msr_entry {
        index,
        data,
        ..Default::default()
    });
    let msrs = Msrs::from_entries(&entries).expect("three entries are few enough");
    let set = vcpu.set_msrs(&msrs)?;
    match entries.get(set) {
        None => Ok(()),
        Some(refused) => Err(MsrError::Unknown {
            index: refused.index,
        }),
    }
}
