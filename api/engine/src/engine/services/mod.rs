//! Services: named jobs of the agent that run for long.
//!
//! A service's record and log are in the workspace's folder, next to its journal. It is started by
//! `start`, watched by two tasks: one follows its output to its end (`follow`), one looks whether it
//! is ready (`probe`). Both look at the record before they change it, so whoever ends a service first
//! says why. A daemon that finds the record of one that runs goes on with both.

mod follow;
mod log;
mod probe;
mod start;
mod stop;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use pyro_agent_protocol::JobId;
use pyro_client::types::{
    ReadServiceLogs, Readiness, Service, ServiceList, ServiceLogs, ServiceState, StopReason,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::slot::Slot;
use super::{Engine, blocking};
use crate::error::{Code, Error, Result};
use crate::records::{Phase, sheets};
use crate::run_dir::unwritable;

pub(super) use follow::reattach;

/// Most services of a workspace, ended ones as well.
const MAX_SERVICES: usize = 64;
/// Lines of the log that an error has.
const ERROR_LINES: u64 = 20;

/// The services of a workspace.
#[derive(Debug, Default)]
pub(super) struct Services(Mutex<BTreeMap<String, Arc<Entry>>>);

/// One service.
#[derive(Debug)]
struct Entry {
    sheet: watch::Sender<Sheet>,
    /// What is probed: as it was asked for, or, after another daemon, as it was written down.
    readiness: Option<Readiness>,
    /// One record is written at a time.
    writing: tokio::sync::Mutex<()>,
}

/// A service as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Sheet {
    format: u32,
    job: JobId,
    ready_timeout_seconds: u64,
    ready_interval_ms: u64,
    service: Service,
}

const FORMAT: u32 = 1;

/// Where the records and logs are.
pub(super) fn folder(slot: &Slot) -> PathBuf {
    slot.folder().join("services")
}

impl Services {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Entry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entries(&self) -> Vec<Arc<Entry>> {
        self.all().values().cloned().collect()
    }

    /// How many run.
    pub(super) fn live_count(&self) -> u64 {
        let all = self.all();
        all.values().filter(|entry| entry.is_live()).count() as u64
    }

    /// The host's ports that they have.
    pub(super) fn published(&self) -> std::collections::BTreeSet<u16> {
        let all = self.all();
        let published = all.values().flat_map(|entry| entry.service().published);
        published.map(|port| port.host_port).collect()
    }

    /// Reads the records. Blocks.
    pub(super) fn load(&self, slot: &Slot) {
        for sheet in sheets::read::<Sheet>(&folder(slot)) {
            if sheet.format != FORMAT {
                tracing::error!(workspace = %slot.id(), service = sheet.service.name, "a record of another version");
                continue;
            }
            let name = sheet.service.name.clone();
            self.all().insert(name, Arc::new(Entry::new(sheet)));
        }
    }

    pub(super) fn forget(&self) {
        self.all().clear();
    }

    /// Notes that there is no guest any more.
    pub(super) async fn guest_gone(&self, slot: &Slot, reason: StopReason) {
        for entry in self.entries() {
            entry.lost(slot, reason).await;
        }
    }

    /// Notes that no port is published any more.
    pub(super) async fn unpublish(&self, slot: &Slot) {
        for entry in self.entries() {
            entry
                .update(slot, |service| {
                    !std::mem::take(&mut service.published).is_empty()
                })
                .await;
        }
    }

    fn find(&self, slot: &Slot, name: &str) -> Result<Arc<Entry>> {
        self.all().get(name).cloned().ok_or_else(|| {
            Error::new(
                Code::ServiceNotFound,
                format!("the workspace {} has no service {name:?}", slot.id()),
                format!("see `pyro workspace service list {}`", slot.id()),
            )
        })
    }
}

impl Entry {
    fn new(sheet: Sheet) -> Self {
        Self {
            readiness: sheet.service.readiness.clone(),
            sheet: watch::Sender::new(sheet),
            writing: tokio::sync::Mutex::new(()),
        }
    }

    fn service(&self) -> Service {
        self.sheet.borrow().service.clone()
    }

    fn job(&self) -> JobId {
        self.sheet.borrow().job.clone()
    }

    fn is_live(&self) -> bool {
        self.sheet.borrow().service.state.is_live()
    }

    /// Waits until its record is as wanted.
    async fn wait(&self, wanted: impl Fn(&Service) -> bool) -> Service {
        let mut watched = self.sheet.subscribe();
        match watched.wait_for(|sheet| wanted(&sheet.service)).await {
            Ok(sheet) => sheet.service.clone(),
            Err(_) => self.service(),
        }
    }

