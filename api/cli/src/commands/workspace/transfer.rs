//! `pyro workspace sync push` and `export`.

use pyro_client::types::{Export, SyncPush};

use super::{long, note_skipped, show};
use crate::args::{Export as ExportArgs, Sync};
use crate::daemon;
use crate::input;
use crate::output::{Failure, escape, human};

pub(super) async fn sync(command: Sync) -> Result<(), Failure> {
    let Sync::Push(args) = command;
    let request = SyncPush {
        source: input::host_path(&args.source)?,
        dest: args.dest,
    };
    let client = daemon::client().await?;
    let doing = format!("pushing {}", request.source);
    let pushed = long(&doing, client.sync_push(&args.workspace, &request)).await?;
    show(args.json.json, &pushed, |pushed| {
        format!(
            "Pushed {} ({}) to {}.\n",
            human::count(pushed.entries, "entry"),
            human::bytes(pushed.bytes),
            escape::line(&pushed.dest)
        )
    })?;
    if !args.json.json {
        note_skipped(&pushed.skipped, pushed.skipped_count);
    }
    Ok(())
}

pub(super) async fn export(args: ExportArgs) -> Result<(), Failure> {
    let request = Export {
        path: args.path,
        output: input::host_path(&args.output)?,
        force: args.force,
    };
    let client = daemon::client().await?;
    let doing = format!("exporting {}", request.path);
    let exported = long(&doing, client.export(&args.workspace, &request)).await?;
    show(args.json.json, &exported, |exported| {
        format!(
            "Exported {} to {}: {} ({}).\n",
            escape::line(&exported.path),
            escape::line(&exported.output),
            human::count(exported.entries, "entry"),
            human::bytes(exported.bytes)
        )
    })?;
    if !args.json.json {
        note_skipped(&exported.skipped, exported.skipped_count);
    }
    Ok(())
}
