//! The control thread: answers requests until the VM ends, and says why it did.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, SubscriberOps};
use vmm_sys_util::epoll::EventSet;

use super::connection::{Connection, Incoming};
use super::describe;
use super::inherit::{ControlSockets, Resources};
use super::resources::{BuildError, build};
use crate::config::Config;
use crate::console::{self, Console};
use crate::control::{Event, ExitReason, Message, Reply, Request, Stats};
use crate::machine::Machine;

/// Console bytes in [`Event::Exited`].
const CONSOLE_TAIL: usize = 4 << 10;
/// How long a peer may take for the last message.
const LAST_MESSAGE: Duration = Duration::from_secs(1);

/// Runs the VM to its end; the peer has been told the reason that is returned.
///
/// # Errors
/// When the control socket is not usable.
pub(super) fn run(
    config: &Config,
    resources: Resources,
    control: ControlSockets,
    started: Instant,
) -> io::Result<ExitReason> {
    let console = Console::new(config.debug_console);
    let mut connection = Connection::new(control.peer)?;
    if let Some(listener) = &control.listener {
        listener.set_nonblocking(true)?;
    }
    let reason = match build(config, resources, console.clone()) {
        Ok(machine) => {
            let monitor = Monitor {
                connection,
                listener: control.listener,
                machine,
                console: console.clone(),
                outlive_control: config.outlive_control,
                started,
                start_to_guest: Duration::ZERO,
                peer_gone: false,
                end: None,
            };
            let (reason, back) = monitor.run()?;
            connection = back;
            reason
        }
        Err(error) => failed(&error),
    };
    if let ExitReason::Failed { message } = &reason {
        eprintln!("pyro-vmm: {message}");
    }
    let (console_tail, _) = console.tail(CONSOLE_TAIL);
    let last = Message::Event(Event::Exited {
        reason: reason.clone(),
        console_tail,
    });
    connection.send(&last);
    connection.flush_within(LAST_MESSAGE);
    if config.outlive_control && !connection.delivered() {
        // Whoever looks for this VM later shall know how it ended.
        let text = serde_json::to_string(&last).expect("messages are plain data");
        eprintln!("{text}");
    }
    Ok(reason)
}

fn failed(error: &BuildError) -> ExitReason {
    ExitReason::Failed {
        message: describe(error),
    }
}

struct Monitor {
    connection: Connection,
    /// Where the next peer connects.
    listener: Option<UnixListener>,
    machine: Machine,
    console: Console,
    outlive_control: bool,
    started: Instant,
    start_to_guest: Duration,
    peer_gone: bool,
    end: Option<ExitReason>,
}

impl Monitor {
    fn run(mut self) -> io::Result<(ExitReason, Connection)> {
        let mut events = EventManager::<Self>::new().map_err(io::Error::other)?;
        self.start();
        let id = events.add_subscriber(self);
        let ended = loop {
            let monitor = events.subscriber_mut(id).map_err(io::Error::other)?;
            if let Some(reason) = monitor.end.take() {
                break reason;
            }
            events.run().map_err(io::Error::other)?;
        };
        let monitor = events.remove_subscriber(id).map_err(io::Error::other)?;
        // A guest that was stopped from outside had no chance to flush; neither do we.
        monitor.machine.stop(ended != ExitReason::Stopped);
        Ok((ended, monitor.connection))
    }

    fn start(&mut self) {
        self.connection.send(&Message::Event(Event::Started));
        self.start_to_guest = self.started.elapsed();
        if let Err(error) = self.machine.start() {
            self.end = Some(failed(&BuildError::Threads(error)));
        }
    }

    fn handle_peer(&mut self) {
        while self.end.is_none() {
            match self.connection.receive() {
                None => return,
                Some(Incoming::Request(request)) => self.answer(&request),
                Some(Incoming::Nonsense(message)) => self.refuse("invalid_request", message),
                Some(Incoming::Closed) => {
                    self.peer_gone = true;
                    if !self.outlive_control {
                        self.end = Some(ExitReason::Stopped);
                    }
                    return;
                }
            }
        }
    }

