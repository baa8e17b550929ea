//! The thread that active devices run on.
//!
//! A [`DeviceThread`] runs an event loop for any number of devices. It owns them while it runs;
//! transports reach it through a [`DeviceHost`], which can only hand a device over
//! ([`DeviceHost::adopt`]) or ask for it back ([`DeviceHost::release`]). Both take effect between
//! two events, so always at a request boundary.
//!
//! Parking *ends* the thread: it returns its devices to the owner of the VM, where they are plain
//! data that no thread and no lock refers to. Going on means a new thread for the same devices,
//! after `fork(2)` in whichever process is the VM then.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use event_manager::{
    EventManager, EventOps, Events, MutEventSubscriber, SubscriberId, SubscriberOps,
};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

use super::device::{ActiveDevice, DeviceError};
use super::interrupt::Interrupt;
use crate::layout::Slot;
use crate::report;

/// Threads need little: the deepest user is the file server.
const STACK_SIZE: usize = 512 << 10;

/// A device on its thread.
pub struct Hosted {
    slot: Slot,
    device: Box<dyn ActiveDevice>,
    interrupt: Interrupt,
    /// The device failed; it is only kept until its driver resets it.
    broken: bool,
}

impl Hosted {
    /// See [`ActiveDevice::flush`].
    ///
    /// # Errors
    /// What the host says.
    pub fn flush(&mut self) -> io::Result<()> {
        self.device.flush()
    }

    /// Where it is.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// See [`ActiveDevice::freeze`].
    ///
    /// # Errors
    /// What the device says.
    pub fn freeze(&mut self, directory: OwnedFd) -> io::Result<()> {
        self.device.freeze(directory)
    }

    fn fail(&mut self, error: &DeviceError) {
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
        let slot = self.slot;
        let cause = cause.unwrap_or_default();
        report::guest(format_args!("device {slot:?} stopped: {error}{cause}"));
        self.broken = true;
        self.interrupt.needs_reset();
    }
}

/// Where devices run, as a transport sees it. Clones name the same thread.
#[derive(Clone)]
pub struct DeviceHost {
    shared: Arc<Shared>,
}

struct Shared {
    commands: Mutex<VecDeque<Command>>,
    /// Readable while there are commands.
    wake: EventFd,
}

enum Command {
    Adopt(Hosted),
    Release(Slot, Sender<Box<dyn ActiveDevice>>),
    Park,
}

impl DeviceHost {
    /// A host whose thread has not been started yet; what it is asked for until then is done
    /// when it starts.
    ///
    /// # Errors
    /// When the host has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let wake = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        Ok(Self {
            shared: Arc::new(Shared {
                commands: Mutex::default(),
                wake,
            }),
        })
    }

    /// Hands a device over. Its events are handled soon after.
    pub fn adopt(&self, slot: Slot, device: Box<dyn ActiveDevice>, interrupt: Interrupt) {
        self.send(Command::Adopt(Hosted {
            slot,
            device,
            interrupt,
            broken: false,
        }));
    }

    /// Takes a device back. Waits until the thread has come to a request boundary.
    ///
    /// # Panics
    /// When the slot has no device here: its transport knows that it handed one over.
    pub fn release(&self, slot: Slot) -> Box<dyn ActiveDevice> {
        let (reply, receive) = mpsc::channel();
        self.send(Command::Release(slot, reply));
        receive
            .recv()
            .expect("the thread runs while processors run, and holds the device")
    }

    fn send(&self, command: Command) {
        // A panic elsewhere cannot leave the queue half-changed.
        self.shared
            .commands
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(command);
        // At the counter's limit it is readable anyway.
        let _ = self.shared.wake.write(1);
    }

    fn receive(&self) -> Option<Command> {
        self.shared
            .commands
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }
}

/// A running device thread. It must be parked, not dropped.
pub struct DeviceThread {
    host: DeviceHost,
    thread: JoinHandle<Vec<Hosted>>,
}

impl DeviceThread {
    /// Starts a thread for `devices` and for what `host` is asked to adopt.
    ///
    /// # Errors
    /// When the host has no thread left.
    pub fn start(name: &str, host: DeviceHost, devices: Vec<Hosted>) -> io::Result<Self> {
        let inner = host.clone();
        let manager = EventManager::new().map_err(io::Error::other)?;
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .stack_size(STACK_SIZE)
            .spawn(move || run(manager, &inner, devices))?;
        Ok(Self { host, thread })
    }

    /// Ends the thread at a request boundary and returns its devices.
    pub fn park(self) -> Vec<Hosted> {
        self.host.send(Command::Park);
        self.thread
            .join()
            .expect("a panic in a device thread aborts the process")
    }
}

/// Who gets events.
enum Subscriber {
    /// The wake-up for commands; they are done between two rounds.
    Wake(DeviceHost),
    Device(Hosted),
}

