//! Pulls from a source that makes small files, so that what the store promises can be attacked.

mod damage;
mod prune;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::source::{Built, BuiltRoot};
use super::*;
use crate::bootstrap::command::Wanted;
use crate::store::Placed;
use crate::store::manifest::{Artefact, KernelFacts, LayerFacts};

/// Builds small files, and remembers what it was asked for.
#[derive(Default)]
struct Fake {
    builds: AtomicUsize,
    wanted: Mutex<Vec<Wanted>>,
    fail: bool,
    /// A build says that it began, then waits until it is told to go on.
    gate: Option<Mutex<(mpsc::Sender<()>, mpsc::Receiver<()>)>>,
}

impl Fake {
    fn wanted(&self) -> Vec<Wanted> {
        self.wanted.lock().unwrap().clone()
    }
}

impl Source for Fake {
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    fn build(
        &self,
        _: &Recipe,
        wanted: Wanted,
        work: &Path,
        _: &mut dyn Progress,
    ) -> Result<Built, Error> {
        let number = self.builds.fetch_add(1, Ordering::SeqCst);
        self.wanted.lock().unwrap().push(wanted);
        let mut built = Built::default();
        let mut make = |name: &str, content: String| -> Artefact {
            fs::write(work.join(name), content.repeat(1000)).unwrap();
            let placed = Placed::hash(work.join(name)).unwrap();
            built.files.push(placed.clone());
            placed.artefact
        };
        if wanted.root {
            let layer = LayerFacts {
                index: make("index", format!("index {number}")),
                data: make("data", format!("data {number}")),
                inodes: 1,
            };
            built.root = Some(BuiltRoot {
                layer,
                packages: make("packages", "packages".into()),
            });
        }
        if wanted.kernel {
            built.kernel = Some(KernelFacts {
                release: "6.1".into(),
                package: "linux.deb".into(),
                vmlinux: make("vmlinux", format!("kernel {number}")),
                modules: make("modules", "modules".into()),
                network_modules: Some(make("network", "network modules".into())),
            });
        }
        if let Some(gate) = &self.gate {
            let (began, go_on) = &*gate.lock().unwrap();
            began.send(()).unwrap();
            go_on.recv().unwrap();
        }
        if self.fail {
            return Err(Error::Bootstrap {
                detail: "as asked".into(),
            });
        }
        Ok(built)
    }
}

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(directory.path().join("images"));
    (directory, store)
}

fn recipe() -> &'static Recipe {
    Catalogue::builtin().recipe("debian:12").unwrap()
}

fn install(store: &Store) -> Manifest {
    pull_from(&Fake::default(), store, recipe(), &mut Quiet)
        .unwrap()
        .manifest
}

fn state(store: &Store) -> State {
    store.inspect(recipe()).state
}

fn left_in(directory: PathBuf) -> usize {
    fs::read_dir(directory).unwrap().count()
}

#[test]
fn a_pull_makes_a_cold_environment_warm_and_leaves_no_work() {
    let (_directory, store) = store();
    assert_eq!(state(&store), State::Cold);
    assert!(matches!(
        store.open(recipe()),
        Err(Error::EnvironmentCold { .. })
    ));

    let outcome = pull_from(&Fake::default(), &store, recipe(), &mut Quiet).unwrap();

    assert_eq!(outcome.done, Done::Installed);
    assert_eq!(state(&store), State::Warm);
    let installed = store.open(recipe()).unwrap();
    let mut start = [0; 6];
    installed.layers[0]
        .data
        .read_exact_at(&mut start, 0)
        .unwrap();
    assert_eq!(&start, b"data 0");
    assert_eq!(installed.manifest, outcome.manifest);
    assert_eq!(left_in(store.tmp()), 0);
}

#[test]
fn asking_about_a_store_that_is_not_there_makes_none() {
    let (_directory, store) = store();

    store.list(Catalogue::builtin());
    let _ = store.open(recipe());
    store.prune(Catalogue::builtin()).unwrap();

    assert!(!store.root().exists());
}

#[test]
fn a_second_pull_finds_nothing_to_do() {
    let (_directory, store) = store();
    let manifest = install(&store);
    let fake = Fake::default();

    let outcome = pull_from(&fake, &store, recipe(), &mut Quiet).unwrap();

    assert_eq!((outcome.done, outcome.manifest), (Done::Nothing, manifest));
    assert_eq!(fake.builds.into_inner(), 0);
}

