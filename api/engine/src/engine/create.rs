//! Making a workspace.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use pyro_client::types::{CreateWorkspace, Seed, SeedKind, Skipped, Workspace};
use pyro_rootfs::import::{self, IgnoredFiles, ImportError, ImportLimits};
use pyro_rootfs::tree::{PackedFiles, Quota, StackFiles, Tree};

use super::delete::erase;
use super::launcher::open_pinned;
use super::secrets::{self, Secrets};
use super::slot::Slot;
use super::{Engine, blocking, to_the_end};
use crate::environments;
use crate::error::{Code, Error, Result};
use crate::limits::{Host, Limits, Wanted};
use crate::records::journal::Journal;
use crate::records::state::StateDir;
use crate::records::{Disk, Phase, Pinned, Record, WorkspaceId, names};
use crate::run_dir::quota_bytes;

/// Most inodes of a seeded disk.
const QUOTA_INODES: u64 = 1_000_000;

impl Engine {
    /// Makes a workspace: pulls its environment when it is missing (unless
    /// that is to be refused), seeds `/workspace`, boots the
    /// guest, and answers when it is ready. When anything of it fails, nothing is left.
    pub async fn create(self: &Arc<Self>, request: CreateWorkspace) -> Result<Workspace> {
        let limits = check(&request)?;
        let engine = Arc::clone(self);
        to_the_end(async move {
            let _occupied = engine.occupancy.enter();
            engine.check_host().await?;
            engine.check_room()?;
            let environment = engine
                .environment(&request.environment, request.pull)
                .await?;
            let record = record(&request, limits, environment)?;
            let declared = request.secrets;
            let secrets = blocking(move || Secrets::declared(&declared)).await?;
            engine.check_network(record.network_policy)?;
            engine
                .make(record, request.seed_path.map(PathBuf::from), secrets)
                .await
        })
        .await
    }

    fn check_room(&self) -> Result<()> {
        let most = self.options.max_workspaces;
        if self.index().slots.len() < most {
            return Ok(());
        }
        Err(Error::new(
            Code::TooManyWorkspaces,
            format!("there are {most} workspaces already, which is the most"),
            "delete some with `pyro workspace delete`",
        ))
    }

    /// The environment as it is installed now; one that is not is pulled or refused.
    async fn environment(&self, name: &str, pull: bool) -> Result<Pinned> {
        let recipe = environments::recipe(name)?;
        let paths = self.paths.clone();
        let name = name.to_string();
        blocking(move || {
            let opened = environments::open_or_pull(&paths, recipe, pull)?;
            Ok(Pinned {
                name,
                manifest: opened.manifest,
            })
        })
        .await
    }

    /// Makes what the record says, and boots it.
    async fn make(
        self: &Arc<Self>,
        record: Record,
        seed: Option<PathBuf>,
        secrets: Secrets,
    ) -> Result<Workspace> {
        let id = record.workspace_id.clone();
        // The record comes first: whatever is made from here on belongs to it.
        let state = self.state.clone();
        let (record, secrets) = blocking(move || {
            let mut record = record;
            record.disk.top = Some(state.layers().create()?);
            state.create(&record)?;
            let folder = state.folder(&record.workspace_id);
            Journal::new(&folder, 0).open()?;
            secrets.store(&folder)?;
            Ok((record, secrets))
        })
        .await?;
        let slot = Arc::new(Slot::new(record, self.state.folder(&id)));
        slot.living.set_secrets(secrets);
        let operation = self.begin_anyhow(&slot);
        let _alone = slot.life.write().await;
        self.index_mut().slots.insert(id.clone(), Arc::clone(&slot));
        let made = match self.fill(&slot, seed).await {
            Ok(()) => self.boot(&slot).await,
            Err(error) => Err(error),
        };
        if let Err(error) = made {
            self.index_mut().slots.remove(&id);
            let undone = self.undo(&slot).await;
            if let Err(error) = undone {
                // The next daemon finds the record and finishes this.
                tracing::error!(workspace = %id, %error, "cannot undo a creation");
            }
            return Err(error);
        }
        operation.changed();
        self.reap.notify_one();
        Ok(slot.view())
    }

    /// Makes the baseline: an empty or seeded `/workspace`, frozen.
    async fn fill(&self, slot: &Arc<Slot>, seed: Option<PathBuf>) -> Result<()> {
        let record = slot.record();
        let (state, paths) = (self.state.clone(), self.paths.clone());
        let (seed, top) = blocking(move || {
            let seed = fill(
                &state,
                &environments::store(&paths),
                &record,
                seed.as_deref(),
            )?;
            Ok((seed, state.layers().create()?))
        })
        .await?;
        slot.commit(&self.state, |record| {
            record.seed = seed;
            let baseline: Vec<_> = record.disk.top.replace(top).into_iter().collect();
            record.disk.frozen.clone_from(&baseline);
            record.disk.baseline = baseline;
            Ok(())
        })
        .await
    }

    async fn undo(&self, slot: &Arc<Slot>) -> Result<()> {
        // Whoever waits for the workspace is to find it going, and not without its disk.
        if let Err(error) = self.set_phase(slot, Phase::Deleting).await {
            // A full disk may be why it is undone.
            tracing::warn!(workspace = %slot.id(), %error, "cannot note a deletion");
        }
        self.settle(slot).await?;
        let (state, record) = (self.state.clone(), slot.record());
        blocking(move || erase(&state, &record)).await
    }
}

