//! Workspaces: the [`Engine`] is all that a daemon does, without its socket.
//!
//! There is one engine for a state directory. It keeps every record in memory and on disk
//! (`records`), starts a monitor for every workspace that runs (`machine`), and talks to the agents
//! in their guests. Monitors outlive it: the next engine that is opened on the directory finds them
//! by what is written there, and goes on with them (`reconcile`).
//!
//! Who waits for whom: `list`, `get`, `logs` and `exec_get` wait for nobody. What changes whether
//! there is a guest, or the layers beneath it (start, stop, reset, delete, snapshots), happens
//! alone in its workspace; everything else of a workspace happens beside each other while none of
//! that does. A command holds nothing while it runs, so a stop ends it and does not wait.
//!
//! What changes something runs to its end even when its caller goes away. Only a command that is
//! not detached is cancelled by dropping its [`ExecStream`].

mod create;
mod delete;
mod diff;
mod disk;
mod exec;
mod files;
mod jobs;
mod launcher;
mod life;
mod listing;
mod living;
mod network;
mod occupancy;
mod patches;
mod push;
mod reap;
mod reconcile;
mod run;
mod secrets;
mod services;
mod shells;
mod slot;
mod snapshots;
mod stack;
mod transfer;
mod update;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use jiff::Timestamp;
use pyro_client::types::{
    EnvironmentList, Health, UnreadableRecord, WORKSPACE_ROOT, Workspace, WorkspaceList,
    WorkspaceState,
};
use tokio::sync::{Notify, watch};

pub use exec::ExecStream;
pub use listing::Rendered;
pub use pyro_net::egress::Cidr;
pub use run::{RunStream, check as check_run};
pub use shells::ShellStream;

use launcher::Launcher;
use occupancy::Occupancy;
use slot::Slot;

use crate::environments;
use crate::error::{Code, Error, Result};
use crate::paths::Paths;
use crate::records::WorkspaceId;
use crate::records::state::StateDir;

/// What an engine may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Most workspaces, running or not.
    pub max_workspaces: usize,
    /// Copies guests' consoles to the monitors' logs. Slow.
    pub debug_console: bool,
    /// Ranges of addresses that guests with a network may reach although they would be refused; the
    /// host's own addresses stay refused.
    pub egress_allow: Vec<Cidr>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_workspaces: 1000,
            debug_console: false,
            egress_allow: Vec::new(),
        }
    }
}

/// All workspaces of one state directory.
///
/// Use it in an [`Arc`]; its methods may be called from any task of a tokio runtime with I/O and
/// time enabled. Wherever a workspace is named by text, its id or its name (when only one has it)
/// is accepted.
#[derive(Debug)]
pub struct Engine {
    paths: Paths,
    options: Options,
    state: StateDir,
    index: RwLock<Index>,
    occupancy: Arc<Occupancy>,
    launcher: Launcher,
    /// Where a workspace's files are in its guest: [`WORKSPACE_ROOT`], but for tests.
    root: String,
    /// Wakes the reaper.
    reap: Notify,
    started_at: Timestamp,
}

#[derive(Debug, Default)]
struct Index {
    slots: HashMap<WorkspaceId, Arc<Slot>>,
    unreadable: Vec<UnreadableRecord>,
}

impl Engine {
    /// Opens the state directory: takes its lock, reads every record, adopts the guests that run,
    /// and finishes or undoes what the last daemon was in the middle of.
    ///
    /// Nothing reaps expired workspaces until [`Engine::maintain`] is polled.
    ///
    /// # Errors
    /// [`Code::StateLocked`] when another daemon has it; [`Code::StateUnwritable`]. Records that
    /// cannot be read are no error; [`Engine::list`] reports them.
    pub async fn open(paths: Paths, options: Options) -> Result<Arc<Self>> {
        Self::open_with(
            paths,
            options,
            Launcher::Monitor,
            WORKSPACE_ROOT.to_string(),
        )
        .await
    }

    async fn open_with(
        paths: Paths,
        options: Options,
        launcher: Launcher,
        root: String,
    ) -> Result<Arc<Self>> {
        let folder = paths.state.clone();
        let (state, found) = blocking(move || {
            let state = StateDir::open(&folder)?;
            let found = state.load()?;
            Ok((state, found))
        })
        .await?;
        let unreadable = found
            .unreadable
            .into_iter()
            .map(|unreadable| UnreadableRecord {
                workspace_id: unreadable.name,
                path: unreadable.path.display().to_string(),
                error: unreadable.error.to_api(),
            })
            .collect();
        let slots = found
            .records
            .into_iter()
            .map(|record| {
                let folder = state.folder(&record.workspace_id);
                (
                    record.workspace_id.clone(),
                    Arc::new(Slot::new(record, folder)),
                )
            })
            .collect();
        let engine = Arc::new(Self {
            paths,
            options,
            state,
            index: RwLock::new(Index { slots, unreadable }),
            occupancy: Occupancy::new(),
            launcher,
            root,
            reap: Notify::new(),
            started_at: Timestamp::now(),
        });
        engine.reconcile().await?;
        Ok(engine)
    }

