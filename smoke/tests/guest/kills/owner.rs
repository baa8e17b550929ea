//! A client with a workspace of its own, of which it knows what must be in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use pyro_client::ClientError;
use pyro_client::types::{
    BASELINE, CreateSnapshot, CreateWorkspace, Encoding, ExecRecord, ExecRequest, ExecState,
    NetworkPolicy, Reset, SyncPush, UpdateWorkspace, Workspace, WorkspaceState, WriteFile,
};
use tokio::sync::watch;

use super::calls::Calls;
use super::disk::{self, Disk};
use super::living::Living;
use super::random::Random;
use super::story::Story;
use super::{ENVIRONMENT, MEMORY_MIB};
use crate::daemon::Daemon;

/// Seconds of a command's time; hosts may be emulated.
const COMMAND_SECONDS: u64 = 200;
const LABEL: &str = "number";

pub(super) struct Owner {
    calls: Calls,
    number: usize,
    random: Random,
    /// Nothing is ever called by a number twice.
    counter: u64,
    /// A folder of the host that is pushed from.
    source: PathBuf,
    home: Option<Home>,
}

/// The owner's workspace.
struct Home {
    id: String,
    running: bool,
    living: Living,
    disk: Disk,
    /// The disk at each snapshot.
    snapshots: BTreeMap<String, Disk>,
    resets: u64,
    /// The label may have any of these values; the last one is wanted.
    labels: Vec<Option<String>>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Write,
    Shell,
    Push,
    Check,
    Live,
    Label,
    Snapshot,
    Forget,
    Reset,
    Stop,
    Start,
    Delete,
}

const RUNNING: &[(u64, Step)] = &[
    (24, Step::Write),
    (14, Step::Shell),
    (8, Step::Push),
    (10, Step::Check),
    (60, Step::Live),
    (8, Step::Label),
    (10, Step::Snapshot),
    (4, Step::Forget),
    (7, Step::Reset),
    (7, Step::Stop),
    (4, Step::Delete),
];
const STOPPED: &[(u64, Step)] = &[
    (30, Step::Start),
    (3, Step::Snapshot),
    (2, Step::Label),
    (2, Step::Reset),
    (3, Step::Delete),
];

/// What was asked for and not answered.
enum Doubt {
    Creation { name: String },
    Deletion,
    Snapshot { name: String },
    Forgetting { name: String },
    Reset { to: Disk },
    Nothing,
}

impl Owner {
    pub(super) fn new(daemon: &Daemon, story: &Arc<Story>, number: usize, random: Random) -> Self {
        Self {
            calls: Calls::new(daemon, story, format!("owner {number}")),
            number,
            random,
            counter: 0,
            source: daemon.path(&format!("source-{number}")),
            home: None,
        }
    }

    /// The id of the workspace that must be there.
    pub(super) fn workspace(&self) -> Option<&str> {
        self.home.as_ref().map(|home| home.id.as_str())
    }

    /// Does one thing after the other until it is told to stop.
    pub(super) async fn live(mut self, stopped: watch::Receiver<bool>) -> Self {
        while !*stopped.borrow() {
            self.step().await;
        }
        self
    }

    /// Starts the workspace, which nobody disturbs, and holds its disk against what must be there.
    /// One without a network gets another with the next guest.
    pub(super) async fn revive(&mut self, without_network: &[String]) {
        self.settle(Doubt::Nothing).await;
        let Some(home) = &mut self.home else { return };
        if home.running && without_network.contains(&home.id) {
            let stopped = self.calls.client().stop(&home.id).await;
            stopped.expect("a workspace without a network stops");
            home.disk.maybe_lost();
            home.running = false;
        }
        if !home.running {
            home.living.gone();
            let started = self.calls.client().start(&home.id).await;
            started.expect("a workspace that survived starts");
        }
        let home = self.home.as_mut().expect("seen above");
        home.running = true;
        self.calls
            .tell(format!("{} must be there", home.disk.count()));
        self.check().await.expect("nobody disturbs");
    }

    fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn name(&mut self, prefix: &str) -> String {
        let (owner, number) = (self.number, self.next());
        format!("{prefix}-{owner}-{number}")
    }

    async fn step(&mut self) {
        let choices = match &self.home {
            None => {
                self.create().await;
                return;
            }
            Some(home) if home.running => RUNNING,
            Some(_) => STOPPED,
        };
        match self.random.weighted(choices) {
            Step::Write => self.write().await,
            Step::Shell => self.shell().await,
            Step::Push => self.push().await,
            Step::Check => {
                if self.check().await.is_err() {
                    self.settle(Doubt::Nothing).await;
                }
            }
            Step::Live => self.live_on().await,
            Step::Label => self.label().await,
            Step::Snapshot => self.snapshot().await,
            Step::Forget => self.forget().await,
            Step::Reset => self.reset().await,
            Step::Stop => self.stop().await,
            Step::Start => self.start().await,
            Step::Delete => self.delete().await,
        }
    }

