//! Streams of the host that reach ports of the guest.
//!
//! An operation [attempts](Attempt) to connect; once that is done it is an operation no more, but a
//! [`Connection`] that relays bytes. Neither costs a thread, and an idle one no buffer.

mod attempt;
mod relay;

use std::collections::BTreeMap;
use std::time::Instant;

use pyro_agent_protocol::{CONNECTIONS_MAX, Connect, ConnectEvent, ErrorCode};

pub(super) use self::attempt::Attempt;
use self::attempt::Progress;
use self::relay::Connection;
use super::poller::{Interest, OperationId};
use super::{Operation, Server, State};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Connections {
    all: BTreeMap<OperationId, Connection>,
}

impl Connections {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.all.values().filter_map(Connection::deadline).min()
    }

    /// Lets go of those whose host has gone.
    pub(super) fn check_time(&mut self, now: Instant) {
        self.all
            .retain(|_, connection| connection.check_time(now).is_ok());
    }

    /// Something happened to a connection. False when there is none of this number.
    pub(super) fn happened(&mut self, id: OperationId) -> bool {
        let Some(connection) = self.all.get_mut(&id) else {
            return false;
        };
        if connection.relay().is_err() {
            self.all.remove(&id);
        }
        true
    }
}

impl Server {
    /// Begins to connect.
    pub(super) fn connect(&mut self, id: OperationId, request: &Connect) {
        let attempts = |operation: &&Operation| matches!(operation.state, State::Connecting(_));
        let attempts = self.operations.values().filter(attempts).count();
        if attempts + self.connections.all.len() >= CONNECTIONS_MAX {
            let message = format!("the guest has {CONNECTIONS_MAX} connections already");
            let code = ErrorCode::OutOfResources;
            return self.answer(id, &ConnectEvent::Failed { code, message });
        }
        match Attempt::new(request) {
            Ok(attempt) => {
                if let Some(operation) = self.operations.get_mut(&id) {
                    // It begins once all that came with the request has been looked at.
                    operation.state = State::Connecting(attempt);
                }
            }
            Err(refusal) => self.answer(id, &refusal),
        }
    }

    /// Goes on with an attempt: it has just begun, its socket is ready, or its time is up.
    pub(super) fn attempt(&mut self, id: OperationId) {
        let Some(Operation {
            stream,
            state: State::Connecting(attempt),
        }) = self.operations.get_mut(&id)
        else {
            return;
        };
        match attempt.go_on(id, &self.poller) {
            Progress::Waits => {
                let interest = Interest {
                    peer_closed: true,
                    ..Interest::NONE
                };
                if let Err(errno) = stream.watch(interest) {
                    crate::log::warning(format_args!("cannot watch a stream: {errno}"));
                    self.end(id, true);
                }
            }
            Progress::Failed(refusal) => {
                self.answer(id, &refusal);
                self.advance(id);
            }
            Progress::Connected(peer) => {
                let Some(mut operation) = self.operations.remove(&id) else {
                    return;
                };
                operation.stream.say(&ConnectEvent::Connected);
                // Half a frame has come already: this host does not wait for the answer.
                let Some((host, unsent)) = operation.stream.into_raw() else {
                    return;
                };
                let mut connection = Connection::new(host, unsent, peer);
                if connection.relay().is_ok() {
                    self.connections.all.insert(id, connection);
                }
            }
        }
    }
}
