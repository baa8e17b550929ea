//! The adapter as an MCP server: what is listed, and what a call goes through.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData,
    Implementation, ListToolsResult, PaginatedRequestParams, ProgressNotificationParam,
    ProtocolVersion, ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::{RoleServer, ServerHandler};
use serde_json::Value;

use crate::call::{Call, Status};
use crate::calls::{Calls, Going, Outcome, PATIENCE};
use crate::{Daemon, Error, Profile, arguments, tools};

/// The oldest revision of the protocol that is spoken: the first with structured content.
const OLDEST: ProtocolVersion = ProtocolVersion::V_2025_06_18;

/// An MCP server. Clones are the same server: sessions share what goes on.
#[derive(Debug, Clone)]
pub struct Server {
    daemon: Daemon,
    profile: Profile,
    folder: Arc<Path>,
    calls: Calls,
}

impl Server {
    /// A server of this profile. Relative paths of the host start at `folder`.
    pub fn new(daemon: Daemon, profile: Profile, folder: impl Into<PathBuf>) -> Self {
        Self {
            daemon,
            profile,
            folder: folder.into().into(),
            calls: Calls::default(),
        }
    }

    /// What a model is told before it sees a tool.
    pub fn instructions(&self) -> String {
        let mut text = String::from(match self.profile {
            Profile::VmRun => {
                "vm_run runs one command in a disposable Linux microVM without a network."
            }
            Profile::WorkspaceCore | Profile::WorkspaceFull => {
                "Disposable Linux microVMs. One-shot command: vm_run. Work in steps: workspace_create \
                 (seed_path takes host files along), then workspace_exec, workspace_file_* and \
                 workspace_patch_apply (never write files through the shell); workspace_diff shows what \
                 changed, workspace_reset undoes it, workspace_export takes results to the host, \
                 workspace_delete ends it. `workspace` is the id or the name; workspace_list finds them \
                 again. Guest paths start at /workspace."
            }
        });
        text.push_str(
            " Environments: debian:12 (Git, Python 3), debian:12-base, debian:12-build (compilers), \
             and the same for debian:13; installing one takes a minute, at its first use.",
        );
        match self.profile {
            Profile::VmRun => {}
            Profile::WorkspaceCore => text.push_str(" Guests have no network."),
            Profile::WorkspaceFull => text.push_str(
                " Guests have no network unless network_policy gives one. service_* are long-running \
                 programs with a readiness probe, shell_* terminals that stay, snapshot_* points to reset \
                 to. vm_* take the same ids as workspace_*.",
            ),
        }
        if self.profile != Profile::VmRun {
            text.push_str(&format!(
                " Relative host paths start at {}.",
                self.folder.display()
            ));
        }
        text.push_str(" Results are cut to a size; `next` says how to get the rest.");
        text
    }

    /// Runs a tool with arguments of whatever kind. `None` when the call was cancelled.
    async fn run(
        &self,
        tool: &'static tools::Tool,
        request: CallToolRequestParams,
        context: &RequestContext<RoleServer>,
    ) -> Option<Outcome> {
        let given = request.arguments.unwrap_or_default();
        let checked = match arguments::check(tool.name, &tool.input(self.profile), given) {
            Ok(checked) => checked,
            Err(error) => return Some(Err(error)),
        };
        let key = Value::Object(checked.clone()).to_string();
        let status = Status::default();
        let begin = || {
            let server = self.clone();
            let told = status.clone();
            Going::new(&self.calls.tasks, status, async move {
                let call = Call {
                    client: server.daemon.client().await.map_err(Error::from)?,
                    profile: server.profile,
                    folder: server.folder,
                    status: told,
                    tasks: server.calls.tasks,
                };
                tool.call(call, checked).await
            })
        };
        let token = context.meta.get_progress_token();
        let peer = context.peer.clone();
        let progress = move |seconds: f64, last: String| {
            let (token, peer) = (token.clone(), peer.clone());
            async move {
                let Some(token) = token else {
                    return;
                };
                let message = if last.is_empty() {
                    format!("{}: {seconds:.0} s", tool.name)
                } else {
                    format!("{}: {seconds:.0} s: {last}", tool.name)
                };
                let told = ProgressNotificationParam::new(token, seconds).with_message(message);
                // Who does not hear it does not miss it.
                let _ = peer.notify_progress(told).await;
            }
        };
        self.calls
            .run(tool.name, key, &context.ct, PATIENCE, begin, progress)
            .await
    }

    /// Stops what goes on, and waits a little for it.
    pub async fn end(&self) {
        self.calls.end().await;
    }
}

/// A result as clients of every revision understand it: structured, and the same as text.
fn result(outcome: Outcome, profile: Profile) -> CallToolResult {
    let (value, failed) = match outcome {
        Ok(value) => (value, false),
        Err(error) => (error.to_value(profile), true),
    };
    let content = vec![ContentBlock::text(value.to_string())];
    let mut result = if failed {
        CallToolResult::error(content)
    } else {
        CallToolResult::success(content)
    };
    result.structured_content = Some(value);
    result
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let about = Implementation::new("pyro", env!("CARGO_PKG_VERSION"))
            .with_title("Disposable Linux workspaces");
        let tools = ServerCapabilities::builder().enable_tools().build();
        ServerConfig::new(tools)
            .with_server_info(about)
            .with_instructions(self.instructions())
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        let known = ProtocolVersion::KNOWN_VERSIONS;
        let first = known.iter().position(|version| *version == OLDEST);
        Cow::Borrowed(&known[first.unwrap_or(0)..])
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tools = tools::of(self.profile).map(|tool| tool.listed(self.profile));
        Ok(ListToolsResult::with_all_items(tools.collect()))
    }

    fn get_tool(&self, name: &str) -> Option<rmcp::model::Tool> {
        tools::find(self.profile, name).map(|tool| tool.listed(self.profile))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(tool) = tools::find(self.profile, &request.name) else {
            let known: Vec<&str> = tools::of(self.profile).map(|tool| tool.name).collect();
            let message = format!(
                "unknown tool {:?}; the profile {} has {}",
                request.name,
                self.profile,
                known.join(", ")
            );
            return Err(ErrorData::invalid_params(message, None));
        };
        let outcome = self.run(tool, request, &context).await.unwrap_or_else(|| {
            // Nobody waits for this answer.
            let remedy = "call it again if it is wanted after all";
            Err(Error::new(
                "cancelled",
                format!("{} was cancelled", tool.name),
                remedy,
            ))
        });
        Ok(result(outcome, self.profile).into())
    }
}
