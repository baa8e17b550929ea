//! Tools of services.

use std::collections::BTreeMap;

use pyro_client::types::{
    DEFAULT_READY_INTERVAL_MS, DEFAULT_READY_TIMEOUT_SECONDS, DEFAULT_TAIL_LINES, PublishPort,
    ReadServiceLogs, Readiness, Service, ServiceList, ServiceLogs, StartService,
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::command::{Command, max_bytes, root};
use super::workspace::Which;
use super::{Answer, Members, READS, REPLACES, RUNS, Tool, Words, tool};
use crate::call::Call;
use crate::undo::{ACCEPTED_WITHIN, Undo};
use crate::{Error, cut};

const SERVICE: Members = Members::all(&[
    "workspace_id",
    "name",
    "command",
    "cwd",
    "state",
    "ready",
    "readiness",
    "published",
    "started_at",
    "ready_at",
    "ended_at",
    "exit_code",
    "signal",
    "stop_reason",
    "error",
]);

/// The tools, in their order.
#[rustfmt::skip]
pub(super) fn tools() -> Vec<Tool> {
    vec![
        tool(Words::full("service_start", "Start a service",
            "Start a long-running program under a name and wait until it is ready: until the one ready_ probe given succeeds. \
             Next: service_logs; workspace_exec reaches it on 127.0.0.1."),
            RUNS, SERVICE, start),
        tool(Words::full("service_list", "List services",
            "A workspace's services, by name."),
            READS, Members::all(&["workspace_id", "count", "services"]), list),
        tool(Words::full("service_status", "Look at a service",
            "State, readiness, ports and exit of one service."),
            READS, SERVICE, status),
        tool(Words::full("service_logs", "Read a service's log",
            "The end of what a service wrote."),
            READS, Members::all(&["workspace_id", "name", "state", "log", "lines", "truncated", "next"]), logs),
        tool(Words::full("service_stop", "Stop a service",
            "End a service: SIGTERM, then SIGKILL. Its log stays."),
            REPLACES, SERVICE, stop),
    ]
}

const fn ready_timeout_seconds() -> u64 {
    DEFAULT_READY_TIMEOUT_SECONDS
}
const fn ready_interval_ms() -> u64 {
    DEFAULT_READY_INTERVAL_MS
}
const fn tail_lines() -> u64 {
    DEFAULT_TAIL_LINES
}

#[derive(Deserialize, JsonSchema)]
struct Start {
    /// Id or name
    workspace: String,
    /// The service's: letters, digits, `.`, `_`, `-`
    name: String,
    /// A bash line, or program and arguments
    command: Command,
    #[serde(default = "root")]
    cwd: String,
    /// Ready when this path exists
    ready_file: Option<String>,
    /// Ready when HOST:PORT accepts
    ready_tcp: Option<String>,
    /// Ready when this URL in the guest answers 2xx
    ready_http: Option<String>,
    /// Ready when this shell line exits with 0
    ready_command: Option<String>,
    /// Stopped and failed after this
    #[serde(default = "ready_timeout_seconds")]
    #[schemars(range(min = 1, max = 3600))]
    ready_timeout_seconds: u64,
    #[serde(default = "ready_interval_ms")]
    #[schemars(range(min = 10, max = 60000))]
    ready_interval_ms: u64,
    /// Variables added to the environment
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Secrets by name, each with the variable it is put into
    #[serde(default)]
    secret_env: BTreeMap<String, String>,
    /// Ports for the host's 127.0.0.1: "GUEST" or "HOST:GUEST"; needs egress+published-ports
    #[serde(default)]
    publish: Vec<String>,
}

async fn start(call: Call, input: Start) -> Result<Answer<Service>, Error> {
    let readiness = readiness(&input)?;
    let publish: Result<Vec<_>, Error> = input.publish.iter().map(|text| port(text)).collect();
    let request = StartService {
        cwd: input.cwd,
        env: input.env,
        secret_env: input.secret_env,
        readiness,
        ready_timeout_seconds: input.ready_timeout_seconds,
        ready_interval_ms: input.ready_interval_ms,
        publish: publish?,
        ..StartService::new(input.name, input.command.words())
    };
    let (client, workspace) = (call.client.clone(), input.workspace.clone());
    let name = request.name.clone();
    let start = async move { client.service_start(&workspace, &request).await };
    let (client, workspace) = (call.client.clone(), input.workspace);
    let stop = |made: Option<Service>| async move {
        // Without an answer ours is still coming up; one that is ready was there before.
        let ours = match made {
            Some(_) => true,
            None => {
                let there = client.service_status(&workspace, &name).await;
                there.is_ok_and(|service| !service.ready)
            }
        };
        if ours {
            let _ = client.service_stop(&workspace, &name).await;
        }
    };
    let started = Undo::begin(&call.tasks, start, stop).patience(ACCEPTED_WITHIN);
    Ok(started.kept().await?.into())
}

/// The one probe that is given.
fn readiness(input: &Start) -> Result<Option<Readiness>, Error> {
    let refused = |message: String, remedy: &str| Error::new("invalid_request", message, remedy);
    let tcp = |text: &String| {
        let parts = text.rsplit_once(':');
        let port = parts.and_then(|(_, port)| port.parse().ok().filter(|port| *port != 0));
        match (parts, port) {
            (Some((host, _)), Some(port)) if !host.is_empty() => Ok(Readiness::Tcp {
                host: host.trim_matches(['[', ']']).to_string(),
                port,
            }),
            _ => Err(refused(
                format!("`ready_tcp` is {text:?}; it must be HOST:PORT"),
                "pass for example 127.0.0.1:8080",
            )),
        }
    };
    let file = |path: &String| Readiness::File { path: path.clone() };
    let http = |url: &String| Readiness::Http { url: url.clone() };
    let command = |command: &String| Readiness::Command {
        command: command.clone(),
    };
    let mut given: Vec<Readiness> = Vec::new();
    given.extend(input.ready_file.as_ref().map(file));
    given.extend(input.ready_tcp.as_ref().map(tcp).transpose()?);
    given.extend(input.ready_http.as_ref().map(http));
    given.extend(input.ready_command.as_ref().map(command));
    if given.len() > 1 {
        return Err(refused(
            "more than one of `ready_file`, `ready_tcp`, `ready_http` and `ready_command` is given"
                .into(),
            "pass one of them, or none",
        ));
    }
    Ok(given.pop())
}

/// `GUEST` or `HOST:GUEST`.
fn port(text: &str) -> Result<PublishPort, Error> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0);
    let parsed = match text.split_once(':') {
        None => number(text).map(|guest_port| (None, guest_port)),
        Some((host, guest)) => number(host).map(Some).zip(number(guest)),
    };
    let (host_port, guest_port) = parsed.ok_or_else(|| {
        Error::new(
            "invalid_request",
            format!("`publish` has {text:?}; it must be GUEST or HOST:GUEST"),
            "pass for example \"8080\" or \"18080:8080\"",
        )
    })?;
    Ok(PublishPort {
        host_port,
        guest_port,
    })
}

