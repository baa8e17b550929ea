//! Workspaces from creation to deletion, and what a daemon makes of what another left.

use std::collections::BTreeMap;

use pyro_client::types::{ExecState, UpdateWorkspace, WorkspaceState};

use super::*;

#[tokio::test]
async fn a_workspace_lives_from_creation_to_deletion() {
    let world = World::new();
    let engine = world.open().await;
    assert!(engine.idle_since().is_some());
    let made = create(&engine, "first").await;
    assert_eq!(made.state, WorkspaceState::Running);
    assert_eq!(engine.idle_since(), None);
    let folder = world.state().join("workspaces").join(&made.workspace_id);
    assert!(world.is_alive(&made.workspace_id));

    let stopped = engine.stop("first").await.expect("stopped");
    assert_eq!(stopped.state, WorkspaceState::Stopped);
    assert!(!folder.join("vm").exists());
    assert!(engine.idle_since().is_some());
    let refused = engine
        .exec("first", shell("true"))
        .await
        .expect_err("no guest");
    assert_eq!(refused.code(), Code::WorkspaceNotRunning);
    assert!(refused.remedy().contains("workspace start"));

    let started = engine.start("first").await.expect("started");
    assert_eq!(started.state, WorkspaceState::Running);
    let (record, _) = run(&engine, "first", shell("true")).await;
    assert_eq!(record.state, ExecState::Exited);

    engine.delete(&made.workspace_id).await.expect("deleted");
    assert!(!folder.exists());
    assert_eq!(engine.list().count, 0);
    assert_eq!(
        engine.get("first").expect_err("gone").code(),
        Code::WorkspaceNotFound
    );
    let layers = std::fs::read_dir(world.state().join("layers"))
        .expect("read")
        .count();
    assert_eq!(layers, 0);
}

#[tokio::test]
async fn names_find_a_workspace_as_long_as_they_are_unique() {
    let world = World::new();
    let engine = world.open().await;
    let (one, two) = (create(&engine, "same").await, create(&engine, "same").await);

    let error = engine.get("same").expect_err("ambiguous");
    assert_eq!(error.code(), Code::WorkspaceAmbiguous);
    assert!(
        error.remedy().contains(&one.workspace_id) && error.remedy().contains(&two.workspace_id)
    );
    let change = UpdateWorkspace {
        name: Some("other".into()),
        labels: BTreeMap::from([("k".into(), "v".into())]),
        ..UpdateWorkspace::default()
    };
    engine
        .update(&one.workspace_id, change)
        .await
        .expect("changed");

    assert_eq!(
        engine.get("other").expect("found").workspace_id,
        one.workspace_id
    );
    assert_eq!(
        engine.get("same").expect("found").workspace_id,
        two.workspace_id
    );
    let list = engine.list();
    assert_eq!(list.workspaces[0].workspace_id, one.workspace_id);
    assert_eq!(list.workspaces[0].labels["k"], "v");
}

#[tokio::test]
async fn contradictions_and_nothing_are_no_updates() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;
    let before = engine.get("a").expect("there");
    let labels = BTreeMap::from([("k".to_string(), "v".to_string())]);
    let changes = [
        UpdateWorkspace::default(),
        UpdateWorkspace {
            name: Some("b".into()),
            clear_name: true,
            ..UpdateWorkspace::default()
        },
        UpdateWorkspace {
            labels,
            clear_labels: vec!["k".into()],
            ..UpdateWorkspace::default()
        },
    ];
    for change in changes {
        let error = engine.update("a", change).await.expect_err("refused");
        assert_eq!(error.code(), Code::InvalidRequest);
    }
    assert_eq!(engine.get("a").expect("there"), before);
}

#[tokio::test]
async fn a_guest_that_ends_by_itself_fails_its_workspace_and_starts_again() {
    let world = World::new();
    let engine = world.open().await;
    let made = create(&engine, "a").await;
    let waiting = engine
        .exec("a", shell("sleep 1000"))
        .await
        .expect("started");
    world.kill(&made.workspace_id);

    let record = engine.exec_get("a", 1, PATIENCE).await.expect("there");
    assert_eq!(record.state, ExecState::Lost);
    drop(waiting);
    let mut idle = engine.idle();
    tokio::time::timeout(PATIENCE, idle.wait_for(Option::is_some))
        .await
        .expect("in time")
        .expect("open");
    let failed = engine.get("a").expect("there");
    assert_eq!(failed.state, WorkspaceState::Failed);
    assert_eq!(failed.failure.expect("why").code, "monitor_failed");

    let started = engine.start("a").await.expect("started");
    assert_eq!(
        (started.state, started.failure),
        (WorkspaceState::Running, None)
    );
}

