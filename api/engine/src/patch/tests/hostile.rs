use super::*;

fn parsed(patch: &str) -> PatchError {
    Patch::parse(patch.as_bytes()).unwrap_err()
}

fn planned(files: &Files, patch: &str) -> PatchError {
    apply(files, patch.as_bytes()).unwrap_err()
}

fn change(path: &str) -> String {
    format!("--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-x\n+y\n")
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    for path in [
        "../x",
        "a/../../x",
        "/etc/passwd",
        ".",
        "a//b",
        "./x",
        "a/.",
    ] {
        assert!(
            matches!(parsed(&change(path)), PatchError::Path { .. }),
            "{path}"
        );
    }
    for patch in [
        "diff --git a/x b/x\nrename from x\nrename to ../y\n",
        "diff --git a/x b/x\ncopy from /etc/passwd\ncopy to y\n",
        "diff --git a/../x b/../x\nnew file mode 100644\n",
        "--- /dev/null\n+++ \"b/\\056\\056/x\"\n@@ -0,0 +1 @@\n+x\n",
        "--- /dev/null\n+++ \"b/x\\000y\"\n@@ -0,0 +1 @@\n+x\n",
    ] {
        assert!(matches!(parsed(patch), PatchError::Path { .. }), "{patch}");
    }
    let long = "n".repeat(256);
    assert!(matches!(parsed(&change(&long)), PatchError::Path { .. }));
}

#[test]
fn nothing_is_patched_through_or_into_a_symbolic_link() {
    let mut tree = files(&[("f", "x\n")]);
    tree.insert(b"link".to_vec(), (FileMode::Symlink, b"/etc".to_vec()));
    for patch in [
        change("link/passwd"),
        "--- /dev/null\n+++ b/link/new\n@@ -0,0 +1 @@\n+x\n".into(),
    ] {
        assert!(
            matches!(planned(&tree, &patch), PatchError::Path { .. }),
            "{patch}"
        );
    }
    assert!(matches!(
        planned(&tree, &change("link")),
        PatchError::File { .. }
    ));
    // A link and something beneath it in one patch.
    let both = "diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+/etc\n\\ No newline at end of file\n\
        --- /dev/null\n+++ b/l/passwd\n@@ -0,0 +1 @@\n+x\n";
    assert!(matches!(planned(&tree, both), PatchError::File { .. }));
}

#[test]
fn a_file_is_changed_by_one_part_only() {
    let tree = files(&[("f", "x\n"), ("g", "x\n")]);
    let twice = change("f") + &change("f");
    let gone = "--- a/f\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n";
    let renamed = "diff --git a/f b/h\nrename from f\nrename to h\n";
    for patch in [
        twice,
        change("f") + gone,
        format!("{gone}{gone}"),
        change("f") + renamed,
        format!("{renamed}diff --git a/g b/h\nrename from g\nrename to h\n"),
    ] {
        let error = planned(&tree, &patch);
        let PatchError::File { reason, .. } = error else {
            panic!("{error:?}")
        };
        assert_eq!(reason, "two parts of the patch are about this file");
    }
}

#[test]
fn counts_that_lie_are_refused() {
    for patch in [
        "--- a/f\n+++ b/f\n@@ -1,2 +1 @@\n-x\n+y\n",
        "--- a/f\n+++ b/f\n@@ -1 +1 @@\n-x\n+y\n+z\n",
        "--- a/f\n+++ b/f\n@@ -1,99999999999999999999 +1 @@\n-x\n+y\n",
        "--- a/f\n+++ b/f\n@@ -1,4294967295 +1 @@\n-x\n+y\n",
        "--- a/f\n+++ b/f\n@@ -0 +1 @@\n-x\n+y\n",
        "--- a/f\n+++ b/f\n@@ -1 +1\n-x\n+y\n",
        "--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n-x\n\\ No newline at end of file\n y\n+z\n",
        "--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n-x\n+y\n z\n@@ -2 +2 @@\n-z\n+q\n",
        "--- a/f\n+++ b/g\n@@ -1 +1 @@\n-x\n+y\n",
        "@@ -1 +1 @@\n-x\n+y\n",
        "--- /dev/null\n+++ /dev/null\n@@ -1 +1 @@\n-x\n+y\n",
        "diff --git a/f b/f\nnew mode 160000\n",
        "diff --git a/f b/f\nindex 1..2 100644\nGIT binary patch\n",
    ] {
        assert!(
            matches!(parsed(patch), PatchError::Syntax { .. }),
            "{patch}"
        );
    }
    for empty in ["", "just words\n", "--- a/f\n", "+++ b/f\n"] {
        assert_eq!(parsed(empty), PatchError::Empty);
    }
}

#[test]
fn what_is_too_large_is_refused() {
    let many: String = (0..=FILES_MAX).map(|i| change(&format!("f{i}"))).collect();
    assert!(matches!(
        parsed(&many),
        PatchError::TooLarge { unit: "files", .. }
    ));
    let large = " ".repeat(PATCH_MAX + 1);
    assert!(matches!(
        parsed(&large),
        PatchError::TooLarge { unit: "bytes", .. }
    ));
}

#[test]
fn a_hunk_that_never_fits_ends_in_bounded_time() {
    let same = "x\n".repeat(300_000);
    let hunk = format!("@@ -1,20001 +1 @@\n{}-y\n+z\n", "-x\n".repeat(20_000));
    let error = planned(
        &files(&[("f", &same)]),
        &format!("--- a/f\n+++ b/f\n{hunk}"),
    );
    assert!(matches!(error, PatchError::Mismatch { .. }), "{error:?}");
}

#[test]
fn a_mismatch_names_file_hunk_and_line() {
    let tree = files(&[("src/f", "1\n2\n3\n4\n5\n6\n7\n8\n")]);
    let patch = "--- a/src/f\n+++ b/src/f\n@@ -1,2 +1,2 @@\n-1\n+one\n 2\n@@ -5,3 +5,3 @@\n 5\n-six\n+6\n 7\n";
    let want = PatchError::Mismatch {
        path: "src/f".into(),
        hunk: 2,
        line: 6,
        expected: "six".into(),
        found: Some("6".into()),
    };
    let error = planned(&tree, patch);
    assert_eq!(error, want);
    assert_eq!(
        error.to_string(),
        "\"src/f\": hunk 2 does not match at line 6: expected \"six\", found \"6\""
    );
}

#[test]
fn what_does_not_go_with_what_is_there_is_refused() {
    let tree = files(&[("f", "x\nrest\n"), ("d/x", "x\n")]);
    for patch in [
        "--- /dev/null\n+++ b/f\n@@ -0,0 +1 @@\n+x\n",
        "--- /dev/null\n+++ b/d\n@@ -0,0 +1 @@\n+x\n",
        "--- a/f\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n",
        "diff --git a/f b/d/x\nrename from f\nrename to d/x\n",
        "diff --git a/f b/f\nold mode 100644\nnew mode 120000\n",
    ] {
        assert!(
            matches!(planned(&tree, patch), PatchError::File { .. }),
            "{patch}"
        );
    }
    assert!(matches!(
        planned(&tree, &change("nothere")),
        PatchError::File { .. }
    ));
    assert!(matches!(
        planned(&tree, &change("d")),
        PatchError::File { .. }
    ));
}
