//! A real pull of `debian:12-base` from the machine's mirror, killed, repeated, damaged, repaired.
//!
//! Takes about a minute. `PYRO_TEST_IMAGE_DIR` names a store to use and keep; without it, a
//! temporary one is used. Needs what `pyro env pull` needs: the first failure says what is missing.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pyro_images::pull::{Done, Phase, Progress};
use pyro_images::{Catalogue, Quiet, Recipe, State, Store};

/// Tells a child of these tests which store to pull into.
const CHILD: &str = "PYRO_TEST_PULL_CHILD";
const CHILD_TEST: &str = "pull_as_a_child";

fn recipe() -> &'static Recipe {
    Catalogue::builtin().recipe("debian:12-base").unwrap()
}

fn child(store: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", CHILD_TEST, "--nocapture"])
        .env(CHILD, store);
    command.stdout(Stdio::piped());
    command
}

/// Prints phases, for a parent that waits for one.
struct Lines;

impl Progress for Lines {
    fn phase(&mut self, phase: Phase) {
        println!("phase {phase:?}");
    }

    fn advance(&mut self, _: u64, _: Option<u64>) {}
}

/// Does nothing by itself; other tests run it as a process of its own.
#[test]
fn pull_as_a_child() {
    let Some(store) = std::env::var_os(CHILD) else {
        return;
    };
    match pyro_images::pull(&Store::new(PathBuf::from(store)), recipe(), &mut Lines) {
        Ok(outcome) => println!("done {:?}", outcome.done),
        Err(error) => println!("error {}", error.code()),
    }
}

/// Processes of a bootstrap into `store`, by what a pull puts into their environment.
fn processes_of(store: &Path) -> Vec<String> {
    let mark = format!("PYRO_OUT={}/tmp/", store.display());
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let environment = fs::read(path.join("environ")).ok()?;
            String::from_utf8_lossy(&environment)
                .contains(&mark)
                .then_some(())?;
            fs::read_to_string(path.join("comm")).ok()
        })
        .collect()
}

#[test]
fn a_mirror_that_does_not_answer_is_told_so_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    // Port 9 is "discard": nothing listens there.
    let output = child(directory.path())
        .env("PYRO_DEBIAN_MIRROR", "http://127.0.0.1:9/debian")
        .output()
        .unwrap();

    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("error mirror_unreachable"), "{said}");
    assert_eq!(
        fs::read_dir(directory.path().join("tmp")).unwrap().count(),
        0
    );
    assert_eq!(
        Store::new(directory.path()).inspect(recipe()).state,
        State::Cold
    );
}

#[test]
fn a_real_pull_survives_a_kill_installs_and_repairs() {
    let temporary = tempfile::tempdir().unwrap();
    let root = std::env::var_os("PYRO_TEST_IMAGE_DIR")
        .map_or_else(|| temporary.path().join("images"), PathBuf::from);
    let store = Store::new(&root);
    if store.inspect(recipe()).state == State::Cold {
        kill_while_it_installs(&root);
        assert_eq!(store.inspect(recipe()).state, State::Cold);
    }

    let outcome = pyro_images::pull(&store, recipe(), &mut Quiet).unwrap();
    assert_eq!(store.inspect(recipe()).state, State::Warm);
    assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0);
    let installed = store.open(recipe()).unwrap();
    let mut magic = [0; 4];
    installed.kernel.read_exact_at(&mut magic, 0).unwrap();
    assert_eq!(&magic, b"\x7fELF");
    installed.modules.read_exact_at(&mut magic, 0).unwrap();
    assert_eq!(&magic, b"0707");
    assert!(installed.manifest.layers[0].inodes > 1_000);
    let main = installed
        .manifest
        .archives
        .iter()
        .find(|archive| archive.codename == "bookworm");
    assert!(main.is_some_and(|archive| archive.version.is_some()));

    // The kernel is damaged: only its half is built again, from the kernel's package.
    let kernel = root
        .join("artefacts/sha256")
        .join(outcome.manifest.kernel.vmlinux.sha256.to_string());
    fs::set_permissions(&kernel, Permissions::from_mode(0o644)).unwrap();
    File::options()
        .write(true)
        .open(&kernel)
        .unwrap()
        .write_all_at(b"damage", 4096)
        .unwrap();
    assert_eq!(
        store.open(recipe()).unwrap_err().code(),
        "environment_damaged"
    );
    let repaired = pyro_images::pull(&store, recipe(), &mut Quiet).unwrap();
    assert_eq!(repaired.done, Done::Repaired);
    assert_eq!(repaired.manifest.layers, outcome.manifest.layers);
    assert_eq!(repaired.manifest.kernel, outcome.manifest.kernel);
    store.open(recipe()).unwrap();
}

/// Kills a pull in the middle of installing packages, and sees that nothing of it stays.
fn kill_while_it_installs(root: &Path) {
    let mut pull = child(root).spawn().unwrap();
    let mut lines = BufReader::new(pull.stdout.take().unwrap()).lines();
    lines
        .by_ref()
        .map(Result::unwrap)
        .find(|line| line == "phase Install")
        .unwrap();
    assert!(
        !processes_of(root).is_empty(),
        "what is looked for is found while it is there"
    );
    pull.kill().unwrap();
    pull.wait().unwrap();
    // They end when the kernel has killed them, which takes moments and no more.
    let mut left = processes_of(root);
    for _ in 0..1_000 {
        if left.is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
        left = processes_of(root);
    }
    assert_eq!(left, [""; 0]);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(root.to_str().unwrap()));
}
