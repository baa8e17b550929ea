//! Seeds, snapshots, diffs, exports and disks, on real layers. The guest's writes are made with
//! the disk's own tree while the workspace is stopped.

use std::fs;

use pyro_client::types::{
    ChangeKind, CreateSnapshot, Export, ExportDisk, ListFiles, ReadFile, Reset, SeedKind,
    WorkspaceState,
};
use pyro_rootfs::import::make_directories;
use pyro_rootfs::tree::{Ino, Name, NewNode, Owner, SetAttr, StackFiles, Tree};

use super::*;

/// A workspace with the seed `kept` and `edited`.
async fn seeded(world: &World, engine: &Arc<Engine>) -> Workspace {
    let seed = world.folder.path().join("seed");
    fs::create_dir(&seed).expect("made");
    fs::write(seed.join("kept"), "same\n").expect("written");
    fs::write(seed.join("edited"), "one\n").expect("written");
    let request = CreateWorkspace {
        name: Some("a".into()),
        seed_path: Some(seed.display().to_string()),
        ..CreateWorkspace::new("debian:12")
    };
    engine.create(request).await.expect("created")
}

/// Changes `/workspace` in the layer on top of a stopped workspace.
fn edit(engine: &Arc<Engine>, work: impl FnOnce(&mut Tree, Ino)) {
    let slot = engine.find("a").expect("there");
    let record = slot.record();
    let layers = engine.state.layers();
    let store = crate::environments::store(&engine.paths);
    let packed = super::super::create::open_packed(&store, &record.environment).expect("opened");
    let top = layers
        .open(record.disk.top.as_ref().expect("a top"))
        .expect("opened");
    let mut stack = StackFiles::new(packed, top);
    stack.frozen = record
        .disk
        .frozen
        .iter()
        .map(|id| layers.open(id).expect("opened"))
        .collect();
    let mut tree = Tree::open(stack).expect("opened");
    let dir = make_directories(&mut tree, b"workspace").expect("there");
    work(&mut tree, dir);
    tree.sync().expect("synced");
}

/// Writes a file of `/workspace` into the layer on top of a stopped workspace.
fn write(engine: &Arc<Engine>, path: &str, content: &str) {
    use std::os::unix::fs::FileExt;
    edit(engine, |tree, dir| {
        let name = Name::new(path.as_bytes()).expect("a name");
        if tree.lookup(dir, name).is_ok() {
            tree.unlink(dir, name).expect("unlinked");
        }
        let new = NewNode {
            parent: dir,
            name,
            owner: Owner { uid: 0, gid: 0 },
            mode: 0o644,
        };
        let ino = tree.create_file(new).expect("made").ino;
        tree.content_mut(ino)
            .expect("opened")
            .write_all_at(content.as_bytes(), 0)
            .expect("written");
        tree.wrote(ino, content.len() as u64, None).expect("noted");
    });
}

async fn text(engine: &Arc<Engine>, path: &str) -> Option<String> {
    match engine.file_read("a", ReadFile::new(path)).await {
        Ok(read) => Some(read.content),
        Err(error) => {
            assert_eq!(error.code(), Code::FileNotFound, "{error}");
            None
        }
    }
}

#[tokio::test]
async fn a_seed_is_the_baseline_and_its_provenance_is_kept() {
    let world = World::new();
    let engine = world.open().await;
    let made = seeded(&world, &engine).await;
    assert_eq!(
        (made.seed.kind, made.seed.entries, made.seed.bytes),
        (SeedKind::Directory, 2, 9)
    );
    let diff = engine.diff("a").await.expect("compared");
    assert_eq!((diff.changed, diff.patch.as_str()), (false, ""));
    engine.stop("a").await.expect("stopped");
    assert_eq!(text(&engine, "kept").await.as_deref(), Some("same\n"));
    let all = engine
        .disk_list(
            "a",
            ListFiles {
                path: "/".into(),
                recursive: true,
            },
        )
        .await
        .expect("listed");
    let paths: Vec<_> = all
        .entries
        .iter()
        .map(|entry| entry.path.as_str())
        .collect();
    assert_eq!(
        paths,
        [
            "/etc",
            "/etc/hostname",
            "/workspace",
            "/workspace/edited",
            "/workspace/kept"
        ]
    );
    let read = engine
        .disk_read("a", ReadFile::new("/etc/hostname"))
        .await
        .expect("read");
    assert_eq!(
        (read.content.as_str(), read.sha256.is_some()),
        ("pyro\n", true)
    );
    let error = engine
        .file_read("a", ReadFile::new("/etc/hostname"))
        .await
        .expect_err("refused");
    assert_eq!(error.code(), Code::PathEscapes);
}

