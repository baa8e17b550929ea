//! `pyro workspace update|stop|start|delete`.

use pyro_client::types::UpdateWorkspace;

use super::create::labels;
use super::{called, long, show};
use crate::args::{Of, Update};
use crate::daemon;
use crate::output::{Failure, escape, hint};

pub(super) async fn update(args: Update) -> Result<(), Failure> {
    let request = UpdateWorkspace {
        name: args.name,
        clear_name: args.clear_name,
        labels: labels(args.labels)?,
        clear_labels: args.clear_labels,
    };
    let client = daemon::client().await?;
    let record = client.update(&args.workspace, &request).await?;
    show(args.json.json, &record, |record| {
        format!("Updated {}.\n", called(record))
    })
}

pub(super) async fn stop(of: &Of) -> Result<(), Failure> {
    let client = daemon::client().await?;
    let doing = format!("stopping {}", of.workspace);
    let record = long(&doing, client.stop(&of.workspace)).await?;
    show(of.json.json, &record, |record| {
        format!("Stopped {}; its disk stays.\n", called(record))
    })?;
    if !of.json.json {
        hint(&format!("pyro workspace start {}", record.workspace_id));
    }
    Ok(())
}

pub(super) async fn start(of: &Of) -> Result<(), Failure> {
    let client = daemon::client().await?;
    let doing = format!("starting {}", of.workspace);
    let record = long(&doing, client.start(&of.workspace)).await?;
    show(of.json.json, &record, |record| {
        format!("Started {} from its disk.\n", called(record))
    })?;
    if !of.json.json {
        hint(&format!(
            "pyro workspace exec {} -- ls -la",
            record.workspace_id
        ));
    }
    Ok(())
}

pub(super) async fn delete(of: &Of) -> Result<(), Failure> {
    let client = daemon::client().await?;
    let doing = format!("deleting {}", of.workspace);
    let deleted = long(&doing, client.delete(&of.workspace)).await?;
    show(of.json.json, &deleted, |deleted| {
        let id = escape::line(&deleted.workspace_id);
        format!("Deleted {id} with all it had.\n")
    })
}
