//! One workspace in memory.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use pyro_client::types::{ApiError, Workspace, WorkspaceState};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::exec::Execs;
use super::listing::{Grounds, Piece};
use super::living::Living;
use super::occupancy::Occupied;
use super::{Engine, blocking};
use crate::error::{Code, Error, Result};
use crate::machine::guest::Guest;
use crate::records::journal::Journal;
use crate::records::state::StateDir;
use crate::records::{Phase, Record, WorkspaceId, activity};

/// A workspace: its record, what is going on in it, and who may do what at one time.
#[derive(Debug)]
pub(super) struct Slot {
    id: WorkspaceId,
    folder: PathBuf,
    live: Mutex<Live>,
    /// One record is written at a time.
    writing: tokio::sync::Mutex<()>,
    /// Held alone by what changes the guest or the layers, shared by what needs them to stay.
    pub(super) life: RwLock<()>,
    /// Its commands.
    pub(super) execs: Execs,
    /// What else runs in it, and its secrets.
    pub(super) living: Living,
    piece: Mutex<Option<Piece>>,
}

/// What changes quickly; never held across an await.
#[derive(Debug)]
struct Live {
    record: Arc<Record>,
    last_activity: Timestamp,
    /// Operations that are going on, commands included.
    operations: usize,
    /// The reaper found it expired while something was going on.
    overdue: bool,
    guest: Option<Running>,
}

/// A guest that takes commands. The daemon does not end while there is one.
#[derive(Debug)]
struct Running {
    guest: Arc<Guest>,
    /// Its network ended before it.
    network_failure: Option<ApiError>,
    _occupied: Occupied,
}

impl Slot {
    pub(super) fn new(record: Record, folder: PathBuf) -> Self {
        let noted = activity::noted(&folder);
        let last_activity = record.last_activity_at.max(noted.unwrap_or(Timestamp::MIN));
        let execs = Execs::new(Journal::new(&folder, record.reset_count));
        Self {
            id: record.workspace_id.clone(),
            folder,
            live: Mutex::new(Live {
                record: Arc::new(record),
                last_activity,
                operations: 0,
                overdue: false,
                guest: None,
            }),
            writing: tokio::sync::Mutex::new(()),
            life: RwLock::new(()),
            execs,
            living: Living::default(),
            piece: Mutex::default(),
        }
    }

    pub(super) fn id(&self) -> &WorkspaceId {
        &self.id
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        // A panic in between leaves plain data, each field of it whole.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn record(&self) -> Arc<Record> {
        Arc::clone(&self.live().record)
    }

    pub(super) fn has_name(&self, name: &str) -> bool {
        self.live().record.name.as_deref() == Some(name)
    }

    pub(super) fn state(&self) -> WorkspaceState {
        state_of(&self.live().record.phase)
    }

    /// As it is shown.
    pub(super) fn view(&self) -> Workspace {
        Workspace::from(&self.grounds())
    }

    /// What it is shown by.
    pub(super) fn grounds(&self) -> Grounds {
        let live = self.live();
        Grounds {
            record: Arc::clone(&live.record),
            last_activity: live.last_activity,
            network_failure: live
                .guest
                .as_ref()
                .and_then(|running| running.network_failure.clone()),
            commands: self.execs.count(),
            services: self.living.services.live_count(),
            shells: self.living.shells.count(),
        }
    }

    pub(super) fn last_activity(&self) -> Timestamp {
        self.live().last_activity
    }

    /// Its piece of the list of all, as it was made last.
    pub(super) fn piece(&self) -> MutexGuard<'_, Option<Piece>> {
        self.piece.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the record on disk, then in memory. `change` sees the present record; when it or
    /// the disk refuses, nothing has changed.
    pub(super) async fn commit(
        &self,
        state: &StateDir,
        change: impl FnOnce(&mut Record) -> Result<()>,
    ) -> Result<()> {
        let _alone = self.writing.lock().await;
        let mut record = Record::clone(&self.record());
        change(&mut record)?;
        record.last_activity_at = self.live().last_activity;
        let writer = state.clone();
        let record = blocking(move || {
            writer.write(&record)?;
            Ok(record)
        })
        .await?;
        self.live().record = Arc::new(record);
        Ok(())
    }

    /// The guest that runs.
    ///
    /// # Errors
    /// [`Code::WorkspaceNotRunning`] with what to do about it.
    pub(super) fn guest(&self) -> Result<Arc<Guest>> {
        let live = self.live();
        if let Some(running) = live
            .guest
            .as_ref()
            .filter(|running| !running.guest.has_ended())
        {
            return Ok(Arc::clone(&running.guest));
        }
        let state = match state_of(&live.record.phase) {
            // Its end is about to be noted.
            WorkspaceState::Running => "failed",
            WorkspaceState::Creating => "being created",
            WorkspaceState::Starting => "starting",
            WorkspaceState::Stopping => "being stopped",
            WorkspaceState::Stopped => "stopped",
            WorkspaceState::Failed => "failed",
        };
        Err(Error::new(
            Code::WorkspaceNotRunning,
            format!("the workspace {} is {state}", self.id),
            format!("start it with `pyro workspace start {}`", self.id),
        ))
    }

    /// The guest that runs, once whatever starts or stops one is done. It may be stopped at any
    /// time after.
    pub(super) async fn steady_guest(&self) -> Result<Arc<Guest>> {
        let _steady = self.steady().await?;
        self.guest()
    }

