//! Workspaces, as a user has them: the real `pyro` and its daemon, one guest for many proofs.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::daemon::Daemon;
use crate::pyro::{Test, code, exists, kill, wait_until};

const ENVIRONMENT: &str = "debian:12";

pub(crate) fn tests() -> Vec<Test> {
    vec![
        ("a_workspace_is_seeded_changed_compared_and_set_back", life),
        ("only_changes_move_a_workspaces_last_activity", activity),
        ("a_workspace_outlives_its_daemon_and_its_monitor", survival),
    ]
}

/// A folder with a file in two directories, a script and a link.
fn seed(folder: &Path) {
    fs::create_dir_all(folder.join("src")).expect("a folder");
    fs::write(folder.join("src/main.py"), "def answer():\n    return 41\n").expect("a file");
    fs::write(folder.join("README"), "one\ntwo\nthree\n").expect("a file");
    fs::write(folder.join("run.sh"), "#!/bin/sh\necho it runs\n").expect("a file");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(folder.join("run.sh"), mode).expect("a mode");
    std::os::unix::fs::symlink("src/main.py", folder.join("link")).expect("a link");
}

fn life() {
    let daemon = Daemon::new();
    let folder = daemon.path("seed");
    seed(&folder);
    let source = folder.to_str().expect("UTF-8");

    let id = daemon.said(&[
        "create",
        ENVIRONMENT,
        "--seed-path",
        source,
        "--name",
        "Fix the answer",
        "--label",
        "issue=42",
        "--mem-mib",
        "512",
        "--id-only",
    ]);
    let id = id.trim();
    let status = daemon.json(&["status", "Fix the answer"]);
    assert_eq!(status["workspace_id"], id);
    assert_eq!(status["state"], "running");
    assert_eq!(status["seed"]["kind"], "directory");
    assert_eq!(status["labels"]["issue"], "42");
    assert_eq!(daemon.json(&["list"])["count"], 1);
    assert_eq!(daemon.error(&["status", "nobody"]), "workspace_not_found");

    // Commands: status, streams, folder, time.
    assert_eq!(
        code(&daemon.output(&["exec", id, "--", "sh", "-c", "exit 7"])),
        7
    );
    assert_eq!(
        daemon.sh(id, "pwd; ./run.sh; python3 link; cat link | wc -l"),
        "/workspace\nit runs\n2\n"
    );
    let slow = daemon.output(&[
        "exec",
        id,
        "--timeout-seconds",
        "1",
        "--",
        "sh",
        "-c",
        "sleep 1000 & sleep 1000",
    ]);
    assert_eq!(code(&slow), 124);
    assert_eq!(daemon.sh(id, "pgrep sleep || echo none"), "none\n");
    let both = daemon.output(&[
        "exec",
        id,
        "--json",
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 3",
    ]);
    assert_eq!(code(&both), 3);
    let both: Value = serde_json::from_slice(&both.stdout).expect("a document");
    assert_eq!(
        (&both["stdout"], &both["stderr"]),
        (&"out\n".into(), &"err\n".into())
    );

    // Files, and what may not be reached through them.
    assert_eq!(
        daemon.said(&["file", "read", id, "README", "--content-only"]),
        "one\ntwo\nthree\n"
    );
    let written = daemon.json(&["file", "write", id, "deep/er/note.txt", "--text", "hello\n"]);
    assert_eq!(written["created"], true);
    let stale = [
        "file",
        "write",
        id,
        "deep/er/note.txt",
        "--text",
        "x",
        "--expect-sha256",
        &"0".repeat(64),
    ];
    assert_eq!(daemon.error(&stale), "content_changed");
    for path in ["../etc/passwd", "/etc/passwd"] {
        assert_eq!(daemon.error(&["file", "read", id, path]), "path_escapes");
        assert_eq!(
            daemon.error(&["file", "write", id, path, "--text", "x"]),
            "path_escapes"
        );
    }
    daemon.sh(id, "ln -s /etc out");
    assert_eq!(
        daemon.error(&["file", "read", id, "out/passwd"]),
        "path_escapes"
    );
    daemon.sh(id, "rm out");
    let list = daemon.json(&["file", "list", id, "--recursive"]);
    let paths: Vec<_> = list["entries"]
        .as_array()
        .expect("entries")
        .iter()
        .map(|e| e["path"].as_str().expect("a path"))
        .collect();
    assert!(
        paths.contains(&"/workspace/deep/er/note.txt") && paths.is_sorted(),
        "{paths:?}"
    );

    // A patch: tried, refused as a whole, applied.
    let patch = "--- a/src/main.py\n+++ b/src/main.py\n@@ -1,2 +1,2 @@\n def answer():\n-    return 41\n+    return 42\n";
    let bad = format!("{patch}--- a/README\n+++ b/README\n@@ -1,2 +1,2 @@\n one\n-zwei\n+2\n");
    assert_eq!(
        daemon.error(&["patch", "apply", id, "--patch", &bad]),
        "patch_mismatch"
    );
    daemon.json(&["patch", "apply", id, "--patch", patch, "--dry-run"]);
    assert_eq!(daemon.sh(id, "grep -c 41 src/main.py"), "1\n");
    assert_eq!(
        daemon.json(&["patch", "apply", id, "--patch", patch])["modified"],
        1
    );
    assert_eq!(daemon.sh(id, "grep -c 42 src/main.py"), "1\n");

    // What is different now, as git understands it.
    daemon.sh(id, "rm README; chmod 644 run.sh; printf 'a\\0b' >binary");
    let diff = daemon.json(&["diff", id]);
    assert_eq!(
        (&diff["added"], &diff["modified"], &diff["deleted"]),
        (&2.into(), &2.into(), &1.into()),
        "{diff}"
    );
    daemon.sh(id, "rm binary");
    let patch = daemon.json(&["diff", id])["patch"]
        .as_str()
        .expect("a patch")
        .to_string();

    // Out to the host, and in again.
    let out = daemon.path("out");
    let out = out.to_str().expect("UTF-8");
    daemon.json(&["export", id, "src", "--output", out]);
    assert!(
        fs::read_to_string(Path::new(out).join("main.py"))
            .expect("the file")
            .contains("42")
    );
    assert_eq!(
        daemon.error(&["export", id, "src", "--output", out]),
        "output_exists"
    );
    daemon.json(&["sync", "push", id, source, "--dest", "again"]);
    assert_eq!(
        daemon.sh(id, "cat again/README | wc -l; again/run.sh"),
        "3\nit runs\n"
    );

    // Snapshots cover the whole disk; reset takes all back.
    daemon.sh(id, "echo kept >/etc/mark");
    daemon.json(&["snapshot", "create", id, "marked"]);
    daemon.sh(
        id,
        "echo lost >/etc/mark; rm -r /workspace/again; useradd somebody",
    );
    assert_eq!(
        daemon.error(&["snapshot", "create", id, "baseline"]),
        "snapshot_reserved"
    );
    assert_eq!(daemon.json(&["snapshot", "list", id])["count"], 2);
    let reset = daemon.json(&["reset", id, "--snapshot", "marked"]);
    assert_eq!(
        (
            &reset["state"],
            &reset["reset_count"],
            &reset["command_count"]
        ),
        (&"running".into(), &1.into(), &0.into())
    );
    assert_eq!(
        daemon.sh(
            id,
            "cat /etc/mark; ls again | wc -l; id somebody 2>/dev/null || echo nobody"
        ),
        "kept\n4\nnobody\n"
    );
    daemon.json(&["reset", id]);
    assert_eq!(
        daemon.sh(id, "test ! -e /etc/mark; cat README | wc -l"),
        "3\n"
    );
    assert_eq!(daemon.json(&["diff", id])["changed"], false);
    // What differed before applies to the baseline with git, and then differs again.
    daemon.json(&["file", "write", id, "changes", "--text", &patch]);
    daemon.sh(id, "git apply changes && rm changes");
    assert_eq!(daemon.json(&["diff", id])["patch"], patch.as_str());

    // Stopped: the disk is there without a guest.
    daemon.sh(id, "echo still here >/root/note");
    assert_eq!(daemon.error(&["disk", "list", id]), "workspace_not_stopped");
    assert_eq!(daemon.json(&["stop", id])["state"], "stopped");
    assert_eq!(
        daemon.error(&["exec", id, "--", "true"]),
        "workspace_not_running"
    );
    assert_eq!(
        daemon.json(&["disk", "read", id, "/root/note"])["content"],
        "still here\n"
    );
    let image = daemon.path("disk.ext4");
    daemon.json(&[
        "disk",
        "export",
        id,
        "--output",
        image.to_str().expect("UTF-8"),
    ]);
    assert_eq!(daemon.json(&["start", id])["state"], "running");
    assert_eq!(daemon.sh(id, "cat /root/note"), "still here\n");

    assert_eq!(daemon.json(&["delete", id])["deleted"], true);
    assert_eq!(daemon.json(&["list"])["count"], 0);
    assert_eq!(daemon.pids("pyro-vmm"), Vec::<u32>::new());
    for folder in ["state/workspaces", "state/layers"] {
        let left = fs::read_dir(daemon.path(folder))
            .into_iter()
            .flatten()
            .flatten();
        let left: Vec<_> = left
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
            .collect();
        assert_eq!(left, Vec::<PathBuf>::new());
    }
}

