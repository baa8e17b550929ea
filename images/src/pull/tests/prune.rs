//! Pruning takes nothing that anybody needs.

use std::fs;
use std::os::unix::fs::FileExt;

use super::*;

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
