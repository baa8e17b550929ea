//! The state directory: its lock, and the folders of workspaces.
//!
//! ```text
//! daemon.lock                         held by the one daemon that may change anything here
//! workspaces/<id>/record.json         the record
//! workspaces/<id>/activity            its modification time is the last activity
//! workspaces/<id>/journal/<n>/        commands since the nth reset
//! workspaces/<id>/vm/                 sockets and files of the running monitor
//! workspaces/.new-<id> .gone-<id>     folders that are being made or taken away
//! layers/                             the layer store
//! ```

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::layers::Layers;
use super::record::{FORMAT, Record};
use super::write::{Survives, read_bounded, replace, sync_folder};
use super::{WorkspaceId, activity};
use crate::error::{Code, Error, Result};
use crate::run_dir::{private_folder, unwritable};

/// A record is smaller than this; what is larger is not one.
const MAX_RECORD: u64 = 4 << 20;
const NEW: &str = ".new-";
const GONE: &str = ".gone-";

/// The state directory of this process, locked.
#[derive(Debug, Clone)]
pub(crate) struct StateDir {
    workspaces: PathBuf,
    layers: Layers,
    /// Held for as long as anybody may still write.
    _lock: Arc<File>,
}

/// What lies in the state directory.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) records: Vec<Record>,
    pub(crate) unreadable: Vec<Unreadable>,
}

/// A folder whose record cannot be read.
#[derive(Debug)]
pub(crate) struct Unreadable {
    /// The folder's name.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) error: Error,
}

impl StateDir {
    /// Makes the directory when it is missing, and locks it.
    ///
    /// # Errors
    /// [`Code::StateLocked`] when another daemon has it.
    pub(crate) fn open(state: &Path) -> Result<Self> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |error| unwritable(&path, error)
        };
        private_folder(state).map_err(failed(state))?;
        let path = state.join("daemon.lock");
        let mut lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed(&path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(locked(state, &mut lock)),
            Err(error) => return Err(unwritable(&path, error.into())),
        }
        let mut note = || {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(&lock, "{}", std::process::id())
        };
        note().map_err(failed(&path))?;
        let workspaces = state.join("workspaces");
        let layers = state.join("layers");
        private_folder(&workspaces).map_err(failed(&workspaces))?;
        private_folder(&layers).map_err(failed(&layers))?;
        Ok(Self {
            workspaces,
            layers: Layers::new(layers),
            _lock: Arc::new(lock),
        })
    }

    /// The layers.
    pub(crate) fn layers(&self) -> &Layers {
        &self.layers
    }

    /// The folder of a workspace.
    pub(crate) fn folder(&self, id: &WorkspaceId) -> PathBuf {
        self.workspaces.join(id.as_str())
    }

    /// Reads all records, and takes away what a kill left half made or half removed.
    pub(crate) fn load(&self) -> Result<Found> {
        let entries =
            fs::read_dir(&self.workspaces).map_err(|e| unwritable(&self.workspaces, e))?;
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(NEW) || name.starts_with(GONE) {
                remove_folder(&entry.path()).map_err(|e| unwritable(&entry.path(), e))?;
            }
        }
        read_all(&self.workspaces)
    }

    /// Makes the folder of a new workspace with its first record. Blocks.
    pub(crate) fn create(&self, record: &Record) -> Result<()> {
        let coming = self
            .workspaces
            .join(format!("{NEW}{}", record.workspace_id));
        let folder = self.folder(&record.workspace_id);
        let make = || {
            private_folder(&coming)?;
            private_folder(&coming.join("journal"))?;
            activity::create(&coming, record.last_activity_at)?;
            write_record(&coming, record)?;
            fs::rename(&coming, &folder)?;
            sync_folder(&self.workspaces)
        };
        make().map_err(|e| unwritable(&folder, e))
    }

    /// Writes a record over the one that is there. Blocks until it is on the disk.
    pub(crate) fn write(&self, record: &Record) -> Result<()> {
        let folder = self.folder(&record.workspace_id);
        write_record(&folder, record).map_err(|e| unwritable(&folder, e))
    }

    /// Takes a workspace's folder away with all in it. Blocks. One that is gone is no error.
    pub(crate) fn remove(&self, id: &WorkspaceId) -> Result<()> {
        let folder = self.folder(id);
        let going = self.workspaces.join(format!("{GONE}{id}"));
        let remove = || {
            match fs::rename(&folder, &going) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                renamed => renamed?,
            }
            sync_folder(&self.workspaces)?;
            remove_folder(&going)
        };
        remove().map_err(|e| unwritable(&folder, e))
    }
}

/// Reads the records in a state directory that somebody else may be serving.
pub(crate) fn peek(state: &Path) -> Result<Found> {
    let workspaces = state.join("workspaces");
    if workspaces.is_dir() {
        read_all(&workspaces)
    } else {
        Ok(Found::default())
    }
}

