//! `pyro workspace diff` and `patch apply`.

use std::io::{self, IsTerminal};

use pyro_client::types::{ApplyPatch, ChangeKind, Diff, PatchApplied};

use super::show;
use crate::args::{Of, Patch};
use crate::daemon;
use crate::input;
use crate::output::{Colour, Failure, Paint, escape, note};

pub(super) async fn diff(of: &Of) -> Result<(), Failure> {
    let diff = daemon::client().await?.diff(&of.workspace).await?;
    show(of.json.json, &diff, |diff| {
        let patch = if io::stdout().is_terminal() {
            painted(&diff.patch, Paint::stdout())
        } else {
            // For `git apply`, which skips what comes before the first file.
            diff.patch.clone()
        };
        format!("{}\n{patch}", counts(diff))
    })?;
    if !of.json.json && diff.patch_truncated {
        note("pyro: the patch was cut after 16 MiB; the counts are of all");
    }
    Ok(())
}

fn counts(diff: &Diff) -> String {
    if !diff.changed {
        return "No changes.".to_string();
    }
    let binary = match diff.non_text {
        0 => String::new(),
        number => format!(" ({number} not text)"),
    };
    let metadata = match diff.metadata {
        0 => String::new(),
        number => format!(", {number} with another owner"),
    };
    format!(
        "{} added, {} modified, {} deleted{metadata}{binary}",
        diff.added, diff.modified, diff.deleted
    )
}

/// A patch for a terminal: coloured by the kind of line, and harmless.
fn painted(patch: &str, paint: Paint) -> String {
    let mut text = String::with_capacity(patch.len() * 2);
    // Within a hunk, `--- ` is a line that is taken away, not a heading.
    let mut in_hunk = false;
    for line in patch.split_inclusive('\n') {
        let line = line.strip_suffix('\n').unwrap_or(line);
        let shown = escape::text(line);
        if line.starts_with("diff --git ") {
            in_hunk = false;
        }
        let first = line.as_bytes().first();
        if line.starts_with("@@ ") {
            in_hunk = true;
            text.push_str(&paint.colour(Colour::Blue, &shown));
        } else if !in_hunk {
            text.push_str(&paint.strong(&shown));
        } else if first == Some(&b'+') {
            text.push_str(&paint.colour(Colour::Green, &shown));
        } else if first == Some(&b'-') {
            text.push_str(&paint.colour(Colour::Red, &shown));
        } else {
            text.push_str(&shown);
        }
        text.push('\n');
    }
    text
}

pub(super) async fn patch(command: Patch) -> Result<(), Failure> {
    let Patch::Apply(args) = command;
    let request = ApplyPatch {
        patch: input::text_or_file(args.patch.filter(|patch| patch != "-"), args.patch_file)?,
        dry_run: args.dry_run,
    };
    let client = daemon::client().await?;
    let applied = client.patch_apply(&args.workspace, &request).await?;
    show(args.json.json, &applied, |applied| {
        summary(applied, Paint::stdout())
    })
}

fn summary(applied: &PatchApplied, paint: Paint) -> String {
    let done = if applied.dry_run {
        "Would apply"
    } else {
        "Applied"
    };
    let mut text = format!(
        "{done}: {} added, {} modified, {} deleted.\n",
        applied.added, applied.modified, applied.deleted
    );
    for entry in &applied.entries {
        let (letter, colour) = match entry.change {
            ChangeKind::Added => ("A", Colour::Green),
            ChangeKind::Modified => ("M", Colour::Yellow),
            ChangeKind::Deleted => ("D", Colour::Red),
            ChangeKind::TypeChanged => ("T", Colour::Yellow),
            ChangeKind::Metadata => ("O", Colour::Yellow),
        };
        let from = match &entry.renamed_from {
            Some(from) => format!(" (was {})", escape::line(from)),
            None => String::new(),
        };
        text.push_str(&format!(
            "  {} {}{from}\n",
            paint.colour(colour, letter),
            escape::line(&entry.path)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use pyro_client::types::PatchedFile;

    use super::*;

    #[test]
    fn a_removed_line_that_looks_like_a_heading_is_a_removed_line() {
        let patch =
            "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1,2 +1 @@\n--- old\n+new\x1b[2J\n same\n";
        assert_eq!(
            painted(patch, Paint::fixed(true)),
            "\x1b[1mdiff --git a/x b/x\x1b[0m\n\x1b[1m--- a/x\x1b[0m\n\x1b[1m+++ b/x\x1b[0m\n\
             \x1b[34m@@ -1,2 +1 @@\x1b[0m\n\x1b[31m--- old\x1b[0m\n\x1b[32m+new\\x1b[2J\x1b[0m\n same\n"
        );
        assert_eq!(
            painted(patch, Paint::fixed(false)),
            patch.replace('\x1b', "\\x1b")
        );
    }

    #[test]
    fn an_applied_patch_names_its_files() {
        let applied = PatchApplied {
            workspace_id: "ws-aaaaaaaaaaaa".into(),
            dry_run: true,
            added: 0,
            modified: 1,
            deleted: 0,
            entries: vec![PatchedFile {
                path: "new\n".into(),
                change: ChangeKind::Modified,
                renamed_from: Some("old".into()),
            }],
        };
        assert_eq!(
            summary(&applied, Paint::fixed(false)),
            "Would apply: 0 added, 1 modified, 0 deleted.\n  M new\\n (was old)\n"
        );
    }
}
