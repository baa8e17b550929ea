//! Finds out, by trying, whether this KVM can run a stock guest kernel.
//!
//! Some KVMs answer every question with yes and then emulate the guest kernel instruction by
//! instruction, with gaps. So [`probe`] runs a guest of a few dozen instructions in 64-bit mode
//! that does what every stock kernel does early: an atomic 16-byte exchange (the slab allocator),
//! XSETBV, XSAVE and XRSTOR (the FPU), and a breakpoint through an interrupt descriptor table
//! (the kernel's self-test). It reports each step through a port, so that the verdict can name
//! the first that failed.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use kvm_ioctls::{Cap, Kvm, VcpuExit, VcpuFd, VmFd};
use serde::Serialize;
use vm_memory::{Bytes, GuestAddress};

use crate::layout::KVM_TSS;
use crate::memory;
use crate::vcpu::exit::InternalError;
use crate::vcpu::registers::{self, CODE_SELECTOR, CR0_MP, CR0_NE, CR4_OSFXSR, CR4_OSXSAVE, Mode};
use crate::vcpu::{cpuid, kick};
use crate::virtio::device::GuestMemory;

/// The KVM API version that has been current since Linux 2.6.22.
const KVM_API: i32 = 12;
/// Enough for a guest that needs microseconds on hardware, also where everything is emulated and
/// the host is busy: a KVM that lacks something says so at once, only one that hangs waits so long.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(8);

/// Extensions that the monitor uses.
const NEEDED: [(Cap, &str); 8] = [
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::MpState, "KVM_CAP_MP_STATE"),
];

/// What [`probe`] found; as JSON, the line that `pyro-vmm probe` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether a stock guest kernel can run.
    pub usable: bool,
    /// Why, or why not: one sentence.
    pub reason: String,
    /// What to do when it is not usable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The KVM API version, or -1.
    pub kvm_api: i32,
    /// The instruction KVM could not execute, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
}

impl Verdict {
    fn unusable(kvm_api: i32, reason: String, remedy: &str) -> Self {
        Self {
            usable: false,
            reason,
            remedy: Some(remedy.to_owned()),
            kvm_api,
            instruction: None,
        }
    }
}

const REMEDY_HARDWARE: &str = "run on a machine with hardware virtualization (kvm_intel or \
    kvm_amd, nested virtualization enabled when it is itself a VM), or inside the emulated KVM host";
const REMEDY_HOST: &str = "look at the host's kernel log, and update the host's kernel";

/// What the probe guest does, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Step {
    LongMode = 1,
    CompareExchange = 2,
    Xsave = 3,
    Breakpoint = 4,
    Done = 5,
    /// The guest itself found a wrong result.
    Wrong = 0xee,
}

impl Step {
    fn from_report(byte: u8) -> Option<Self> {
        [
            Self::LongMode,
            Self::CompareExchange,
            Self::Xsave,
            Self::Breakpoint,
            Self::Done,
            Self::Wrong,
        ]
        .into_iter()
        .find(|step| *step as u8 == byte)
    }

    fn what(self) -> &'static str {
        match self {
            Self::LongMode => "64-bit mode",
            Self::CompareExchange => "lock cmpxchg16b",
            Self::Xsave => "xsetbv, xsave and xrstor",
            Self::Breakpoint => "a breakpoint through an interrupt descriptor table",
            Self::Done | Self::Wrong => "the end",
        }
    }
}

/// Port on which the guest reports its steps.
const REPORT_PORT: u8 = 0xf1;

// The probe guest's memory: one huge page, with everything in the first 128 KiB.
const MEMORY: u64 = 2 << 20;
const IDT: u64 = 0x1000;
const CODE: u64 = 0x2000;
const BREAKPOINT_HANDLER: u64 = 0x3000;
const EXCHANGE_OPERAND: u64 = 0x4000;
const STACK_TOP: u64 = 0x6000;
const XSAVE_AREA: u64 = 0x1_0000;
/// Interrupt vector of INT3.
const BREAKPOINT_VECTOR: u64 = 3;
/// What the breakpoint's handler leaves in R15.
const MARK: u8 = 0x42;

