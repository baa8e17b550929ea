//! Threads for what may block: work on files.
//!
//! The loop owns every stream and every task that waits; a thread owns a task only for one step.
//! Results come back over an eventfd. There are at most four threads, made when they are first
//! needed, in three lanes: one that writes everything out, which may take long; one that commits
//! transactions and replaces secrets, so that this is done one after the other; two for all else. A file system
//! of the guest that never answers can hold up its lane, but neither the loop nor programs.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use pyro_agent_protocol::{ErrorCode, encode_message};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use super::poller::{Interest, OperationId, Poller, Source, Watched};
use super::requests::failed;
use crate::files::{Rest, Step, Task};

/// Threads of each lane.
const THREADS: [usize; 3] = [1, 1, 2];
/// Room for a thread's stack. Nothing that threads do recurses deeply.
const STACK: usize = 256 << 10;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Workers {
    lanes: [Arc<Lane>; THREADS.len()],
    threads: [usize; THREADS.len()],
    results: Arc<Results>,
    event: Watched,
    /// Steps that are queued or being done.
    busy: usize,
}

#[derive(Debug, Default)]
struct Lane {
    queue: Mutex<VecDeque<(OperationId, Task)>>,
    filled: Condvar,
}

#[derive(Debug)]
struct Results {
    steps: Mutex<Vec<(OperationId, Step)>>,
    event: OwnedFd,
}

impl Workers {
    pub(super) fn new(poller: &Poller) -> Result<Self, Errno> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let ours = rustix::io::fcntl_dupfd_cloexec(&event, 3)?;
        let mut watched = Watched::new(ours, Source::Work, poller);
        watched.watch(Interest::READ)?;
        Ok(Self {
            lanes: Default::default(),
            threads: [0; THREADS.len()],
            results: Arc::new(Results {
                steps: Mutex::default(),
                event,
            }),
            event: watched,
            busy: 0,
        })
    }

    /// Has a step of a task done. What it gives will be [collected](Self::collect).
    pub(super) fn submit(&mut self, id: OperationId, task: Task) {
        let number = match task {
            Task::Sync => 0,
            Task::Commit(..) | Task::Secrets(..) => 1,
            _ => 2,
        };
        self.busy += 1;
        let lane = &self.lanes[number];
        if self.threads[number] < THREADS[number] {
            let (ours, results) = (Arc::clone(lane), Arc::clone(&self.results));
            let made = std::thread::Builder::new()
                .stack_size(STACK)
                .spawn(move || ours.work(&results));
            match made {
                Ok(_) => self.threads[number] += 1,
                Err(_) if self.threads[number] > 0 => {}
                Err(_) => {
                    let reason = "the guest has no room for another thread".to_owned();
                    let event = failed(ErrorCode::OutOfResources, reason);
                    let frames = encode_message(&event).expect("a short message fits");
                    let rest = Rest::Done;
                    return self.results.give(id, Step { frames, rest });
                }
            }
        }
        lock(&lane.queue).push_back((id, task));
        lane.filled.notify_one();
    }

    /// The steps that have been done since the last time.
    pub(super) fn collect(&mut self) -> Vec<(OperationId, Step)> {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.event, &mut count);
        let steps = std::mem::take(&mut *lock(&self.results.steps));
        self.busy -= steps.len();
        steps
    }

    /// Whether anything is queued or being done.
    pub(super) fn are_busy(&self) -> bool {
        self.busy > 0
    }
}

impl Lane {
    /// A thread's life, which ends with the process.
    fn work(&self, results: &Results) {
        loop {
            let queue = lock(&self.queue);
            let waited = self.filled.wait_while(queue, |queue| queue.is_empty());
            let next = waited.unwrap_or_else(PoisonError::into_inner).pop_front();
            if let Some((id, task)) = next {
                results.give(id, task.step());
            }
        }
    }
}

impl Results {
    fn give(&self, id: OperationId, step: Step) {
        lock(&self.steps).push((id, step));
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }
}

/// A panic ends the agent, so a poisoned lock is never seen by anyone who goes on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
