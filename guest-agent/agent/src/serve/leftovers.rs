//! What execs leave behind when their operation is over: background children that go on, whose
//! output nobody reads any more, and killed groups that take a moment to be gone.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::exec::Remains;
use super::poller::{Interest, OperationId, Output, Watched};
use super::stream::PIECE;
use crate::program::group::Group;

/// How soon a killed group is looked at again.
const SOON: Duration = Duration::from_millis(20);
/// A killed group that is not gone after this long sits in the kernel; it is looked at rarely.
const STUBBORN: Duration = Duration::from_secs(2);
/// How soon a stubborn group is looked at again.
const LATER: Duration = Duration::from_secs(1);

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    held: BTreeMap<OperationId, Leftover>,
}

#[derive(Debug)]
struct Leftover {
    group: Group,
    /// Read and thrown away, so that a background child neither blocks nor gets SIGPIPE.
    outputs: Vec<(Output, Watched)>,
    /// When it was killed, and when to look again.
    killed: Option<(Instant, Instant)>,
}

impl Leftovers {
    /// Takes over what an exec leaves; kills it if told so.
    pub(super) fn add(&mut self, id: OperationId, remains: Remains, kill: bool) {
        let Remains { mut group, outputs } = remains;
        // Whoever reaps the leader from now on does not know this group.
        if kill {
            group.kill();
        }
        group.leader_gone();
        let now = Instant::now();
        let mut leftover = Leftover {
            group,
            outputs: if kill { Vec::new() } else { outputs },
            killed: kill.then_some((now, now + SOON)),
        };
        leftover
            .outputs
            .retain_mut(|(_, pipe)| pipe.watch(Interest::READ).is_ok());
        if !leftover.is_gone() {
            self.held.insert(id, leftover);
        }
    }

    /// Throws away what a background child has written.
    pub(super) fn discard(&mut self, id: OperationId, output: Output) {
        let Some(leftover) = self.held.get_mut(&id) else {
            return;
        };
        leftover.outputs.retain(|(found, pipe)| {
            let mut piece = [const { MaybeUninit::<u8>::uninit() }; PIECE];
            *found != output
                || match rustix::io::read(pipe, &mut piece[..]) {
                    Ok((bytes, _)) => !bytes.is_empty(),
                    Err(Errno::AGAIN | Errno::INTR) => true,
                    Err(_) => false,
                }
        });
        if leftover.is_gone() {
            self.held.remove(&id);
        }
    }

    /// Forgets the groups that are gone. Worth doing when children have been reaped.
    pub(super) fn tidy(&mut self) {
        self.held.retain(|_, leftover| !leftover.is_gone());
    }

    /// Kills again what should be dead by now.
    pub(super) fn check_time(&mut self, now: Instant) {
        self.held.retain(|_, leftover| {
            let Some((since, next)) = &mut leftover.killed else {
                return true;
            };
            if *next > now {
                return true;
            }
            leftover.group.kill();
            *next = now
                + if now.duration_since(*since) > STUBBORN {
                    LATER
                } else {
                    SOON
                };
            !leftover.is_gone()
        });
    }

    /// Kills what one exec has left, if anything.
    pub(super) fn kill(&mut self, id: OperationId) {
        let Some(leftover) = self.held.get_mut(&id) else {
            return;
        };
        let now = Instant::now();
        leftover.group.kill();
        leftover.outputs.clear();
        leftover.killed.get_or_insert((now, now + SOON));
        if leftover.is_gone() {
            self.held.remove(&id);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.held
            .values()
            .filter_map(|leftover| Some(leftover.killed?.1))
            .min()
    }

    pub(super) fn kill_all(&mut self) {
        let now = Instant::now();
        for leftover in self.held.values_mut() {
            leftover.group.kill();
            leftover.outputs.clear();
            leftover.killed.get_or_insert((now, now + SOON));
        }
        self.tidy();
    }
}

impl Leftover {
    /// Whether nothing of it is left. Removes its cgroup then.
    fn is_gone(&self) -> bool {
        let empty = self.killed.is_none() || self.group.is_empty();
        self.outputs.is_empty() && empty && self.group.remove()
    }
}
