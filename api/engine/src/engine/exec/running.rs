//! The commands of a workspace: those that run, and how many there were.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyro_agent_protocol::JobId;
use pyro_client::types::{CAPTURE_BYTES, ExecRecord};
use tokio::sync::{Notify, watch};

use super::ends::Ends;
use crate::records::journal::{Contents, Journal};

/// The journal of a workspace, as far as it is in memory.
#[derive(Debug)]
pub(in crate::engine) struct Execs(Mutex<State>);

#[derive(Debug)]
struct State {
    journal: Journal,
    last: u64,
    ended: BTreeMap<u64, u64>,
    running: HashMap<u64, Arc<Running>>,
}

/// A command that runs.
#[derive(Debug)]
pub(super) struct Running {
    /// As it was when it was asked for.
    record: ExecRecord,
    pub(super) job: JobId,
    pub(super) journal: Journal,
    /// Standard output and standard error so far.
    pub(super) output: Mutex<(Ends, Ends)>,
    /// Told when somebody wants it to end.
    pub(super) cancel: Notify,
    ended: watch::Sender<bool>,
}

impl Execs {
    pub(in crate::engine) fn new(journal: Journal) -> Self {
        Self(Mutex::new(State {
            journal,
            last: 0,
            ended: BTreeMap::new(),
            running: HashMap::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what the journal holds.
    pub(super) fn load(&self, contents: &Contents) {
        let mut state = self.state();
        state.last = contents.last;
        state.ended.clone_from(&contents.ended);
    }

    /// Begins a new journal.
    pub(in crate::engine) fn begin_anew(&self, journal: Journal) {
        let mut state = self.state();
        state.journal = journal;
        state.last = 0;
        state.ended.clear();
        state.running.clear();
    }

    pub(super) fn journal(&self) -> Journal {
        self.state().journal.clone()
    }

    /// How many commands there were.
    pub(in crate::engine) fn count(&self) -> u64 {
        self.state().last
    }

    /// Gives the next number to a command.
    pub(super) fn add(&self, record: impl FnOnce(u64) -> ExecRecord) -> Arc<Running> {
        let mut state = self.state();
        state.last += 1;
        let record = record(state.last);
        state.insert(record)
    }

    /// Takes in a command that ran before us.
    pub(super) fn resume(&self, record: ExecRecord) -> Arc<Running> {
        self.state().insert(record)
    }

    pub(super) fn running(&self, sequence: u64) -> Option<Arc<Running>> {
        self.state().running.get(&sequence).cloned()
    }

    /// Whether there was such a command, and it may be kept.
    pub(super) fn has_ended(&self, sequence: u64) -> bool {
        self.state().ended.contains_key(&sequence)
    }

    /// Numbers of what is kept or runs, in order.
    pub(super) fn sequences(&self) -> Vec<u64> {
        let state = self.state();
        let mut all: Vec<u64> = state
            .ended
            .keys()
            .chain(state.running.keys())
            .copied()
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Notes that a command has ended and how long its entry is, and wakes who waits for it.
    pub(super) fn end(&self, running: &Arc<Running>, size: u64) {
        let mut state = self.state();
        let sequence = running.record.sequence;
        // After a reset the number may be another command's.
        let ours = state
            .running
            .get(&sequence)
            .is_some_and(|it| Arc::ptr_eq(it, running));
        if ours {
            state.running.remove(&sequence);
            state.ended.insert(sequence, size);
            let State { journal, ended, .. } = &mut *state;
            journal.trim(ended);
        }
        drop(state);
        running.ended.send_replace(true);
    }
}

impl State {
    fn insert(&mut self, record: ExecRecord) -> Arc<Running> {
        let sequence = record.sequence;
        let job = format!("exec-{sequence}");
        let running = Arc::new(Running {
            record,
            job: job.parse().expect("letters, a dash and digits"),
            journal: self.journal.clone(),
            output: Mutex::new((Ends::new(CAPTURE_BYTES), Ends::new(CAPTURE_BYTES))),
            cancel: Notify::new(),
            ended: watch::Sender::new(false),
        });
        self.running.insert(sequence, Arc::clone(&running));
        running
    }
}

impl Running {
    pub(super) fn sequence(&self) -> u64 {
        self.record.sequence
    }

    pub(super) fn output(&self) -> MutexGuard<'_, (Ends, Ends)> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As it is now.
    pub(super) fn record(&self) -> ExecRecord {
        let output = self.output();
        let (stdout, stderr) = &*output;
        ExecRecord {
            stdout: stdout.text(),
            stderr: stderr.text(),
            stdout_bytes: stdout.total(),
            stderr_bytes: stderr.total(),
            stdout_truncated: stdout.truncated(),
            stderr_truncated: stderr.truncated(),
            ..self.record.clone()
        }
    }

    /// Waits until it has ended and its entry is written.
    pub(super) async fn ended(&self) {
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }
}