fn check(request: &CreateWorkspace) -> Result<Limits> {
    if let Some(name) = &request.name {
        names::check_name(name)?;
    }
    names::check_labels(&request.labels)?;
    secrets::check(&request.secrets)?;
    if let Some(path) = &request.seed_path
        && !Path::new(path).is_absolute()
    {
        return Err(Error::new(
            Code::InvalidPath,
            format!("the seed's path {path:?} is not absolute"),
            "pass the absolute path of a directory or an archive on the host",
        ));
    }
    let wanted = Wanted {
        vcpu_count: request.vcpu_count,
        memory_mib: request.mem_mib,
        ttl_seconds: request.ttl_seconds,
        ..Wanted::default()
    };
    environments::recipe(&request.environment)?;
    Limits::check(&wanted, &Host::measure())
}

fn record(request: &CreateWorkspace, limits: Limits, environment: Pinned) -> Result<Record> {
    let now = Timestamp::now();
    let workspace_id = WorkspaceId::random().map_err(|e| {
        Error::new(Code::Io, "the host gives no random bytes", "report this").caused_by(e)
    })?;
    Ok(Record {
        format: crate::records::FORMAT,
        workspace_id,
        name: request.name.clone(),
        labels: request.labels.clone(),
        environment,
        vcpu_count: limits.vcpu_count(),
        mem_mib: limits.memory_mib(),
        network_policy: request.network_policy,
        ttl_seconds: request.ttl_seconds,
        created_at: now,
        last_activity_at: now,
        seed: empty_seed(),
        secrets: secrets::shown(&request.secrets),
        reset_count: 0,
        last_reset_at: None,
        phase: Phase::Creating,
        disk: Disk::default(),
    })
}

fn empty_seed() -> Seed {
    Seed {
        kind: SeedKind::Empty,
        path: None,
        entries: 0,
        bytes: 0,
        skipped: Vec::new(),
        skipped_count: 0,
    }
}

/// Puts the seed into the only layer of a new disk. Blocks.
fn fill(
    state: &StateDir,
    store: &pyro_images::Store,
    record: &Record,
    seed: Option<&Path>,
) -> Result<Seed> {
    let top = record.disk.top.as_ref().expect("a new disk has one layer");
    let layers = open_packed(store, &record.environment)?;
    let mut stack = StackFiles::new(layers, state.layers().open(top)?);
    stack.quota = Quota {
        bytes: quota_bytes(state.layers().folder())?,
        inodes: QUOTA_INODES,
    };
    let mut tree = Tree::open(stack).map_err(|e| damaged().caused_by(e))?;
    let failed = |errno: rustix::io::Errno| unstored(std::io::Error::from(errno));
    let dest = import::make_directories(&mut tree, b"workspace").map_err(failed)?;
    let provenance = match seed {
        None => empty_seed(),
        Some(path) => import_seed(&mut tree, dest, path)?,
    };
    tree.sync().map_err(failed)?;
    Ok(provenance)
}

fn import_seed(tree: &mut Tree, dest: pyro_rootfs::tree::Ino, path: &Path) -> Result<Seed> {
    let ignored = IgnoredFiles::default();
    let limits = ImportLimits::default();
    let kind = if path.is_dir() {
        SeedKind::Directory
    } else {
        SeedKind::Tar
    };
    let summary = import::import_path(tree, dest, path, ignored, limits)
        .map_err(|e| refused_source(e, path))?;
    Ok(Seed {
        kind,
        path: Some(path.display().to_string()),
        entries: entries(&summary),
        bytes: summary.bytes,
        skipped_count: summary.skipped_count + summary.ignored,
        skipped: skipped(summary),
    })
}

/// Files, directories and links of an import.
pub(super) fn entries(summary: &import::ImportSummary) -> u64 {
    summary.files + summary.directories + summary.symlinks + summary.hard_links
}

/// What an import left behind.
pub(super) fn skipped(summary: import::ImportSummary) -> Vec<Skipped> {
    let ignored = (summary.ignored > 0).then(|| Skipped {
        path: ".".to_string(),
        reason: format!("{} files or directories that Git ignores", summary.ignored),
    });
    let named = summary.skipped.into_iter().map(|skipped| Skipped {
        path: skipped.path,
        reason: skipped.reason.to_string(),
    });
    ignored.into_iter().chain(named).take(100).collect()
}

/// The packed layers of a record's environment. Blocks.
pub(super) fn open_packed(
    store: &pyro_images::Store,
    environment: &Pinned,
) -> Result<Vec<PackedFiles>> {
    let opened = open_pinned(store, environment)?;
    let layers = opened.artefacts.layers.into_iter();
    Ok(layers
        .map(|(index, data)| PackedFiles { index, data })
        .collect())
}

/// The error for a seed or a push that is not taken.
pub(super) fn refused_source(error: ImportError, path: &Path) -> Error {
    let (code, remedy) = match &error {
        ImportError::NoSpace { .. } => (
            Code::NoSpace,
            "free space on the host's disk, or take a smaller source".to_string(),
        ),
        ImportError::Seed { .. } => (
            Code::InvalidPath,
            "pass the path of a directory or an archive that this user may read".to_string(),
        ),
        _ => (
            Code::SourceRefused,
            format!("take it out of {}, then try again", path.display()),
        ),
    };
    let sentence = format!("the source {} is not taken", path.display());
    Error::new(code, sentence, remedy).caused_by(error)
}

pub(super) fn damaged() -> Error {
    Error::new(
        Code::DiskDamaged,
        "the workspace's disk cannot be opened",
        "reset the workspace to a snapshot, or delete it; a part of it may be gone from the state \
         directory",
    )
}

fn unstored(error: std::io::Error) -> Error {
    Error::new(
        Code::StateUnwritable,
        "the workspace's disk cannot be written",
        "check the space and the health of the state directory's disk",
    )
    .caused_by(error)
}
