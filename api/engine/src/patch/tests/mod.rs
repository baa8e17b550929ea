//! Diffs and patches against Git itself, and patches that mean harm.

mod git;
mod hostile;
mod random;

use std::collections::BTreeMap;

use super::*;

/// A tree as maps have it: path, and what is there.
type Files = BTreeMap<Vec<u8>, (FileMode, Vec<u8>)>;

fn files(list: &[(&str, &str)]) -> Files {
    let file = |(path, content): &(&str, &str)| {
        let entry = (FileMode::Regular, content.as_bytes().to_vec());
        (path.as_bytes().to_vec(), entry)
    };
    list.iter().map(file).collect()
}

fn find(files: &Files, path: &[u8]) -> Found {
    for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
        if files.contains_key(&path[..at]) {
            return Found::Blocked {
                at: path[..at].to_vec(),
            };
        }
    }
    if let Some((mode, content)) = files.get(path) {
        return Found::File {
            mode: *mode,
            content: content.clone(),
        };
    }
    let beneath = [path, b"/"].concat();
    match files.keys().any(|key| key.starts_with(&beneath)) {
        true => Found::Directory,
        false => Found::Absent,
    }
}

/// `files` with `patch` applied.
fn apply(files: &Files, patch: &[u8]) -> Result<Files, PatchError> {
    let plan = Patch::parse(patch)?.plan(|path| Ok(find(files, path)))?;
    let mut after = files.clone();
    for change in plan {
        match change {
            FileChange::Delete { path } => {
                assert!(after.remove(&path).is_some());
            }
            FileChange::Write {
                path,
                mode,
                content,
                like,
            } => {
                assert!(like.is_none_or(|like| files.contains_key(&like)));
                after.insert(path, (mode, content));
            }
        }
    }
    Ok(after)
}

/// Our diff from `old` to `new`.
fn diff(old: &Files, new: &Files) -> (Vec<u8>, DiffCounts) {
    diff_with(old, new, BinaryFiles::Named)
}

fn diff_with(old: &Files, new: &Files, binary: BinaryFiles) -> (Vec<u8>, DiffCounts) {
    let (mut out, mut counts) = (Vec::new(), DiffCounts::default());
    let paths: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
    for path in paths {
        let side = |files: &'_ Files| files.get(path).cloned();
        let (old, new) = (side(old), side(new));
        let change = Change {
            path,
            old: old
                .as_ref()
                .map(|(mode, content)| Side::File(*mode, content)),
            new: new
                .as_ref()
                .map(|(mode, content)| Side::File(*mode, content)),
        };
        write_change(&mut out, &change, binary, &mut counts).unwrap();
    }
    (out, counts)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn an_unchanged_tree_has_no_diff() {
    let tree = files(&[("a", "x\n"), ("b", "")]);
    assert_eq!(diff(&tree, &tree), (Vec::new(), DiffCounts::default()));
}

#[test]
fn a_diff_looks_as_gits_does() {
    let old = files(&[
        ("gone", "g\n"),
        ("mod", "1\n2\n3\n4\n5\n6\n7\n8\n9"),
        ("bin", "a\0b"),
    ]);
    let new = files(&[
        ("mod", "1\n2\n3\n4\nfive\n6\n7\n8\n9\n"),
        ("new file", "n\n"),
        ("bin", "a\0c"),
    ]);
    let (out, counts) = diff(&old, &new);
    let want = "diff --git a/bin b/bin\nBinary files a/bin and b/bin differ\n\
        diff --git a/gone b/gone\ndeleted file mode 100644\n--- a/gone\n+++ /dev/null\n@@ -1 +0,0 @@\n-g\n\
        diff --git a/mod b/mod\n--- a/mod\n+++ b/mod\n@@ -2,8 +2,8 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n-9\n\\ No newline at end of file\n+9\n\
        diff --git a/new file b/new file\nnew file mode 100644\n--- /dev/null\n+++ b/new file\t\n@@ -0,0 +1 @@\n+n\n";
    assert_eq!(text(&out), want);
    let want = DiffCounts {
        added: 1,
        modified: 2,
        deleted: 1,
        insertions: 3,
        deletions: 3,
        binary: 1,
    };
    assert_eq!(counts, want);
}

#[test]
fn what_git_does_not_know_is_one_line() {
    let mut out = Vec::new();
    let mut counts = DiffCounts::default();
    let change = Change {
        path: b"dev/x",
        old: Some(Side::File(FileMode::Regular, b"x\n")),
        new: Some(Side::Special("character device")),
    };
    write_change(&mut out, &change, BinaryFiles::Named, &mut counts).unwrap();
    assert!(text(&out).starts_with("Special dev/x: file -> character device\ndiff --git "));
    assert!(text(&out).contains("deleted file mode"));
    assert_eq!(counts.modified, 1);
}

#[test]
fn huge_files_are_compared_in_bounded_time_and_still_rightly() {
    let old: String = (0..250_000).map(|i| format!("{i}\n")).collect();
    let new = old.replace("\n1000\n", "\nx\n").replace("\n200000\n", "\n");
    let (old, new) = (files(&[("f", &old)]), files(&[("f", &new)]));
    assert_eq!(apply(&old, &diff(&old, &new).0), Ok(new));
    // Nothing in common: the worst case of the search.
    let many = |from: u32| {
        (from..from + 60_000)
            .map(|i| format!("{i}\n"))
            .collect::<String>()
    };
    let (old, new) = (files(&[("f", &many(0))]), files(&[("f", &many(1_000_000))]));
    assert_eq!(apply(&old, &diff(&old, &new).0), Ok(new));
}