fn read_all(workspaces: &Path) -> Result<Found> {
    let mut found = Found::default();
    let entries = fs::read_dir(workspaces).map_err(|e| unwritable(workspaces, e))?;
    for entry in entries {
        let entry = entry.map_err(|e| unwritable(workspaces, e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(id) = WorkspaceId::parse(&name) else {
            // Not ours.
            continue;
        };
        match read(&entry.path(), &id) {
            Ok(record) => found.records.push(record),
            Err(error) => found.unreadable.push(Unreadable {
                name,
                path: entry.path(),
                error,
            }),
        }
    }
    Ok(found)
}

fn read(folder: &Path, id: &WorkspaceId) -> Result<Record> {
    let path = folder.join("record.json");
    let unreadable = |problem: &str| {
        Error::new(
            Code::RecordUnreadable,
            format!("the record {} {problem}", path.display()),
            "restore it from a backup, or move its folder out of the state directory; \
             nothing of it was changed",
        )
    };
    let bytes =
        read_bounded(&path, MAX_RECORD).map_err(|e| unreadable("cannot be read").caused_by(e))?;
    let value: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|e| unreadable("is not JSON").caused_by(e))?;
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(format) if format == u64::from(FORMAT) => {}
        Some(format) => {
            return Err(unreadable(&format!(
                "has the format {format}, and this version of pyro knows {FORMAT}"
            )));
        }
        None => return Err(unreadable("has no format")),
    }
    let record: Record = serde_json::from_value(value)
        .map_err(|e| unreadable("cannot be understood").caused_by(e))?;
    if record.workspace_id != *id {
        return Err(unreadable("is of another workspace"));
    }
    Ok(record)
}

fn write_record(folder: &Path, record: &Record) -> io::Result<()> {
    let bytes = serde_json::to_vec_pretty(record)?;
    replace(folder, "record.json", &bytes, Survives::Power)
}

fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn locked(state: &Path, lock: &mut File) -> Error {
    let mut holder = String::new();
    let _ = lock.take(20).read_to_string(&mut holder);
    let holder = match holder.trim().parse::<u32>() {
        Ok(pid) => format!("the process {pid}"),
        Err(_) => "another process".to_string(),
    };
    Error::new(
        Code::StateLocked,
        format!(
            "{holder} serves the state directory {} already",
            state.display()
        ),
        "use that daemon, or end it first; another state directory is chosen with PYRO_STATE_DIR",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::record;

    #[test]
    fn a_second_daemon_is_refused_with_the_first_ones_pid() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let first = StateDir::open(folder.path()).expect("opened");

        let error = StateDir::open(folder.path()).expect_err("refused");
        assert_eq!(error.code(), Code::StateLocked);
        assert!(error.message().contains(&std::process::id().to_string()));

        drop(first);
        StateDir::open(folder.path()).expect("free again");
    }

    #[test]
    fn records_come_back_as_they_were_written() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let state = StateDir::open(folder.path()).expect("opened");
        let mut record = record();
        state.create(&record).expect("created");
        record.name = Some("later".into());
        state.write(&record).expect("written");

        let found = state.load().expect("loaded");
        assert_eq!(found.records, [record.clone()]);
        assert!(found.unreadable.is_empty());

        state.remove(&record.workspace_id).expect("removed");
        state.remove(&record.workspace_id).expect("gone already");
        assert!(state.load().expect("loaded").records.is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_reported_and_stays() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let state = StateDir::open(folder.path()).expect("opened");
        let damages: [(&str, &[u8]); 4] = [
            ("ws-aaaaaaaaaaaa", b"{"),
            ("ws-bbbbbbbbbbbb", br#"{"format":99}"#),
            ("ws-cccccccccccc", br#"{"format":1}"#),
            ("ws-dddddddddddd", b""),
        ];
        for (id, bytes) in damages {
            fs::create_dir(folder.path().join("workspaces").join(id)).expect("made");
            let path = folder
                .path()
                .join("workspaces")
                .join(id)
                .join("record.json");
            fs::write(path, bytes).expect("written");
        }
        fs::create_dir(folder.path().join("workspaces/ws-eeeeeeeeeeee")).expect("made");
        fs::create_dir(folder.path().join("workspaces/notes")).expect("made");

        for _ in 0..2 {
            let found = state.load().expect("loaded");
            assert_eq!(found.unreadable.len(), 5);
            assert!(
                found
                    .unreadable
                    .iter()
                    .all(|u| u.error.code() == Code::RecordUnreadable)
            );
        }
        assert!(folder.path().join("workspaces/notes").exists());
    }

    #[test]
    fn half_made_and_half_removed_folders_are_taken_away() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let state = StateDir::open(folder.path()).expect("opened");
        for name in [".new-ws-aaaaaaaaaaaa", ".gone-ws-bbbbbbbbbbbb"] {
            fs::create_dir_all(folder.path().join("workspaces").join(name).join("vm"))
                .expect("made");
        }

        assert!(state.load().expect("loaded").unreadable.is_empty());
        let left = fs::read_dir(folder.path().join("workspaces")).expect("read");
        assert_eq!(left.count(), 0);
    }
}