async fn list(call: Call, input: Which) -> Result<Answer<ServiceList>, Error> {
    Ok(call.client.service_list(&input.workspace).await?.into())
}

#[derive(Deserialize, JsonSchema)]
struct Named {
    /// Id or name
    workspace: String,
    /// The service's
    name: String,
}

async fn status(call: Call, input: Named) -> Result<Answer<Service>, Error> {
    Ok(call
        .client
        .service_status(&input.workspace, &input.name)
        .await?
        .into())
}

async fn stop(call: Call, input: Named) -> Result<Answer<Service>, Error> {
    Ok(call
        .client
        .service_stop(&input.workspace, &input.name)
        .await?
        .into())
}

#[derive(Deserialize, JsonSchema)]
struct Logs {
    /// Id or name
    workspace: String,
    /// The service's
    name: String,
    #[serde(default = "tail_lines")]
    #[schemars(range(min = 1, max = 100_000))]
    tail_lines: u64,
    /// All that is kept, instead of tail_lines
    #[serde(default)]
    all: bool,
    /// Lines at the end to pass over, for what comes before them
    #[serde(default)]
    skip_lines: u64,
    /// The last ones are given
    #[serde(default = "max_bytes")]
    #[schemars(range(min = 256, max = 65536))]
    max_bytes: u64,
}

async fn logs(call: Call, input: Logs) -> Result<Answer<ServiceLogs>, Error> {
    let skip = input.skip_lines;
    let request = ReadServiceLogs {
        tail_lines: input.tail_lines.saturating_add(skip),
        all: input.all,
    };
    let mut logs = call
        .client
        .service_logs(&input.workspace, &input.name, &request)
        .await?;
    let kept = logs
        .log
        .lines()
        .count()
        .saturating_sub(usize::try_from(skip).unwrap_or(usize::MAX));
    let end = logs
        .log
        .split_inclusive('\n')
        .take(kept)
        .map(str::len)
        .sum();
    logs.log.truncate(end);
    logs.lines = kept as u64;
    let most = usize::try_from(input.max_bytes).unwrap_or(usize::MAX);
    let end = last_lines(&logs.log, most);
    let next = if end.len() < logs.log.len() {
        let lines = logs.log.len() - end.len();
        let left_out = logs.log[..lines].lines().count();
        logs.log = end.to_string();
        logs.lines = logs.log.lines().count() as u64;
        logs.truncated = true;
        let more = skip + logs.lines;
        Some(format!(
            "{left_out} earlier lines are left out: service_logs with all and skip_lines {more} gives those before"
        ))
    } else if logs.truncated && !input.all {
        Some("earlier lines are left out: pass all, or more tail_lines".into())
    } else if logs.truncated {
        Some("earlier lines are not kept".into())
    } else {
        None
    };
    Ok(Answer::from(logs).maybe_next(next))
}

/// The longest end of whole lines that fits, or of a line when even the last is too long.
fn last_lines(log: &str, most: usize) -> &str {
    let end = cut::back(log, most);
    let before = &log[..log.len() - end.len()];
    if before.is_empty() || before.ends_with('\n') {
        return end;
    }
    // The newline that ends the last line begins none.
    match end.trim_end_matches('\n').find('\n') {
        Some(first) => &end[first + 1..],
        None => end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_whole_lines_where_it_can_be() {
        for (log, most, end) in [
            ("one\ntwo\n", 100, "one\ntwo\n"),
            ("one\ntwo\n", 8, "two\n"),
            ("one\ntwo\n", 5, "two\n"),
            ("one\ntwo\n", 3, "o\n"),
            ("a line that is too long\n", 10, "too long\n"),
            ("two\nwithout", 9, "without"),
        ] {
            assert_eq!(last_lines(log, most), end, "{log:?} {most}");
        }
    }
}
