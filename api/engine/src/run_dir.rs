//! Run directories: everything a VM leaves on disk while it lives, and nothing after.
//!
//! A run directory is `runs/<id>/`, mode 0700, with the guest's writable layer in `writable/` and
//! a file `lock` on which an flock is held for as long as its owner lives. The kernel drops the
//! lock when the owner dies, however it dies, so a directory whose lock is free is rubbish: the
//! next run collects it.
//!
//! Creating and judging directories happens under one store-wide flock (`runs/.lock`), so that a
//! directory is never seen between its `mkdir` and its lock. Removing happens outside of it.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use crate::error::{Code, Error, Result};

/// Free space below which no run is started: a guest could not even boot properly.
pub const LEAST_FREE_BYTES: u64 = 64 << 20;
/// Free space that a guest's writes leave to the host, at the least.
const RESERVE_BYTES: u64 = 32 << 20;
/// The part of the free space that they leave to it.
const RESERVE_PART: u64 = 10;
/// Most bytes that one guest may write, however much the host has.
const MOST_BYTES: u64 = 64 << 30;

/// A live run directory. Dropping it removes it; end whatever writes into it first.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    id: String,
    _lock: File,
}

impl RunDir {
    /// Collects the directories of dead runs and makes a new one under `runs`, which is made too
    /// when it is missing.
    pub fn create(runs: &Path) -> Result<Self> {
        private_folder(runs).map_err(|e| unwritable(runs, e))?;
        let free = free_bytes(runs).map_err(|e| unwritable(runs, e))?;
        // Collect before judging the space: what dead runs left may be what fills the disk.
        let guard = lock_blocking(&runs.join(".lock")).map_err(|e| unwritable(runs, e))?;
        let dead = take_dead(runs);
        let made = if free < LEAST_FREE_BYTES && dead.is_empty() {
            Err(no_space(runs, free))
        } else {
            Self::make(runs).map_err(|e| unwritable(runs, e))
        };
        drop(guard);
        for dead in dead {
            dead.remove();
        }
        let made = made?;
        let free = free_bytes(runs).map_err(|e| unwritable(runs, e))?;
        if free < LEAST_FREE_BYTES {
            return Err(no_space(runs, free));
        }
        Ok(made)
    }

    fn make(runs: &Path) -> io::Result<Self> {
        let id = new_id()?;
        let path = runs.join(&id);
        DirBuilder::new().mode(0o700).create(&path)?;
        let finish = || {
            let lock = lock_now(&path.join("lock"))?
                .ok_or_else(|| io::Error::other("somebody else holds the lock of a new run"))?;
            DirBuilder::new()
                .mode(0o700)
                .create(path.join("writable"))?;
            Ok(lock)
        };
        match finish() {
            Ok(lock) => Ok(Self {
                path,
                id,
                _lock: lock,
            }),
            Err(error) => {
                // Best effort; what stays is collected by the next run.
                let _ = fs::remove_dir_all(&path);
                Err(error)
            }
        }
    }

    /// The run's id: 16 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The directory of the guest's writable layer, opened.
    pub fn open_writable(&self) -> Result<OwnedFd> {
        let path = self.path.join("writable");
        rustix::fs::open(
            &path,
            OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        )
        .map_err(|e| unwritable(&path, e.into()))
    }

    /// How many bytes the guest may write: what is free now less a reserve for the host.
    pub fn quota_bytes(&self) -> Result<u64> {
        quota_bytes(&self.path)
    }

    /// Removes the directory and says when that failed, which dropping does not.
    pub fn remove(self) -> Result<()> {
        remove(&self.path).map_err(|e| {
            Error::new(
                Code::StateUnwritable,
                format!("cannot remove the run directory {}", self.path.display()),
                "remove it by hand, or let the next run collect it",
            )
            .caused_by(e)
        })
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // Best effort: the next run collects what is left.
        let _ = remove(&self.path);
    }
}

/// How many bytes a guest may write beneath `path`: what is free now less a reserve for the host.
pub(crate) fn quota_bytes(path: &Path) -> Result<u64> {
    let free = free_bytes(path).map_err(|e| unwritable(path, e))?;
    Ok(quota_of(free))
}

fn quota_of(free: u64) -> u64 {
    let reserve = RESERVE_BYTES.max(free / RESERVE_PART);
    free.saturating_sub(reserve).min(MOST_BYTES)
}

/// Removes the directories of dead runs and says how many there were.
pub fn collect(runs: &Path) -> io::Result<usize> {
    if !runs.exists() {
        return Ok(0);
    }
    let guard = lock_blocking(&runs.join(".lock"))?;
    let dead = take_dead(runs);
    drop(guard);
    let count = dead.len();
    for dead in dead {
        dead.remove();
    }
    Ok(count)
}

/// Bytes that an unprivileged writer may still write beneath `path`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Makes a folder that only its owner may enter, with all its parents.
pub fn private_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().mode(0o700).recursive(true).create(path)
}

/// A dead run whose lock we hold, so that nobody else collects it.
struct Dead {
    path: PathBuf,
    _lock: Option<File>,
}

impl Dead {
    fn remove(self) {
        // Best effort: a monitor in its last moments may still write; the next run tries again.
        let _ = remove(&self.path);
    }
}

