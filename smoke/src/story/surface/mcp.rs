//! An MCP client (the official Rust SDK's) and `pyro mcp serve`, over the server's standard streams.

use anyhow::{Context, Result, bail, ensure};
use rmcp::model::{CallToolRequestParams, CallToolResult};
use rmcp::service::RunningService;
use rmcp::transport::TokioChildProcess;
use rmcp::{RoleClient, ServiceExt};
use serde_json::{Map, Value};

use super::{Outcome, Product, refusal};

/// A server with one client.
#[derive(Debug)]
pub struct Mcp {
    client: RunningService<RoleClient, ()>,
}

impl Mcp {
    /// Starts the server with a profile.
    ///
    /// # Errors
    /// When it does not start, or does not shake hands.
    pub async fn open(product: &Product, profile: &str) -> Result<Self> {
        let mut command = tokio::process::Command::new(&product.program);
        let (name, state) = product.variable();
        command
            .args(["mcp", "serve", "--profile", profile])
            .env(name, state);
        let transport = TokioChildProcess::new(command).context("cannot start the MCP server")?;
        let client = ().serve(transport).await.context("the MCP server does not shake hands")?;
        Ok(Self { client })
    }

    pub(super) async fn call(
        &mut self,
        tool: &str,
        arguments: &Map<String, Value>,
    ) -> Result<Outcome> {
        loop {
            let call =
                CallToolRequestParams::new(tool.to_string()).with_arguments(arguments.clone());
            match outcome(self.client.call_tool(call).await?)? {
                // As it says itself: the same call waits on.
                Err(told) if told.code == "still_running" => {}
                outcome => return Ok(outcome),
            }
        }
    }

    pub(super) async fn close(self) -> Result<()> {
        self.client.cancel().await?;
        Ok(())
    }
}

fn outcome(result: CallToolResult) -> Result<Outcome> {
    let failed = result.is_error == Some(true);
    let content = result
        .structured_content
        .context("a result without structured content")?;
    ensure!(content.is_object(), "structured content that is no object");
    match (failed, refusal(&content)) {
        (true, Some(refusal)) => Ok(Err(refusal)),
        (true, None) => bail!("an error without code and message: {content}"),
        (false, _) => Ok(Ok(content)),
    }
}
