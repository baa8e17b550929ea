//! `workspace_create` and `vm_create`.

use std::collections::BTreeMap;

use pyro_client::types::{CreateWorkspace, DeclareSecret, NetworkPolicy, Workspace};
use schemars::JsonSchema;
use serde::Deserialize;

use super::Answer;
use super::command::{environment, mem_mib, ttl_seconds, vcpu_count};
use crate::Error;
use crate::call::Call;
use crate::undo::Undo;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Create {
    #[serde(default = "environment")]
    environment: String,
    /// For finding it again
    name: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// Host directory or .tar(.gz) to start with
    seed_path: Option<String>,
    #[serde(default = "vcpu_count")]
    #[schemars(range(min = 1))]
    vcpu_count: u64,
    #[serde(default = "mem_mib")]
    #[schemars(range(min = 128))]
    mem_mib: u64,
    /// Deleted when idle for so long
    #[serde(default = "ttl_seconds")]
    #[schemars(range(min = 1, max = 86400))]
    ttl_seconds: u64,
    /// What the guest may reach
    #[serde(default)]
    #[schemars(extend("x-pyro-wide" = true))]
    network_policy: NetworkPolicy,
    /// Files in /run/pyro-secrets; values never come back
    #[serde(default)]
    #[schemars(extend("x-pyro-wide" = true))]
    secrets: Vec<NewSecret>,
}

/// A secret: its value, or a host file that has it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewSecret {
    name: String,
    value: Option<String>,
    /// Host file, instead of value
    path: Option<String>,
}

pub(super) async fn create(call: Call, input: Create) -> Result<Answer<Workspace>, Error> {
    let seed_path = match &input.seed_path {
        Some(path) => Some(call.host_path("seed_path", path)?),
        None => None,
    };
    let secret = |secret: NewSecret| {
        let path = secret
            .path
            .map(|path| call.host_path("secrets.path", &path));
        Ok(DeclareSecret {
            name: secret.name,
            value: secret.value,
            path: path.transpose()?,
        })
    };
    let secrets: Result<Vec<_>, Error> = input.secrets.into_iter().map(secret).collect();
    let request = CreateWorkspace {
        name: input.name,
        labels: input.labels,
        seed_path,
        vcpu_count: input.vcpu_count,
        mem_mib: input.mem_mib,
        ttl_seconds: input.ttl_seconds,
        network_policy: input.network_policy,
        secrets: secrets?,
        ..CreateWorkspace::new(input.environment)
    };
    make(&call, request).await
}

/// Creates a workspace, which is deleted again when the call is cancelled.
async fn make(call: &Call, request: CreateWorkspace) -> Result<Answer<Workspace>, Error> {
    let client = call.client.clone();
    let create = async move { client.create(&request).await };
    let client = call.client.clone();
    let delete = |made: Option<Workspace>| async move {
        if let Some(workspace) = made {
            let _ = client.delete(&workspace.workspace_id).await;
        }
    };
    Ok(Undo::begin(&call.tasks, create, delete)
        .kept()
        .await?
        .into())
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct CreateVm {
    #[serde(default = "environment")]
    environment: String,
    /// For finding it again
    name: Option<String>,
    #[serde(default = "vcpu_count")]
    #[schemars(range(min = 1))]
    vcpu_count: u64,
    #[serde(default = "mem_mib")]
    #[schemars(range(min = 128))]
    mem_mib: u64,
    /// Deleted when idle for so long
    #[serde(default = "ttl_seconds")]
    #[schemars(range(min = 1, max = 86400))]
    ttl_seconds: u64,
    /// What the guest may reach
    #[serde(default)]
    network_policy: NetworkPolicy,
}

pub(super) async fn create_vm(call: Call, input: CreateVm) -> Result<Answer<Workspace>, Error> {
    let request = CreateWorkspace {
        name: input.name,
        vcpu_count: input.vcpu_count,
        mem_mib: input.mem_mib,
        ttl_seconds: input.ttl_seconds,
        network_policy: input.network_policy,
        ..CreateWorkspace::new(input.environment)
    };
    make(&call, request).await
}