/// The dead runs; the caller holds the store-wide lock. What cannot be judged is left alone.
fn take_dead(runs: &Path) -> Vec<Dead> {
    let Ok(entries) = fs::read_dir(runs) else {
        return Vec::new();
    };
    let mut dead = Vec::new();
    for entry in entries.flatten() {
        let is_run = entry.file_name().to_str().is_some_and(is_id)
            && entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_run {
            continue;
        }
        let path = entry.path();
        match lock_now(&path.join("lock")) {
            Ok(Some(lock)) => dead.push(Dead {
                path,
                _lock: Some(lock),
            }),
            Ok(None) => {}
            // On a full disk the lock file of a half-made run cannot even be created.
            Err(e) if e.raw_os_error() == Some(Errno::NOSPC.raw_os_error()) => {
                dead.push(Dead { path, _lock: None });
            }
            Err(_) => {}
        }
    }
    dead
}

/// Removes everything. One that is interrupted leaves a directory that the next run collects,
/// with or without its lock file. Two at once, ours and a collector's, do no harm.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Something was created while we removed: once more.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => fs::remove_dir_all(path),
        other => other,
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
}

fn lock_blocking(path: &Path) -> io::Result<File> {
    let file = open_lock(path)?;
    loop {
        match flock(&file, FlockOperation::LockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn lock_now(path: &Path) -> io::Result<Option<File>> {
    let file = open_lock(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_id(name: &str) -> bool {
    name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn new_id() -> io::Result<String> {
    Ok(format!("{:016x}", u64::from_ne_bytes(random()?)))
}

/// Fresh random bytes from the kernel.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => filled += n,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}

fn no_space(path: &Path, free: u64) -> Error {
    Error::new(
        Code::NoSpace,
        format!(
            "only {} MiB are free where {} is",
            free >> 20,
            path.display()
        ),
        format!(
            "free at least {} MiB there, or set PYRO_STATE_DIR to a folder on a larger disk",
            LEAST_FREE_BYTES >> 20
        ),
    )
}

pub(crate) fn unwritable(path: &Path, error: io::Error) -> Error {
    let full = [Errno::NOSPC, Errno::DQUOT].map(|errno| Some(errno.raw_os_error()));
    if full.contains(&error.raw_os_error()) {
        return no_space(path, free_bytes(path).unwrap_or(0)).caused_by(error);
    }
    Error::new(
        Code::StateUnwritable,
        format!("cannot use the state folder {}", path.display()),
        "make it writable for this user, or set PYRO_STATE_DIR to another folder",
    )
    .caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names(runs: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(runs)
            .expect("readable")
            .map(|entry| {
                entry
                    .expect("entry")
                    .file_name()
                    .into_string()
                    .expect("UTF-8")
            })
            .filter(|name| name != ".lock")
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_run_directory_is_private_and_goes_when_dropped() {
        let state = tempfile::tempdir().expect("temporary folder");
        let runs = state.path().join("a/runs");

        let run = RunDir::create(&runs).expect("created");

        assert_eq!(names(&runs), [run.id().to_string()]);
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&runs), 0o700);
        assert_eq!(mode(&runs.join(run.id())), 0o700);
        assert_eq!(mode(&runs.join(run.id()).join("writable")), 0o700);
        run.open_writable().expect("opens");
        drop(run);
        assert_eq!(names(&runs), [""; 0]);
    }

    #[test]
    fn live_runs_stay_and_dead_ones_are_collected() {
        let state = tempfile::tempdir().expect("temporary folder");
        let runs = state.path().join("runs");
        let live = RunDir::create(&runs).expect("created");
        // What a kill -9 leaves at different moments: with and without a lock file.
        fs::create_dir_all(runs.join("00000000000000aa/writable/content")).expect("made");
        fs::write(runs.join("00000000000000aa/lock"), "").expect("made");
        fs::create_dir(runs.join("00000000000000bb")).expect("made");
        // Not ours: never touched.
        fs::create_dir(runs.join("notes")).expect("made");

        let second = RunDir::create(&runs).expect("created");

        let mut expected = [
            live.id().to_string(),
            second.id().to_string(),
            "notes".to_string(),
        ];
        expected.sort();
        assert_eq!(names(&runs), expected);
    }

    #[test]
    fn collect_counts_and_needs_no_folder() {
        let state = tempfile::tempdir().expect("temporary folder");
        assert_eq!(collect(&state.path().join("none")).expect("fine"), 0);
        fs::create_dir(state.path().join("00000000000000cc")).expect("made");
        assert_eq!(collect(state.path()).expect("fine"), 1);
    }

    #[test]
    fn a_file_in_the_way_is_an_unwritable_state_folder() {
        let state = tempfile::tempdir().expect("temporary folder");
        let file = state.path().join("file");
        fs::write(&file, "").expect("made");

        let error = RunDir::create(&file.join("runs")).expect_err("must fail");

        assert_eq!(error.code(), Code::StateUnwritable);
    }

    #[test]
    fn a_guest_leaves_a_tenth_of_the_disk_to_the_host() {
        assert_eq!(quota_of(1 << 20), 0);
        assert_eq!(quota_of(100 << 20), 68 << 20);
        assert_eq!(quota_of(10 << 30), 9 << 30);
        assert_eq!(quota_of(1 << 50), MOST_BYTES);
    }

    #[test]
    fn a_full_disk_is_told_from_an_unwritable_one() {
        let error = unwritable(Path::new("/"), Errno::NOSPC.into());
        assert_eq!(error.code(), Code::NoSpace);
    }
}
