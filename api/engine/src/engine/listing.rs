//! The document of all workspaces.
//!
//! It is asked for all the time and grows with their number, so each workspace keeps its piece of it
//! for as long as that is true, and a list is those pieces one after another.

use std::marker::PhantomData;
use std::sync::Arc;

use jiff::Timestamp;
use pyro_client::types::{ApiError, WORKSPACE_ROOT, Workspace, WorkspaceList};

use super::Engine;
use super::slot::{Slot, expires_at, state_of};
use crate::records::{Phase, Record};

/// A `T` as it crosses the wire: in JSON.
#[derive(Debug, Clone)]
pub struct Rendered<T> {
    json: Vec<u8>,
    of: PhantomData<fn() -> T>,
}

impl<T> Rendered<T> {
    /// The document.
    pub fn into_json(self) -> Vec<u8> {
        self.json
    }
}

/// All that a [`Workspace`] is made from: as long as it is the same, so is the piece.
#[derive(Debug)]
pub(super) struct Grounds {
    /// No other has its address as long as it is held here.
    pub(super) record: Arc<Record>,
    pub(super) last_activity: Timestamp,
    pub(super) network_failure: Option<ApiError>,
    pub(super) commands: u64,
    pub(super) services: u64,
    pub(super) shells: u64,
}

impl PartialEq for Grounds {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.record, &other.record)
            && self.last_activity == other.last_activity
            && self.network_failure == other.network_failure
            && self.commands == other.commands
            && self.services == other.services
            && self.shells == other.shells
    }
}

impl From<&Grounds> for Workspace {
    fn from(grounds: &Grounds) -> Self {
        let record = &grounds.record;
        let failure = match &record.phase {
            Phase::Failed { failure } => Some(failure.clone()),
            _ => None,
        };
        Self {
            workspace_id: record.workspace_id.to_string(),
            name: record.name.clone(),
            labels: record.labels.clone(),
            environment: record.environment.name.clone(),
            state: state_of(&record.phase),
            failure,
            vcpu_count: u64::from(record.vcpu_count),
            mem_mib: u64::from(record.mem_mib),
            network_policy: record.network_policy,
            network_failure: grounds.network_failure.clone(),
            ttl_seconds: record.ttl_seconds,
            created_at: record.created_at,
            last_activity_at: grounds.last_activity,
            expires_at: expires_at(grounds.last_activity, record),
            workspace_path: WORKSPACE_ROOT.to_string(),
            seed: record.seed.clone(),
            command_count: grounds.commands,
            snapshot_count: record.disk.snapshots.len() as u64,
            reset_count: record.reset_count,
            last_reset_at: record.last_reset_at,
            secrets: record.secrets.clone(),
            service_count: grounds.services,
            shell_count: grounds.shells,
        }
    }
}

/// A workspace's piece.
#[derive(Debug)]
pub(super) struct Piece {
    grounds: Grounds,
    json: Vec<u8>,
}

impl Piece {
    fn of(grounds: Grounds) -> Self {
        let json = serde_json::to_vec(&Workspace::from(&grounds)).expect("plain data");
        Self { grounds, json }
    }
}

impl Engine {
    /// The same as [`list`](Self::list), in JSON. Reads no disk and waits for nothing.
    pub fn list_rendered(&self) -> Rendered<WorkspaceList> {
        let mut slots: Vec<(Timestamp, Arc<Slot>)> = self
            .slots()
            .into_iter()
            .map(|slot| (slot.last_activity(), slot))
            .collect();
        slots.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.id().cmp(b.1.id())));
        let mut json = format!("{{\"count\":{},\"workspaces\":[", slots.len()).into_bytes();
        for (number, (_, slot)) in slots.iter().enumerate() {
            if number > 0 {
                json.push(b',');
            }
            let grounds = slot.grounds();
            let mut kept = slot.piece();
            let piece = match kept.take() {
                Some(piece) if piece.grounds == grounds => piece,
                _ => Piece::of(grounds),
            };
            json.extend_from_slice(&piece.json);
            *kept = Some(piece);
        }
        json.extend_from_slice(b"],\"unreadable\":");
        serde_json::to_writer(&mut json, &self.index().unreadable).expect("plain data");
        json.push(b'}');
        Rendered {
            json,
            of: PhantomData,
        }
    }
}
