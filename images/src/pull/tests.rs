//! Pulls from a source that makes small files, so that what the store promises can be attacked.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, PermissionsExt};
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

fn path_of_data(store: &Store, manifest: &Manifest) -> PathBuf {
    store.artefact_path(manifest.layers[0].data.sha256)
}

/// Overwrites the first byte of a file in place, and puts its modification time back.
fn corrupt(path: &Path) {
    let before = fs::metadata(path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(b"X", 0).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o444)).unwrap();
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
fn damage_that_hides_its_times_is_noticed_and_only_that_half_is_built_again() {
    let (_directory, store) = store();
    let before = install(&store);
    corrupt(&path_of_data(&store, &before));

    assert_eq!(state(&store), State::Damaged);
    let error = store.open(recipe()).unwrap_err();
    assert_eq!(error.code(), "environment_damaged");
    assert_eq!(error.remedy(), "run `pyro env pull debian:12`");

    let fake = Fake::default();
    let outcome = pull_from(&fake, &store, recipe(), &mut Quiet).unwrap();

    assert_eq!(outcome.done, Done::Repaired);
    assert_eq!(
        fake.wanted(),
        [Wanted {
            root: true,
            kernel: false
        }]
    );
    assert_eq!(outcome.manifest.kernel, before.kernel);
    assert_eq!(state(&store), State::Warm);
}

#[test]
fn every_kind_of_damage_to_every_artefact_is_noticed_and_repaired() {
    let (_directory, store) = store();
    let parts = install(&store).artefacts().len();
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("changed", corrupt),
        ("missing", |path| fs::remove_file(path).unwrap()),
        ("cut", |path| {
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_len(10)
                .unwrap()
        }),
        ("link", |path| {
            let real = path.with_extension("real");
            fs::rename(path, &real).unwrap();
            std::os::unix::fs::symlink(real, path).unwrap();
        }),
        ("fifo", |path| {
            fs::remove_file(path).unwrap();
            let mode = rustix::fs::Mode::from_raw_mode(0o644);
            let kind = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
        }),
    ];
    for (what, damage) in damages {
        for part in 0..parts {
            let (part, artefact) = install(&store).artefacts()[part];
            let path = store.artefact_path(artefact.sha256);
            fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
            damage(&path);

            assert_eq!(state(&store), State::Damaged, "{what} {}", part.label());
            install(&store);
            assert_eq!(state(&store), State::Warm, "{what} {}", part.label());
        }
    }
}

#[test]
fn a_lost_stamp_costs_a_hash_and_nothing_else() {
    let (_directory, store) = store();
    let manifest = install(&store);
    let stamp = store.stamp_path(manifest.kernel.vmlinux.sha256);
    fs::remove_file(&stamp).unwrap();

    store.open(recipe()).unwrap();

    assert!(stamp.is_file());
}

#[test]
fn a_forged_stamp_of_another_file_is_not_believed() {
    let (_directory, store) = store();
    let manifest = install(&store);
    let stamp = store.stamp_path(manifest.kernel.vmlinux.sha256);
    fs::copy(store.stamp_path(manifest.packages.sha256), &stamp).unwrap();
    corrupt(&store.artefact_path(manifest.kernel.vmlinux.sha256));

    assert_eq!(state(&store), State::Damaged);
}

#[test]
fn an_install_of_another_recipe_is_stale_opens_and_is_replaced_whole() {
    let (_directory, store) = store();
    let older = Recipe {
        packages: vec!["hello".into()],
        ..recipe().clone()
    };
    pull_from(&Fake::default(), &store, &older, &mut Quiet).unwrap();

    assert_eq!(state(&store), State::Stale);
    assert_eq!(store.open(recipe()).unwrap().state, State::Stale);

    let fake = Fake::default();
    pull_from(&fake, &store, recipe(), &mut Quiet).unwrap();
    assert_eq!(fake.wanted(), [Wanted::ALL]);
    assert_eq!(state(&store), State::Warm);
}

#[test]
fn a_manifest_that_cannot_be_used_is_told_apart_and_repaired() {
    let (_directory, store) = store();
    let good = serde_json::to_value(install(&store)).unwrap();
    let path = store.manifest_path(&recipe().name);
    let with = |key: &str, value: serde_json::Value| {
        let mut manifest = good.clone();
        manifest[key] = value;
        manifest.to_string()
    };
    let cases = [
        (with("format", 2.into()), State::Stale),
        (with("layers", serde_json::json!([])), State::Damaged),
        (with("kernel", "gone".into()), State::Damaged),
        (good.to_string()[..100].to_owned(), State::Damaged),
        (String::new(), State::Damaged),
    ];
    for (text, expected) in cases {
        fs::write(&path, &text).unwrap();

        assert_eq!(state(&store), expected, "{text}");
        assert!(store.open(recipe()).is_err());
        install(&store);
        assert_eq!(state(&store), State::Warm);
    }
}

#[test]
fn prune_removes_only_what_nothing_refers_to() {
    let (_directory, store) = store();
    install(&store);
    let kept = left_in(store.artefacts());
    fs::create_dir(store.environments().join("debian-9")).unwrap();
    fs::write(
        store.artefact_path(crate::store::digest::Digest::of(b"x")),
        b"0123",
    )
    .unwrap();
    let stale = store.tmp().join("work-dead");
    fs::create_dir_all(stale.join("deep")).unwrap();
    let live = Work::create(&store.tmp().join("..").join("tmp"), &store.tmp_lock()).unwrap();
    fs::create_dir_all(&stale).unwrap();

    let pruned = store.prune(Catalogue::builtin()).unwrap();

    assert_eq!(pruned.environments, ["debian-9"]);
    assert_eq!(
        (pruned.artefacts, pruned.bytes, pruned.work_directories),
        (1, 4, 1)
    );
    assert_eq!(left_in(store.artefacts()), kept);
    assert!(live.path().is_dir() && !stale.exists());
    assert_eq!(state(&store), State::Warm);
}

#[test]
fn what_is_open_outlives_a_prune() {
    let (_directory, store) = store();
    let manifest = install(&store);
    let installed = store.open(recipe()).unwrap();
    fs::remove_dir_all(store.environments().join("debian-12")).unwrap();

    store.prune(Catalogue::builtin()).unwrap();

    assert!(!store.artefact_path(manifest.kernel.vmlinux.sha256).exists());
    let mut start = [0; 6];
    installed.kernel.read_exact_at(&mut start, 0).unwrap();
    assert_eq!(&start, b"kernel");
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
