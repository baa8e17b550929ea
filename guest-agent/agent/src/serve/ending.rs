//! The end of serving: what runs is outlasted, or killed.

use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use super::jobs::Progress;
use super::{Farewell, Operation, Server, State};
use crate::procfs;

impl Server {
    /// Accepts nothing new, and serves what runs until no child of the agent is left and no file is
    /// worked on, at most for `limit`. True when that is so. Programs that are told to end may write until then, and
    /// their hosts get to know how they ended.
    pub(crate) fn outlast(&mut self, limit: Duration) -> bool {
        self.ending = true;
        self.listener = None;
        let limit = Instant::now() + limit;
        loop {
            match self.turn(limit.checked_duration_since(Instant::now())) {
                Ok(turn) if turn.alone && !self.workers.are_busy() => return true,
                Ok(_) if Instant::now() < limit => {}
                _ => return false,
            }
        }
    }

    /// Kills everything that any operation has started and waits until it is gone, for a while.
    /// For agents that are not PID 1.
    pub(crate) fn kill_all(&mut self) {
        let ids: Vec<_> = self.operations.keys().copied().collect();
        for id in ids {
            self.end(id, true);
        }
        let jobs = std::mem::take(&mut self.jobs);
        for (number, job) in jobs.all {
            if let Progress::Running(exec) = job.progress {
                self.part_with(number, *exec, true);
            }
        }
        self.leftovers.kill_all();
        let limit = Instant::now() + Duration::from_secs(2);
        // Orphans became ours, so what an earlier exec left in the background is found as well.
        loop {
            let left = procfs::descendants(rustix::process::getpid());
            if left.is_empty() || Instant::now() >= limit {
                break;
            }
            for pid in left {
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(2));
            self.reap();
        }
        self.leftovers.tidy();
    }

    pub(super) fn take_farewell(&mut self) -> Option<Farewell> {
        let waits = |operation: &Operation| matches!(operation.state, State::PowerOff);
        let id = *self
            .operations
            .iter()
            .find(|(_, operation)| waits(operation))?
            .0;
        let operation = self.operations.remove(&id)?;
        Some(Farewell(operation.stream))
    }
}
