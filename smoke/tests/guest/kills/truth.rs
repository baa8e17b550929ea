//! Whether what is told of services, shells and ports is so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use pyro_client::types::{ExecRequest, NetworkPolicy, Workspace, WorkspaceState};
use pyro_client::{Client, ClientError};

use super::living::{is_there, says_its_name};
use crate::daemon::Daemon;

/// Prints the services and shells that a guest really has: of each process the last two arguments.
const SCRIPT: &str = "for process in /proc/[0-9]*; do
    case $(cat $process/comm 2>/dev/null) in
        perl) tr '\\0' '\\n' <$process/cmdline | grep -x 'service-of-[0-9-]*' || true ;;
        bash) echo shell ;;
    esac
done";
/// A socket that listens (Linux, include/net/tcp_states.h).
const LISTENS: &str = "0A";
const LOOPBACK: &str = "0100007F";

/// What is told and is not so, while nothing goes on.
pub(super) async fn lies(
    daemon: &Daemon,
    client: &Client,
    workspaces: &[Workspace],
) -> Result<Vec<String>, ClientError> {
    let mut lies = Vec::new();
    let mut ports = BTreeSet::new();
    for workspace in workspaces {
        let id = &workspace.workspace_id;
        let services = client.service_list(id).await?.services;
        let shells = client.shell_list(id).await?.shells;
        let mut told: Vec<String> = services
            .iter()
            .filter(|service| is_there(service))
            .map(|service| service.name.clone())
            .chain(
                shells
                    .iter()
                    .filter(|shell| !shell.closed)
                    .map(|_| "shell".to_string()),
            )
            .collect();
        told.sort();
        let mut really = match workspace.state {
            WorkspaceState::Running => in_the_guest(client, id).await?,
            _ => Vec::new(),
        };
        really.sort();
        if told != really {
            lies.push(format!("{id} has {really:?}, and is told to have {told:?}"));
        }
        for service in &services {
            let left = service.state.is_live() || !service.published.is_empty();
            if !is_there(service) && left {
                lies.push(format!("{id}: {service:?}"));
            }
            let published = service.published.iter().map(|port| port.host_port);
            ports.extend(published);
            let service = service.clone();
            let answer = tokio::task::spawn_blocking(move || (says_its_name(&service), service));
            if let (Err(error), service) = answer.await.expect("its own name") {
                lies.push(format!("{service:?} does not answer: {error}"));
            }
        }
    }
    let listening = listening(&daemon.pids("pyro-net"));
    if ports != listening {
        lies.push(format!(
            "published are {ports:?}, and there are {listening:?}"
        ));
    }
    Ok(lies)
}

/// Workspaces that are to have a network and run without.
pub(super) fn without_network<'a>(daemon: &Daemon, workspaces: &'a [Workspace]) -> Vec<&'a str> {
    let pids = daemon.pids("pyro-net");
    let networks = networks(daemon, workspaces);
    let dead = networks.into_iter().filter(|(_, pid)| !pids.contains(pid));
    dead.map(|(id, _)| id).collect()
}

/// The networks that run, or did: by workspace.
pub(super) fn networks<'a>(daemon: &Daemon, workspaces: &'a [Workspace]) -> BTreeMap<&'a str, u32> {
    let with_one = workspaces.iter().filter(|workspace| {
        workspace.state == WorkspaceState::Running && workspace.network_policy != NetworkPolicy::Off
    });
    with_one
        .map(|workspace| {
            let id = workspace.workspace_id.as_str();
            let stat = daemon.path("state/workspaces").join(id).join("vm/net.stat");
            let stat = fs::read_to_string(stat).unwrap_or_default();
            let pid = stat.split(' ').next().and_then(|pid| pid.parse().ok());
            (id, pid.unwrap_or_default())
        })
        .collect()
}

async fn in_the_guest(client: &Client, id: &str) -> Result<Vec<String>, ClientError> {
    let request = ExecRequest {
        timeout_seconds: 200,
        ..ExecRequest::new(["sh", "-c", SCRIPT])
    };
    let record = client.exec(id, &request).await?;
    Ok(record.stdout.lines().map(str::to_string).collect())
}

/// The ports of the loopback that these processes listen on (proc(5), `net/tcp`).
fn listening(pids: &[u32]) -> BTreeSet<u16> {
    let descriptors = pids.iter().flat_map(|pid| {
        let entries = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten();
        entries.flatten().filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            let inode = target
                .to_str()?
                .strip_prefix("socket:[")?
                .strip_suffix(']')?;
            Some(inode.to_string())
        })
    });
    let ours: BTreeSet<String> = descriptors.collect();
    let table = fs::read_to_string("/proc/net/tcp").expect("/proc/net/tcp");
    let rows = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let (address, port) = fields.get(1)?.split_once(':')?;
        let listens = *fields.get(3)? == LISTENS && address == LOOPBACK;
        let is_ours = ours.contains(*fields.get(9)?);
        let port = u16::from_str_radix(port, 16).ok()?;
        (listens && is_ours).then_some(port)
    });
    rows.collect()
}
