//! One VM: its parts put together, started, paused, resumed and stopped.
//!
//! The order matters. Pausing parks processors first and devices second, so that nobody kicks a
//! device that is parked; resuming goes the other way round. Whoever owns the [`Machine`] is the
//! only one who does either.

use std::fs::File;
use std::io;
use std::sync::Arc;

use kvm_ioctls::{IoEventAddress, Kvm, VcpuFd, VmFd};

use crate::boot::{self, BootError};
use crate::bus::Bus;
use crate::console::Console;
use crate::exit_latch::ExitLatch;
use crate::layout::{KVM_TSS, MIB, SERIAL_GSI, Slot};
use crate::memory::{self, MemoryError};
use crate::vcpu::msr::MsrError;
use crate::vcpu::thread::{Context, VcpuThread};
use crate::vcpu::{cpuid, kick, lapic, msr};
use crate::virtio::device::{GuestMemory, VirtioDevice};
use crate::virtio::host::{DeviceHost, DeviceThread, Hosted};
use crate::virtio::mmio::{MmioTransport, QUEUE_NOTIFY};
use vmm_sys_util::eventfd::EventFd;

/// Why a VM could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// KVM refused something.
    #[error("kvm refused {what}")]
    Kvm {
        /// What.
        what: &'static str,
        /// What KVM said.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// A model-specific register.
    #[error("cannot prepare a processor")]
    Msr(#[from] MsrError),
    /// Guest RAM.
    #[error("cannot make guest memory")]
    Memory(#[from] MemoryError),
    /// The boot.
    #[error("cannot prepare the boot")]
    Boot(#[from] BootError),
    /// Threads and descriptors.
    #[error("the host has no resources left")]
    Host(#[from] io::Error),
}

fn refused(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> MachineError {
    move |source| MachineError::Kvm { what, source }
}

/// The devices, one a slot.
pub struct Devices {
    /// [`Slot::Root`].
    pub root: Box<dyn VirtioDevice>,
    /// [`Slot::Vsock`].
    pub vsock: Box<dyn VirtioDevice>,
    /// [`Slot::Rng`].
    pub rng: Box<dyn VirtioDevice>,
    /// [`Slot::Net`]; empty without one.
    pub net: Option<Box<dyn VirtioDevice>>,
}

/// What a VM is made of.
pub struct Parts<'a> {
    /// The hypervisor.
    pub kvm: &'a Kvm,
    /// Processors, at least one.
    pub vcpus: u8,
    /// RAM.
    pub memory_mib: u32,
    /// The unpacked kernel.
    pub kernel: File,
    /// Archives of the initial RAM file system.
    pub initramfs: Vec<File>,
    /// The devices.
    pub devices: Devices,
    /// Where the console goes.
    pub console: Console,
    /// A full serial console in the guest.
    pub debug_console: bool,
}

/// A device thread, or what it left.
enum Workers {
    Parked(Vec<Hosted>),
    Running(DeviceThread),
}

/// The place of the file server's pool.
const FILES: usize = 0;

struct Pool {
    name: &'static str,
    host: DeviceHost,
    workers: Workers,
}

impl Pool {
    fn new(name: &'static str) -> io::Result<Self> {
        Ok(Self {
            name,
            host: DeviceHost::new()?,
            workers: Workers::Parked(Vec::new()),
        })
    }

    fn start(&mut self) -> io::Result<()> {
        if let Workers::Parked(devices) = &mut self.workers {
            let devices = std::mem::take(devices);
            let thread = DeviceThread::start(self.name, self.host.clone(), devices)?;
            self.workers = Workers::Running(thread);
        }
        Ok(())
    }

    fn park(&mut self) -> &mut Vec<Hosted> {
        let parked = match std::mem::replace(&mut self.workers, Workers::Parked(Vec::new())) {
            Workers::Running(thread) => thread.park(),
            Workers::Parked(devices) => devices,
        };
        self.workers = Workers::Parked(parked);
        match &mut self.workers {
            Workers::Parked(devices) => devices,
            Workers::Running(_) => unreachable!("it was just parked"),
        }
    }
}

/// A processor before or after its thread has begun.
enum Processor {
    Ready(VcpuFd),
    Started(VcpuThread),
}

/// One VM. Nothing runs until [`Machine::start`].
pub struct Machine {
    processors: Vec<Processor>,
    pools: Vec<Pool>,
    bus: Arc<Bus>,
    memory: GuestMemory,
    exit: ExitLatch,
    paused: bool,
    // Last: processors and devices refer to it.
    _vm: VmFd,
}

impl Machine {
    /// Makes the VM: memory with kernel and initramfs in it, processors at the kernel's entry,
    /// devices in their slots.
    ///
    /// # Errors
    /// When the host, KVM or the kernel file does not let it.
    pub fn new(parts: Parts<'_>) -> Result<Self, MachineError> {
        kick::install_handler()?;
        let vm = parts.kvm.create_vm().map_err(refused("a new vm"))?;
        vm.set_tss_address(KVM_TSS as usize)
            .map_err(refused("the tss address"))?;
        vm.create_irq_chip()
            .map_err(refused("an interrupt controller"))?;
        let ram = u64::from(parts.memory_mib) * MIB;
        let memory = memory::allocate(ram)?;
        memory::register(&vm, &memory)?;
        let Devices {
            root,
            vsock,
            rng,
            net,
        } = parts.devices;
        // The file server may wait for a disk, and the network is busy in long runs; neither must
        // keep the others waiting.
        let mut pools = vec![Pool::new("fs")?, Pool::new("devices")?];
        let [files, others] = [&pools[FILES].host, &pools[1].host];
        let mut slots = vec![
            (Slot::Root, root, files.clone()),
            (Slot::Vsock, vsock, others.clone()),
            (Slot::Rng, rng, others.clone()),
        ];
        if let Some(net) = net {
            let pool = Pool::new("net")?;
            slots.push((Slot::Net, net, pool.host.clone()));
            pools.push(pool);
        }
        let filled: Vec<Slot> = slots.iter().map(|(slot, ..)| *slot).collect();
        let source = boot::Source {
            kernel: &parts.kernel,
            initramfs: &parts.initramfs,
            ram,
            vcpus: parts.vcpus,
            slots: &filled,
            debug_console: parts.debug_console,
        };
        let entry = boot::load(&memory, &source)?;
        let vcpus = make_vcpus(parts.kvm, &vm, parts.vcpus)?;
        if let Some(first) = vcpus.first() {
            entry.prepare(first)?;
        }
        let mut transports = Vec::new();
        for (slot, device, host) in slots {
            let transport = MmioTransport::new(slot, device, memory.clone(), host)?;
            connect(&vm, &transport)?;
            transports.push(transport);
        }
        let serial_line = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        vm.register_irqfd(&serial_line, SERIAL_GSI)
            .map_err(refused("an irqfd"))?;
        let bus = Arc::new(Bus::new(transports, serial_line, parts.console));
        Ok(Self {
            processors: vcpus.into_iter().map(Processor::Ready).collect(),
            pools,
            bus,
            memory,
            exit: ExitLatch::new()?,
            paused: false,
            _vm: vm,
        })
    }

    /// Starts device threads, then processors.
    ///
    /// # Errors
    /// When the host has no thread left.
    pub fn start(&mut self) -> io::Result<()> {
        for pool in &mut self.pools {
            pool.start()?;
        }
        let ready = std::mem::take(&mut self.processors);
        for (index, processor) in (0u8..).zip(ready) {
            self.processors.push(match processor {
                Processor::Ready(vcpu) => {
                    let context = Context {
                        bus: self.bus.clone(),
                        memory: self.memory.clone(),
                        exit: self.exit.clone(),
                    };
                    Processor::Started(VcpuThread::start(index, vcpu, context, self.paused)?)
                }
                started @ Processor::Started(_) => started,
            });
        }
        Ok(())
    }

    /// Parks every thread at a request boundary and returns when all are parked.
    pub fn pause(&mut self) {
        if !self.paused {
            self.paused = true;
            self.threads().for_each(VcpuThread::request_park);
            self.threads().for_each(VcpuThread::wait_parked);
            for pool in &mut self.pools {
                pool.park();
            }
        }
    }

    /// Lets all threads go on.
    ///
    /// # Errors
    /// When the host has no thread left; the VM is then paused still.
    pub fn resume(&mut self) -> io::Result<()> {
        if self.paused {
            for pool in &mut self.pools {
                pool.start()?;
            }
            self.paused = false;
            self.threads().for_each(VcpuThread::unpark);
        }
        Ok(())
    }

    /// Does something with the root's device at a request boundary, while processors run on.
    ///
    /// # Errors
    /// What `action` says; `NotConnected` while the guest's driver does not drive the device; what
    /// the host says when it has no thread left for the device: it then waits as when paused.
    pub fn with_root(
        &mut self,
        action: impl FnOnce(&mut Hosted) -> io::Result<()>,
    ) -> io::Result<()> {
        let pool = &mut self.pools[FILES];
        let done = match pool.park().iter_mut().find(|it| it.slot() == Slot::Root) {
            Some(root) => action(root),
            None => Err(io::Error::new(
                io::ErrorKind::NotConnected,
                "the guest has not mounted its root",
            )),
        };
        if !self.paused {
            pool.start()?;
        }
        done
    }

    /// Ends all threads. With `flush`, what devices keep in memory is made durable.
    pub fn stop(mut self, flush: bool) {
        self.threads().for_each(VcpuThread::request_stop);
        for processor in std::mem::take(&mut self.processors) {
            if let Processor::Started(thread) = processor {
                thread.join();
            }
        }
        for pool in &mut self.pools {
            for device in pool.park() {
                if flush && let Err(error) = device.flush() {
                    eprintln!("pyro-vmm: cannot make writes durable: {error}");
                }
            }
        }
    }

    /// Tells why the VM ends.
    pub fn exit(&self) -> &ExitLatch {
        &self.exit
    }

    /// Who answers the guest; it counts exits.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    fn threads(&self) -> impl Iterator<Item = &VcpuThread> {
        self.processors
            .iter()
            .filter_map(|processor| match processor {
                Processor::Started(thread) => Some(thread),
                Processor::Ready(_) => None,
            })
    }
}

fn make_vcpus(kvm: &Kvm, vm: &VmFd, count: u8) -> Result<Vec<VcpuFd>, MachineError> {
    let supported = cpuid::supported(kvm).map_err(refused("to tell its cpuid"))?;
    (0..count)
        .map(|index| {
            let vcpu = vm
                .create_vcpu(index.into())
                .map_err(refused("a processor"))?;
            // CPUID first: what KVM says of other registers depends on it.
            let cpuid = cpuid::for_vcpu(&supported, index, count);
            vcpu.set_cpuid2(&cpuid).map_err(refused("the cpuid"))?;
            msr::set_initial(&vcpu)?;
            lapic::wire_pins(&vcpu).map_err(refused("the local apic"))?;
            Ok(vcpu)
        })
        .collect()
}

/// Connects a device's interrupt and kicks to KVM, so that neither needs an exit.
fn connect(vm: &VmFd, transport: &MmioTransport) -> Result<(), MachineError> {
    let slot = transport.slot();
    vm.register_irqfd(transport.interrupt().line(), slot.gsi())
        .map_err(refused("an irqfd"))?;
    let notify = IoEventAddress::Mmio(slot.base() + QUEUE_NOTIFY);
    for (index, kick) in (0u32..).zip(transport.kicks()) {
        vm.register_ioevent(kick, &notify, index)
            .map_err(refused("an ioeventfd"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