    async fn create(&mut self) {
        let name = self.name("owner");
        let policies = [
            (2, NetworkPolicy::EgressPublishedPorts),
            (1, NetworkPolicy::Off),
        ];
        let request = CreateWorkspace {
            network_policy: self.random.weighted(&policies),
            mem_mib: MEMORY_MIB,
            ttl_seconds: 24 * 3600,
            name: Some(name.clone()),
            ..CreateWorkspace::new(ENVIRONMENT)
        };
        let call = self.calls.client().create(&request);
        match self.calls.call("create", &[], call).await {
            Ok(workspace) => self.home = Some(Home::new(&workspace)),
            Err(_) => self.settle(Doubt::Creation { name }).await,
        }
    }

    /// Through the API, then a sync: the file is there from then on.
    async fn write(&mut self) {
        let name = self.name("w");
        let home = self.home.as_mut().expect("the caller has looked");
        home.disk.trying(&name);
        let request = WriteFile {
            path: name.clone(),
            content: disk::content(&name),
            encoding: Encoding::Utf8,
            expect_sha256: None,
        };
        let call = self.calls.client().file_write(&home.id, &request);
        if self.calls.call("file write", &[], call).await.is_err() {
            return self.settle(Doubt::Nothing).await;
        }
        home.disk.written(&name);
        if self.random.below(3) > 0 {
            self.sync().await;
        }
    }

    async fn sync(&mut self) {
        if self.exec("sync").await.is_ok() {
            let home = self.home.as_mut().expect("the caller has looked");
            home.disk.synced();
        } else {
            self.settle(Doubt::Nothing).await;
        }
    }

    /// By a command that syncs itself.
    async fn shell(&mut self) {
        let name = self.name("s");
        let home = self.home.as_mut().expect("the caller has looked");
        home.disk.trying(&name);
        let lines = disk::lines(&name);
        let script = format!("yes {name} | head -n {lines} >{name}; sync");
        if self.exec(&script).await.is_ok() {
            let home = self.home.as_mut().expect("the caller has looked");
            home.disk.written(&name);
            home.disk.synced();
        } else {
            self.settle(Doubt::Nothing).await;
        }
    }

    async fn push(&mut self) {
        let name = self.name("p");
        let names = ["a", "b"].map(|letter| format!("{name}-{letter}"));
        let _ = fs::remove_dir_all(&self.source);
        fs::create_dir(&self.source).expect("a folder");
        let home = self.home.as_mut().expect("the caller has looked");
        for name in &names {
            fs::write(self.source.join(name), disk::content(name)).expect("a file");
            home.disk.trying(name);
        }
        let request = SyncPush {
            source: self.source.to_str().expect("UTF-8").to_string(),
            dest: ".".to_string(),
        };
        let call = self.calls.client().sync_push(&home.id, &request);
        if self.calls.call("sync push", &[], call).await.is_err() {
            return self.settle(Doubt::Nothing).await;
        }
        for name in &names {
            home.disk.written(name);
        }
        self.sync().await;
    }

    /// What the guest has now.
    async fn check(&mut self) -> Result<(), ClientError> {
        let record = self.exec(disk::LISTING).await?;
        assert!(!record.stdout_truncated, "too many files");
        let home = self.home.as_ref().expect("the caller has looked");
        let checked = home.disk.check(&record.stdout);
        if let Err(wrong) = checked {
            panic!("{} holds not what it must:\n{wrong}", home.id);
        }
        Ok(())
    }

    async fn live_on(&mut self) {
        let home = self.home.as_mut().expect("the caller has looked");
        let (calls, random) = (&self.calls, &mut self.random);
        let step = home.living.step(calls, random, &home.id, self.number);
        if step.await.is_err() {
            self.settle(Doubt::Nothing).await;
        }
    }

    async fn label(&mut self) {
        let value = self.next().to_string();
        let home = self.home.as_mut().expect("the caller has looked");
        home.labels.push(Some(value.clone()));
        let request = UpdateWorkspace {
            labels: [(LABEL.to_string(), value)].into(),
            ..UpdateWorkspace::default()
        };
        let call = self.calls.client().update(&home.id, &request);
        if self.calls.call("update", &[], call).await.is_err() {
            return self.settle(Doubt::Nothing).await;
        }
        let wanted = home.labels.len() - 1;
        home.labels.drain(..wanted);
    }

    async fn snapshot(&mut self) {
        if self
            .home
            .as_ref()
            .is_some_and(|home| home.snapshots.len() > 4)
        {
            return self.forget().await;
        }
        let name = format!("at-{}", self.next());
        let home = self.home.as_mut().expect("the caller has looked");
        let request = CreateSnapshot { name: name.clone() };
        let call = self.calls.client().snapshot_create(&home.id, &request);
        if self.calls.call("snapshot create", &[], call).await.is_err() {
            return self.settle(Doubt::Snapshot { name }).await;
        }
        home.disk.synced();
        home.snapshots.insert(name, home.disk.clone());
    }

