//! Files of a running workspace, patches and pushes, through the real agent.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use pyro_client::types::{
    ApplyPatch, ChangeKind, Encoding, FileKind, ListFiles, ReadFile, SyncPush, WriteFile,
};

use super::*;

fn write(path: &str, content: &str) -> WriteFile {
    WriteFile {
        path: path.into(),
        content: content.into(),
        encoding: Encoding::Utf8,
        expect_sha256: None,
    }
}

fn list(path: &str, recursive: bool) -> ListFiles {
    ListFiles {
        path: path.into(),
        recursive,
    }
}

#[tokio::test]
async fn a_file_is_written_read_and_guarded_by_its_digest() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;

    let made = engine
        .file_write("a", write("src/new.txt", "één\n"))
        .await
        .expect("written");
    assert!(made.created);
    assert_eq!(made.path, format!("{}/src/new.txt", world.root()));
    let read = engine
        .file_read("a", ReadFile::new("src/new.txt"))
        .await
        .expect("read");
    assert_eq!((read.content.as_str(), read.truncated), ("één\n", false));
    assert_eq!(read.sha256.as_deref(), Some(made.sha256.as_str()));

    let host = PathBuf::from(world.root()).join("src/new.txt");
    fs::set_permissions(&host, fs::Permissions::from_mode(0o750)).expect("set");
    let mut again = write("src/new.txt", "two\n");
    again.expect_sha256 = Some(made.sha256.clone());
    let again = engine.file_write("a", again).await.expect("written");
    assert!(!again.created);
    assert_eq!(
        fs::metadata(&host).expect("there").permissions().mode() & 0o777,
        0o750
    );
    let mut stale = write("src/new.txt", "three\n");
    stale.expect_sha256 = Some(made.sha256);
    let error = engine.file_write("a", stale).await.expect_err("refused");
    assert_eq!(error.code(), Code::ContentChanged);
    assert_eq!(fs::read(&host).expect("there"), b"two\n");
}

#[tokio::test]
async fn a_cut_never_goes_through_a_character_and_binary_files_need_base64() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;
    fs::write(format!("{}/text", world.root()), "aéb").expect("written");
    fs::write(format!("{}/bytes", world.root()), b"\xff\xfe").expect("written");

    let mut request = ReadFile::new("text");
    request.max_bytes = 2;
    let cut = engine.file_read("a", request).await.expect("read");
    assert_eq!(
        (cut.content.as_str(), cut.bytes_read, cut.truncated),
        ("a", 1, true)
    );
    assert_eq!((cut.size_bytes, cut.sha256), (4, None));
    let error = engine
        .file_read("a", ReadFile::new("bytes"))
        .await
        .expect_err("no text");
    assert_eq!(error.code(), Code::NotUtf8);
    let mut request = ReadFile::new("bytes");
    request.encoding = Encoding::Base64;
    assert_eq!(
        engine.file_read("a", request).await.expect("read").content,
        "//4="
    );
}

#[tokio::test]
async fn listings_are_sorted_and_say_what_things_are() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;
    let root = PathBuf::from(world.root());
    fs::create_dir(root.join("dir")).expect("made");
    fs::write(root.join("dir/file"), "12345").expect("written");
    std::os::unix::fs::symlink("dir/file", root.join("link")).expect("made");

    let flat = engine
        .file_list("a", list(".", false))
        .await
        .expect("listed");
    let all = engine
        .file_list("a", list(&world.root(), true))
        .await
        .expect("listed");

    let names = |list: &pyro_client::types::FileList| -> Vec<String> {
        let base = format!("{}/", world.root());
        list.entries
            .iter()
            .map(|e| e.path.replace(&base, ""))
            .collect()
    };
    assert_eq!(names(&flat), ["dir", "link"]);
    assert_eq!(names(&all), ["dir", "dir/file", "link"]);
    assert_eq!(all.entries[1].size_bytes, 5);
    assert_eq!(all.entries[2].kind, FileKind::Symlink);
    assert_eq!(all.entries[2].link_target.as_deref(), Some("dir/file"));
    assert!(!all.truncated);
}

