//! Guests of a few instructions in real VMs. They need a KVM, but no capable one.

use std::io::{Seek, Write};
use std::time::{Duration, Instant};

use event_manager::{EventOps, Events};

use super::*;
use crate::control::ExitReason;
use crate::virtio::device::{Activation, ActiveDevice, DeviceError};

/// A device that does nothing: the tiny guests do not drive it.
struct Idle;

impl VirtioDevice for Idle {
    fn device_type(&self) -> u32 {
        42
    }

    fn name(&self) -> &'static str {
        "idle"
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[8]
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn activate(self: Box<Self>, _activation: Activation) -> Box<dyn ActiveDevice> {
        self
    }
}

impl ActiveDevice for Idle {
    fn register(&mut self, _ops: &mut EventOps<'_>) -> Result<(), DeviceError> {
        Ok(())
    }

    fn process(&mut self, _event: Events, _ops: &mut EventOps<'_>) -> Result<(), DeviceError> {
        Ok(())
    }

    fn reset(self: Box<Self>) -> Box<dyn VirtioDevice> {
        self
    }
}

/// Where the tiny kernel is loaded and entered, and where it may write.
const BASE: u32 = 0x10_0000;
const SCRATCH: u32 = 0x20_0000;

/// An ELF file with a PVH note whose one segment is `code`.
fn kernel(code: &[u8]) -> File {
    kernel_with_note(code, 18)
}

/// The same, with a note of this type; only 18 is the PVH entry.
fn kernel_with_note(code: &[u8], note: u32) -> File {
    let mut image = vec![0; 4096];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01");
    put(18, &62u16.to_le_bytes());
    put(24, &u64::from(BASE).to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(54, &56u16.to_le_bytes());
    put(56, &2u16.to_le_bytes());
    let len = code.len() as u64;
    for (at, [kind, offset, address, file_size, size]) in [
        (64, [1, 4096, BASE.into(), len, len]),
        (120, [4, 512, 0, 20, 0]),
    ] {
        put(at, &kind.to_le_bytes());
        put(at + 8, &offset.to_le_bytes());
        put(at + 24, &address.to_le_bytes());
        put(at + 32, &file_size.to_le_bytes());
        put(at + 40, &size.to_le_bytes());
    }
    for (at, word) in (512..)
        .step_by(4)
        .zip([4, 4, note, u32::from_le_bytes(*b"Xen\0"), BASE])
    {
        put(at, &u32::to_le_bytes(word));
    }
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&image).unwrap();
    file.write_all(code).unwrap();
    file.rewind().unwrap();
    file
}

/// A VM with this guest.
fn machine(code: &[u8]) -> (Machine, Console) {
    machine_of(kernel(code))
}

fn machine_of(kernel: File) -> (Machine, Console) {
    let kvm = Kvm::new().expect("/dev/kvm was usable when this was built");
    let console = Console::new(false);
    let machine = Machine::new(Parts {
        kvm: &kvm,
        vcpus: 1,
        memory_mib: 16,
        kernel,
        initramfs: Vec::new(),
        devices: Devices {
            root: Box::new(Idle),
            vsock: Box::new(Idle),
            rng: Box::new(Idle),
            net: None,
        },
        console: console.clone(),
        debug_console: false,
    })
    .unwrap();
    (machine, console)
}

