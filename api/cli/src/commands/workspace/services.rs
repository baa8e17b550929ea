//! `pyro workspace service …`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pyro_client::types::{
    ReadServiceLogs, Readiness, Service as Record, ServiceList, ServiceState,
    StartService as Request, StopReason,
};

use super::{long, secret_env, show};
use crate::args::{Service, StartService};
use crate::daemon;
use crate::input;
use crate::output::{
    Cell, Colour, Column, Failure, Fields, Paint, Table, escape, hint, human, note, print,
    print_json,
};

pub(super) async fn service(command: Service) -> Result<(), Failure> {
    match command {
        Service::Start(args) => start(*args).await,
        Service::List(of) => {
            let list = daemon::client().await?.service_list(&of.workspace).await?;
            show(of.json.json, &list, |list| {
                table(list, Timestamp::now()).for_stdout()
            })
        }
        Service::Status(of) => {
            let client = daemon::client().await?;
            let record = client.service_status(&of.workspace, &of.name).await?;
            show(of.json.json, &record, |record| {
                words(record, Timestamp::now(), Paint::stdout())
            })
        }
        Service::Logs(args) => {
            let client = daemon::client().await?;
            let request = ReadServiceLogs {
                tail_lines: args.tail_lines,
                all: args.all,
            };
            let logs = client
                .service_logs(&args.workspace, &args.name, &request)
                .await?;
            if args.json.json {
                print_json(&logs)?;
                return Ok(());
            }
            if logs.truncated {
                note("pyro: older lines are left out (--tail-lines, --all)");
            }
            print(&escape::text(&logs.log))?;
            Ok(())
        }
        Service::Stop(of) => {
            let client = daemon::client().await?;
            let doing = format!("stopping the service {}", of.name);
            let stopped = long(&doing, client.service_stop(&of.workspace, &of.name)).await?;
            show(of.json.json, &stopped, |record| {
                format!(
                    "The service {} is {}.\n",
                    escape::line(&record.name),
                    state(record.state).0
                )
            })
        }
    }
}

async fn start(args: StartService) -> Result<(), Failure> {
    let readiness = match (
        args.ready_file,
        args.ready_tcp,
        args.ready_http,
        args.ready_command,
    ) {
        (Some(path), ..) => Some(Readiness::File { path }),
        (_, Some(address), ..) => Some(Readiness::Tcp {
            host: address.host,
            port: address.port,
        }),
        (_, _, Some(url), _) => Some(Readiness::Http { url }),
        (_, _, _, Some(command)) => Some(Readiness::Command { command }),
        _ => None,
    };
    let request = Request {
        name: args.name,
        command: input::command(args.command)?,
        cwd: args.cwd,
        env: BTreeMap::new(),
        secret_env: secret_env(args.secret_env)?,
        readiness,
        ready_timeout_seconds: args.ready_timeout_seconds,
        ready_interval_ms: args.ready_interval_ms,
        publish: args.publish,
    };
    let client = daemon::client().await?;
    let doing = format!("starting the service {}", request.name);
    let record = long(&doing, client.service_start(&args.workspace, &request)).await?;
    show(args.json.json, &record, |record| {
        let mut text = format!(
            "The service {} is {}.\n",
            escape::line(&record.name),
            if record.ready {
                "ready"
            } else {
                state(record.state).0
            }
        );
        for port in &record.published {
            text.push_str(&format!(
                "  {}:{} -> port {} of the guest\n",
                port.host, port.host_port, port.guest_port
            ));
        }
        text
    })?;
    if !args.json.json {
        let (workspace, name) = (escape::quoted(&args.workspace), &record.name);
        hint(&format!("pyro workspace service logs {workspace} {name}"));
        hint(&format!("pyro workspace service stop {workspace} {name}"));
    }
    Ok(())
}

fn table(list: &ServiceList, now: Timestamp) -> Table<5> {
    let mut table = Table::new([
        Column::flexible("SERVICE", 0),
        Column::fixed("STATE", 0),
        Column::fixed("STARTED", 2),
        Column::flexible("PORTS", 1),
        Column::flexible("COMMAND", 3),
    ]);
    for one in &list.services {
        let (word, colour) = state(one.state);
        table.row([
            one.name.as_str().into(),
            Cell::coloured(word, colour),
            human::ago(one.started_at, now).into(),
            ports(one).into(),
            Cell::dim(&escape::command(&one.command)),
        ]);
    }
    table
}

fn words(record: &Record, now: Timestamp, paint: Paint) -> String {
    let mut fields = Fields::default();
    fields.add("service", &record.name);
    fields.add("workspace", &record.workspace_id);
    fields.add("state", state(record.state).0);
    if let Some(reason) = record.stop_reason {
        fields.add("reason", why(reason));
    }
    if let Some(error) = &record.error {
        fields.add("error", format!("{}: {}", error.code, error.message));
        fields.add("fix", &error.remedy);
    }
    if let Some(code) = record.exit_code {
        fields.add("exit code", code.to_string());
    }
    fields.add("command", escape::command(&record.command));
    fields.add("directory", &record.cwd);
    if !record.published.is_empty() {
        fields.add("ports", ports(record));
    }
    fields.add("started", human::ago(record.started_at, now));
    if let Some(then) = record.ready_at {
        fields.add("ready", human::ago(then, now));
    }
    if let Some(then) = record.ended_at {
        fields.add("ended", human::ago(then, now));
    }
    fields.render(paint)
}

fn ports(record: &Record) -> String {
    let ports: Vec<_> = record
        .published
        .iter()
        .map(|port| format!("{}:{}->{}", port.host, port.host_port, port.guest_port))
        .collect();
    ports.join(", ")
}

fn state(state: ServiceState) -> (&'static str, Option<Colour>) {
    match state {
        ServiceState::Starting => ("starting", Some(Colour::Yellow)),
        ServiceState::Running => ("running", Some(Colour::Green)),
        ServiceState::Stopping => ("stopping", Some(Colour::Yellow)),
        ServiceState::Stopped => ("stopped", None),
        ServiceState::Failed => ("failed", Some(Colour::Red)),
        ServiceState::Exited => ("exited", None),
    }
}

fn why(reason: StopReason) -> &'static str {
    match reason {
        StopReason::Requested => "somebody stopped it",
        StopReason::Exited => "it ended by itself",
        StopReason::ExitedBeforeReady => "it ended before it was ready",
        StopReason::NotReady => "it was not ready in time",
        StopReason::NotStarted => "it could not be started",
        StopReason::WorkspaceStopped => "the workspace was stopped",
        StopReason::GuestEnded => "the guest ended",
    }
}
