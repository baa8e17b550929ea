//! What may be there while nothing goes on, and what must.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::{Duration, Instant};

use pyro_client::types::{NetworkPolicy, WorkspaceState};
use serde_json::Value;

use super::owner::Owner;
use super::truth;
use crate::daemon::Daemon;

/// How long the daemon may take to note what has ended.
const SETTLED: Duration = Duration::from_secs(60);

/// Looks until all is as it must be, and fails when it does not become so. Says which workspaces run
/// without the network that they should have.
pub(super) async fn look(daemon: &Daemon, owners: &[Owner]) -> Vec<String> {
    let client = daemon.launcher().ensure_daemon().await.expect("a daemon");
    let began = Instant::now();
    loop {
        let list = client.list().await.expect("a list");
        assert!(list.unreadable.is_empty(), "{:?}", list.unreadable);
        let mut wrong = differences(daemon, owners, &list.workspaces);
        if wrong.is_empty() {
            let lies = truth::lies(daemon, &client, &list.workspaces).await;
            wrong = lies.unwrap_or_else(|error| vec![error.to_string()]);
        }
        if wrong.is_empty() {
            let without = truth::without_network(daemon, &list.workspaces);
            return without.into_iter().map(str::to_string).collect();
        }
        assert!(began.elapsed() < SETTLED, "{}", wrong.join("\n"));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn differences(
    daemon: &Daemon,
    owners: &[Owner],
    workspaces: &[pyro_client::types::Workspace],
) -> Vec<String> {
    let state = daemon.path("state");
    let mut wrong = Vec::new();
    let mut compare = |what: &str, found: BTreeSet<String>, wanted: BTreeSet<String>| {
        for extra in found.difference(&wanted) {
            wrong.push(format!("{what}: {extra} is left over"));
        }
        for missing in wanted.difference(&found) {
            wrong.push(format!("{what}: {missing} is missing"));
        }
    };
    let ids: BTreeSet<String> = workspaces.iter().map(|w| w.workspace_id.clone()).collect();
    let running: Vec<&str> = workspaces
        .iter()
        .filter(|workspace| workspace.state == WorkspaceState::Running)
        .map(|workspace| workspace.workspace_id.as_str())
        .collect();

    let owned = owners.iter().filter_map(Owner::workspace);
    compare("list", ids.clone(), owned.map(str::to_string).collect());
    compare("workspaces", names(&state.join("workspaces")), ids.clone());
    let named = ids.iter().flat_map(|id| layers_of(&state, id));
    compare("layers", names(&state.join("layers")), named.collect());

    let networked = workspaces.iter().filter(|workspace| {
        running.contains(&workspace.workspace_id.as_str())
            && workspace.network_policy != NetworkPolicy::Off
    });
    let sockets = running
        .iter()
        .flat_map(|id| ["agent", "control"].map(|name| format!("workspaces/{id}/vm/{name}.sock")))
        .chain(
            networked.map(|workspace| format!("workspaces/{}/vm/net.sock", workspace.workspace_id)),
        );
    let sockets = sockets.chain(["api.sock".to_string()]).collect();
    compare("sockets", sockets_in(&state, &state), sockets);
    let monitors = running.iter().map(|id| {
        let stat = state.join("workspaces").join(id).join("vm/monitor.stat");
        let stat = fs::read_to_string(stat).unwrap_or_default();
        stat.split(' ').next().unwrap_or_default().to_string()
    });
    let pids = daemon.pids("pyro-vmm").into_iter().map(|p| p.to_string());
    compare("monitors", pids.collect(), monitors.collect());
    // One may have been killed.
    let networks = truth::networks(daemon, workspaces);
    let pids = daemon.pids("pyro-net").into_iter();
    let orphans = pids.filter(|pid| !networks.values().any(|network| network == pid));
    compare(
        "networks",
        orphans.map(|p| p.to_string()).collect(),
        BTreeSet::new(),
    );
    let daemons = daemon.pids("pyro").len();
    compare(
        "daemons",
        [daemons.to_string()].into(),
        ["1".to_string()].into(),
    );
    let mut runs = names(&state.join("runs"));
    runs.remove(".lock");
    compare("runs", runs, BTreeSet::new());
    let known = [
        "api.sock",
        "daemon.lock",
        "daemon.log",
        "kvm-verdict.json",
        "layers",
        "runs",
        "starting.lock",
        "workspaces",
    ];
    let mut entries = names(&state);
    entries.retain(|name| !known.contains(&name.as_str()));
    compare("state", entries, BTreeSet::new());
    wrong
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// The layers that a record names.
fn layers_of(state: &Path, id: &str) -> Vec<String> {
    let path = state.join("workspaces").join(id).join("record.json");
    let record = fs::read(path).unwrap_or_default();
    let record: Value = serde_json::from_slice(&record).unwrap_or_default();
    let mut layers = Vec::new();
    strings(&record["disk"], &mut layers);
    layers.retain(|text| text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit()));
    layers
}

fn strings(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| strings(value, found)),
        Value::Object(members) => members.values().for_each(|value| strings(value, found)),
        _ => {}
    }
}

/// The sockets anywhere below, relative to the state folder. Layers hold none of ours.
fn sockets_in(folder: &Path, state: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && entry.file_name() != "layers" => {
                found.extend(sockets_in(&path, state));
            }
            Ok(kind) if kind.is_socket() => {
                let path = path.strip_prefix(state).expect("below");
                found.insert(path.display().to_string());
            }
            _ => {}
        }
    }
    found
}
