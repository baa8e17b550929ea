//! The journal of a workspace's commands.
//!
//! A command that runs is a file `<sequence>.running`, written before it is started; one that has
//! ended is `<sequence>.json`. Each reset begins a new folder. The files survive the end of the
//! daemon whole; a host that loses its power may lose the last of them, which then end as lost
//! or missing, never as something else.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use pyro_client::types::ExecRecord;

use super::write::{Survives, read_bounded, replace};
use crate::error::Result;
use crate::run_dir::{private_folder, unwritable};

/// Most entries that are kept.
const MAX_ENTRIES: usize = 1000;
/// Most bytes of entries that are kept.
const MAX_BYTES: u64 = 32 << 20;
/// Most bytes of one entry: both outputs, each byte of them escaped in JSON.
const MAX_ENTRY: u64 = 32 << 20;

/// The journal since one reset. All methods but [`Journal::new`] block.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    folder: PathBuf,
}

/// What a journal holds.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// Ended commands with their files' sizes.
    pub(crate) ended: BTreeMap<u64, u64>,
    /// Commands that ran when the daemon ended.
    pub(crate) running: Vec<ExecRecord>,
    /// The highest number that was given.
    pub(crate) last: u64,
}

impl Journal {
    /// The journal of the workspace in `folder` after this many resets.
    pub(crate) fn new(folder: &Path, resets: u64) -> Self {
        Self {
            folder: folder.join("journal").join(resets.to_string()),
        }
    }

    /// Looks at what there is.
    pub(crate) fn open(&self) -> Result<Contents> {
        let failed = |error| unwritable(&self.folder, error);
        private_folder(&self.folder).map_err(failed)?;
        let mut contents = Contents::default();
        let mut running = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)?.flatten() {
            let name = entry.file_name();
            let Some((sequence, kind)) = name.to_str().and_then(|name| name.split_once('.')) else {
                continue;
            };
            let Ok(sequence) = sequence.parse::<u64>() else {
                continue;
            };
            contents.last = contents.last.max(sequence);
            match kind {
                "json" => {
                    let size = entry.metadata().map_or(0, |meta| meta.len());
                    contents.ended.insert(sequence, size);
                }
                "running" => running.push(sequence),
                _ => {}
            }
        }
        for sequence in running {
            if contents.ended.contains_key(&sequence) {
                let _ = fs::remove_file(self.running(sequence));
            } else if let Some(record) = read(&self.running(sequence)) {
                contents.running.push(record);
            }
        }
        Ok(contents)
    }

    /// Writes down that a command is about to be started. One that is torn means that it was not.
    pub(crate) fn begin(&self, record: &ExecRecord) -> Result<()> {
        let path = self.running(record.sequence);
        let write = || {
            let mut file = File::options()
                .create(true)
                .write(true)
                .truncate(true)
                .mode(0o600)
                .open(&path)?;
            file.write_all(&serde_json::to_vec(record)?)
        };
        write().map_err(|error| unwritable(&self.folder, error))
    }

    /// Writes down how a command ended; gives the size of its file. That a reset or a deletion
    /// has taken the journal away meanwhile is no error: nobody can ask for the entry then.
    pub(crate) fn end(&self, record: &ExecRecord) -> Result<u64> {
        let size = match self.write(&format!("{}.json", record.sequence), record) {
            Err(_) if !self.folder.exists() => return Ok(0),
            written => written?,
        };
        let _ = fs::remove_file(self.running(record.sequence));
        Ok(size)
    }

    fn write(&self, name: &str, record: &ExecRecord) -> Result<u64> {
        let write = || {
            let bytes = serde_json::to_vec(record)?;
            replace(&self.folder, name, &bytes, Survives::Process)?;
            Ok::<_, io::Error>(bytes.len() as u64)
        };
        write().map_err(|error| unwritable(&self.folder, error))
    }

    /// A command that has ended; `None` when it cannot be read.
    pub(crate) fn read(&self, sequence: u64) -> Option<ExecRecord> {
        read(&self.folder.join(format!("{sequence}.json")))
    }

    /// Drops the oldest entries until no more than allowed are left.
    pub(crate) fn trim(&self, ended: &mut BTreeMap<u64, u64>) {
        let mut bytes: u64 = ended.values().sum();
        while ended.len() > 1 && (ended.len() > MAX_ENTRIES || bytes > MAX_BYTES) {
            let Some((sequence, size)) = ended.pop_first() else {
                return;
            };
            bytes -= size;
            let _ = fs::remove_file(self.folder.join(format!("{sequence}.json")));
        }
    }

    /// Removes the journals of former resets.
    pub(crate) fn forget_others(&self) {
        let Some(all) = self.folder.parent() else {
            return;
        };
        for entry in fs::read_dir(all).into_iter().flatten().flatten() {
            if entry.path() != self.folder {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    fn running(&self, sequence: u64) -> PathBuf {
        self.folder.join(format!("{sequence}.running"))
    }
}

fn read(path: &Path) -> Option<ExecRecord> {
    let bytes = read_bounded(path, MAX_ENTRY).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::exec_record;

    #[test]
    fn what_ended_and_what_ran_is_told_apart() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let journal = Journal::new(folder.path(), 0);
        assert_eq!(journal.open().expect("opened").last, 0);
        for sequence in 1..=3 {
            journal.begin(&exec_record(sequence)).expect("written");
        }
        journal.end(&exec_record(1)).expect("written");
        // Killed between the two steps of an end.
        journal.begin(&exec_record(1)).expect("written");
        // Torn by a loss of power.
        fs::write(folder.path().join("journal/0/3.running"), "").expect("written");

        let contents = journal.open().expect("opened");

        assert_eq!(contents.last, 3);
        assert_eq!(contents.ended.keys().copied().collect::<Vec<_>>(), [1]);
        let running: Vec<_> = contents.running.iter().map(|r| r.sequence).collect();
        assert_eq!(running, [2]);
        assert_eq!(journal.read(1), Some(exec_record(1)));
        assert_eq!(journal.read(3), None);
    }

    #[test]
    fn the_oldest_entries_are_dropped_and_the_newest_never() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let journal = Journal::new(folder.path(), 0);
        journal.open().expect("opened");
        let mut ended = BTreeMap::new();
        for sequence in 1..=3 {
            journal.end(&exec_record(sequence)).expect("written");
            ended.insert(sequence, MAX_BYTES / 2);
        }
        journal.trim(&mut ended);
        assert_eq!(ended.keys().copied().collect::<Vec<_>>(), [2, 3]);
        assert_eq!(journal.read(1), None);

        let mut ended = BTreeMap::from([(3, MAX_BYTES * 2)]);
        journal.trim(&mut ended);
        assert_eq!(ended.len(), 1);
    }

    #[test]
    fn a_reset_begins_anew() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let first = Journal::new(folder.path(), 0);
        first.open().expect("opened");
        first.end(&exec_record(1)).expect("written");
        let second = Journal::new(folder.path(), 1);
        assert_eq!(second.open().expect("opened").last, 0);
        second.forget_others();
        assert_eq!(first.read(1), None);
        assert_eq!(first.end(&exec_record(2)).expect("no error"), 0);
        assert!(first.begin(&exec_record(3)).is_err());
        second.end(&exec_record(1)).expect("still there");
    }
}