/// Every operation, and whether it counts as activity.
fn activity() {
    let daemon = Daemon::new();
    let id = daemon.said(&["create", ENVIRONMENT, "--mem-mib", "512", "--id-only"]);
    let id = id.trim();
    let source = daemon.path("seed");
    seed(&source);
    let source = source.to_str().expect("UTF-8");
    let out = |name: &str| daemon.path(name).to_str().expect("UTF-8").to_string();
    let (exported, image) = (out("exported"), out("image"));
    let patch = "--- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+new\n";
    let operations: &[(bool, &[&str])] = &[
        (true, &["update", id, "--name", "n"]),
        (true, &["sync", "push", id, source]),
        (true, &["exec", id, "--", "true"]),
        (true, &["file", "write", id, "f", "--text", "f"]),
        (true, &["patch", "apply", id, "--patch", patch]),
        (false, &["list"]),
        (false, &["status", id]),
        (false, &["logs", id]),
        (false, &["file", "list", id]),
        (false, &["file", "read", id, "f"]),
        (false, &["diff", id]),
        (false, &["export", id, "f", "--output", &exported]),
        (true, &["snapshot", "create", id, "s"]),
        (false, &["snapshot", "list", id]),
        (true, &["snapshot", "delete", id, "s"]),
        (true, &["reset", id]),
        (true, &["stop", id]),
        (false, &["disk", "list", id]),
        (false, &["disk", "read", id, "/etc/hostname"]),
        (false, &["disk", "export", id, "--output", &image]),
        (true, &["start", id]),
    ];
    let last = || daemon.json(&["status", id])["last_activity_at"].clone();
    let mut before = last();
    for (moves, operation) in operations {
        daemon.said(operation);
        let after = last();
        assert_eq!(before != after, *moves, "{operation:?}: {before} {after}");
        before = after;
    }
    daemon.said(&["delete", id]);
}