    /// How the daemon is. Waits for nothing.
    pub fn health(&self) -> Health {
        let slots = self.slots();
        let running = slots
            .iter()
            .filter(|slot| slot.state() == WorkspaceState::Running)
            .count();
        Health {
            version: env!("CARGO_PKG_VERSION").to_string(),
            pid: std::process::id(),
            started_at: self.started_at,
            workspaces: slots.len() as u64,
            running: running as u64,
        }
    }

    /// Since when no guest has run and nothing was going on; `None` while something is.
    pub fn idle_since(&self) -> Option<Instant> {
        *self.occupancy.watch().borrow()
    }

    /// The same, to be waited on: it changes whenever the engine becomes idle or busy.
    pub fn idle(&self) -> watch::Receiver<Option<Instant>> {
        self.occupancy.watch()
    }

    /// Where the engine keeps its things.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// All environments that VMs can be made from.
    pub async fn environments(&self) -> Result<EnvironmentList> {
        let paths = self.paths.clone();
        blocking(move || Ok(environments::overview(&paths))).await
    }

    /// All workspaces, most recent activity first. Reads no disk and waits for nothing.
    pub fn list(&self) -> WorkspaceList {
        let mut workspaces: Vec<Workspace> = self.slots().iter().map(|slot| slot.view()).collect();
        workspaces.sort_by(|a, b| {
            b.last_activity_at
                .cmp(&a.last_activity_at)
                .then_with(|| a.workspace_id.cmp(&b.workspace_id))
        });
        WorkspaceList {
            count: workspaces.len() as u64,
            workspaces,
            unreadable: self.index().unreadable.clone(),
        }
    }

    /// One workspace. Reads no disk and waits for nothing.
    ///
    /// # Errors
    /// [`Code::WorkspaceNotFound`], [`Code::WorkspaceAmbiguous`], as everywhere.
    pub fn get(&self, workspace: &str) -> Result<Workspace> {
        Ok(self.find(workspace)?.view())
    }

    fn index(&self) -> std::sync::RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_mut(&self) -> std::sync::RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn slots(&self) -> Vec<Arc<Slot>> {
        self.index().slots.values().cloned().collect()
    }

    /// The workspace with this id, or else the only one with this name.
    fn find(&self, workspace: &str) -> Result<Arc<Slot>> {
        let index = self.index();
        if let Some(slot) =
            WorkspaceId::parse(workspace).and_then(|id| index.slots.get(&id).cloned())
        {
            return Ok(slot);
        }
        let mut named: Vec<_> = index
            .slots
            .values()
            .filter(|slot| slot.has_name(workspace))
            .collect();
        match named.as_slice() {
            [slot] => Ok(Arc::clone(slot)),
            [] => Err(
                match index
                    .unreadable
                    .iter()
                    .find(|u| u.workspace_id == workspace)
                {
                    Some(unreadable) => Error::new(
                        Code::RecordUnreadable,
                        unreadable.error.message.clone(),
                        unreadable.error.remedy.clone(),
                    ),
                    None => Error::new(
                        Code::WorkspaceNotFound,
                        format!("there is no workspace {workspace:?}"),
                        "see `pyro workspace list`; one that was not used for its time to live is gone",
                    ),
                },
            ),
            _ => {
                named.sort_by(|a, b| a.id().cmp(b.id()));
                let ids: Vec<_> = named.iter().map(|slot| slot.id().as_str()).collect();
                Err(Error::new(
                    Code::WorkspaceAmbiguous,
                    format!("{} workspaces have the name {workspace:?}", ids.len()),
                    format!("say which by its id: {}", ids.join(", ")),
                ))
            }
        }
    }
}

/// A duration as documents have it: milliseconds with three decimals, which any reader of JSON gets
/// back as they were written.
fn milliseconds(duration: std::time::Duration) -> f64 {
    let micros = u32::try_from(duration.as_micros());
    micros.map_or_else(
        |_| duration.as_secs_f64() * 1e3,
        |micros| f64::from(micros) / 1e3,
    )
}

/// Runs what blocks on a thread where that harms nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    flatten(tokio::task::spawn_blocking(work).await)
}

/// Runs `work` to its end even when the caller goes away.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    flatten(tokio::spawn(work).await)
}

fn flatten<T>(joined: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    joined.unwrap_or_else(|error| {
        Err(Error::new(
            Code::Interrupted,
            "the operation was given up before its end",
            "look at the workspace's state, then try again; report it when the daemon was not ending",
        )
        .caused_by(error))
    })
}

#[cfg(test)]
mod tests;