#[tokio::test]
async fn a_seed_that_is_refused_leaves_nothing() {
    let world = World::new();
    let engine = world.open().await;
    let seed = world.folder.path().join("bad");
    fs::create_dir(&seed).expect("made");
    std::os::unix::fs::symlink("/etc/passwd", seed.join("out")).expect("made");
    let mut request = CreateWorkspace::new("debian:12");
    request.seed_path = Some(seed.display().to_string());

    let error = engine.create(request.clone()).await.expect_err("refused");
    assert_eq!(error.code(), Code::SourceRefused);
    assert!(error.sentence().contains("out"), "{}", error.sentence());
    request.seed_path = Some("relative".into());
    assert_eq!(
        engine.create(request).await.expect_err("refused").code(),
        Code::InvalidPath
    );

    assert_eq!(engine.list().count, 0);
    for folder in ["layers", "workspaces"] {
        assert_eq!(
            fs::read_dir(world.state().join(folder))
                .expect("read")
                .count(),
            0,
            "{folder}"
        );
    }
}

#[tokio::test]
async fn the_diff_is_against_the_baseline_whatever_the_snapshots() {
    let world = World::new();
    let engine = world.open().await;
    seeded(&world, &engine).await;
    engine.stop("a").await.expect("stopped");
    write(&engine, "edited", "two\n");
    engine
        .snapshot_create("a", CreateSnapshot { name: "s".into() })
        .await
        .expect("made");
    write(&engine, "new", "\0binary");

    let diff = engine.diff("a").await.expect("compared");

    assert_eq!(
        (diff.added, diff.modified, diff.deleted, diff.non_text),
        (1, 1, 0, 1)
    );
    let entries: Vec<_> = diff
        .entries
        .iter()
        .map(|e| (e.path.as_str(), e.change, e.binary))
        .collect();
    assert_eq!(
        entries,
        [
            ("edited", ChangeKind::Modified, false),
            ("new", ChangeKind::Added, true)
        ]
    );
    assert!(diff.patch.contains("-one\n+two\n"), "{}", diff.patch);
}

#[tokio::test]
async fn another_owner_and_a_file_too_large_to_compare_are_told_as_what_they_are() {
    let world = World::new();
    let engine = world.open().await;
    seeded(&world, &engine).await;
    engine.stop("a").await.expect("stopped");
    write(&engine, "large", &"text\n".repeat(2 << 20));
    edit(&engine, |tree, dir| {
        let name = Name::new(b"kept").expect("a name");
        let ino = tree.lookup(dir, name).expect("there").ino;
        let another = SetAttr {
            uid: Some(1000),
            ..SetAttr::default()
        };
        tree.set_attr(ino, &another).expect("set");
    });

    let diff = engine.diff("a").await.expect("compared");

    let entries: Vec<_> = diff
        .entries
        .iter()
        .map(|e| (e.path.as_str(), e.change, e.binary, e.too_large))
        .collect();
    assert_eq!(
        entries,
        [
            ("kept", ChangeKind::Metadata, false, false),
            ("large", ChangeKind::Added, false, true)
        ]
    );
    assert_eq!(
        (diff.added, diff.modified, diff.metadata, diff.non_text),
        (1, 0, 1, 1)
    );
    assert!(!diff.patch.contains("kept"), "{}", diff.patch);
}

