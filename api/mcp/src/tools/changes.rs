//! Changes as a whole: sync push, export, diff and patch.

use pyro_client::types::{ApplyPatch, Diff, Export, Exported, PatchApplied, SyncPush, SyncPushed};
use schemars::JsonSchema;
use serde::Deserialize;

use super::command::{max_bytes, root};
use super::{Answer, Members, fit};
use crate::call::Call;
use crate::{Error, cut};

pub(super) const PUSHED: Members = Members {
    all: &["entries", "skipped_count"],
    wide: &["workspace_id", "source", "dest", "bytes", "skipped"],
};
pub(super) const EXPORTED: Members = Members {
    all: &["output", "entries"],
    wide: &[
        "workspace_id",
        "path",
        "kind",
        "bytes",
        "skipped",
        "skipped_count",
    ],
};
pub(super) const DIFF: Members = Members {
    all: &["changed", "entries", "patch", "next"],
    wide: &[
        "workspace_id",
        "added",
        "modified",
        "deleted",
        "metadata",
        "non_text",
        "patch_truncated",
    ],
};
pub(super) const PATCHED: Members = Members {
    all: &["dry_run", "entries"],
    wide: &["workspace_id", "added", "modified", "deleted", "next"],
};
/// Most paths that a diff names.
const MOST_PATHS: usize = 200;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Push {
    /// Id or name
    workspace: String,
    /// On the host
    source: String,
    #[serde(default = "root")]
    dest: String,
}

pub(super) async fn push(call: Call, input: Push) -> Result<Answer<SyncPushed>, Error> {
    let request = SyncPush {
        source: call.host_path("source", &input.source)?,
        dest: input.dest,
    };
    Ok(call
        .client
        .sync_push(&input.workspace, &request)
        .await?
        .into())
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct ExportTo {
    /// Id or name
    workspace: String,
    path: String,
    /// On the host
    output: String,
    /// Replaces output
    #[serde(default)]
    force: bool,
}

pub(super) async fn export(call: Call, input: ExportTo) -> Result<Answer<Exported>, Error> {
    let request = Export {
        path: input.path,
        output: call.host_path("output", &input.output)?,
        force: input.force,
    };
    Ok(call.client.export(&input.workspace, &request).await?.into())
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct ShowDiff {
    /// Id or name
    workspace: String,
    /// In the patch
    #[serde(default)]
    offset: u64,
    #[serde(default = "max_bytes")]
    #[schemars(range(min = 256, max = 65536))]
    max_bytes: u64,
}

pub(super) async fn diff(call: Call, input: ShowDiff) -> Result<Answer<Diff>, Error> {
    let mut diff = call.client.diff(&input.workspace).await?;
    let most = usize::try_from(input.max_bytes).unwrap_or(usize::MAX);
    let (at, rest) = cut::from(
        &diff.patch,
        usize::try_from(input.offset).unwrap_or(usize::MAX),
    );
    let part = cut::lines(rest, most).to_string();
    let end = at + part.len();
    let more = end < diff.patch.len();
    diff.patch_truncated |= more || at > 0;
    diff.patch = part;
    if at > 0 {
        // They were told with the beginning.
        diff.entries.clear();
    }
    let paths = diff.entries.len();
    diff.entries.truncate(MOST_PATHS);
    fit(&mut diff.entries);
    let named = diff.entries.len();
    let next = match (more, named < paths) {
        (true, false) => Some(format!("workspace_diff with offset {end} reads on")),
        (true, true) => Some(format!(
            "{named} of {paths} paths are named; workspace_diff with offset {end} reads on in the patch"
        )),
        (false, true) => Some(format!(
            "{named} of {paths} paths are named; the patch is whole"
        )),
        (false, false) => None,
    };
    Ok(Answer::from(diff).maybe_next(next))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Patch {
    /// Id or name
    workspace: String,
    patch: String,
    /// Only checks
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn patch(call: Call, input: Patch) -> Result<Answer<PatchApplied>, Error> {
    let request = ApplyPatch {
        patch: input.patch,
        dry_run: input.dry_run,
    };
    let mut applied = call.client.patch_apply(&input.workspace, &request).await?;
    let paths = applied.entries.len();
    applied.entries.truncate(MOST_PATHS);
    fit(&mut applied.entries);
    let named = applied.entries.len();
    let next = (named < paths)
        .then(|| format!("{named} of {paths} paths are named; workspace_diff shows what changed"));
    Ok(Answer::from(applied).maybe_next(next))
}