    /// Changes the record, on the disk first. `change` says whether it has changed anything.
    async fn update(&self, slot: &Slot, change: impl FnOnce(&mut Service) -> bool) -> bool {
        let _alone = self.writing.lock().await;
        let mut sheet = self.sheet.borrow().clone();
        if !change(&mut sheet.service) {
            return false;
        }
        if let Err(error) = write(slot, &sheet).await {
            // The truth in memory is better than none.
            tracing::error!(workspace = %slot.id(), %error, "cannot write down a service");
        }
        self.sheet.send_replace(sheet);
        true
    }

    /// Notes that it went with its guest.
    async fn lost(&self, slot: &Slot, reason: StopReason) {
        self.update(slot, |service| {
            if !service.state.is_live() {
                return false;
            }
            let requested = service.state == ServiceState::Stopping
                && service.stop_reason == Some(StopReason::Requested);
            let stopped = requested || reason == StopReason::WorkspaceStopped;
            service.state = match stopped {
                true => ServiceState::Stopped,
                false => ServiceState::Failed,
            };
            service.stop_reason = service.stop_reason.or(Some(reason));
            if !stopped && service.error.is_none() {
                let error = Error::new(
                    Code::CommandLost,
                    "the guest ended while the service ran",
                    "start the workspace, then the service",
                );
                service.error = Some(error.to_api());
            }
            ended(service);
            true
        })
        .await;
    }
}

/// What is so of every service that does not run any more.
fn ended(service: &mut Service) {
    service.ready = false;
    service.published.clear();
    service.ended_at = Some(Timestamp::now());
}

/// Why a service goes when its guest does.
fn gone_reason(slot: &Slot) -> StopReason {
    match slot.record().phase {
        Phase::Stopping | Phase::Stopped | Phase::Deleting => StopReason::WorkspaceStopped,
        _ => StopReason::GuestEnded,
    }
}

async fn write(slot: &Slot, sheet: &Sheet) -> Result<()> {
    let (folder, sheet) = (folder(slot), sheet.clone());
    blocking(move || {
        sheets::write(&folder, &sheet.service.name, &sheet)
            .map_err(|error| unwritable(&folder, error))
    })
    .await
}

impl Engine {
    /// A workspace's services, by name. Waits for nothing.
    pub fn service_list(&self, workspace: &str) -> Result<ServiceList> {
        let slot = self.find(workspace)?;
        let entries = slot.living.services.entries();
        let services: Vec<_> = entries.iter().map(|entry| entry.service()).collect();
        Ok(ServiceList {
            workspace_id: slot.id().to_string(),
            count: services.len() as u64,
            services,
        })
    }

    /// One service. Waits for nothing.
    ///
    /// # Errors
    /// [`Code::ServiceNotFound`].
    pub fn service_status(&self, workspace: &str, name: &str) -> Result<Service> {
        let slot = self.find(workspace)?;
        Ok(slot.living.services.find(&slot, name)?.service())
    }

    /// The end of a service's log, or all of it that is kept.
    ///
    /// # Errors
    /// [`Code::ServiceNotFound`].
    pub async fn service_logs(
        &self,
        workspace: &str,
        name: &str,
        request: ReadServiceLogs,
    ) -> Result<ServiceLogs> {
        let slot = self.find(workspace)?;
        let state = slot.living.services.find(&slot, name)?.service().state;
        let (text, whole) = log_text(&slot, name).await?;
        let most = if request.all {
            u64::MAX
        } else {
            request.tail_lines
        };
        let (log, lines, more) = log::last_lines(&text, most);
        Ok(ServiceLogs {
            workspace_id: slot.id().to_string(),
            name: name.to_string(),
            state,
            log: log.to_string(),
            lines,
            truncated: more || !whole,
        })
    }
}

/// A service's log, and whether it is all of it.
async fn log_text(slot: &Slot, name: &str) -> Result<(String, bool)> {
    let (folder, name) = (folder(slot), name.to_string());
    let (bytes, whole) =
        blocking(move || log::read(&folder, &name).map_err(|error| unwritable(&folder, error)))
            .await?;
    // It went through the redactor in pieces that a gap or a rotation may have parted.
    let bytes = slot.living.redactor().bytes(&bytes).into_owned();
    Ok((String::from_utf8_lossy(&bytes).into_owned(), whole))
}

/// The last lines of a log, for an error.
async fn last_words(slot: &Slot, name: &str) -> String {
    let (text, _) = log_text(slot, name).await.unwrap_or_default();
    let (lines, _, _) = log::last_lines(&text, ERROR_LINES);
    let lines: Vec<_> = lines.lines().map(crate::exec::printable).collect();
    lines.join("\n")
}