#[test]
fn a_new_daemon_adopts_what_runs_and_says_what_ended() {
    let world = World::new();
    let ids = world.daemon(async |engine| {
        let mut ids = Vec::new();
        for name in ["live", "dead", "booted", "stopped"] {
            ids.push(create(&engine, name).await.workspace_id);
        }
        engine.stop("stopped").await.expect("stopped");
        let error = world.try_open().await.expect_err("locked");
        assert_eq!(error.code(), Code::StateLocked);
        ids
    });
    world.kill(&ids[1]);
    world.kill(&ids[2]);
    std::fs::write(world.vm_folder(&ids[2]).join("boot_id"), "another").expect("written");

    world.daemon(async |engine| {
        let state = |name: &str| engine.get(name).expect("there").state;
        assert_eq!(state("live"), WorkspaceState::Running);
        assert_eq!(state("dead"), WorkspaceState::Failed);
        assert_eq!(state("booted"), WorkspaceState::Stopped);
        assert_eq!(state("stopped"), WorkspaceState::Stopped);
        assert_eq!(engine.health().running, 1);
        let (record, _) = run(&engine, "live", shell("echo hi")).await;
        assert_eq!(record.stdout, "hi\n");
        engine.stop("live").await.expect("stopped");
        assert!(!world.is_alive(&ids[0]));
    });
}

#[test]
fn what_a_kill_left_half_done_is_finished_or_undone() {
    let world = World::new();
    let phases = ["creating", "deleting", "starting", "stopping"];
    let ids = world.daemon(async |engine| {
        let mut ids = Vec::new();
        for name in phases {
            ids.push(create(&engine, name).await.workspace_id);
        }
        ids
    });
    for (id, phase) in ids.iter().zip(phases) {
        let path = world
            .state()
            .join("workspaces")
            .join(id)
            .join("record.json");
        let text = std::fs::read_to_string(&path).expect("read");
        let changed = text.replace("\"phase\": \"running\"", &format!("\"phase\": \"{phase}\""));
        assert_ne!(text, changed);
        std::fs::write(&path, changed).expect("written");
    }
    // A layer that nobody names.
    std::fs::create_dir(world.state().join("layers/00000000000000aa")).expect("made");

    world.daemon(async |engine| {
        let names: Vec<_> = engine
            .list()
            .workspaces
            .into_iter()
            .filter_map(|w| w.name)
            .collect();
        assert_eq!(names.len(), 2, "{names:?}");
        for name in ["starting", "stopping"] {
            assert_eq!(
                engine.get(name).expect("there").state,
                WorkspaceState::Stopped
            );
        }
        assert_eq!(engine.health().running, 0);
    });
    for id in &ids {
        assert!(!world.is_alive(id));
    }
    assert!(!world.state().join("layers/00000000000000aa").exists());
}

#[test]
fn an_unreadable_record_is_listed_and_nothing_of_it_is_touched() {
    let world = World::new();
    let id = world.daemon(async |engine| {
        let made = create(&engine, "a").await;
        engine.stop("a").await.expect("stopped");
        made.workspace_id
    });
    let path = world
        .state()
        .join("workspaces")
        .join(&id)
        .join("record.json");
    std::fs::write(&path, "{").expect("written");
    let layers = || {
        std::fs::read_dir(world.state().join("layers"))
            .expect("read")
            .count()
    };
    let before = layers();

    world.daemon(async |engine| {
        let list = engine.list();
        assert_eq!((list.count, list.unreadable.len()), (0, 1));
        assert_eq!(list.unreadable[0].workspace_id, id);
        let error = engine.get(&id).expect_err("unreadable");
        assert_eq!(error.code(), Code::RecordUnreadable);
    });
    assert_eq!(layers(), before);
    assert_eq!(std::fs::read(&path).expect("there"), b"{");
}

#[tokio::test]
async fn an_expired_workspace_is_reaped_and_a_busy_one_is_not() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "idle").await;
    create(&engine, "busy").await;
    let busy = engine
        .exec("busy", shell("sleep 1000"))
        .await
        .expect("started");
    let expires = engine.get("busy").expect("there").expires_at;
    let mut failed = HashMap::new();

    let early = engine.reap_expired(Timestamp::now(), &mut failed).await;
    assert_eq!(early, Some(engine.get("idle").expect("there").expires_at));
    let late = expires + jiff::SignedDuration::from_secs(1);
    engine.reap_expired(late, &mut failed).await;

    let error = engine.get("idle").expect_err("reaped");
    assert_eq!(error.code(), Code::WorkspaceNotFound);
    assert_eq!(
        engine.get("busy").expect("there").state,
        WorkspaceState::Running
    );
    // The reaper is told when it may look again.
    drop(busy);
    tokio::time::timeout(PATIENCE, engine.reap.notified())
        .await
        .expect("in time");
}

#[tokio::test]
async fn a_thousand_records_are_listed_from_memory() {
    let world = World::new();
    let engine = world.open().await;
    for _ in 0..1000 {
        let record = crate::testing::record();
        let id = record.workspace_id.clone();
        let slot = Slot::new(record, world.state().join("nowhere"));
        engine.index_mut().slots.insert(id, Arc::new(slot));
    }
    let list = engine.list();
    assert_eq!(list.count, 1000);
    let times: Vec<_> = list.workspaces.iter().map(|w| w.last_activity_at).collect();
    assert!(times.is_sorted_by(|a, b| a >= b));
}
