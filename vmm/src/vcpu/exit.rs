//! What KVM says when it cannot go on.
#![allow(unsafe_code)] // reads the union of `struct kvm_run`, as its exit reason says

use kvm_bindings::{KVM_EXIT_INTERNAL_ERROR, KVM_INTERNAL_ERROR_EMULATION};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress};

use crate::virtio::device::GuestMemory;

/// `KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES` (Linux `include/uapi/linux/kvm.h`).
const FLAG_INSTRUCTION_BYTES: u64 = 1 << 0;
/// Longest x86 instruction.
const INSTRUCTION_MAX: usize = 15;

/// `KVM_EXIT_INTERNAL_ERROR`, as far as KVM tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InternalError {
    /// KVM's sub-error.
    pub suberror: u32,
    /// Instruction pointer.
    pub rip: u64,
    /// Bytes at the instruction pointer, as far as known.
    pub instruction: Vec<u8>,
}

impl InternalError {
    /// Reads the details of the vCPU's last exit, which was an internal error.
    pub fn read(vcpu: &mut VcpuFd, memory: &GuestMemory) -> Self {
        let rip = vcpu.get_regs().map_or(0, |registers| registers.rip);
        let (suberror, reported) = from_run_page(vcpu);
        let instruction = if reported.is_empty() {
            fetch(vcpu, memory, rip).unwrap_or_default()
        } else {
            reported
        };
        Self {
            suberror,
            rip,
            instruction,
        }
    }

    /// Whether KVM had to emulate an instruction and could not.
    pub fn is_emulation_failure(&self) -> bool {
        self.suberror == KVM_INTERNAL_ERROR_EMULATION
    }

    /// The instruction's bytes in hexadecimal, separated by blanks.
    pub fn instruction_hex(&self) -> String {
        let bytes: Vec<String> = self
            .instruction
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        bytes.join(" ")
    }

    /// What a person can do about it.
    pub fn remedy(&self) -> String {
        if self.is_emulation_failure() {
            "this KVM emulates guest kernels in software and lacks an instruction that stock \
             kernels use; run on a machine with hardware virtualization (kvm_intel or kvm_amd), \
             or inside the emulated KVM host"
                .to_owned()
        } else {
            "this is a fault of the host's KVM; look at the host's kernel log, and update the \
             host's kernel"
                .to_owned()
        }
    }
}

fn from_run_page(vcpu: &mut VcpuFd) -> (u32, Vec<u8>) {
    let run = vcpu.get_kvm_run();
    if run.exit_reason != KVM_EXIT_INTERNAL_ERROR {
        return (0, Vec::new());
    }
    // SAFETY: the exit reason says that the union holds an internal error; every bit pattern is
    // valid for its integer fields.
    let failure = unsafe { run.__bindgen_anon_1.emulation_failure };
    let mut instruction = Vec::new();
    // The flags, and with them size and bytes, are there only when `ndata` counts them.
    if failure.suberror == KVM_INTERNAL_ERROR_EMULATION
        && failure.ndata >= 3
        && failure.flags & FLAG_INSTRUCTION_BYTES != 0
    {
        // SAFETY: the flag says that this variant is filled in; all are plain bytes.
        let bytes = unsafe { failure.__bindgen_anon_1.__bindgen_anon_1 };
        let len = usize::from(bytes.insn_size).min(INSTRUCTION_MAX);
        instruction.extend_from_slice(&bytes.insn_bytes[..len]);
    }
    (failure.suberror, instruction)
}

/// Reads the bytes at `rip` through the guest's page tables.
fn fetch(vcpu: &VcpuFd, memory: &GuestMemory, rip: u64) -> Option<Vec<u8>> {
    let translation = vcpu
        .translate_gva(rip)
        .ok()
        .filter(|translation| translation.valid != 0)?;
    let in_page = 4096 - usize::try_from(rip % 4096).ok()?;
    let mut bytes = vec![0; INSTRUCTION_MAX.min(in_page)];
    memory
        .read_slice(&mut bytes, GuestAddress(translation.physical_address))
        .ok()?;
    Some(bytes)
}