    async fn forget(&mut self) {
        let home = self.home.as_mut().expect("the caller has looked");
        let names: Vec<_> = home.snapshots.keys().cloned().collect();
        let Some(name) = self.random.of(&names).cloned() else {
            return;
        };
        let call = self.calls.client().snapshot_delete(&home.id, &name);
        if self.calls.call("snapshot delete", &[], call).await.is_err() {
            return self.settle(Doubt::Forgetting { name }).await;
        }
        home.snapshots.remove(&name);
    }

    async fn reset(&mut self) {
        let home = self.home.as_mut().expect("the caller has looked");
        let mut names: Vec<_> = home.snapshots.keys().cloned().collect();
        names.push(BASELINE.to_string());
        let snapshot = self.random.of(&names).expect("one at least").clone();
        let to = home.snapshots.get(&snapshot).cloned().unwrap_or_default();
        let request = Reset { snapshot };
        let call = self.calls.client().reset(&home.id, &request);
        if self.calls.call("reset", &[], call).await.is_err() {
            return self.settle(Doubt::Reset { to }).await;
        }
        home.resets += 1;
        home.disk = to;
        home.running = true;
        home.living.gone();
    }

    async fn stop(&mut self) {
        let home = self.home.as_mut().expect("the caller has looked");
        let call = self.calls.client().stop(&home.id);
        if self.calls.call("stop", &[], call).await.is_err() {
            return self.settle(Doubt::Nothing).await;
        }
        // Its guest may have been killed before it was to write everything out.
        home.disk.maybe_lost();
        home.running = false;
        home.living.gone();
    }

    async fn start(&mut self) {
        let home = self.home.as_mut().expect("the caller has looked");
        let call = self.calls.client().start(&home.id);
        if self.calls.call("start", &[], call).await.is_err() {
            return self.settle(Doubt::Nothing).await;
        }
        home.disk.maybe_lost();
        home.running = true;
    }

    async fn delete(&mut self) {
        let home = self.home.as_mut().expect("the caller has looked");
        let call = self.calls.client().delete(&home.id);
        if self.calls.call("delete", &[], call).await.is_err() {
            return self.settle(Doubt::Deletion).await;
        }
        self.home = None;
    }

    /// A shell script that must succeed, or not run because somebody was killed.
    async fn exec(&self, script: &str) -> Result<ExecRecord, ClientError> {
        let home = self.home.as_ref().expect("the caller has looked");
        let request = ExecRequest {
            timeout_seconds: COMMAND_SECONDS,
            ..ExecRequest::new(["sh", "-ec", script])
        };
        let call = async {
            let record = self.calls.client().exec(&home.id, &request).await?;
            match (record.state, &record.error) {
                (ExecState::Lost, Some(error)) => Err(ClientError::Api(error.clone())),
                (ExecState::Exited, None) => Ok(record),
                _ => panic!("{script}: {record:?}"),
            }
        };
        let record = self.calls.call("exec", &[], call).await?;
        assert_eq!(record.exit_code, Some(0), "{script}: {}", record.stderr);
        Ok(record)
    }

    /// Finds out what came of what was not answered.
    async fn settle(&mut self, doubt: Doubt) {
        let list = self.calls.list().await;
        let found = |id: &str| {
            let mut all = list.workspaces.iter();
            all.find(|w| w.workspace_id == id || w.name.as_deref() == Some(id))
        };
        let Some(home) = &mut self.home else {
            if let Doubt::Creation { name } = doubt {
                self.home = found(&name).map(Home::new);
            }
            return;
        };
        let Some(workspace) = found(&home.id) else {
            assert!(
                matches!(doubt, Doubt::Deletion),
                "the record of {} is lost",
                home.id
            );
            self.home = None;
            return;
        };
        home.disk.maybe_lost();
        home.running = workspace.state == WorkspaceState::Running;
        if let Doubt::Reset { to } = &doubt
            && workspace.reset_count == home.resets + 1
        {
            home.resets += 1;
            home.disk.clone_from(to);
        }
        assert_eq!(workspace.reset_count, home.resets, "{workspace:?}");
        let label = workspace.labels.get(LABEL).cloned();
        assert!(home.labels.contains(&label), "{workspace:?}");
        home.labels = vec![label];
        let mut count = home.snapshots.len();
        match doubt {
            Doubt::Snapshot { name } if workspace.snapshot_count == count as u64 + 1 => {
                count += 1;
                home.snapshots.insert(name, home.disk.clone());
            }
            Doubt::Forgetting { name } if workspace.snapshot_count + 1 == count as u64 => {
                count -= 1;
                home.snapshots.remove(&name);
            }
            _ => {}
        }
        assert_eq!(workspace.snapshot_count, count as u64, "{workspace:?}");
    }
}

impl Home {
    fn new(workspace: &Workspace) -> Self {
        Self {
            id: workspace.workspace_id.clone(),
            running: workspace.state == WorkspaceState::Running,
            living: Living::new(workspace.network_policy),
            disk: Disk::default(),
            snapshots: BTreeMap::new(),
            resets: 0,
            labels: vec![None],
        }
    }
}