fn survival() {
    let daemon = Daemon::new();
    let id = daemon.said(&["create", ENVIRONMENT, "--mem-mib", "512", "--id-only"]);
    let id = id.trim();
    daemon.sh(id, "echo synced >/root/note; sync; echo $$ >/dev/shm/mark");

    // The daemon is killed: the guest goes on, and the next daemon finds it.
    let old = daemon.pids("pyro");
    assert_eq!(old.len(), 1, "one daemon");
    kill("KILL", old[0]);
    wait_until("the daemon is gone", || !exists(old[0]));
    assert_eq!(daemon.json(&["status", id])["state"], "running");
    daemon.sh(id, "test -e /dev/shm/mark");

    // The monitor is killed: said, and the disk is as it was synced.
    let monitor = daemon.pids("pyro-vmm");
    assert_eq!(monitor.len(), 1, "one monitor");
    kill("KILL", monitor[0]);
    wait_until("it is noticed", || {
        daemon.json(&["status", id])["state"] == "failed"
    });
    let status = daemon.json(&["status", id]);
    assert!(status["failure"]["remedy"].is_string(), "{status}");
    daemon.said(&["start", id]);
    assert_eq!(
        daemon.sh(id, "cat /root/note; test ! -e /dev/shm/mark"),
        "synced\n"
    );

    // Both are killed.
    for pid in [daemon.pids("pyro"), daemon.pids("pyro-vmm")].concat() {
        kill("KILL", pid);
        wait_until("it is gone", || !exists(pid));
    }
    assert_eq!(daemon.json(&["status", id])["state"], "failed");
    daemon.said(&["delete", id]);
    assert_eq!(daemon.json(&["list"])["count"], 0);
}
