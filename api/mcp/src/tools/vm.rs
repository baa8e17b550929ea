//! Tools of virtual machines. A machine is a workspace, and everything takes either's name.

use pyro_client::types::{
    EnvironmentList, NetworkPolicy, PublishedPort, ReapedWorkspaces, Workspace, WorkspaceState,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::workspace::{self, CHANGED, WORKSPACE};
use super::{
    ADDS, Answer, Members, Profile, READS, REPLACES, RUNS, SETS, Tool, Words, create, run, tool,
};
use crate::Error;
use crate::call::Call;

const RUN: Members = Members {
    all: &["state", "exit_code", "stdout", "stderr", "next"],
    wide: &[
        "timed_out",
        "command",
        "signal",
        "stdout_bytes",
        "stderr_bytes",
        "stdout_truncated",
        "stderr_truncated",
        "kernel_release",
        "boot_ms",
        "command_ms",
        "total_ms",
        "error",
    ],
};
const LAST_EXEC: Members = Members::all(&[
    "workspace_id",
    "state",
    "exit_code",
    "stdout",
    "stderr",
    "stdout_truncated",
    "stderr_truncated",
    "duration_ms",
    "error",
    "deleted",
    "next",
]);

/// The tools, in their order.
#[rustfmt::skip]
pub(super) fn tools() -> Vec<Tool> {
    vec![
        tool(Words {
            name: "vm_run",
            title: "Run one command",
            since: Profile::VmRun,
            description: "Run one command in a fresh Linux VM that is gone afterwards; for one-shot work.",
            wide: "For several steps use workspace_create.",
        }, RUNS, RUN, run::run),
        tool(Words::full("vm_list_environments", "List environments",
            "Which environments there are for new VMs, and which are installed. Installing one takes a minute, at its first use."),
            READS, Members::all(&["environments"]), environments),
        tool(Words::full("vm_create", "Create a VM",
            "Boot an empty VM that stays. Use workspace_create when files matter. Next: vm_exec, or any workspace_ tool."),
            ADDS, WORKSPACE, create::create_vm),
        tool(Words::full("vm_start", "Start a VM",
            "Boot a stopped or failed VM from its disk."),
            SETS, CHANGED, workspace::start),
        tool(Words::full("vm_exec", "Run a VM's last command",
            "Run one command in a VM, then delete the VM. Use workspace_exec to keep it."),
            RUNS, LAST_EXEC, run::exec),
        tool(Words::full("vm_stop", "Stop a VM",
            "Write everything to disk and power off. Next: vm_start or vm_delete."),
            REPLACES, CHANGED, workspace::stop),
        tool(Words::full("vm_delete", "Delete a VM",
            "Delete a VM with all it has. Do this when you are done with it."),
            REPLACES, Members::all(&["workspace_id", "deleted"]), workspace::delete),
        tool(Words::full("vm_status", "Look at a VM",
            "State, size and time to live of one VM; its services and shells."),
            READS, workspace::STATUS, workspace::status),
        tool(Words::full("vm_network_info", "Look at a VM's network",
            "What a VM may reach, and which of its ports are published on the host's 127.0.0.1."),
            READS, Members::all(&["workspace_id", "state", "network_policy", "published"]), network),
        tool(Words::full("vm_reap_expired", "Reap expired VMs",
            "Delete VMs and workspaces whose time to live is over now. It also happens by itself."),
            REPLACES, Members::all(&["count", "workspace_ids"]), reap),
    ]
}

/// No arguments.
#[derive(Deserialize, JsonSchema)]
struct Nothing {}

async fn environments(call: Call, _: Nothing) -> Result<Answer<EnvironmentList>, Error> {
    Ok(call.client.environments().await?.into())
}

async fn reap(call: Call, _: Nothing) -> Result<Answer<ReapedWorkspaces>, Error> {
    Ok(call.client.reap().await?.into())
}

/// A VM's network.
#[derive(Debug, Serialize, JsonSchema)]
struct Network {
    workspace_id: String,
    state: WorkspaceState,
    network_policy: NetworkPolicy,
    published: Vec<ServicePort>,
}

/// A published port, and whose it is.
#[derive(Debug, Serialize, JsonSchema)]
struct ServicePort {
    service: String,
    #[serde(flatten)]
    port: PublishedPort,
}

async fn network(call: Call, input: workspace::Which) -> Result<Answer<Network>, Error> {
    let Workspace {
        workspace_id,
        state,
        network_policy,
        ..
    } = call.client.get(&input.workspace).await?;
    let mut published = Vec::new();
    for service in call.client.service_list(&workspace_id).await?.services {
        let of = |port| ServicePort {
            service: service.name.clone(),
            port,
        };
        published.extend(service.published.iter().cloned().map(of));
    }
    let network = Network {
        workspace_id,
        state,
        network_policy,
        published,
    };
    Ok(network.into())
}
