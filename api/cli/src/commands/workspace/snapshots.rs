//! `pyro workspace snapshot …` and `reset`.

use jiff::Timestamp;
use pyro_client::types::{CreateSnapshot, Reset, SnapshotList};

use super::{called, long, show};
use crate::args::{Reset as ResetArgs, Snapshot};
use crate::daemon;
use crate::output::{Cell, Column, Failure, Table, escape, hint, human};

pub(super) async fn snapshot(command: Snapshot) -> Result<(), Failure> {
    let client = daemon::client().await?;
    match command {
        Snapshot::Create(args) => {
            let doing = format!("making the snapshot {}", args.name);
            let request = CreateSnapshot { name: args.name };
            let call = client.snapshot_create(&args.workspace, &request);
            let snapshot = long(&doing, call).await?;
            show(args.json.json, &snapshot, |snapshot| {
                format!("Made the snapshot {}.\n", escape::line(&snapshot.name))
            })?;
            if !args.json.json {
                hint(&format!(
                    "pyro workspace reset {} --snapshot {}",
                    escape::quoted(&args.workspace),
                    escape::quoted(&snapshot.name)
                ));
            }
            Ok(())
        }
        Snapshot::List(of) => {
            let list = client.snapshot_list(&of.workspace).await?;
            show(of.json.json, &list, |list| {
                table(list, Timestamp::now()).for_stdout()
            })
        }
        Snapshot::Delete(args) => {
            let call = client.snapshot_delete(&args.workspace, &args.name);
            let deleted = call.await?;
            show(args.json.json, &deleted, |deleted| {
                format!("Deleted the snapshot {}.\n", escape::line(&deleted.name))
            })
        }
    }
}

fn table(list: &SnapshotList, now: Timestamp) -> Table<3> {
    let mut table = Table::new([
        Column::flexible("SNAPSHOT", 0),
        Column::fixed("CREATED", 0),
        Column::flexible("", 1),
    ]);
    for one in &list.snapshots {
        let about = if one.baseline {
            "how it was made; stays"
        } else {
            ""
        };
        table.row([
            one.name.as_str().into(),
            human::ago(one.created_at, now).into(),
            Cell::dim(about),
        ]);
    }
    table
}

pub(super) async fn reset(args: ResetArgs) -> Result<(), Failure> {
    let client = daemon::client().await?;
    let doing = format!("resetting {} to {}", args.workspace, args.snapshot);
    let request = Reset {
        snapshot: args.snapshot,
    };
    let record = long(&doing, client.reset(&args.workspace, &request)).await?;
    show(args.json.json, &record, |record| {
        format!(
            "Reset {} to {}.\n",
            called(record),
            escape::line(&request.snapshot)
        )
    })
}
