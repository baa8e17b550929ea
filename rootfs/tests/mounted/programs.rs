//! Programs that people run.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::stage::{Stage, drop_caches, run};

/// A line for everything beneath `dir`: type, mode, owner, links, size, mtime, name, target.
fn manifest(dir: &Path) -> String {
    let format = "%y %m %U:%G %n %s %T@ %P %l\\n";
    let listing = run(Command::new("find").arg(dir).args(["-printf", format]));
    let mut lines: Vec<&str> = listing
        .lines()
        .filter(|line| !line.starts_with('d'))
        .collect();
    lines.sort_unstable();
    lines.join("\n")
}

pub(crate) fn cp_copies_a_tree(stage: &mut Stage) {
    let (usr, copy) = (stage.path("usr"), stage.path("tmp/copy"));
    run(Command::new("cp").arg("-a").args([&usr, &copy]));
    drop_caches(&stage.root());
    assert_eq!(manifest(&copy), manifest(&usr));
    run(Command::new("diff").arg("-r").args([&usr, &copy]));
    let bins = stage.path("tmp/bin");
    run(Command::new("cp")
        .arg("-a")
        .args([&stage.path("bin"), &bins]));
    assert_eq!(manifest(&bins), manifest(&stage.path("bin")));
    run(Command::new("rm").arg("-rf").args([&usr, &copy, &bins]));
    assert_eq!(fs::read_dir(stage.path("tmp")).unwrap().count(), 0);
}

pub(crate) fn tar_brings_a_tree_back(stage: &mut Stage) {
    let archive = stage.outside().join("all.tar");
    let members = ["usr", "etc", "bin", "big", "link", "null"];
    let tar = |action: &str, at: &Path| {
        let mut command = Command::new("tar");
        command.arg(action).arg(&archive).arg("-C").arg(at);
        command
    };
    run(tar("-cf", &stage.root()).arg("--format=pax").args(members));
    let back = stage.path("tmp/back");
    fs::create_dir(&back).unwrap();
    run(&mut tar("-xpf", &back));
    drop_caches(&stage.root());
    for name in members {
        assert!(
            manifest(&back.join(name)) == manifest(&stage.path(name)),
            "{name} differs"
        );
    }
    run(&mut tar("-df", &back));
}

pub(crate) fn git_clones(stage: &mut Stage) {
    let git = |at: &Path, args: &[&str]| {
        let mut command = Command::new("git");
        command
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
            .args(["-c", "safe.directory=*", "-c", "init.defaultBranch=main"])
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .args(args)
            .current_dir(at);
        run(&mut command)
    };
    let origin = stage.path("tmp/origin");
    fs::create_dir(&origin).unwrap();
    git(&origin, &["init", "-q"]);
    for i in 0..50 {
        fs::create_dir_all(origin.join(format!("d{i}"))).unwrap();
        fs::write(
            origin.join(format!("d{i}/file")),
            format!("{i}\n").repeat(100),
        )
        .unwrap();
    }
    git(&origin, &["add", "."]);
    git(&origin, &["commit", "-qm", "first"]);
    git(&origin, &["gc", "-q"]);
    git(&stage.path("tmp"), &["clone", "-q", "origin", "clone"]);
    let clone = stage.path("tmp/clone");
    fs::write(clone.join("d7/file"), "changed").unwrap();
    drop_caches(&stage.root());
    assert_eq!(git(&clone, &["status", "--porcelain"]), " M d7/file\n");
    git(&clone, &["commit", "-qam", "second"]);
    git(&clone, &["push", "-q", "origin", "HEAD:second"]);
    git(&origin, &["fsck", "--strict", "--full"]);
}

pub(crate) fn python_imports_and_sqlite_commits(stage: &mut Stage) {
    let script = r#"
import os, sys, shutil, tempfile
os.makedirs("tmp/pkg/inner")
for i in range(30):
    open(f"tmp/pkg/inner/m{i}.py", "w").write(f"value = {i}\n")
open("tmp/pkg/__init__.py", "w").close()
open("tmp/pkg/inner/__init__.py", "w").close()
sys.path.insert(0, "tmp")
import importlib
assert sum(importlib.import_module(f"pkg.inner.m{i}").value for i in range(30)) == 435
assert len(os.listdir("tmp/pkg/inner/__pycache__")) == 31
with tempfile.NamedTemporaryFile(dir="tmp", delete=False) as f:
    f.write(b"x" * 100000); f.flush(); os.fsync(f.fileno())
os.replace(f.name, "tmp/replaced")
assert os.path.getsize("tmp/replaced") == 100000
with tempfile.TemporaryFile(dir="tmp") as f:
    f.write(b"anonymous"); f.seek(0); assert f.read() == b"anonymous"
try:
    import sqlite3
except ImportError:
    sys.exit(0)
for mode in ("DELETE", "WAL", "TRUNCATE"):
    name = f"tmp/{mode}.db"
    db = sqlite3.connect(name)
    got = db.execute(f"PRAGMA journal_mode={mode}").fetchone()[0]
    assert got.upper() == mode, got
    db.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)")
    for n in range(20):
        with db:
            db.executemany("INSERT INTO t(b) VALUES (?)", [(str(i) * 50,) for i in range(50)])
        with db:
            db.execute("DELETE FROM t WHERE a % 7 = ?", (n % 7,))
    assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    db.close()
    db = sqlite3.connect(name)
    assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
"#;
    run(Command::new("python3")
        .args(["-c", script])
        .env_remove("PYTHONDONTWRITEBYTECODE")
        .env_remove("PYTHONPYCACHEPREFIX")
        .current_dir(stage.root()));
}

pub(crate) fn sqlite_commits(stage: &mut Stage) {
    let script = "PRAGMA journal_mode=DELETE; CREATE TABLE t(a); \
                  WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<5000) \
                  INSERT INTO t SELECT i FROM n; VACUUM;";
    let db = stage.path("tmp/test.db");
    run(Command::new("sqlite3").arg(&db).arg(script));
    drop_caches(&stage.root());
    let check = "PRAGMA integrity_check; SELECT sum(a) FROM t;";
    assert_eq!(
        run(Command::new("sqlite3").arg(&db).arg(check)),
        "ok\n12502500\n"
    );
}

/// Stressors of file systems that check what they read, each for two seconds.
pub(crate) fn stress_ng_verifies(stage: &mut Stage) {
    // What they work on lies half in a frozen layer, half in the writable one.
    fs::create_dir(stage.path("tmp/stress")).unwrap();
    stage.freeze();
    let stressors = [
        &["--hdd", "1", "--hdd-bytes", "8M"][..],
        &["--iomix", "1", "--iomix-bytes", "8M"],
        &["--seek", "1", "--seek-size", "4M"],
        &["--copy-file", "1", "--copy-file-bytes", "128M"],
        &["--dentry", "1", "--dentries", "256"],
        &["--rename", "1"],
        &["--link", "1"],
        &["--dir", "1", "--dir-dirs", "256"],
    ];
    for stressor in stressors {
        run(Command::new("stress-ng")
            .args(["--verify", "--timeout", "2s", "--temp-path"])
            .arg(stage.path("tmp/stress"))
            .args(stressor));
    }
    assert_eq!(fs::read_dir(stage.path("tmp/stress")).unwrap().count(), 0);
}
