//! Where the emulated host keeps itself, and the locks that say who uses it.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Shares;

/// The folder of everything about emulated hosts.
#[derive(Debug, Clone)]
pub struct HostDir {
    root: PathBuf,
    name: String,
}

impl HostDir {
    /// `PYRO_HOST_DIR`, else `pyro/host` in the user's cache folder; `PYRO_HOST_NAME` (`default`)
    /// tells several hosts apart that share the built system.
    ///
    /// # Errors
    /// When neither it nor a home is known, or the name is not a plain word.
    pub fn from_environment() -> Result<Self> {
        let set = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let root = set("PYRO_HOST_DIR")
            .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("pyro/host")))
            .or_else(|| set("HOME").map(|home| home.join(".cache/pyro/host")))
            .context("there is no home folder for the emulated host: set PYRO_HOST_DIR")?;
        let root = std::path::absolute(root)?;
        let name = std::env::var("PYRO_HOST_NAME").unwrap_or_else(|_| "default".into());
        let plain = !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        anyhow::ensure!(plain, "PYRO_HOST_NAME must be letters, digits, '-' and '_'");
        Ok(Self { root, name })
    }

    /// Where built systems are kept.
    #[must_use]
    pub fn systems(&self) -> PathBuf {
        self.root.join("systems")
    }

    /// Where the running host keeps its state.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.root.join("run").join(&self.name)
    }

    /// A file of the running host.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.run().join(name)
    }

    /// Makes the folder of the running host, for its user alone.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make_run(&self) -> Result<()> {
        make_private(&self.run())
    }

    /// Opens a lock file; it is not yet locked.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn lock_file(&self, lock: Lock) -> Result<File> {
        open_lock(&self.lock_path(lock))
    }

    /// The path of a lock.
    #[must_use]
    pub fn lock_path(&self, lock: Lock) -> PathBuf {
        self.file(lock.name())
    }

    /// Whether a supervisor is alive.
    ///
    /// # Errors
    /// When the lock cannot be asked.
    pub fn is_alive(&self) -> Result<bool> {
        if !self.lock_path(Lock::Alive).exists() {
            return Ok(false);
        }
        match self.lock_file(Lock::Alive)?.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error).context("the lock of the emulated host"),
        }
    }

    /// The state that a ready host has written; `None` when there is none or it is unreadable.
    #[must_use]
    pub fn state(&self) -> Option<State> {
        serde_json::from_slice(&fs::read(self.file(STATE)).ok()?).ok()
    }
}

/// Name of the file with the [`State`].
pub const STATE: &str = "state.json";
/// Name of the file with the end of the console's output.
pub const CONSOLE: &str = "console.log";
/// Name of the file with what the supervisor, QEMU and the file servers print.
pub const LOG: &str = "supervisor.log";
/// Name of the socket on which the supervisor can be asked to stop.
pub const CONTROL: &str = "control.sock";

/// The locks of a host, each with one meaning.
#[derive(Debug, Clone, Copy)]
pub enum Lock {
    /// Held by the supervisor for its life.
    Alive,
    /// Held while somebody starts or replaces the host.
    Starting,
    /// Held shared by every client while it uses the host. Its time of change is the last use.
    Users,
}

impl Lock {
    fn name(self) -> &'static str {
        match self {
            Self::Alive => "alive.lock",
            Self::Starting => "starting.lock",
            Self::Users => "users.lock",
        }
    }
}

/// What a client needs to know of a ready host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// [`crate::wire::GENERATION`] of the host.
    pub generation: u32,
    /// The supervisor's process.
    pub pid: u32,
    /// TCP port on the loopback address.
    pub port: u16,
    /// Proof for the host that a client could read this file.
    pub token: String,
    /// Folders that are visible inside.
    pub shares: Shares,
    /// When it became ready.
    pub since: SystemTime,
}

/// Makes a folder and those above it, for the user alone.
///
/// # Errors
/// When it cannot be made.
pub fn make_private(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("the folder {} cannot be made", path.display()))
}

/// Opens a lock file, making it first; it is not yet locked.
///
/// # Errors
/// When it cannot be made.
pub fn open_lock(path: &Path) -> Result<File> {
    File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("the lock {} cannot be opened", path.display()))
}

/// Whether `file` is still what `path` names.
#[must_use]
pub fn is_still(file: &File, path: &Path) -> bool {
    let same = || -> io::Result<bool> {
        let (open, named) = (file.metadata()?, fs::metadata(path)?);
        Ok((open.dev(), open.ino()) == (named.dev(), named.ino()))
    };
    same().unwrap_or(false)
}

/// The last lines of a file, for an error's message.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    let content = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&content);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
