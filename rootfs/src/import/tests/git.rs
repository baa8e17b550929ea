//! Against Git itself: what comes along is what `git ls-files` says.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use super::*;
use crate::testing::scratch;
use crate::tree::Cookie;

fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@t",
            "-c",
            "init.defaultBranch=main",
        ])
        .args(args)
        .current_dir(dir)
        .env("HOME", "/nonexistent")
        .output()
        .expect("git is needed for this test");
    assert!(output.status.success(), "git {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// All files beneath `dir` but those of Git.
fn files(tree: &Tree, dir: Ino, prefix: &str, found: &mut BTreeSet<String>) {
    let mut entries = Vec::new();
    tree.read_dir(dir, Cookie::DOT_DOT, &mut |entry| {
        let name = String::from_utf8(entry.name.to_vec()).unwrap();
        entries.push((name, entry.ino, entry.file_type));
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    for (name, ino, file_type) in entries {
        match file_type {
            FileType::Directory if name == ".git" => {}
            FileType::Directory => files(tree, ino, &format!("{prefix}{name}/"), found),
            _ => {
                found.insert(format!("{prefix}{name}"));
            }
        }
    }
}

fn imported(path: &Path, ignored: IgnoredFiles) -> (BTreeSet<String>, ImportSummary) {
    let mut stage = stage();
    let limits = ImportLimits::default();
    let summary = import_path(&mut stage.tree, stage.dest, path, ignored, limits).unwrap();
    let mut found = BTreeSet::new();
    files(&stage.tree, stage.dest, "", &mut found);
    (found, summary)
}

fn write(root: &Path, path: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, "x").unwrap();
}

fn work_tree() -> tempfile::TempDir {
    let dir = scratch();
    let root = dir.path();
    git(root, &["init", "-q"]);
    for path in [
        "src/main.c",
        "src/main.o",
        "build/out",
        "build/kept",
        "logs/a.log",
        "logs/keep.log",
        "deep/a/b/c.tmp",
        "deep/a/b/c.txt",
        "node_modules/x/y.js",
        "only/here/secret",
        "secret",
        "x/only",
        "trailing",
        "doc/frotz/a",
        "a/doc/frotz/b",
        "excluded.me",
        "sub dir/with space.o",
    ] {
        write(root, path);
    }
    fs::write(
        root.join(".gitignore"),
        "# comment\n*.o\n/build/\n*.log\n!keep.log\nnode_modules/\ndeep/**/*.tmp\ndoc/frotz/\n/secret\n",
    )
    .unwrap();
    fs::write(root.join("x/.gitignore"), "only\n!*.o\n").unwrap();
    write(root, "x/again.o");
    fs::write(root.join(".git/info/exclude"), "excluded.*\n").unwrap();
    git(root, &["add", "."]);
    git(root, &["add", "-f", "build/kept"]);
    git(root, &["commit", "-q", "-m", "first"]);
    write(root, "untracked.txt");
    write(root, "untracked.o");
    dir
}

fn wanted(root: &Path) -> BTreeSet<String> {
    git(
        root,
        &[
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "-z",
        ],
    )
    .split_terminator('\0')
    .map(str::to_owned)
    .collect()
}

#[test]
fn ignored_files_stay_behind_and_tracked_ones_come_along() {
    let dir = work_tree();
    let (found, summary) = imported(dir.path(), IgnoredFiles::LeaveBehind);
    assert_eq!(found, wanted(dir.path()));
    assert!(found.contains("build/kept") && !found.contains("build/out"));
    assert!(summary.ignored > 5, "{summary:?}");
    let (all, summary) = imported(dir.path(), IgnoredFiles::Take);
    assert!(all.contains("build/out") && all.contains("src/main.o"));
    assert_eq!(summary.ignored, 0);
}

#[test]
fn the_rules_above_a_seed_hold_in_it() {
    let dir = work_tree();
    let (found, _) = imported(&dir.path().join("x"), IgnoredFiles::LeaveBehind);
    assert_eq!(found, wanted(&dir.path().join("x")));
    let (found, _) = imported(&dir.path().join("src"), IgnoredFiles::LeaveBehind);
    assert_eq!(found, BTreeSet::from(["main.c".to_owned()]));
}

#[test]
fn a_work_tree_in_a_work_tree_has_its_own_rules() {
    let dir = work_tree();
    let inner = dir.path().join("inner");
    fs::create_dir(&inner).unwrap();
    git(&inner, &["init", "-q"]);
    write(&inner, "kept.o");
    let (found, _) = imported(dir.path(), IgnoredFiles::LeaveBehind);
    assert!(found.contains("inner/kept.o"), "{found:?}");
}

#[test]
fn git_itself_comes_along_whole() {
    let dir = work_tree();
    let mut stage = stage();
    let limits = ImportLimits::default();
    let ignored = IgnoredFiles::LeaveBehind;
    import_path(&mut stage.tree, stage.dest, dir.path(), ignored, limits).unwrap();
    let head = crate::testing::at(&stage.tree, "workspace/.git/HEAD");
    assert_eq!(
        crate::testing::read(&mut stage.tree, head),
        b"ref: refs/heads/main\n"
    );
}
