//! Secrets: where they are, and where they are not.

use pyro_client::types::*;

use super::*;

const VALUE: &str = "hunter2-is-no-password";

async fn with_secrets(engine: &Arc<Engine>, secrets: Vec<DeclareSecret>) -> Result<Workspace> {
    engine
        .create(CreateWorkspace {
            name: Some("a".into()),
            secrets,
            ..CreateWorkspace::new("debian:12")
        })
        .await
}

/// Every file under a folder that has the value, but for those in which it belongs.
fn leaks(folder: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(leaks(&path));
        } else if let Ok(bytes) = std::fs::read(&path)
            && bytes
                .windows(VALUE.len())
                .any(|window| window == VALUE.as_bytes())
        {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn a_secret_reaches_programs_and_nobody_else() {
    let world = World::new();
    let engine = world.open().await;
    let file = world.folder.path().join("key");
    std::fs::write(&file, format!("{VALUE}-from-a-file\n")).expect("written");
    let workspace = with_secrets(
        &engine,
        vec![
            DeclareSecret::literal("TOKEN", VALUE),
            DeclareSecret::file("KEY", file.display().to_string()),
        ],
    )
    .await
    .expect("created");
    std::fs::remove_file(&file).expect("removed");
    let names: Vec<_> = workspace
        .secrets
        .iter()
        .map(|secret| secret.name.as_str())
        .collect();
    assert_eq!(names, ["TOKEN", "KEY"]);
    let files = world.vm_folder(&workspace.workspace_id).join("secrets");

    let mut request = shell(&format!(
        "test \"$API\" = {VALUE} && test \"$KEY\" = {VALUE}-from-a-file && \
         cat {0}/TOKEN && echo && cat {0}/KEY && stat -c %a {0}/KEY && echo $API >&2",
        files.display()
    ));
    request.secret_env = [("TOKEN", "API"), ("KEY", "KEY")]
        .map(|(name, variable)| (name.to_string(), variable.to_string()))
        .into();
    let (record, events) = run(&engine, "a", request).await;

    assert_eq!(record.exit_code, Some(0), "{record:?}");
    assert_eq!(record.stdout, "[REDACTED]\n[REDACTED]\n400\n");
    assert_eq!(record.stderr, "[REDACTED]\n");
    let told = serde_json::to_string(&(&record, &events, engine.list())).expect("plain data");
    assert!(!told.contains(VALUE), "{told}");
    let kept = leaks(&world.state());
    assert!(kept.iter().all(|path| path.starts_with(&files)), "{kept:?}");
}

#[tokio::test]
async fn a_secret_that_comes_in_pieces_is_redacted_in_the_stream_and_in_the_record() {
    let world = World::new();
    let engine = world.open().await;
    with_secrets(
        &engine,
        vec![DeclareSecret::literal("TOKEN", "s3cr3t-value")],
    )
    .await
    .expect("created");
    // Each piece is written when the one before has been read.
    let wait = |name: &str| format!("while [ ! -e {name} ]; do sleep 0.01; done");
    let script = format!(
        "printf 'a s3cr'; {}; printf '3t-val'; {}; printf 'ue b s3cr'",
        wait("one"),
        wait("two")
    );
    let mut stream = engine.exec("a", shell(&script)).await.expect("started");
    let mut streamed = Vec::new();
    let mut seen = false;
    let record = loop {
        match tokio::time::timeout(PATIENCE, stream.next())
            .await
            .expect("in time")
            .expect("an end")
        {
            ExecEvent::Stdout { data } => {
                use base64::Engine as _;
                let data = base64::engine::general_purpose::STANDARD
                    .decode(data)
                    .expect("base64");
                streamed.extend(data);
                if !seen {
                    seen = true;
                    assert_eq!(streamed, b"a ");
                    for name in ["one", "two"] {
                        std::fs::write(format!("{}/{name}", world.root()), "").expect("made");
                    }
                }
            }
            ExecEvent::Ended { record } => break record,
            _ => {}
        }
    };

    assert_eq!(record.stdout, "a [REDACTED] b s3cr");
    assert_eq!(String::from_utf8_lossy(&streamed), record.stdout);
}

#[test]
fn secrets_are_there_after_stop_start_reset_and_a_killed_daemon() {
    let world = World::new();
    let id = world.daemon(async |engine| {
        let declared = vec![DeclareSecret::literal("TOKEN", VALUE)];
        with_secrets(&engine, declared)
            .await
            .expect("created")
            .workspace_id
    });
    let request = || {
        let files = world.vm_folder(&id).join("secrets/TOKEN");
        let mut request = shell(&format!(
            "test \"$(cat {})\" = \"$T\"; echo $? $T",
            files.display()
        ));
        request.secret_env = [("TOKEN".to_string(), "T".to_string())].into();
        request
    };
    world.daemon(async |engine| {
        assert_eq!(
            run(&engine, "a", request()).await.0.stdout,
            "0 [REDACTED]\n"
        );
        engine.stop("a").await.expect("stopped");
        engine.start("a").await.expect("started");
        assert_eq!(
            run(&engine, "a", request()).await.0.stdout,
            "0 [REDACTED]\n"
        );
        engine
            .reset(
                "a",
                Reset {
                    snapshot: "baseline".into(),
                },
            )
            .await
            .expect("reset");
        assert_eq!(
            run(&engine, "a", request()).await.0.stdout,
            "0 [REDACTED]\n"
        );
        engine.delete("a").await.expect("deleted");
    });
    assert_eq!(leaks(&world.state()), Vec::<PathBuf>::new());
}

#[test]
fn a_workspace_whose_secrets_cannot_be_read_is_reported_and_not_shown() {
    let world = World::new();
    let id = world.daemon(async |engine| {
        let declared = vec![DeclareSecret::literal("TOKEN", VALUE)];
        with_secrets(&engine, declared)
            .await
            .expect("created")
            .workspace_id
    });
    let path = world
        .state()
        .join("workspaces")
        .join(&id)
        .join("secrets.json");
    std::fs::write(&path, "{").expect("written");

    world.daemon(async |engine| {
        let list = engine.list();
        assert_eq!((list.count, list.unreadable.len()), (0, 1));
        assert_eq!(list.unreadable[0].error.code, "record_unreadable");
    });
    assert!(path.exists());
}

#[tokio::test]
async fn what_cannot_be_a_secret_is_refused_and_nothing_is_made() {
    let world = World::new();
    let engine = world.open().await;
    let one = |name: &str, value: &str| vec![DeclareSecret::literal(name, value)];
    let long = "x".repeat(65537);
    let refused = [
        one("1A", VALUE),
        one("", VALUE),
        one("A", ""),
        one("A", "abc"),
        one("A", "abc\n\n"),
        one("A", "     "),
        one("A", &long),
        [one("A", VALUE), one("A", VALUE)].concat(),
        (0..65).flat_map(|n| one(&format!("A{n}"), VALUE)).collect(),
        (0..5)
            .flat_map(|n| one(&format!("A{n}"), &long[..60_000]))
            .collect(),
        vec![DeclareSecret::file("A", "/no/such/file")],
        vec![DeclareSecret::file("A", "relative")],
        vec![DeclareSecret {
            path: Some("/etc/hostname".into()),
            ..DeclareSecret::literal("A", VALUE)
        }],
    ];
    for secrets in refused {
        let error = with_secrets(&engine, secrets).await.expect_err("refused");
        assert_eq!(error.code(), Code::InvalidSecret);
        assert!(!error.sentence().contains(VALUE), "{}", error.sentence());
    }
    assert_eq!(engine.list().count, 0);
    let declared = vec![DeclareSecret::literal("TOKEN", VALUE)];
    with_secrets(&engine, declared).await.expect("created");
    let mut request = shell("true");
    request.secret_env = [("OTHER".to_string(), "T".to_string())].into();
    let error = engine.exec("a", request).await.expect_err("refused");
    assert_eq!(error.code(), Code::SecretNotFound);
}

#[tokio::test]
async fn commands_and_errors_that_name_a_value_are_kept_without_it() {
    let world = World::new();
    let engine = world.open().await;
    with_secrets(&engine, vec![DeclareSecret::literal("TOKEN", VALUE)])
        .await
        .expect("created");

    let (record, _) = run(&engine, "a", ExecRequest::new([VALUE, "x"])).await;

    assert_eq!(record.command, ["[REDACTED]", "x"]);
    assert!(!format!("{record:?}").contains(VALUE), "{record:?}");
    let start = StartService::new("s", [VALUE]);
    let error = engine.service_start("a", start).await.expect_err("refused");
    assert!(!format!("{error:?} {}", error.sentence()).contains(VALUE));
    let start = StartService {
        readiness: Some(Readiness::Command {
            command: format!("test {VALUE} = {VALUE}"),
        }),
        ..StartService::new("s", ["sleep", "1000"])
    };
    let started = engine.service_start("a", start).await.expect("ready");
    assert!(!format!("{started:?}").contains(VALUE), "{started:?}");
    let leaked = leaks(&world.state());
    assert!(
        leaked.iter().all(|path| path.ends_with("vm/secrets/TOKEN")),
        "{leaked:?}"
    );
}