    fn answer(&mut self, request: &Request) {
        let reply = match request {
            Request::Pause => {
                self.machine.pause();
                Reply::Ok
            }
            Request::Resume => match self.machine.resume() {
                Ok(()) => Reply::Ok,
                Err(error) => return self.refuse("resume_failed", error.to_string()),
            },
            Request::Stats => Reply::Stats(Stats {
                pio_exits: self.machine.bus().port_exits(),
                mmio_exits: self.machine.bus().memory_exits(),
                start_to_guest_us: u64::try_from(self.start_to_guest.as_micros())
                    .unwrap_or(u64::MAX),
            }),
            Request::Console => {
                let (text, dropped) = self.console.tail(console::CAPACITY);
                Reply::Console { text, dropped }
            }
            Request::Sync => match self.machine.with_root(|root| root.flush()) {
                Ok(()) => Reply::Ok,
                Err(error) => return self.refuse("sync_failed", describe(&error)),
            },
            Request::Freeze => {
                let Some(directory) = self.connection.take_descriptor() else {
                    let message = "no directory came with the request".to_owned();
                    return self.refuse("invalid_request", message);
                };
                match self.machine.with_root(|root| root.freeze(directory)) {
                    Ok(()) => Reply::Ok,
                    Err(error) => return self.refuse("freeze_failed", describe(&error)),
                }
            }
            Request::Stop => {
                self.end = Some(ExitReason::Stopped);
                Reply::Ok
            }
        };
        self.connection.send(&Message::Reply(reply));
    }

    /// Takes the newest peer in the place of the one there is.
    fn change_peer(&mut self, ops: &mut EventOps<'_>) {
        let Some(listener) = &self.listener else {
            return;
        };
        let mut newest = None;
        while let Ok((stream, _)) = listener.accept() {
            newest = Some(stream);
        }
        let Some(Ok(connection)) = newest.map(Connection::new) else {
            return;
        };
        if !self.peer_gone {
            let _ = ops.remove(self.interest());
        }
        self.connection = connection;
        self.peer_gone = false;
        // What is not watched can only be replaced by the next.
        self.peer_gone = ops.add(self.interest()).is_err();
    }

    fn refuse(&mut self, code: &str, message: String) {
        let reply = Reply::Error {
            code: code.to_owned(),
            message,
        };
        self.connection.send(&Message::Reply(reply));
    }

    fn interest(&self) -> Events {
        let mut set = EventSet::empty();
        if !self.peer_gone && self.connection.wants_to_receive() {
            set |= EventSet::IN;
        }
        if self.connection.wants_to_send() {
            set |= EventSet::OUT;
        }
        Events::new(&self.connection, set)
    }
}

impl MutEventSubscriber for Monitor {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        ops.add(Events::new(self.machine.exit().wake(), EventSet::IN))
            .and_then(|()| ops.add(self.interest()))
            .and_then(|()| match &self.listener {
                // On the edge: a connection that cannot be accepted now must not keep us awake.
                Some(listener) => ops.add(Events::new(
                    listener,
                    EventSet::IN | EventSet::EDGE_TRIGGERED,
                )),
                None => Ok(()),
            })
            .expect("an empty event loop takes three descriptors");
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        let listener = self.listener.as_ref().map(AsRawFd::as_raw_fd);
        if Some(events.fd()) == listener {
            self.change_peer(ops);
        } else if events.fd() == self.connection.as_raw_fd() {
            self.connection.flush();
            self.handle_peer();
            if self.peer_gone {
                // A socket whose peer is gone is readable, or hung up, for ever.
                let _ = ops.remove(self.interest());
            } else {
                let _ = ops.modify(self.interest());
            }
        } else if let Some(reason) = self.machine.exit().get() {
            self.end.get_or_insert(reason);
        }
    }
}