#[tokio::test]
async fn paths_that_leave_are_missing_or_no_files_are_refused_by_code() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;
    std::os::unix::fs::symlink("/etc", format!("{}/out", world.root())).expect("made");
    fs::create_dir(format!("{}/dir", world.root())).expect("made");
    let cases = [
        ("../x", Code::PathEscapes),
        ("/etc/passwd", Code::PathEscapes),
        ("out/passwd", Code::PathEscapes),
        ("none", Code::FileNotFound),
        ("dir", Code::FileKind),
        ("", Code::InvalidPath),
        ("a\0b", Code::InvalidPath),
    ];
    for (path, code) in cases {
        let error = engine
            .file_read("a", ReadFile::new(path))
            .await
            .expect_err("refused");
        assert_eq!(error.code(), code, "read {path:?}: {error}");
        if code != Code::FileNotFound {
            let error = engine
                .file_write("a", write(path, "x"))
                .await
                .expect_err("refused");
            assert_eq!(error.code(), code, "write {path:?}: {error}");
        }
    }
    let mut none = ReadFile::new("x");
    none.max_bytes = 0;
    assert_eq!(
        engine
            .file_read("a", none)
            .await
            .expect_err("refused")
            .code(),
        Code::InvalidRequest
    );
}

const PATCH: &str = "\
--- a/edit.txt
+++ b/edit.txt
@@ -1,3 +1,3 @@
 one
-two
+TWO
 three
--- /dev/null
+++ b/new/made.txt
@@ -0,0 +1 @@
+made
--- a/old/gone.txt
+++ /dev/null
@@ -1 +0,0 @@
-gone
diff --git a/from.sh b/to.sh
similarity index 100%
rename from from.sh
rename to to.sh
";

#[tokio::test]
async fn a_patch_adds_changes_deletes_and_renames_at_once() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;
    let root = PathBuf::from(world.root());
    fs::write(root.join("edit.txt"), "one\ntwo\nthree\n").expect("written");
    fs::create_dir(root.join("old")).expect("made");
    fs::write(root.join("old/gone.txt"), "gone\n").expect("written");
    fs::write(root.join("from.sh"), "#!/bin/sh\n").expect("written");
    fs::set_permissions(root.join("from.sh"), fs::Permissions::from_mode(0o700)).expect("set");
    let request = |dry_run| ApplyPatch {
        patch: PATCH.into(),
        dry_run,
    };

    let told = engine.patch_apply("a", request(true)).await.expect("fits");
    assert_eq!(
        fs::read(root.join("edit.txt")).expect("there"),
        b"one\ntwo\nthree\n"
    );
    let done = engine
        .patch_apply("a", request(false))
        .await
        .expect("applied");

    assert_eq!(told.entries, done.entries);
    assert_eq!((done.added, done.modified, done.deleted), (1, 2, 1));
    let changes: Vec<_> = done
        .entries
        .iter()
        .map(|e| (e.path.as_str(), e.change))
        .collect();
    assert_eq!(
        changes,
        [
            ("edit.txt", ChangeKind::Modified),
            ("new/made.txt", ChangeKind::Added),
            ("old/gone.txt", ChangeKind::Deleted),
            ("to.sh", ChangeKind::Modified),
        ]
    );
    assert_eq!(done.entries[3].renamed_from.as_deref(), Some("from.sh"));
    assert_eq!(
        fs::read(root.join("edit.txt")).expect("there"),
        b"one\nTWO\nthree\n"
    );
    assert_eq!(
        fs::read(root.join("new/made.txt")).expect("there"),
        b"made\n"
    );
    assert!(!root.join("old").exists() && !root.join("from.sh").exists());
    assert_eq!(
        fs::metadata(root.join("to.sh"))
            .expect("there")
            .permissions()
            .mode()
            & 0o777,
        0o700
    );
}

