//! Damage is noticed, told apart from age, and repaired.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::*;

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
