//! Commands in a VM that is gone afterwards: `vm_run` and `vm_exec`.

use std::collections::BTreeMap;

use pyro_client::types::{ExecRecord, ExecRequest, NetworkPolicy, RunRequest, RunResult};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Answer;
use super::command::{
    Command, environment, max_output_bytes, mem_mib, root, timeout_seconds, ttl_seconds, vcpu_count,
};
use crate::call::Call;
use crate::undo::{ACCEPTED_WITHIN, Undo};
use crate::{Error, cut};

#[derive(Deserialize, JsonSchema)]
pub(super) struct Run {
    /// A bash line, or program and arguments
    command: Command,
    #[serde(default = "environment")]
    environment: String,
    #[serde(default = "timeout_seconds")]
    #[schemars(range(min = 1, max = 86400))]
    timeout_seconds: u64,
    #[serde(default = "vcpu_count")]
    #[schemars(range(min = 1))]
    vcpu_count: u64,
    #[serde(default = "mem_mib")]
    #[schemars(range(min = 128))]
    mem_mib: u64,
    /// Per stream; cut in the middle
    #[serde(default = "max_output_bytes")]
    #[schemars(range(min = 256, max = 65536))]
    max_output_bytes: u64,
    /// Seconds until the VM is ended; when left out, no less than timeout_seconds
    #[serde(default)]
    #[schemars(range(min = 1, max = 86400), extend("x-pyro-wide" = true, "default" = ttl_seconds()))]
    ttl_seconds: Option<u64>,
    /// What the guest may reach
    #[serde(default)]
    #[schemars(extend("x-pyro-wide" = true))]
    network: NetworkPolicy,
}

pub(super) async fn run(call: Call, input: Run) -> Result<Answer<RunResult>, Error> {
    let request = RunRequest {
        vcpu_count: input.vcpu_count,
        mem_mib: input.mem_mib,
        timeout_seconds: input.timeout_seconds,
        // Who asks for a long command alone does not mean it to be cut short.
        ttl_seconds: (input.ttl_seconds)
            .unwrap_or_else(|| ttl_seconds().max(input.timeout_seconds)),
        network: input.network,
        ..RunRequest::new(input.environment, input.command.words())
    };
    let mut result = call.client.run(&request).await?;
    let most = usize::try_from(input.max_output_bytes).unwrap_or(usize::MAX);
    let mut was_cut = false;
    for (text, truncated) in [
        (&mut result.stdout, &mut result.stdout_truncated),
        (&mut result.stderr, &mut result.stderr_truncated),
    ] {
        let middle = cut::middle(text, most);
        *text = middle.text;
        was_cut |= middle.gap.is_some();
        *truncated |= middle.gap.is_some();
    }
    let next = was_cut.then_some(
        "the VM is gone: run it again with a larger max_output_bytes or a command that prints less",
    );
    Ok(Answer::from(result).maybe_next(next.map(String::from)))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct VmExec {
    /// Id or name
    workspace: String,
    /// A bash line, or program and arguments
    command: Command,
    #[serde(default = "root")]
    cwd: String,
    #[serde(default = "timeout_seconds")]
    #[schemars(range(min = 1, max = 86400))]
    timeout_seconds: u64,
    /// Per stream; cut in the middle
    #[serde(default = "max_output_bytes")]
    #[schemars(range(min = 256, max = 65536))]
    max_output_bytes: u64,
    /// Variables added to the environment
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Secrets by name, each with the variable it is put into
    #[serde(default)]
    secret_env: BTreeMap<String, String>,
}

/// A command that was the last of its VM.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct LastExec {
    #[serde(flatten)]
    record: ExecRecord,
    /// Whether the VM is gone.
    deleted: bool,
}

pub(super) async fn exec(call: Call, input: VmExec) -> Result<Answer<LastExec>, Error> {
    let request = ExecRequest {
        cwd: input.cwd,
        env: input.env,
        secret_env: input.secret_env,
        timeout_seconds: input.timeout_seconds,
        ..ExecRequest::new(input.command.words())
    };
    let (client, workspace) = (call.client.clone(), input.workspace.clone());
    let exec = async move { client.exec(&workspace, &request).await };
    let (client, workspace) = (call.client.clone(), input.workspace);
    let delete = |_| async move {
        let _ = client.delete(&workspace).await;
    };
    // What never ran leaves the VM as it is, so that the call can be corrected.
    let exec = Undo::begin(&call.tasks, exec, delete).patience(ACCEPTED_WITHIN);
    let mut record = exec.kept().await?;
    let mut was_cut = false;
    let most = usize::try_from(input.max_output_bytes).unwrap_or(usize::MAX);
    for (text, truncated) in [
        (&mut record.stdout, &mut record.stdout_truncated),
        (&mut record.stderr, &mut record.stderr_truncated),
    ] {
        let middle = cut::middle(text, most);
        *text = middle.text;
        was_cut |= middle.gap.is_some();
        *truncated |= middle.gap.is_some();
    }
    let deleted = call.client.delete(&record.workspace_id).await;
    let next = match &deleted {
        Err(error) => Some(format!(
            "the VM could not be deleted ({error}): call vm_delete"
        )),
        Ok(_) if was_cut => Some(
            "what was left out is gone with the VM: run it again in a new one with a larger \
             max_output_bytes, or with workspace_exec"
                .into(),
        ),
        Ok(_) => None,
    };
    let result = LastExec {
        record,
        deleted: deleted.is_ok(),
    };
    Ok(Answer::from(result).maybe_next(next))
}