impl MutEventSubscriber for Subscriber {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        match self {
            Self::Wake(host) => {
                ops.add(Events::new(&host.shared.wake, EventSet::IN))
                    .expect("an empty event loop takes one descriptor");
            }
            Self::Device(hosted) if hosted.broken => {}
            Self::Device(hosted) => {
                if let Err(error) = hosted.device.register(ops) {
                    hosted.fail(&error);
                }
            }
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match self {
            Self::Wake(host) => drop(host.shared.wake.read()),
            // It was broken by an earlier event; its descriptors are not watched any more.
            Self::Device(hosted) if hosted.broken => drop(ops.remove(events)),
            Self::Device(hosted) => {
                if let Err(error) = hosted.device.process(events, ops) {
                    hosted.fail(&error);
                }
            }
        }
    }
}

fn run(
    mut manager: EventManager<Subscriber>,
    host: &DeviceHost,
    devices: Vec<Hosted>,
) -> Vec<Hosted> {
    let mut ids: HashMap<Slot, SubscriberId> = HashMap::new();
    manager.add_subscriber(Subscriber::Wake(host.clone()));
    for hosted in devices {
        let slot = hosted.slot;
        ids.insert(slot, manager.add_subscriber(Subscriber::Device(hosted)));
    }
    loop {
        while let Some(command) = host.receive() {
            match command {
                Command::Adopt(hosted) => {
                    let slot = hosted.slot;
                    ids.insert(slot, manager.add_subscriber(Subscriber::Device(hosted)));
                }
                Command::Release(slot, reply) => {
                    if let Some(hosted) = ids.remove(&slot).and_then(|id| take(&mut manager, id)) {
                        // The transport waits for it.
                        let _ = reply.send(hosted.device);
                    }
                }
                Command::Park => {
                    return ids
                        .into_values()
                        .filter_map(|id| take(&mut manager, id))
                        .collect();
                }
            }
        }
        manager
            .run()
            .expect("an event loop over its own descriptors cannot fail");
    }
}

fn take(manager: &mut EventManager<Subscriber>, id: SubscriberId) -> Option<Hosted> {
    match manager.remove_subscriber(id) {
        Ok(Subscriber::Device(hosted)) => Some(hosted),
        Ok(Subscriber::Wake(_)) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::device::VirtioDevice;
    use crate::virtio::rng::Rng;
    use crate::virtio::test_driver::wait_for;

    /// Counts its kicks; fails at the one that makes three.
    struct Counter {
        kick: EventFd,
        count: Sender<u64>,
        total: u64,
    }

    impl ActiveDevice for Counter {
        fn register(&mut self, ops: &mut EventOps<'_>) -> Result<(), DeviceError> {
            Ok(ops.add(Events::new(&self.kick, EventSet::IN))?)
        }

        fn process(&mut self, _event: Events, _ops: &mut EventOps<'_>) -> Result<(), DeviceError> {
            self.total += self.kick.read().unwrap();
            self.count.send(self.total).unwrap();
            let source = io::ErrorKind::Other.into();
            if self.total < 3 {
                Ok(())
            } else {
                Err(DeviceError::Host { what: "it", source })
            }
        }

        fn reset(self: Box<Self>) -> Box<dyn VirtioDevice> {
            Box::new(Rng)
        }
    }

    fn event_fd() -> EventFd {
        EventFd::new(libc::EFD_NONBLOCK).unwrap()
    }

    #[test]
    fn a_device_keeps_its_state_and_its_kicks_while_parked() {
        let (count, counts) = mpsc::channel();
        let kick = event_fd();
        let device = Counter {
            kick: kick.try_clone().unwrap(),
            count,
            total: 0,
        };
        let host = DeviceHost::new().unwrap();
        let interrupt = Interrupt::new(event_fd());
        // Asked for before the thread runs: done when it does.
        host.adopt(Slot::Rng, Box::new(device), interrupt.clone());
        let thread = DeviceThread::start("test", host.clone(), Vec::new()).unwrap();
        kick.write(1).unwrap();
        assert_eq!(counts.recv().unwrap(), 1);
        let parked = thread.park();
        assert_eq!(parked.len(), 1);
        kick.write(1).unwrap();
        assert!(counts.try_recv().is_err());
        let thread = DeviceThread::start("test", host.clone(), parked).unwrap();
        assert_eq!(counts.recv().unwrap(), 2);
        assert!(!interrupt.is_reset_needed());
        // Broken from here on: it is not called again, parked or not, but can be taken back.
        kick.write(1).unwrap();
        assert_eq!(counts.recv().unwrap(), 3);
        wait_for(|| interrupt.is_reset_needed().then_some(()));
        kick.write(1).unwrap();
        let thread = DeviceThread::start("test", host.clone(), thread.park()).unwrap();
        assert_eq!(host.release(Slot::Rng).reset().name(), "rng");
        assert!(counts.try_recv().is_err());
        assert!(thread.park().is_empty());
    }
}
