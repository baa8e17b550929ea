//! What every request may use.

use std::sync::Arc;
use std::time::Duration;

use pyro_engine::Engine;
use tokio::sync::{Semaphore, watch};

use crate::idle::Busy;
use crate::metrics::Metrics;

/// How much a client may ask for, and how long it may take to do so.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once; further ones wait in the socket's queue.
    pub connections: usize,
    /// Bodies of more than 1 MiB that are held at once.
    pub large_bodies: usize,
    /// How long a client may take to send a request's head; also how long it may be silent between
    /// two requests.
    pub head: Duration,
    /// How long a client may take to send a request's body.
    pub body: Duration,
    /// How long a client may not take anything of an answer that is complete on our side. A stream
    /// of events may be left for as long as its reader likes: the guest waits then.
    pub stall: Duration,
    /// How long requests may go on when the daemon ends.
    pub drain: Duration,
    /// The user whose connections are taken.
    pub uid: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            large_bodies: 8,
            head: Duration::from_secs(30),
            body: Duration::from_secs(30),
            stall: Duration::from_secs(60),
            drain: Duration::from_secs(10),
            uid: rustix::process::geteuid().as_raw(),
        }
    }
}

/// What every request may use.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) engine: Arc<Engine>,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    pub(crate) busy: Arc<Busy>,
    pub(crate) large_bodies: Semaphore,
    /// True when streams are to end because the daemon does.
    pub(crate) ending: watch::Sender<bool>,
}

impl Context {
    pub(crate) fn new(engine: Arc<Engine>, limits: Limits, busy: Arc<Busy>) -> Arc<Self> {
        Arc::new(Self {
            engine,
            metrics: Metrics::new(),
            busy,
            large_bodies: Semaphore::new(limits.large_bodies),
            limits,
            ending: watch::Sender::new(false),
        })
    }
}
