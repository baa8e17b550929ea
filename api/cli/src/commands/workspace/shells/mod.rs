//! `pyro workspace shell …`.

mod attach;
mod raw;

use std::collections::BTreeMap;

use jiff::Timestamp;
use pyro_client::types::{Encoding, OpenShell, ReadShell, ShellList, WriteShell};

use super::{secret_env, show};
use crate::args::WorkspaceShell as Shell;
use crate::daemon;
use crate::output::{Cell, Column, Failure, Table, escape, hint, human, note, print, print_json};

pub(super) async fn shell(command: Shell) -> Result<(), Failure> {
    match command {
        Shell::Open(args) => {
            let request = OpenShell {
                cwd: args.cwd,
                cols: args.cols,
                rows: args.rows,
                env: BTreeMap::new(),
                secret_env: secret_env(args.secret_env)?,
            };
            let client = daemon::client().await?;
            let shell = client.shell_open(&args.workspace, &request).await?;
            if args.json.json {
                print_json(&shell)?;
            } else if args.id_only {
                print(&format!("{}\n", shell.shell_id))?;
            } else {
                print(&format!("Opened the shell {}.\n", shell.shell_id))?;
                let (workspace, id) = (escape::quoted(&args.workspace), &shell.shell_id);
                hint(&format!(
                    "pyro workspace shell write {workspace} {id} --input 'ls -la'"
                ));
                hint(&format!(
                    "pyro workspace shell read {workspace} {id} --plain --wait-for-idle-ms 300"
                ));
                hint(&format!("pyro workspace shell attach {workspace} {id}"));
            }
            Ok(())
        }
        Shell::List(of) => {
            let list = daemon::client().await?.shell_list(&of.workspace).await?;
            show(of.json.json, &list, |list| {
                table(list, Timestamp::now()).for_stdout()
            })
        }
        Shell::Read(args) => {
            let request = ReadShell {
                cursor: args.cursor,
                max_chars: args.max_chars,
                plain: args.plain,
                wait_for_idle_ms: args.wait_for_idle_ms,
            };
            let client = daemon::client().await?;
            let read = client
                .shell_read(&args.workspace, &args.shell, &request)
                .await?;
            if args.json.json {
                print_json(&read)?;
                return Ok(());
            }
            if read.dropped_bytes > 0 {
                note(&format!(
                    "pyro: {} before this are not kept",
                    human::bytes(read.dropped_bytes)
                ));
            }
            // Raw is raw: that is what it is asked for.
            print(&read.output)?;
            if args.plain && !read.output.is_empty() {
                print("\n")?;
            }
            if let (true, Some(code)) = (read.closed, read.exit_code) {
                note(&format!(
                    "pyro: the shell's program has ended with status {code}"
                ));
            }
            hint(&format!(
                "pyro workspace shell read {} {} --cursor {}{}",
                escape::quoted(&args.workspace),
                read.shell_id,
                read.cursor,
                if args.plain { " --plain" } else { "" }
            ));
            Ok(())
        }
        Shell::Write(args) => {
            let request = WriteShell {
                input: args.input,
                encoding: Encoding::Utf8,
                newline: !args.no_newline,
            };
            let client = daemon::client().await?;
            let written = client
                .shell_write(&args.workspace, &args.shell, &request)
                .await?;
            show(args.json.json, &written, |written| {
                format!("Typed {}.\n", human::count(written.bytes_written, "byte"))
            })
        }
        Shell::Signal(args) => {
            let client = daemon::client().await?;
            let signal = args.signal.into();
            let shell = client
                .shell_signal(&args.workspace, &args.shell, signal)
                .await?;
            show(args.json.json, &shell, |shell| {
                format!("Sent the signal to what runs in {}.\n", shell.shell_id)
            })
        }
        Shell::Close(of) => {
            let client = daemon::client().await?;
            let closed = client.shell_close(&of.workspace, &of.shell).await?;
            show(of.json.json, &closed, |closed| {
                format!("Closed the shell {}.\n", closed.shell_id)
            })
        }
        Shell::Attach(args) => attach::attach(&args.workspace, &args.shell).await,
    }
}

fn table(list: &ShellList, now: Timestamp) -> Table<5> {
    let mut table = Table::new([
        Column::fixed("SHELL", 0),
        Column::fixed("STATE", 0),
        Column::fixed("OPENED", 1),
        Column::fixed("SIZE", 2),
        Column::flexible("DIRECTORY", 3),
    ]);
    for one in &list.shells {
        let state = match (one.closed, one.exit_code) {
            (false, _) => "open".to_string(),
            (true, Some(code)) => format!("ended with {code}"),
            (true, None) => "ended".to_string(),
        };
        table.row([
            one.shell_id.as_str().into(),
            state.into(),
            human::ago(one.opened_at, now).into(),
            format!("{}x{}", one.cols, one.rows).into(),
            Cell::dim(&one.cwd),
        ]);
    }
    table
}
