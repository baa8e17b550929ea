//! How a workspace gets its guest.

use std::path::Path;
#[cfg(test)]
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyro_client::types::NetworkPolicy;

use super::{Engine, blocking};
use crate::environments;
use crate::error::{Code, Error, Result};
use crate::kvm;
use crate::limits::{Host, Limits, Wanted};
use crate::machine::guest::{Guest, GuestSpec};
use crate::machine::net::{self, NetSpec};
use crate::machine::process::Process;
use crate::records::{Pinned, Record};
use crate::run_dir::quota_bytes;

/// How long a guest may take until its agent is ready: a second on hardware, and a minute on an
/// emulated host that is busy.
const BOOT_DEADLINE: Duration = Duration::from_secs(120);

/// What is started for a workspace.
#[derive(Debug)]
pub(super) enum Launcher {
    /// A monitor with a VM.
    Monitor,
    /// An agent on this host, in the place of both.
    #[cfg(test)]
    Agent(PathBuf),
}

impl Engine {
    /// Finds out what can be known before anything is made: programs, KVM.
    pub(super) async fn check_host(&self) -> Result<()> {
        match &self.launcher {
            Launcher::Monitor => {
                self.paths.monitor.find()?;
                self.paths.agent.find()?;
                kvm::open_usable(&self.paths).await?;
            }
            #[cfg(test)]
            Launcher::Agent(_) => {}
        }
        Ok(())
    }

    /// Finds out whether guests can have what a policy allows, as far as that can be known.
    pub(super) fn check_network(&self, policy: NetworkPolicy) -> Result<()> {
        match &self.launcher {
            Launcher::Monitor if policy != NetworkPolicy::Off => self.paths.net.find().map(drop),
            _ => Ok(()),
        }
    }

    /// Boots the workspace of a record; answers when its agent is ready. When that fails, nothing
    /// is left running.
    pub(super) async fn launch(&self, record: &Record, folder: &Path) -> Result<Guest> {
        match &self.launcher {
            Launcher::Monitor => {
                let wanted = Wanted {
                    vcpu_count: u64::from(record.vcpu_count),
                    memory_mib: u64::from(record.mem_mib),
                    ..Wanted::default()
                };
                let limits = Limits::check(&wanted, &Host::measure())?;
                let kvm = kvm::open_usable(&self.paths).await?;
                let store = environments::store(&self.paths);
                let pinned = record.environment.clone();
                let layers = self.state.layers();
                let (all, ids) = (layers.clone(), record.disk.clone());
                let (mut artefacts, quota_bytes) = blocking(move || {
                    let opened = open_pinned(&store, &pinned)?;
                    // What is there already counts, too.
                    let there: u64 = ids.stack().map(|id| all.bytes(id)).sum();
                    let quota = quota_bytes(all.folder())?.saturating_add(there);
                    Ok((opened.artefacts, quota))
                })
                .await?;
                let top = record.disk.top.as_ref().ok_or_else(|| {
                    Error::new(
                        Code::DiskDamaged,
                        "the workspace has no disk",
                        "delete it and make another one",
                    )
                })?;
                let net = match record.network_policy {
                    NetworkPolicy::Off => None,
                    policy => Some(NetSpec {
                        program: self.paths.net.find()?,
                        modules: artefacts
                            .network_modules
                            .take()
                            .ok_or_else(|| net::no_modules(&record.environment.name))?,
                        egress_allow: self.options.egress_allow.clone(),
                        publishes: policy == NetworkPolicy::EgressPublishedPorts,
                    }),
                };
                let spec = GuestSpec {
                    limits,
                    kvm,
                    monitor: self.paths.monitor.find()?,
                    agent: self.paths.agent.find()?,
                    artefacts,
                    net,
                    frozen: record
                        .disk
                        .frozen
                        .iter()
                        .map(|id| layers.open(id))
                        .collect::<Result<_>>()?,
                    top: layers.open(top)?,
                    quota_bytes,
                    hostname: record.workspace_id.to_string(),
                    debug_console: self.options.debug_console,
                    folder: folder.to_path_buf(),
                };
                let (guest, ready) = Guest::launch(spec, BOOT_DEADLINE).await?;
                tracing::info!(
                    workspace = %record.workspace_id,
                    monitor = guest.pid(),
                    boot_ms = ready.boot.as_millis(),
                    kernel = %ready.kernel_release,
                    "the guest is ready"
                );
                Ok(guest)
            }
            #[cfg(test)]
            Launcher::Agent(agent) => Guest::launch_agent(agent, folder).await,
        }
    }

    /// Takes over a guest that runs.
    pub(super) async fn adopt(
        &self,
        folder: &Path,
        process: Process,
    ) -> std::result::Result<Arc<Guest>, Process> {
        match &self.launcher {
            Launcher::Monitor => Guest::adopt(folder, process).await.map(Arc::new),
            #[cfg(test)]
            Launcher::Agent(_) => Ok(Arc::new(Guest::adopt_agent(folder, process).await)),
        }
    }
}

/// Opens the environment that a record names. Blocks.
pub(super) fn open_pinned(
    store: &pyro_images::Store,
    pinned: &Pinned,
) -> Result<environments::Opened> {
    match store.open_pinned(&pinned.manifest) {
        Ok(installed) => Ok(installed.into()),
        Err(error @ pyro_images::Error::EnvironmentDamaged { .. }) => Err(Error::new(
            Code::EnvironmentGone,
            format!(
                "the environment {} as it was when the workspace was made is gone or damaged",
                pinned.name
            ),
            format!(
                "run `pyro env pull {}`, which repairs it when it is still the same; the \
                 workspace's own changes are intact",
                pinned.name
            ),
        )
        .caused_by(error)),
        Err(error) => Err(error.into()),
    }
}