#[test]
fn two_pulls_at_once_do_the_work_once() {
    /// Lets the first pull go on once the second one waits.
    struct Second(mpsc::Sender<()>, Vec<Phase>);
    impl Progress for Second {
        fn phase(&mut self, phase: Phase) {
            self.1.push(phase);
            if phase == Phase::Waiting {
                self.0.send(()).unwrap();
            }
        }
        fn advance(&mut self, _: u64, _: Option<u64>) {}
    }
    let (_directory, store) = store();
    let (began, first_began) = mpsc::channel();
    let (let_go, go_on) = mpsc::channel();
    let fake = Fake {
        gate: Some(Mutex::new((began, go_on))),
        ..Fake::default()
    };

    let (first, second, phases) = std::thread::scope(|scope| {
        let first = scope.spawn(|| pull_from(&fake, &store, recipe(), &mut Quiet).unwrap());
        first_began.recv().unwrap();
        let mut progress = Second(let_go, Vec::new());
        let second = pull_from(&Fake::default(), &store, recipe(), &mut progress).unwrap();
        (first.join().unwrap(), second, progress.1)
    });

    assert_eq!((first.done, second.done), (Done::Installed, Done::Nothing));
    assert_eq!(first.manifest, second.manifest);
    assert_eq!(phases, [Phase::Waiting, Phase::Verify]);
}

#[test]
fn a_pull_that_fails_leaves_the_store_as_it_was() {
    let (_directory, store) = store();
    let fake = Fake {
        fail: true,
        ..Fake::default()
    };

    let error = pull_from(&fake, &store, recipe(), &mut Quiet).unwrap_err();

    assert_eq!(error.code(), "bootstrap_failed");
    assert_eq!(state(&store), State::Cold);
    assert_eq!((left_in(store.tmp()), left_in(store.artefacts())), (0, 0));
}

#[test]
fn a_pull_without_room_is_refused_before_it_begins() {
    let (_directory, store) = store();
    let greedy = Recipe {
        work_space_mib: u64::MAX >> 20,
        ..recipe().clone()
    };
    let fake = Fake::default();

    let error = pull_from(&fake, &store, &greedy, &mut Quiet).unwrap_err();

    assert_eq!(error.code(), "no_space");
    assert_eq!(fake.builds.into_inner(), 0);
}

/// Where the child of the test below finds its store.
const KILL_STORE: &str = "PYRO_IMAGES_TEST_KILL_STORE";

#[test]
fn a_pull_killed_at_any_moment_leaves_the_store_usable() {
    if let Some(root) = std::env::var_os(KILL_STORE) {
        // The child: pulls for ever, alternating between two recipes so that each pull builds.
        let store = Store::new(PathBuf::from(root));
        let other = Recipe {
            packages: vec!["hello".into()],
            ..recipe().clone()
        };
        let fake = Fake::default();
        loop {
            for recipe in [&other, recipe()] {
                println!("pulling");
                pull_from(&fake, &store, recipe, &mut Quiet).unwrap();
            }
        }
    }
    let (_directory, store) = store();
    let name = "pull::tests::a_pull_killed_at_any_moment_leaves_the_store_usable";
    for round in 0..25_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(KILL_STORE, store.root())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let whole_pulls = round % 3;
        for _ in 0..=whole_pulls {
            said.by_ref()
                .map(Result::unwrap)
                .find(|line| line.ends_with("pulling"))
                .unwrap();
        }
        // Not a wait for anything: the moment of death is what varies.
        std::thread::sleep(Duration::from_micros(round * 709 % 13_000));
        child.kill().unwrap();
        child.wait().unwrap();

        let state = state(&store);
        assert!(
            state != State::Damaged,
            "round {round}: {:?}",
            store.inspect(recipe()).problem
        );
    }
    install(&store);
    assert_eq!(state(&store), State::Warm);
    // A pull collects what the killed ones left, except when it has nothing to do.
    store.prune(Catalogue::builtin()).unwrap();
    assert_eq!(left_in(store.tmp()), 0);
}
