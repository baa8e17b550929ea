//! One workspace in memory.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use pyro_client::types::{WORKSPACE_ROOT, Workspace, WorkspaceState};

use super::occupancy::Occupied;
use super::{Engine, blocking};
use crate::error::{Code, Error, Result};
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
    pub(super) life: tokio::sync::RwLock<()>,
}

/// What changes quickly; never held across an await.
#[derive(Debug)]
struct Live {
    record: Arc<Record>,
    last_activity: Timestamp,
    command_count: u64,
    /// Operations that are going on, commands included.
    operations: usize,
    /// The reaper found it expired while something was going on.
    overdue: bool,
}

impl Slot {
    pub(super) fn new(record: Record, folder: PathBuf) -> Self {
        let noted = activity::noted(&folder);
        let last_activity = record.last_activity_at.max(noted.unwrap_or(Timestamp::MIN));
        Self {
            id: record.workspace_id.clone(),
            folder,
            live: Mutex::new(Live {
                record: Arc::new(record),
                last_activity,
                command_count: 0,
                operations: 0,
                overdue: false,
            }),
            writing: tokio::sync::Mutex::new(()),
            life: tokio::sync::RwLock::new(()),
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
        let live = self.live();
        let record = &live.record;
        let failure = match &record.phase {
            Phase::Failed { failure } => Some(failure.clone()),
            _ => None,
        };
        Workspace {
            workspace_id: record.workspace_id.to_string(),
            name: record.name.clone(),
            labels: record.labels.clone(),
            environment: record.environment.name.clone(),
            state: state_of(&record.phase),
            failure,
            vcpu_count: u64::from(record.vcpu_count),
            mem_mib: u64::from(record.mem_mib),
            network_policy: record.network_policy,
            ttl_seconds: record.ttl_seconds,
            created_at: record.created_at,
            last_activity_at: live.last_activity,
            expires_at: live.expires_at(),
            workspace_path: WORKSPACE_ROOT.to_string(),
            seed: record.seed.clone(),
            command_count: live.command_count,
            snapshot_count: record.disk.snapshots.len() as u64,
            reset_count: record.reset_count,
            last_reset_at: record.last_reset_at,
        }
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

    pub(super) fn set_command_count(&self, count: u64) {
        self.live().command_count = count;
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
        let ttl = i64::try_from(self.record.ttl_seconds).unwrap_or(i64::MAX);
        self.last_activity
            .checked_add(SignedDuration::from_secs(ttl))
            .unwrap_or(Timestamp::MAX)
    }
}

fn state_of(phase: &Phase) -> WorkspaceState {
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
        let occupied = self.occupancy.enter();
        let mut live = slot.live();
        if matches!(live.record.phase, Phase::Deleting) {
            return Err(Error::new(
                Code::WorkspaceDeleting,
                format!("the workspace {} is being deleted", slot.id),
                "make another one",
            ));
        }
        live.operations += 1;
        drop(live);
        Ok(Operation {
            engine: Arc::clone(self),
            slot: Arc::clone(slot),
            _occupied: occupied,
        })
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
