//! Which operations count as activity. The contract has the list.

use std::collections::BTreeMap;

use pyro_client::types::*;

use super::*;

/// Whether `operation` moved the time of the last activity.
async fn moves<T>(engine: &Arc<Engine>, operation: impl Future<Output = Result<T>>) -> bool {
    let before = engine.get("a").expect("there").last_activity_at;
    operation.await.expect("works");
    let after = engine.get("a").expect("there").last_activity_at;
    assert!(after >= before);
    the_rendered_list_is_the_list(engine);
    after != before
}

/// Whatever has happened since its pieces were made.
fn the_rendered_list_is_the_list(engine: &Engine) {
    let rendered: serde_json::Value =
        serde_json::from_slice(&engine.list_rendered().into_json()).expect("JSON");
    let list = serde_json::to_value(engine.list()).expect("plain data");
    assert_eq!(rendered, list);
}

#[tokio::test]
async fn what_changes_a_workspace_is_activity_and_what_reads_it_is_not() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;
    let out = tempfile::tempdir().expect("temporary folder");
    let source = out.path().join("source");
    std::fs::create_dir(&source).expect("made");
    let output = |name: &str| out.path().join(name).display().to_string();
    let e = &engine;
    let list = || ListFiles {
        path: ".".into(),
        recursive: true,
    };
    let etc = || ListFiles {
        path: "/etc".into(),
        recursive: true,
    };
    let update = UpdateWorkspace {
        labels: BTreeMap::from([("k".into(), "v".into())]),
        ..UpdateWorkspace::default()
    };
    let write = WriteFile {
        path: "f".into(),
        content: "1\n".into(),
        encoding: Encoding::Utf8,
        expect_sha256: None,
    };
    let patch = |dry_run| ApplyPatch {
        patch: "--- a/f\n+++ b/f\n@@ -1 +1 @@\n-1\n+2\n".into(),
        dry_run,
    };
    let push = SyncPush {
        source: source.display().to_string(),
        dest: ".".into(),
    };
    let snapshot = CreateSnapshot { name: "s".into() };
    let ended = async {
        run(e, "a", shell("true")).await;
        Ok(())
    };
    let moved = [
        ("update", moves(e, e.update("a", update)).await),
        ("file_write", moves(e, e.file_write("a", write)).await),
        (
            "patch_apply",
            moves(e, e.patch_apply("a", patch(false))).await,
        ),
        ("sync_push", moves(e, e.sync_push("a", push)).await),
        ("exec", moves(e, ended).await),
        (
            "snapshot_create",
            moves(e, e.snapshot_create("a", snapshot)).await,
        ),
        (
            "snapshot_delete",
            moves(e, e.snapshot_delete("a", "s")).await,
        ),
        (
            "reset",
            moves(
                e,
                e.reset(
                    "a",
                    Reset {
                        snapshot: "baseline".into(),
                    },
                ),
            )
            .await,
        ),
    ];
    for (name, moved) in moved {
        assert!(moved, "{name} is activity");
    }
    std::fs::write(format!("{}/f", world.root()), "1\n").expect("written");
    run(e, "a", shell("true")).await;
    let stayed = [
        ("get", moves(e, async { e.get("a") }).await),
        ("list", moves(e, async { Ok(e.list()) }).await),
        ("health", moves(e, async { Ok(e.health()) }).await),
        ("logs", moves(e, e.logs("a")).await),
        (
            "exec_get",
            moves(e, e.exec_get("a", 1, Duration::ZERO)).await,
        ),
        ("file_list", moves(e, e.file_list("a", list())).await),
        (
            "file_read",
            moves(e, e.file_read("a", ReadFile::new("f"))).await,
        ),
        (
            "patch_apply, dry",
            moves(e, e.patch_apply("a", patch(true))).await,
        ),
        ("diff", moves(e, e.diff("a")).await),
        (
            "export",
            moves(
                e,
                e.export(
                    "a",
                    Export {
                        path: ".".into(),
                        output: output("tree"),
                        force: false,
                    },
                ),
            )
            .await,
        ),
        ("snapshot_list", moves(e, e.snapshot_list("a")).await),
    ];
    for (name, moved) in stayed {
        assert!(!moved, "{name} is no activity");
    }
    living(e).await;
    assert!(moves(e, e.stop("a")).await, "stop is activity");
    let image = ExportDisk {
        output: output("disk"),
        force: false,
    };
    let stayed = [
        ("disk_list", moves(e, e.disk_list("a", etc())).await),
        (
            "disk_read",
            moves(e, e.disk_read("a", ReadFile::new("/etc/hostname"))).await,
        ),
        ("disk_export", moves(e, e.disk_export("a", image)).await),
    ];
    for (name, moved) in stayed {
        assert!(!moved, "{name} is no activity");
    }
    assert!(moves(e, e.start("a")).await, "start is activity");
}

/// Services and shells.
async fn living(e: &Arc<Engine>) {
    let sleeping = StartService::new("s", ["sleep", "1000"]);
    assert!(
        moves(e, e.service_start("a", sleeping)).await,
        "service_start is activity"
    );
    let opened = moves(e, e.shell_open("a", OpenShell::default())).await;
    assert!(opened, "shell_open is activity");
    let id = e.shell_list("a").await.expect("listed").shells[0]
        .shell_id
        .clone();
    let line = WriteShell::line("true");
    assert!(
        moves(e, e.shell_write("a", &id, line)).await,
        "shell_write is activity"
    );
    let int = SignalShell::default();
    assert!(
        moves(e, e.shell_signal("a", &id, int)).await,
        "shell_signal is activity"
    );
    let stayed = [
        (
            "service_list",
            moves(e, async { e.service_list("a") }).await,
        ),
        (
            "service_status",
            moves(e, async { e.service_status("a", "s") }).await,
        ),
        (
            "service_logs",
            moves(e, e.service_logs("a", "s", ReadServiceLogs::default())).await,
        ),
        ("shell_list", moves(e, e.shell_list("a")).await),
        (
            "shell_read",
            moves(e, e.shell_read("a", &id, ReadShell::default())).await,
        ),
        (
            "shell_follow",
            moves(e, e.shell_follow("a", &id, FollowShell::default())).await,
        ),
        (
            "shell_resize",
            moves(
                e,
                e.shell_resize("a", &id, ResizeShell { cols: 80, rows: 24 }),
            )
            .await,
        ),
    ];
    for (name, moved) in stayed {
        assert!(!moved, "{name} is no activity");
    }
    assert!(
        moves(e, e.shell_close("a", &id)).await,
        "shell_close is activity"
    );
    assert!(
        moves(e, e.service_stop("a", "s")).await,
        "service_stop is activity"
    );
}

#[test]
fn the_time_of_the_last_activity_survives_a_killed_daemon() {
    let world = World::new();
    let before = world.daemon(async |engine| {
        create(&engine, "a").await;
        run(&engine, "a", shell("true")).await;
        engine.get("a").expect("there").last_activity_at
    });
    world.daemon(async |engine| {
        assert_eq!(engine.get("a").expect("there").last_activity_at, before);
    });
}