#[tokio::test]
async fn reset_goes_back_to_a_snapshot_and_forgets_the_commands() {
    let world = World::new();
    let engine = world.open().await;
    seeded(&world, &engine).await;
    run(&engine, "a", shell("true")).await;
    engine.stop("a").await.expect("stopped");
    write(&engine, "edited", "two\n");
    engine
        .snapshot_create("a", CreateSnapshot { name: "two".into() })
        .await
        .expect("made");
    write(&engine, "edited", "three\n");
    let again = engine
        .snapshot_create("a", CreateSnapshot { name: "two".into() })
        .await;
    assert_eq!(again.expect_err("taken").code(), Code::SnapshotExists);

    let back = engine
        .reset(
            "a",
            Reset {
                snapshot: "two".into(),
            },
        )
        .await
        .expect("reset");
    assert_eq!(
        (back.state, back.reset_count, back.command_count),
        (WorkspaceState::Running, 1, 0)
    );
    assert_eq!(engine.logs("a").await.expect("read").entries, []);
    engine.stop("a").await.expect("stopped");
    assert_eq!(text(&engine, "edited").await.as_deref(), Some("two\n"));
    engine
        .reset(
            "a",
            Reset {
                snapshot: "baseline".into(),
            },
        )
        .await
        .expect("reset");
    engine.stop("a").await.expect("stopped");
    assert_eq!(text(&engine, "edited").await.as_deref(), Some("one\n"));

    let list = engine.snapshot_list("a").await.expect("listed");
    let names: Vec<_> = list
        .snapshots
        .iter()
        .map(|s| (s.name.as_str(), s.baseline))
        .collect();
    assert_eq!(names, [("baseline", true), ("two", false)]);
    engine.snapshot_delete("a", "two").await.expect("deleted");
    for name in ["two", "none"] {
        let error = engine
            .reset(
                "a",
                Reset {
                    snapshot: name.into(),
                },
            )
            .await
            .expect_err("gone");
        assert_eq!(error.code(), Code::SnapshotNotFound);
    }
    let error = engine
        .snapshot_delete("a", "baseline")
        .await
        .expect_err("stays");
    assert_eq!(error.code(), Code::SnapshotReserved);
    // The baseline and the top.
    assert_eq!(
        fs::read_dir(world.state().join("layers"))
            .expect("read")
            .count(),
        2
    );
}

#[test]
fn snapshots_survive_a_daemon_that_is_killed() {
    let world = World::new();
    world.daemon(async |engine| {
        seeded(&world, &engine).await;
        engine
            .snapshot_create("a", CreateSnapshot { name: "s".into() })
            .await
            .expect("made");
    });
    world.daemon(async |engine| {
        assert_eq!(engine.get("a").expect("there").snapshot_count, 1);
        engine
            .reset(
                "a",
                Reset {
                    snapshot: "s".into(),
                },
            )
            .await
            .expect("reset");
        engine.stop("a").await.expect("stopped");
        assert_eq!(text(&engine, "edited").await.as_deref(), Some("one\n"));
    });
}

#[tokio::test]
async fn exports_make_files_trees_and_images_and_never_replace_unasked() {
    let world = World::new();
    let engine = world.open().await;
    seeded(&world, &engine).await;
    let out = tempfile::tempdir().expect("temporary folder");
    let export = |path: &str, name: &str, force| Export {
        path: path.into(),
        output: out.path().join(name).display().to_string(),
        force,
    };

    let exported = engine
        .export("a", export(".", "tree", false))
        .await
        .expect("exported");
    assert_eq!(exported.bytes, 9);
    assert_eq!(
        fs::read(out.path().join("tree/edited")).expect("there"),
        b"one\n"
    );
    engine
        .export("a", export("kept", "file", false))
        .await
        .expect("exported");
    let error = engine
        .export("a", export("edited", "file", false))
        .await
        .expect_err("taken");
    assert_eq!(error.code(), Code::OutputExists);
    engine
        .export("a", export("edited", "file", true))
        .await
        .expect("replaced");
    assert_eq!(fs::read(out.path().join("file")).expect("there"), b"one\n");
    for (path, output, code) in [
        ("none", "x", Code::FileNotFound),
        ("../etc", "x", Code::PathEscapes),
        ("kept", "no/such/folder", Code::OutputUnwritable),
    ] {
        let error = engine
            .export("a", export(path, output, false))
            .await
            .expect_err("refused");
        assert_eq!(error.code(), code, "{path}: {}", error.sentence());
    }

    let image = ExportDisk {
        output: out.path().join("disk.ext4").display().to_string(),
        force: false,
    };
    let error = engine
        .disk_export("a", image.clone())
        .await
        .expect_err("it runs");
    assert_eq!(error.code(), Code::WorkspaceNotStopped);
    engine.stop("a").await.expect("stopped");
    let made = engine.disk_export("a", image).await.expect("made");
    assert_eq!(
        fs::metadata(&made.output).expect("there").len(),
        made.size_bytes
    );
}

#[tokio::test]
async fn a_prune_keeps_what_a_workspace_is_made_of() {
    let world = World::new();
    let engine = world.open().await;
    seeded(&world, &engine).await;
    engine.stop("a").await.expect("stopped");
    // A newer install of the same name.
    let manifest = world
        .folder
        .path()
        .join("images/environments/debian-12/manifest.json");
    fs::remove_file(&manifest).expect("removed");

    let pruned = crate::environments::prune(engine.paths()).expect("pruned");

    assert_eq!(pruned.artefacts, 0);
    engine.start("a").await.expect("started");
    engine.delete("a").await.expect("deleted");
    let pruned = crate::environments::prune(engine.paths()).expect("pruned");
    assert!(pruned.artefacts > 0);
}
