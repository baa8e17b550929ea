//! What a job's program writes: into what is kept of it, from there to whoever is attached.

use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use pyro_agent_protocol::JOBS_OUTPUT_MAX;
use rustix::io::Errno;

use super::capture::Capture;
use super::{Job, Progress};
use crate::serve::exec::Sink;
use crate::serve::poller::{OperationId, Output};
use crate::serve::stream::{Gone, PIECE};
use crate::serve::{Operation, Server, State};

/// Where a job's output goes.
struct Captures<'a> {
    captures: &'a mut [Capture; 2],
    held: [Option<u64>; 2],
    may_grow: bool,
    /// What the pipes hold at the program's end is taken in any case.
    ending: bool,
}

impl Sink for Captures<'_> {
    fn has_room(&self, output: Output) -> bool {
        self.ending || self.captures[output as usize].has_room()
    }

    fn relay(&mut self, pipe: BorrowedFd<'_>, output: Output, most: usize) -> Result<usize, Errno> {
        let mut piece = [const { MaybeUninit::<u8>::uninit() }; PIECE];
        let (bytes, _) = rustix::io::read(pipe, &mut piece[..most.min(PIECE)])?;
        let held = self.held[output as usize];
        self.captures[output as usize].push(bytes, self.may_grow, held);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Gone> {
        Ok(())
    }
}

impl Server {
    /// There is output of a job.
    pub(in crate::serve) fn job_output(&mut self, number: OperationId, output: Output) {
        let held = self.held(number);
        let may_grow = self.may_grow();
        if let Some(Job {
            captures,
            progress: Progress::Running(exec),
            ..
        }) = self.jobs.all.get_mut(&number)
        {
            let mut sink = Captures {
                captures,
                held,
                may_grow,
                ending: false,
            };
            exec.output_ready(output, &mut sink);
        }
        self.job_goes_on(number);
    }

    /// Whatever a job's state allows now: its end, its followers' turn, its pipes.
    pub(in crate::serve) fn job_goes_on(&mut self, number: OperationId) {
        let held = self.held(number);
        let may_grow = self.may_grow();
        let Some(job) = self.jobs.all.get(&number) else {
            return;
        };
        for id in job.writers.clone() {
            self.write_on(id);
        }
        let Some(job) = self.jobs.all.get_mut(&number) else {
            return;
        };
        let mut ended = None;
        if let Progress::Running(exec) = &mut job.progress {
            let mut sink = Captures {
                captures: &mut job.captures,
                held,
                may_grow,
                ending: true,
            };
            if let Some(end) = exec.advance(&mut sink) {
                ended = Some(std::mem::replace(&mut job.progress, Progress::Ended(end)));
            }
        }
        for id in job.followers.clone() {
            self.follow(id);
        }
        // Those that still write get to know that it is too late.
        let job = self.jobs.all.get(&number);
        for id in job.map_or_else(Vec::new, |job| job.writers.clone()) {
            self.write_on(id);
        }
        // Parting with the program's cgroup takes longer than all before it.
        if let Some(Progress::Running(exec)) = ended {
            self.part_with(number, *exec, false);
        }
        self.watch_job(number);
    }

    /// Watches a job's pipes as its followers allow.
    pub(in crate::serve) fn watch_job(&mut self, number: OperationId) {
        let held = self.held(number);
        let Some(job) = self.jobs.all.get_mut(&number) else {
            return;
        };
        for (capture, held) in job.captures.iter_mut().zip(held) {
            capture.trim(held);
        }
        if let Progress::Running(exec) = &mut job.progress {
            let sink = Captures {
                captures: &mut job.captures,
                held,
                may_grow: true,
                ending: false,
            };
            if let Err(errno) = exec.watch(&sink) {
                crate::log::warning(format_args!("cannot watch a program: {errno}"));
                exec.cancel(Instant::now());
            }
        }
    }

    /// The cursors of those streams that a job's program waits for, the last ones.
    fn held(&self, number: OperationId) -> [Option<u64>; 2] {
        let mut held = [None, None];
        let Some(job) = self.jobs.all.get(&number) else {
            return held;
        };
        for id in &job.followers {
            if let Some(Operation {
                state: State::Following(follower),
                ..
            }) = self.operations.get(id)
                && follower.hold
            {
                for (held, cursor) in held.iter_mut().zip(follower.cursors) {
                    *held = Some(held.map_or(cursor, |held: u64| held.min(cursor)));
                }
            }
        }
        held
    }

    fn may_grow(&self) -> bool {
        let captures = self.jobs.all.values().flat_map(|job| &job.captures);
        captures.map(Capture::held).sum::<usize>() < JOBS_OUTPUT_MAX
    }
}