/// Tries this KVM with a guest that may take at most `timeout`.
pub fn probe(kvm: &Kvm, timeout: Duration) -> Verdict {
    let kvm_api = kvm.get_api_version();
    if kvm_api != KVM_API {
        let reason =
            format!("this is not a usable KVM: its API version is {kvm_api}, not {KVM_API}");
        return Verdict::unusable(kvm_api, reason, "give the monitor an open /dev/kvm");
    }
    if let Some((_, name)) = NEEDED.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
        let reason = format!("this KVM lacks {name}");
        return Verdict::unusable(kvm_api, reason, REMEDY_HOST);
    }
    match Guest::new(kvm) {
        Err(error) => {
            let reason = format!("this KVM cannot make a VM: {error}");
            Verdict::unusable(kvm_api, reason, REMEDY_HOST)
        }
        Ok(guest) => judge(kvm_api, guest, timeout),
    }
}

fn judge(kvm_api: i32, guest: Guest, timeout: Duration) -> Verdict {
    let (step, end) = match run_with_timeout(guest, timeout) {
        Ok(outcome) => outcome,
        Err(error) => {
            let reason = format!("the probe guest could not be run: {error}");
            return Verdict::unusable(kvm_api, reason, REMEDY_HOST);
        }
    };
    let doing = step.what();
    match end {
        End::Reported(Step::Done) => Verdict {
            usable: true,
            reason: "a 64-bit guest executed all that a stock kernel needs".to_owned(),
            remedy: None,
            kvm_api,
            instruction: None,
        },
        End::Reported(_) => {
            let reason = format!("this KVM executes {doing} wrongly");
            Verdict::unusable(kvm_api, reason, REMEDY_HARDWARE)
        }
        End::InternalError(error) => {
            let instruction = error.instruction_hex();
            let reason = format!(
                "this KVM runs guest kernels in a software emulator that cannot execute {doing} \
                 (KVM_EXIT_INTERNAL_ERROR, sub-error {}, instruction {instruction})",
                error.suberror
            );
            let verdict = Verdict::unusable(kvm_api, reason, REMEDY_HARDWARE);
            Verdict {
                instruction: Some(instruction),
                ..verdict
            }
        }
        End::TimedOut => {
            let reason = format!("the probe guest did not get past {doing} in {timeout:?}");
            Verdict::unusable(kvm_api, reason, REMEDY_HARDWARE)
        }
        End::Other(exit) => {
            let reason = format!("the probe guest ended at {doing} with {exit}");
            Verdict::unusable(kvm_api, reason, REMEDY_HARDWARE)
        }
    }
}

/// How the probe guest ended.
#[derive(Debug)]
enum End {
    Reported(Step),
    InternalError(InternalError),
    TimedOut,
    Other(String),
}

