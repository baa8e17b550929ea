//! The thread of one virtual processor.
//!
//! It runs the guest until told otherwise, answers its exits through the [`Bus`], and ends with
//! the VM. Orders come through an order word and a kick: the thread looks at the word before
//! each entry into the guest, and a kick that comes later makes the entry return at once
//! (see [`super::kick`]). A parked thread holds no lock and its processor has no access half done:
//! KVM has been let finish the last one.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use kvm_ioctls::{VcpuExit, VcpuFd};

use super::exit::InternalError;
use super::kick::{self, Target};
use crate::bus::Bus;
use crate::control::ExitReason;
use crate::exit_latch::ExitLatch;
use crate::power::PowerEvent;
use crate::virtio::device::GuestMemory;

const STACK_SIZE: usize = 256 << 10;

/// What a processor is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Run,
    Park,
    Stop,
}

/// What its thread is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Running,
    Parked,
    Ended,
}

#[derive(Debug)]
struct Mailbox {
    /// There is an order other than `Run`; read without the lock before each entry.
    attention: AtomicBool,
    state: Mutex<(Order, Doing)>,
    changed: Condvar,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, (Order, Doing)> {
        // Each change is one assignment; there is no half-done state to see.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_doing(&self, doing: Doing) {
        self.lock().1 = doing;
        self.changed.notify_all();
    }

    fn wait_while(&self, condition: impl Fn(&(Order, Doing)) -> bool) -> Order {
        let guard = self.lock();
        let state = self.changed.wait_while(guard, |state| condition(state));
        state.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// A processor's thread, seen from the owner of the VM.
#[derive(Debug)]
pub struct VcpuThread {
    mailbox: Arc<Mailbox>,
    thread: JoinHandle<()>,
}

/// What a processor's thread works with.
pub struct Context {
    /// Who answers exits.
    pub bus: Arc<Bus>,
    /// Guest RAM, to show the instruction of an internal error.
    pub memory: GuestMemory,
    /// Where the end of the VM is told.
    pub exit: ExitLatch,
}

impl VcpuThread {
    /// Starts the thread, parked or running. [`kick::install_handler`] must have been called.
    ///
    /// # Errors
    /// When the host has no thread left.
    pub fn start(index: u8, vcpu: VcpuFd, context: Context, parked: bool) -> io::Result<Self> {
        let order = if parked { Order::Park } else { Order::Run };
        let mailbox = Arc::new(Mailbox {
            attention: AtomicBool::new(parked),
            state: Mutex::new((order, Doing::Running)),
            changed: Condvar::new(),
        });
        let inner = mailbox.clone();
        let thread = thread::Builder::new()
            .name(format!("vcpu{index}"))
            .stack_size(STACK_SIZE)
            .spawn(move || {
                let mut target = Target::enter(vcpu);
                if let Some(reason) = run(&mut target, &context, &inner) {
                    context.exit.set(reason);
                }
                inner.set_doing(Doing::Ended);
            })?;
        Ok(Self { mailbox, thread })
    }

    /// Asks the thread to park; it goes on doing so.
    pub fn request_park(&self) {
        self.order(Order::Park);
    }

    /// Waits until the thread is parked or has ended.
    pub fn wait_parked(&self) {
        self.mailbox
            .wait_while(|(_, doing)| *doing == Doing::Running);
    }

    /// Lets a parked thread go on.
    pub fn unpark(&self) {
        let mut state = self.mailbox.lock();
        state.0 = Order::Run;
        self.mailbox.attention.store(false, Ordering::Release);
        self.mailbox.changed.notify_all();
    }

    /// Asks the thread to end.
    pub fn request_stop(&self) {
        self.order(Order::Stop);
    }

    /// Waits until the thread, asked to end, has done so.
    pub fn join(self) {
        self.thread
            .join()
            .expect("a panic in a processor's thread aborts the process");
    }

    fn order(&self, order: Order) {
        self.mailbox.lock().0 = order;
        self.mailbox.attention.store(true, Ordering::Release);
        self.mailbox.changed.notify_all();
        kick::kick(&self.thread);
    }
}

/// Runs the processor until it is told to stop (`None`) or the VM ends by what it did.
fn run(target: &mut Target, context: &Context, mailbox: &Mailbox) -> Option<ExitReason> {
    loop {
        // In this order: a kick after `rearm` is seen by the entry, one before it by the check.
        target.rearm();
        if mailbox.attention.load(Ordering::Acquire) {
            if let Some(reason) = finish_access(target, context) {
                return Some(reason);
            }
            // So that the guest's watchdog does not take the pause for a hang. Guests that use
            // no paravirtual clock have none to tell, which KVM calls an error.
            let _ = target.vcpu().kvmclock_ctrl();
            mailbox.set_doing(Doing::Parked);
            match mailbox.wait_while(|(order, _)| *order == Order::Park) {
                Order::Stop => return None,
                Order::Run | Order::Park => mailbox.set_doing(Doing::Running),
            }
        } else if let Step::End(reason) = enter(target, context) {
            return Some(reason);
        }
    }
}

/// Lets KVM take the result of the last exit into the processor's state (a port or memory read is
/// only done at the next entry), without running the guest.
fn finish_access(target: &mut Target, context: &Context) -> Option<ExitReason> {
    loop {
        target.vcpu().set_kvm_immediate_exit(1);
        match enter(target, context) {
            Step::Interrupted => return None,
            // An access of several pieces goes on with the next.
            Step::Answered => {}
            Step::End(reason) => return Some(reason),
        }
    }
}

/// What one entry into the guest came to.
enum Step {
    /// Its exit was answered.
    Answered,
    /// It was kicked out, or not even let in.
    Interrupted,
    /// The VM ends.
    End(ExitReason),
}

/// Enters the guest once and answers its exit.
fn enter(target: &mut Target, context: &Context) -> Step {
    let bus = &context.bus;
    match target.vcpu().run() {
        Ok(VcpuExit::MmioRead(address, data)) => bus.memory_read(address, data),
        Ok(VcpuExit::MmioWrite(address, data)) => bus.memory_write(address, data),
        Ok(VcpuExit::IoIn(port, data)) => bus.port_read(port, data),
        Ok(VcpuExit::IoOut(port, data)) => match bus.port_write(port, data) {
            None => {}
            Some(PowerEvent::Off) => return Step::End(ExitReason::PowerOff),
            Some(PowerEvent::Reset) => return Step::End(ExitReason::Reset),
        },
        Ok(VcpuExit::Intr) => return Step::Interrupted,
        Ok(VcpuExit::Shutdown) => return Step::End(ExitReason::TripleFault),
        Ok(VcpuExit::InternalError) => {
            let error = InternalError::read(target.vcpu(), &context.memory);
            return Step::End(ExitReason::InternalError {
                suberror: error.suberror,
                rip: error.rip,
                instruction: error.instruction_hex(),
                remedy: error.remedy(),
            });
        }
        Ok(VcpuExit::FailEntry(hardware_reason, _)) => {
            return Step::End(ExitReason::FailedEntry { hardware_reason });
        }
        Ok(exit) => return failed(format!("unexpected kvm exit {exit:?}")),
        // A kick; or a processor that has not been started yet, woken for nothing.
        Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
            return Step::Interrupted;
        }
        Err(error) => return failed(format!("KVM_RUN failed: {error}")),
    }
    Step::Answered
}

fn failed(message: String) -> Step {
    Step::End(ExitReason::Failed { message })
}