#[tokio::test]
async fn a_patch_that_does_not_fit_changes_nothing_and_says_where() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;
    let root = PathBuf::from(world.root());
    fs::write(root.join("edit.txt"), "one\nother\nthree\n").expect("written");
    fs::create_dir(root.join("old")).expect("made");
    fs::write(root.join("old/gone.txt"), "gone\n").expect("written");
    fs::write(root.join("from.sh"), "#!/bin/sh\n").expect("written");
    let patch = |text: &str| ApplyPatch {
        patch: text.into(),
        dry_run: false,
    };

    let error = engine
        .patch_apply("a", patch(PATCH))
        .await
        .expect_err("refused");
    assert_eq!(error.code(), Code::PatchMismatch);
    assert!(
        error.message().contains("edit.txt") && error.message().contains("other"),
        "{error}"
    );
    assert!(root.join("old/gone.txt").exists() && !root.join("new").exists());
    std::os::unix::fs::symlink("/etc", root.join("out")).expect("made");
    for text in [
        "",
        "--- a/../x\n+++ b/../x\n@@ -0,0 +1 @@\n+x\n",
        "--- /dev/null\n+++ b/out/x\n@@ -0,0 +1 @@\n+x\n",
        "--- /dev/null\n+++ b//etc/x\n@@ -0,0 +1 @@\n+x\n",
    ] {
        let error = engine
            .patch_apply("a", patch(text))
            .await
            .expect_err("refused");
        assert_eq!(error.code(), Code::PatchRefused, "{text:?}: {error}");
    }
}

#[tokio::test]
async fn a_push_lays_a_tree_over_what_is_there_or_changes_nothing() {
    let world = World::new();
    let engine = world.open().await;
    create(&engine, "a").await;
    let root = PathBuf::from(world.root());
    fs::create_dir_all(root.join("app/kept")).expect("made");
    fs::write(root.join("app/file"), "old").expect("written");
    let source = tempfile::tempdir().expect("temporary folder");
    fs::create_dir(source.path().join("sub")).expect("made");
    fs::write(source.path().join("file"), "new").expect("written");
    fs::write(source.path().join("sub/large"), vec![7; 700_000]).expect("written");
    fs::set_permissions(
        source.path().join("sub/large"),
        fs::Permissions::from_mode(0o755),
    )
    .expect("set");
    std::os::unix::fs::symlink("file", source.path().join("link")).expect("made");
    let push = |source: &std::path::Path| SyncPush {
        source: source.display().to_string(),
        dest: "app".into(),
    };

    let pushed = engine
        .sync_push("a", push(source.path()))
        .await
        .expect("pushed");

    assert_eq!(
        (pushed.entries, pushed.bytes, pushed.skipped_count),
        (4, 700_003, 0)
    );
    assert_eq!(pushed.dest, format!("{}/app", world.root()));
    assert_eq!(fs::read(root.join("app/file")).expect("there"), b"new");
    assert_eq!(
        fs::read(root.join("app/sub/large")).expect("there"),
        vec![7; 700_000]
    );
    assert_eq!(
        fs::metadata(root.join("app/sub/large"))
            .expect("there")
            .permissions()
            .mode()
            & 0o777,
        0o755
    );
    assert_eq!(
        fs::read_link(root.join("app/link")).expect("a link"),
        PathBuf::from("file")
    );
    assert!(root.join("app/kept").exists());

    // A link that leaves, after a file that would have been written.
    fs::write(source.path().join("file"), "newer").expect("written");
    std::os::unix::fs::symlink("/etc/passwd", source.path().join("zz")).expect("made");
    let error = engine
        .sync_push("a", push(source.path()))
        .await
        .expect_err("refused");
    assert_eq!(error.code(), Code::SourceRefused);
    assert_eq!(fs::read(root.join("app/file")).expect("there"), b"new");
    let missing = source.path().join("missing");
    let error = engine
        .sync_push("a", push(&missing))
        .await
        .expect_err("refused");
    assert_eq!(error.code(), Code::InvalidPath);
    let left = fs::read_dir(world.state()).expect("read").flatten();
    assert!(
        left.into_iter()
            .all(|entry| !entry.file_name().to_string_lossy().starts_with("push-"))
    );
}
