//! The engine against the real agent, which runs on this host in the place of a guest.
//!
//! What needs a monitor and layers is not here: guests show that.

mod activity;
mod disk;
mod exec;
mod files;
mod life;
mod ports;
mod secrets;
mod services;
mod shells;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyro_client::types::{CreateWorkspace, ExecEvent, ExecRecord, ExecRequest, Workspace};
use tempfile::TempDir;

use super::launcher::Launcher;
use super::*;
use crate::machine::guest::{self, Trace};

/// Longer than anything here takes; only a bug makes a test wait that long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A state directory, and a folder that guests have as `/workspace`.
struct World {
    folder: TempDir,
    agent: PathBuf,
}

impl World {
    fn new() -> Self {
        let beside = || {
            let test = std::env::current_exe().expect("a path");
            test.ancestors()
                .nth(2)
                .expect("a folder")
                .join("pyro-agent")
        };
        let agent = std::env::var_os("PYRO_AGENT").map_or_else(beside, PathBuf::from);
        assert!(agent.is_file(), "build it first: cargo build -p pyro-agent");
        let folder = tempfile::tempdir().expect("temporary folder");
        std::fs::create_dir(folder.path().join("workspace")).expect("made");
        crate::testing::install_environment(&folder.path().join("images"));
        Self { folder, agent }
    }

    fn root(&self) -> String {
        self.folder.path().join("workspace").display().to_string()
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    async fn open(&self) -> Arc<Engine> {
        let began = Instant::now();
        loop {
            match self.try_open().await {
                // A child that another test has just forked has the lock's descriptor, too, until
                // it is executed.
                Err(error) if error.code() == Code::StateLocked && began.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                opened => return opened.expect("opened"),
            }
        }
    }

    async fn try_open(&self) -> Result<Arc<Engine>> {
        let state = self.state();
        let images = self.folder.path().join("images");
        let paths = Paths::from_variables(
            |name| match name {
                "PYRO_STATE_DIR" => Some(state.clone().into()),
                "PYRO_IMAGE_DIR" => Some(images.clone().into()),
                _ => None,
            },
            None,
        );
        let launcher = Launcher::Agent(self.agent.clone());
        Engine::open_with(paths, Options::default(), launcher, self.root()).await
    }
}

impl World {
    /// One daemon's life, which ends as abruptly as a kill: its tasks are dropped where they are.
    fn daemon<T>(&self, life: impl AsyncFnOnce(Arc<Engine>) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async { life(self.open().await).await })
    }

    fn vm_folder(&self, id: &str) -> PathBuf {
        self.state().join("workspaces").join(id).join("vm")
    }

    fn is_alive(&self, id: &str) -> bool {
        matches!(guest::trace(&self.vm_folder(id)), Trace::Alive(_))
    }

    fn kill(&self, id: &str) {
        match guest::trace(&self.vm_folder(id)) {
            Trace::Alive(process) => process.kill_and_wait(),
            other => panic!("{other:?}"),
        }
    }

    fn fifo(&self) -> String {
        let path = format!("{}/gate", self.root());
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.expect("started").success());
        path
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // What a test leaves running, whether it fails or not.
        let folders = std::fs::read_dir(self.state().join("workspaces"));
        for entry in folders.into_iter().flatten().flatten() {
            if let Trace::Alive(process) = guest::trace(&entry.path().join("vm")) {
                process.kill_and_wait();
            }
        }
    }
}

async fn create(engine: &Arc<Engine>, name: &str) -> Workspace {
    let request = CreateWorkspace {
        name: Some(name.to_string()),
        ..CreateWorkspace::new("debian:12")
    };
    engine.create(request).await.expect("created")
}

fn shell(script: &str) -> ExecRequest {
    ExecRequest::new(["/bin/sh", "-c", script])
}

/// Runs a command to its end; gives what was streamed as well.
async fn run(
    engine: &Arc<Engine>,
    workspace: &str,
    request: ExecRequest,
) -> (ExecRecord, Vec<ExecEvent>) {
    let mut stream = engine.exec(workspace, request).await.expect("started");
    let mut events = Vec::new();
    loop {
        let next = tokio::time::timeout(PATIENCE, stream.next())
            .await
            .expect("in time");
        match next.expect("an end") {
            ExecEvent::Ended { record } => return (*record, events),
            event => events.push(event),
        }
    }
}
