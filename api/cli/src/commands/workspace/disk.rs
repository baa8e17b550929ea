//! `pyro workspace disk …`: the disk of a stopped workspace.

use pyro_client::types::{ExportDisk, ReadFile};

use super::files::{encoding, list_request, show_content, show_list};
use super::{long, show};
use crate::args::Disk;
use crate::daemon;
use crate::input;
use crate::output::{Failure, escape, human};

pub(super) async fn disk(command: Disk) -> Result<(), Failure> {
    match command {
        Disk::Export(args) => {
            let request = ExportDisk {
                output: input::host_path(&args.output)?,
                force: args.force,
            };
            let client = daemon::client().await?;
            let doing = format!("exporting the disk of {}", args.workspace);
            let exported = long(&doing, client.disk_export(&args.workspace, &request)).await?;
            show(args.json.json, &exported, |exported| {
                format!(
                    "Exported the disk to {}: {}, {} (sparse).\n",
                    escape::line(&exported.output),
                    escape::line(&exported.format),
                    human::bytes(exported.size_bytes)
                )
            })
        }
        Disk::List(args) => {
            let client = daemon::client().await?;
            let list = client
                .disk_list(&args.workspace, &list_request(&args))
                .await?;
            show_list(args.json.json, &list)
        }
        Disk::Read(args) => {
            let request = ReadFile {
                path: args.path,
                max_bytes: args.max.max_bytes,
                offset: 0,
                encoding: encoding(args.json.json),
            };
            let client = daemon::client().await?;
            let content = client.disk_read(&args.workspace, &request).await?;
            show_content(&content, args.json.json, false)
        }
    }
}
