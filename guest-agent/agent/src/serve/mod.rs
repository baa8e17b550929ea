//! Serving operations: one thread, one loop, nothing in it ever blocks on a program or on the host.
//!
//! The [`Server`] owns every stream and every running program. It alone reaps children, so no exit
//! status can be taken by somebody else, and orphans of every exec are reaped along the way. What
//! may block, work on files, is done by other threads in bounded steps (`workers`). An operation is
//! one stream (`operation`); jobs (`jobs`) and connections (`connections`) outlive theirs.

mod connections;
mod ending;
mod exec;
mod farewell;
mod jobs;
mod leftovers;
mod operation;
mod poller;
mod requests;
mod stream;
mod transfers;
mod turn;
mod workers;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use pyro_agent_protocol::ErrorCode;
use rustix::io::Errno;

use self::connections::Connections;
pub(crate) use self::farewell::Farewell;
use self::jobs::Jobs;
use self::leftovers::Leftovers;
use self::operation::{Operation, State};
use self::poller::{Interest, OperationId, Poller, Source, Watched};
use self::requests::failed;
use self::stream::Stream;
use self::workers::Workers;
use crate::files::apply::StagingArea;
use crate::files::secrets::SecretsArea;
use crate::program::group::Groups;

/// Most operations at a time. More are refused, with the reason.
const OPERATIONS_MAX: usize = 1024;

/// Whom operations are accepted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peers {
    /// Streams of vsock, from the host alone.
    VsockHost,
    /// Whoever reaches the Unix socket; its directory decides that.
    Unix,
}

/// Why [`Server::run`] returned.
#[derive(Debug)]
pub(crate) enum Finished {
    /// The power is to go off; the asker waits on this stream.
    PowerOff(Farewell),
    /// A signal asked for it, or the only stream to serve has ended.
    Ended,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Server {
    poller: Poller,
    signals: Watched,
    listener: Option<(Watched, Peers)>,
    rests_until: Option<Instant>,
    operations: BTreeMap<OperationId, Operation>,
    /// By process id, until it is reaped.
    leaders: BTreeMap<i32, OperationId>,
    jobs: Jobs,
    connections: Connections,
    leftovers: Leftovers,
    groups: Groups,
    workers: Workers,
    /// Where transactions stage.
    staging: Arc<StagingArea>,
    secrets: Arc<SecretsArea>,
    next: u64,
    /// Nothing new may begin.
    ending: bool,
}

impl Server {
    /// A server without anything to serve. `signals` comes from [`signals::watch`].
    pub(crate) fn new(
        signals: OwnedFd,
        groups: Groups,
        staging: StagingArea,
        secrets: SecretsArea,
    ) -> Result<Self, Errno> {
        let poller = Poller::new()?;
        let workers = Workers::new(&poller)?;
        let mut signals = Watched::new(signals, Source::Signals, &poller);
        signals.watch(Interest::READ)?;
        Ok(Self {
            poller,
            signals,
            listener: None,
            rests_until: None,
            operations: BTreeMap::new(),
            leaders: BTreeMap::new(),
            jobs: Jobs::default(),
            connections: Connections::default(),
            leftovers: Leftovers::default(),
            groups,
            workers,
            staging: Arc::new(staging),
            secrets: Arc::new(secrets),
            next: 1,
            ending: false,
        })
    }

    /// Accepts operations from this listening, non-blocking socket.
    pub(crate) fn listen(&mut self, socket: OwnedFd, peers: Peers) -> Result<(), Errno> {
        let mut listener = Watched::new(socket, Source::Listener, &self.poller);
        listener.watch(Interest::READ)?;
        self.listener = Some((listener, peers));
        Ok(())
    }

    /// Serves one operation on this connected, non-blocking socket.
    pub(crate) fn serve(&mut self, socket: OwnedFd) -> Result<(), Errno> {
        let id = OperationId(self.next);
        self.next += 1;
        let mut stream = Stream::new(socket, id, &self.poller);
        if self.operations.len() >= OPERATIONS_MAX {
            stream.say(&failed(
                ErrorCode::OutOfResources,
                format!("the guest runs {OPERATIONS_MAX} operations already"),
            ));
            let _ = stream.flush();
            return Ok(());
        }
        stream.watch(Interest::READ)?;
        self.operations.insert(
            id,
            Operation {
                stream,
                state: State::Waiting,
            },
        );
        Ok(())
    }

    /// Serves until there is a reason not to.
    ///
    /// # Errors
    /// Only what leaves the loop blind: a failing epoll instance.
    pub(crate) fn run(&mut self) -> Result<Finished, Errno> {
        loop {
            if self.listener.is_none() && self.operations.is_empty() && self.connections.is_empty()
            {
                return Ok(Finished::Ended);
            }
            let turn = self.turn(None)?;
            if turn.terminate && !rustix::process::getpid().is_init() {
                return Ok(Finished::Ended);
            }
            if let Some(farewell) = self.take_farewell() {
                return Ok(Finished::PowerOff(farewell));
            }
        }
    }
}