#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error("{0} failed: {1}")]
    Kvm(&'static str, #[source] kvm_ioctls::Error),
    #[error("{0}")]
    Memory(#[from] memory::MemoryError),
    #[error("guest memory cannot be written: {0}")]
    Write(#[from] vm_memory::GuestMemoryError),
    #[error("{0}")]
    Host(#[from] std::io::Error),
}

struct Guest {
    // Dropped last: the vCPU and the memory belong to it.
    _vm: VmFd,
    vcpu: VcpuFd,
    memory: GuestMemory,
}

impl Guest {
    fn new(kvm: &Kvm) -> Result<Self, ProbeError> {
        let vm = kvm
            .create_vm()
            .map_err(|error| ProbeError::Kvm("KVM_CREATE_VM", error))?;
        vm.set_tss_address(KVM_TSS as usize)
            .map_err(|error| ProbeError::Kvm("KVM_SET_TSS_ADDR", error))?;
        let memory = memory::allocate(MEMORY)?;
        memory::register(&vm, &memory)?;
        let vcpu = vm
            .create_vcpu(0)
            .map_err(|error| ProbeError::Kvm("KVM_CREATE_VCPU", error))?;
        let supported = cpuid::supported(kvm)
            .map_err(|error| ProbeError::Kvm("KVM_GET_SUPPORTED_CPUID", error))?;
        let with_xsave = cpuid::has_xsave(&supported);
        vcpu.set_cpuid2(&supported)
            .map_err(|error| ProbeError::Kvm("KVM_SET_CPUID2", error))?;
        write_memory(&memory, with_xsave)?;
        set_registers(&vcpu, with_xsave)?;
        Ok(Self {
            _vm: vm,
            vcpu,
            memory,
        })
    }
}

fn set_registers(vcpu: &VcpuFd, with_xsave: bool) -> Result<(), ProbeError> {
    let mut sregs = vcpu
        .get_sregs()
        .map_err(|error| ProbeError::Kvm("KVM_GET_SREGS", error))?;
    registers::enter_mode(&mut sregs, Mode::Long);
    sregs.cr0 |= CR0_MP | CR0_NE;
    sregs.cr4 |= CR4_OSFXSR | if with_xsave { CR4_OSXSAVE } else { 0 };
    sregs.idt.base = IDT;
    sregs.idt.limit = u16::try_from((BREAKPOINT_VECTOR + 1) * 16 - 1).expect("a few gates");
    vcpu.set_sregs(&sregs)
        .map_err(|error| ProbeError::Kvm("KVM_SET_SREGS", error))?;
    let registers = kvm_bindings::kvm_regs {
        rsp: STACK_TOP,
        rsi: EXCHANGE_OPERAND,
        rdi: XSAVE_AREA,
        ..registers::entry_registers(Mode::Long, CODE)
    };
    vcpu.set_regs(&registers)
        .map_err(|error| ProbeError::Kvm("KVM_SET_REGS", error))
}

fn write_memory(memory: &GuestMemory, with_xsave: bool) -> Result<(), ProbeError> {
    registers::write_gdt(memory, Mode::Long)?;
    registers::write_page_tables(memory)?;
    memory.write_slice(&program(with_xsave), GuestAddress(CODE))?;
    // mov r15d, MARK; iretq
    let handler = [0x41, 0xbf, MARK, 0, 0, 0, 0x48, 0xcf];
    memory.write_slice(&handler, GuestAddress(BREAKPOINT_HANDLER))?;
    // A 64-bit interrupt gate, present, for ring 0 (Intel SDM vol. 3 §6.14.1).
    let gate = (BREAKPOINT_HANDLER & 0xffff)
        | (u64::from(CODE_SELECTOR) << 16)
        | (0x8e << 40)
        | ((BREAKPOINT_HANDLER & 0xffff_0000) << 32);
    memory.write_obj(gate, GuestAddress(IDT + BREAKPOINT_VECTOR * 16))?;
    Ok(())
}

/// The probe guest. Expects RSI at the operand of the exchange (zeroes) and RDI at the XSAVE area.
fn program(with_xsave: bool) -> Vec<u8> {
    /// `jne` over one report, 2 bytes long, to report that a result is wrong.
    const JE_OVER_REPORT: [u8; 2] = [0x74, 0x05];
    let mut code = Vec::new();
    let report = |code: &mut Vec<u8>, step: Step| {
        // mov al, step; out REPORT_PORT, al
        code.extend([0xb0, step as u8, 0xe6, REPORT_PORT]);
    };
    let expect_equal = |code: &mut Vec<u8>| {
        code.extend(JE_OVER_REPORT);
        report(code, Step::Wrong);
        code.push(0xf4); // hlt
    };
    report(&mut code, Step::LongMode);
    report(&mut code, Step::CompareExchange);
    code.extend([0x31, 0xc0]); // xor eax, eax
    code.extend([0x31, 0xd2]); // xor edx, edx
    code.extend([0xbb, 0x11, 0, 0, 0]); // mov ebx, 0x11
    code.extend([0xb9, 0x22, 0, 0, 0]); // mov ecx, 0x22
    code.extend([0xf0, 0x48, 0x0f, 0xc7, 0x0e]); // lock cmpxchg16b [rsi]
    expect_equal(&mut code);
    code.extend([0x83, 0x7e, 0x08, 0x22]); // cmp dword [rsi + 8], 0x22
    expect_equal(&mut code);
    if with_xsave {
        report(&mut code, Step::Xsave);
        code.extend([0x31, 0xc9]); // xor ecx, ecx
        code.extend([0x31, 0xd2]); // xor edx, edx
        code.extend([0xb8, 0x03, 0, 0, 0]); // mov eax, 3: x87 and SSE
        code.extend([0x0f, 0x01, 0xd1]); // xsetbv
        code.extend([0x48, 0x0f, 0xae, 0x27]); // xsave64 [rdi]
        code.extend([0x48, 0x0f, 0xae, 0x2f]); // xrstor64 [rdi]
    }
    report(&mut code, Step::Breakpoint);
    code.push(0xcc); // int3
    code.extend([0x41, 0x83, 0xff, MARK]); // cmp r15d, MARK
    expect_equal(&mut code);
    report(&mut code, Step::Done);
    code.push(0xf4); // hlt
    code
}

fn run_with_timeout(guest: Guest, timeout: Duration) -> Result<(Step, End), ProbeError> {
    kick::install_handler()?;
    let (send, receive) = mpsc::channel();
    let thread = thread::Builder::new()
        .name("probe".to_owned())
        .spawn(move || {
            let outcome = run(guest);
            // The receiver waits until it has this or the thread was kicked.
            let _ = send.send(outcome);
        })?;
    if let Ok(outcome) = receive.recv_timeout(timeout) {
        return Ok(outcome);
    }
    kick::kick(&thread);
    // A KVM that does not even leave the guest for a signal is left alone with it: the thread
    // ends with the process.
    let last = receive
        .recv_timeout(timeout)
        .map_or(Step::LongMode, |(step, _)| step);
    Ok((last, End::TimedOut))
}

fn run(guest: Guest) -> (Step, End) {
    let Guest { vcpu, memory, _vm } = guest;
    let mut target = kick::Target::enter(vcpu);
    let mut step = Step::LongMode;
    loop {
        let end = match target.vcpu().run() {
            Ok(VcpuExit::IoOut(port, &[byte])) if port == u16::from(REPORT_PORT) => {
                match Step::from_report(byte) {
                    Some(end @ (Step::Done | Step::Wrong)) => End::Reported(end),
                    Some(next) => {
                        step = next;
                        continue;
                    }
                    None => End::Other(format!("report {byte:#x}")),
                }
            }
            Ok(VcpuExit::InternalError) => {
                End::InternalError(InternalError::read(target.vcpu(), &memory))
            }
            Ok(VcpuExit::Shutdown) => End::Other("a triple fault".to_owned()),
            Ok(VcpuExit::FailEntry(reason, _)) => {
                End::Other(format!("a refused entry (hardware reason {reason:#x})"))
            }
            Ok(exit) => End::Other(format!("exit {exit:?}")),
            Err(error) if error.errno() == libc::EINTR => End::TimedOut,
            Err(error) => End::Other(format!("KVM_RUN failing: {error}")),
        };
        return (step, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(not(kvm), ignore = "/dev/kvm is not usable here")]
    fn a_verdict_comes_and_names_the_instruction_when_an_emulator_fails() {
        let kvm = Kvm::new().expect("/dev/kvm was usable when this was built");
        let verdict = probe(&kvm, Duration::from_secs(20));
        assert_eq!(verdict.kvm_api, KVM_API);
        assert_eq!(verdict.usable, verdict.remedy.is_none());
        if verdict.reason.contains("sub-error 1") {
            assert!(verdict.instruction.is_some_and(|bytes| !bytes.is_empty()));
        }
    }

    #[test]
    fn a_descriptor_that_is_no_kvm_is_not_usable() {
        use std::os::fd::{FromRawFd, IntoRawFd};
        let null = std::fs::File::open("/dev/null").unwrap();
        // SAFETY: the descriptor was just given up by its owner.
        #[allow(unsafe_code)]
        let kvm = unsafe { Kvm::from_raw_fd(null.into_raw_fd()) };
        let verdict = probe(&kvm, DEFAULT_TIMEOUT);
        assert!(!verdict.usable);
        assert!(verdict.reason.contains("API version"), "{}", verdict.reason);
    }
}