fn wait_exit(machine: &Machine) -> ExitReason {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(reason) = machine.exit().get() {
            return reason;
        }
        assert!(Instant::now() < end, "the guest does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn run(code: &[u8]) -> (ExitReason, String) {
    run_machine(machine(code))
}

fn run_machine((mut machine, console): (Machine, Console)) -> (ExitReason, String) {
    machine.start().unwrap();
    let reason = wait_exit(&machine);
    machine.stop(true);
    (reason, console.tail(4096).0)
}

/// `mov dx, port; mov al, value; out dx, al`
fn out(port: u16, value: u8) -> Vec<u8> {
    let [low, high] = port.to_le_bytes();
    vec![0x66, 0xba, low, high, 0xb0, value, 0xee]
}

/// Writes `SLP_TYP` = 5 with `SLP_EN`.
fn power_off() -> Vec<u8> {
    out(0x600, 0x34)
}

/// `jmp $`
const SPIN: [u8; 2] = [0xeb, 0xfe];

#[test]
#[cfg_attr(not(kvm), ignore = "/dev/kvm is not usable here")]
fn a_guest_that_powers_off_says_so() {
    let (reason, _) = run(&power_off());
    assert_eq!(reason, ExitReason::PowerOff);
}

#[test]
#[cfg_attr(not(kvm), ignore = "/dev/kvm is not usable here")]
fn a_guest_that_resets_says_so() {
    let (reason, _) = run(&out(0x604, 1));
    assert_eq!(reason, ExitReason::Reset);
}

#[test]
#[cfg_attr(not(kvm), ignore = "/dev/kvm is not usable here")]
fn console_output_reaches_the_ring() {
    let code = [out(0x3f8, b'h'), out(0x3f8, b'i'), power_off()].concat();
    let (reason, console) = run(&code);
    assert_eq!((reason, console.as_str()), (ExitReason::PowerOff, "hi"));
}

#[test]
#[cfg_attr(not(kvm), ignore = "/dev/kvm is not usable here")]
fn a_guest_reads_the_registers_of_its_devices() {
    let magic = u32::from_le_bytes(*b"virt").to_le_bytes();
    let slot = u32::try_from(Slot::Rng.base()).unwrap().to_le_bytes();
    // mov eax, [slot]; cmp eax, magic; jne over; power off; over: reset
    let code = [
        vec![0xa1],
        slot.to_vec(),
        vec![0x3d],
        magic.to_vec(),
        vec![0x75, 7],
        power_off(),
        out(0x604, 1),
    ]
    .concat();
    let (reason, _) = run(&code);
    assert_eq!(reason, ExitReason::PowerOff);
}

#[test]
#[cfg_attr(not(kvm), ignore = "/dev/kvm is not usable here")]
fn a_processor_that_shuts_down_is_a_triple_fault_or_an_emulators_failure() {
    // ud2 without an interrupt descriptor table.
    let (reason, _) = run(&[0x0f, 0x0b]);
    match reason {
        ExitReason::TripleFault => {}
        ExitReason::InternalError {
            rip,
            instruction,
            remedy,
            ..
        } => {
            assert_eq!(rip, u64::from(BASE));
            assert!(instruction.starts_with("0f 0b"), "{instruction}");
            assert!(!remedy.is_empty());
        }
        other => panic!("{other:?}"),
    }
}

#[test]
#[cfg_attr(not(kvm), ignore = "/dev/kvm is not usable here")]
fn a_kernel_without_pvh_note_is_entered_in_long_mode_with_its_zero_page() {
    // cmp dword [rsi + 0x202], "HdrS"; jne over; power off; over: reset
    let header = [0x81, 0xbe, 0x02, 0x02, 0, 0, b'H', b'd', b'r', b'S'];
    // mov rax, rax: a prefix that only 64-bit mode takes for one instruction.
    let wide = [0x48, 0x89, 0xc0];
    let code = [
        wide.to_vec(),
        header.to_vec(),
        vec![0x75, 7],
        power_off(),
        out(0x604, 1),
    ]
    .concat();
    let machine = machine_of(kernel_with_note(&code, 17));
    let (reason, _) = run_machine(machine);
    assert_eq!(reason, ExitReason::PowerOff);
}

#[test]
#[cfg_attr(not(kvm), ignore = "/dev/kvm is not usable here")]
fn a_spinning_guest_is_stopped() {
    let (mut machine, _) = machine(&SPIN);
    machine.start().unwrap();
    machine.stop(false);
}

#[test]
#[cfg_attr(not(kvm), ignore = "/dev/kvm is not usable here")]
fn a_guest_that_was_never_started_is_stopped() {
    let (machine, _) = machine(&SPIN);
    machine.stop(true);
}

#[test]
#[cfg_attr(not(kvm), ignore = "/dev/kvm is not usable here")]
fn a_paused_guest_does_nothing_until_it_is_resumed() {
    // again: inc dword [SCRATCH]; jmp again
    let code = [
        vec![0xff, 0x05],
        SCRATCH.to_le_bytes().to_vec(),
        vec![0xeb, 0xf8],
    ]
    .concat();
    let (mut machine, _) = machine(&code);
    let memory = machine.memory.clone();
    let count = || {
        use vm_memory::{Bytes, GuestAddress};
        memory
            .read_obj::<u32>(GuestAddress(SCRATCH.into()))
            .unwrap()
    };
    let counts_on = || {
        let (before, end) = (count(), Instant::now() + Duration::from_secs(30));
        while count() == before {
            assert!(Instant::now() < end, "the guest does not run");
        }
    };
    machine.start().unwrap();
    for _ in 0..3 {
        counts_on();
        machine.pause();
        machine.pause();
        let parked = count();
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(count(), parked);
        machine.resume().unwrap();
        machine.resume().unwrap();
    }
    counts_on();
    machine.pause();
    machine.stop(true);
}

#[test]
#[cfg_attr(not(kvm), ignore = "/dev/kvm is not usable here")]
fn a_pause_between_accesses_loses_none() {
    // mov ecx, 200; again: print 'x'; loop again; power off
    let body = out(0x3f8, b'x');
    let back = 0u8.wrapping_sub(u8::try_from(body.len() + 2).unwrap());
    let code = [
        vec![0xb9, 200, 0, 0, 0],
        body,
        vec![0xe2, back],
        power_off(),
    ]
    .concat();
    let (mut machine, console) = machine(&code);
    machine.start().unwrap();
    while machine.exit().get().is_none() {
        machine.pause();
        machine.resume().unwrap();
    }
    machine.stop(true);
    assert_eq!(console.tail(4096).0, "x".repeat(200));
}
