//! `pyro workspace`: one module a command, each one call of the daemon.
//!
//! A module turns flags into a request, and the result into words. With `--json` the result is
//! printed as it came.

mod changes;
mod create;
mod disk;
mod exec;
mod files;
mod life;
mod list;
mod logs;
mod services;
mod shells;
mod snapshots;
mod status;
mod transfer;

use std::collections::BTreeMap;

use pyro_client::ClientError;
use pyro_client::types::{Skipped, Workspace as Record, WorkspaceState};
use pyro_engine::paths::Paths;
use serde::Serialize;

use crate::args::{SecretVariable, Workspace};
use crate::interrupt::Interrupts;
use crate::output::{Colour, Failure, escape, human, note, print, print_json};
use crate::progress::Working;

pub(crate) async fn workspace(command: Workspace, paths: &Paths) -> Result<u8, Failure> {
    match command {
        Workspace::Create(args) => create::create(args, paths).await?,
        Workspace::List(json) => list::list(json.json).await?,
        Workspace::Update(args) => life::update(args).await?,
        Workspace::Status(of) => status::status(&of).await?,
        Workspace::Logs(of) => logs::logs(&of).await?,
        Workspace::Delete(of) => life::delete(&of).await?,
        Workspace::Stop(of) => life::stop(&of).await?,
        Workspace::Start(of) => life::start(&of).await?,
        Workspace::Exec(args) => return exec::exec(args).await,
        Workspace::Sync { command } => transfer::sync(command).await?,
        Workspace::Export(args) => transfer::export(args).await?,
        Workspace::Diff(of) => changes::diff(&of).await?,
        Workspace::File { command } => files::file(command).await?,
        Workspace::Patch { command } => changes::patch(command).await?,
        Workspace::Snapshot { command } => snapshots::snapshot(command).await?,
        Workspace::Reset(args) => snapshots::reset(args).await?,
        Workspace::Service { command } => services::service(command).await?,
        Workspace::Shell { command } => shells::shell(command).await?,
        Workspace::Disk { command } => disk::disk(command).await?,
    }
    Ok(0)
}

/// Prints a result: as a document, or in the words that `human` finds for it.
fn show<T: Serialize>(
    json: bool,
    result: &T,
    human: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    if json {
        print_json(result)?;
    } else {
        print(&human(result))?;
    }
    Ok(())
}

/// Waits for a call that takes a while, and shows that on a terminal. A signal ends the waiting, not
/// the daemon's work.
async fn long<T>(
    doing: &str,
    call: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, Failure> {
    let interrupts = Interrupts::install()?;
    let _working = Working::start(doing);
    tokio::select! {
        result = call => Ok(result?),
        signal = interrupts.next() => Err(Failure::Interrupted(signal)),
    }
}

/// What people call a workspace: its name and its id, in one line.
fn called(record: &Record) -> String {
    match &record.name {
        Some(name) => format!("{} ({})", record.workspace_id, escape::line(name)),
        None => record.workspace_id.clone(),
    }
}

fn state(state: WorkspaceState) -> (&'static str, Option<Colour>) {
    match state {
        WorkspaceState::Creating => ("creating", Some(Colour::Yellow)),
        WorkspaceState::Starting => ("starting", Some(Colour::Yellow)),
        WorkspaceState::Running => ("running", Some(Colour::Green)),
        WorkspaceState::Stopping => ("stopping", Some(Colour::Yellow)),
        WorkspaceState::Stopped => ("stopped", None),
        WorkspaceState::Failed => ("failed", Some(Colour::Red)),
    }
}

/// Variables by secret. One that is given twice is a mistake.
fn secret_env(given: Vec<SecretVariable>) -> Result<BTreeMap<String, String>, Failure> {
    let mut map = BTreeMap::new();
    for SecretVariable { secret, variable } in given {
        if map.insert(secret.clone(), variable).is_some() {
            return Err(Failure::new(
                "invalid_environment",
                format!("the secret {} is given twice", escape::quoted(&secret)),
                "give each secret once",
            ));
        }
    }
    Ok(map)
}

/// Most things left behind that are named to a person.
const NAMED: usize = 10;

/// Says what was left behind.
fn note_skipped(skipped: &[Skipped], total: u64) {
    if total == 0 {
        return;
    }
    note(&format!(
        "pyro: {} stayed behind:",
        human::count(total, "path")
    ));
    for one in skipped.iter().take(NAMED) {
        note(&format!(
            "  {}: {}",
            escape::line(&one.path),
            escape::line(&one.reason)
        ));
    }
    let unnamed = total.saturating_sub(skipped.len().min(NAMED) as u64);
    if unnamed > 0 {
        note(&format!("  and {unnamed} more (--json names up to 100)"));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use pyro_client::types::{NetworkPolicy, Seed, SeedKind, Workspace, WorkspaceState};

    /// A workspace that runs.
    pub(super) fn workspace(id: &str, name: Option<&str>) -> Workspace {
        Workspace {
            workspace_id: id.into(),
            name: name.map(Into::into),
            labels: BTreeMap::new(),
            environment: "debian:12".into(),
            state: WorkspaceState::Running,
            failure: None,
            vcpu_count: 1,
            mem_mib: 1024,
            network_policy: NetworkPolicy::Off,
            network_failure: None,
            ttl_seconds: 600,
            created_at: Timestamp::UNIX_EPOCH,
            last_activity_at: Timestamp::UNIX_EPOCH,
            expires_at: Timestamp::UNIX_EPOCH,
            workspace_path: "/workspace".into(),
            seed: Seed {
                kind: SeedKind::Empty,
                path: None,
                entries: 0,
                bytes: 0,
                skipped: Vec::new(),
                skipped_count: 0,
            },
            command_count: 0,
            snapshot_count: 0,
            reset_count: 0,
            last_reset_at: None,
            secrets: Vec::new(),
            service_count: 0,
            shell_count: 0,
        }
    }
}