    /// Takes in the guest that now runs, or that there is none.
    pub(super) fn set_guest(&self, guest: Option<(Arc<Guest>, Occupied)>) {
        let running = guest.map(|(guest, occupied)| Running {
            guest,
            network_failure: None,
            _occupied: occupied,
        });
        // Dropped after the lock.
        let _before = std::mem::replace(&mut self.live().guest, running);
    }

    /// Whether this guest is the one that was taken in last.
    pub(super) fn has_guest(&self, guest: &Arc<Guest>) -> bool {
        let live = self.live();
        live.guest
            .as_ref()
            .is_some_and(|running| Arc::ptr_eq(&running.guest, guest))
    }

    /// Notes that a guest's network has ended; whether the guest is still the one that was taken in last.
    pub(super) fn network_ended(&self, guest: &Arc<Guest>, failure: ApiError) -> bool {
        let mut live = self.live();
        let running = live.guest.as_mut();
        match running.filter(|running| Arc::ptr_eq(&running.guest, guest)) {
            Some(running) => {
                running.network_failure = Some(failure);
                true
            }
            None => false,
        }
    }

    /// Refuses what is wanted of a workspace that is on its way out.
    fn stays(&self) -> Result<()> {
        if !matches!(self.live().record.phase, Phase::Deleting) {
            return Ok(());
        }
        Err(Error::new(
            Code::WorkspaceDeleting,
            format!("the workspace {} is being deleted", self.id),
            "make another one",
        ))
    }

    /// Waits until nothing else changes the guest or the layers, and lets nothing else do so
    /// until it is dropped.
    pub(super) async fn alone(&self) -> Result<RwLockWriteGuard<'_, ()>> {
        let guard = self.life.write().await;
        self.stays()?;
        Ok(guard)
    }

    /// Waits until nothing changes the guest or the layers, and lets nothing do so until it is
    /// dropped.
    pub(super) async fn steady(&self) -> Result<RwLockReadGuard<'_, ()>> {
        let guard = self.life.read().await;
        self.stays()?;
        Ok(guard)
    }

    /// Where the monitor's sockets and files are.
    pub(super) fn vm_folder(&self) -> PathBuf {
        self.folder.join("vm")
    }

    /// Notes that something changes the workspace.
    pub(super) fn touch(&self) {
        let now = Timestamp::now();
        {
            let mut live = self.live();
            // The order of a list must not depend on a clock that steps back.
            live.last_activity = live.last_activity.max(now);
        }
        if let Err(error) = activity::note(&self.folder, now) {
            tracing::warn!(workspace = %self.id, %error, "cannot note an activity");
        }
    }

    /// When it is to be reaped; `None` while something is going on, which is then noted.
    pub(super) fn reap_at(&self, now: Timestamp) -> Option<Timestamp> {
        let mut live = self.live();
        let at = live.expires_at();
        if live.operations == 0 {
            return Some(at);
        }
        live.overdue |= at <= now;
        None
    }
}

impl Live {
    fn expires_at(&self) -> Timestamp {
        expires_at(self.last_activity, &self.record)
    }
}

/// When a workspace is reaped if nothing happens until then.
pub(super) fn expires_at(last_activity: Timestamp, record: &Record) -> Timestamp {
    let ttl = i64::try_from(record.ttl_seconds).unwrap_or(i64::MAX);
    last_activity
        .checked_add(SignedDuration::from_secs(ttl))
        .unwrap_or(Timestamp::MAX)
}

pub(super) fn state_of(phase: &Phase) -> WorkspaceState {
    match phase {
        Phase::Creating => WorkspaceState::Creating,
        Phase::Starting => WorkspaceState::Starting,
        Phase::Running => WorkspaceState::Running,
        Phase::Stopping => WorkspaceState::Stopping,
        Phase::Stopped | Phase::Deleting => WorkspaceState::Stopped,
        Phase::Failed { .. } => WorkspaceState::Failed,
    }
}

/// An operation on a workspace, until it is dropped: neither is the workspace reaped meanwhile,
/// nor does the daemon end.
#[derive(Debug)]
pub(super) struct Operation {
    engine: Arc<Engine>,
    slot: Arc<Slot>,
    _occupied: Occupied,
}

impl Engine {
    /// Begins an operation.
    ///
    /// # Errors
    /// [`Code::WorkspaceDeleting`] when the workspace is on its way out.
    pub(super) fn begin(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<Operation> {
        let operation = self.begin_anyhow(slot);
        slot.stays()?;
        Ok(operation)
    }

    /// Begins an operation, whatever the workspace is doing.
    pub(super) fn begin_anyhow(self: &Arc<Self>, slot: &Arc<Slot>) -> Operation {
        let occupied = self.occupancy.enter();
        slot.live().operations += 1;
        Operation {
            engine: Arc::clone(self),
            slot: Arc::clone(slot),
            _occupied: occupied,
        }
    }
}

impl Operation {
    /// Notes that it changed the workspace.
    pub(super) fn changed(&self) {
        self.slot.touch();
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        let mut live = self.slot.live();
        live.operations = live.operations.saturating_sub(1);
        if live.operations == 0 && std::mem::take(&mut live.overdue) {
            self.engine.reap.notify_one();
        }
    }
}
