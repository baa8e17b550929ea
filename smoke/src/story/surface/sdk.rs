//! The Rust SDK.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use pyro_client::types::{self, ReadServiceLogs, Readiness, StartService, WriteFile, WriteShell};
use pyro_client::{Client, ClientError, Launcher, socket};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Outcome, Product, Refusal, words};

/// A client of the daemon.
#[derive(Debug)]
pub struct Sdk {
    client: Client,
}

impl Sdk {
    /// Starts the daemon when it does not run.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn open(product: &Product) -> Result<Self> {
        let (name, state) = product.variable();
        let launcher =
            Launcher::new(&product.program, state.join(socket::FILE_NAME)).variable(name, state);
        Ok(Self {
            client: launcher.ensure_daemon().await?,
        })
    }

    pub(super) async fn call(
        &mut self,
        tool: &str,
        arguments: &Map<String, Value>,
    ) -> Result<Outcome> {
        let mut rest = Rest(arguments.clone());
        let client = &self.client;
        if tool == "workspace_create" {
            return told(client.create(&rest.into()?).await);
        }
        if tool == "workspace_list" {
            return told(client.list().await);
        }
        if tool == "vm_run" {
            let command = rest.command()?;
            rest.put("command", command);
            return told(client.run(&rest.into()?).await);
        }
        let w = &rest.text("workspace")?;
        match tool {
            "workspace_status" => told(client.get(w).await),
            "workspace_update" => told(client.update(w, &rest.into()?).await),
            "workspace_start" => told(client.start(w).await),
            "workspace_stop" => told(client.stop(w).await),
            "workspace_delete" => told(client.delete(w).await),
            "workspace_exec" => {
                let command = rest.command()?;
                rest.put("command", command);
                told(client.exec(w, &rest.into()?).await)
            }
            "workspace_logs" => match rest.take("sequence").and_then(|value| value.as_u64()) {
                Some(sequence) => {
                    let record = client.exec_get(w, sequence, Duration::ZERO).await;
                    told(record.map(|record| vec![record]))
                }
                None => told(client.logs(w).await),
            },
            "workspace_sync_push" => told(client.sync_push(w, &rest.into()?).await),
            "workspace_export" => told(client.export(w, &rest.into()?).await),
            "workspace_diff" => told(client.diff(w).await),
            "workspace_file_list" => told(client.file_list(w, &rest.into()?).await),
            "workspace_file_read" => told(client.file_read(w, &rest.into()?).await),
            "workspace_file_write" => {
                let request: WriteFile = rest.into()?;
                told(client.file_write(w, &request).await)
            }
            "workspace_patch_apply" => told(client.patch_apply(w, &rest.into()?).await),
            "workspace_reset" => told(client.reset(w, &rest.into()?).await),
            "snapshot_create" => told(client.snapshot_create(w, &rest.into()?).await),
            "snapshot_list" => told(client.snapshot_list(w).await),
            "snapshot_delete" => told(client.snapshot_delete(w, &rest.text("name")?).await),
            "service_start" => {
                let request = rest.service()?;
                told(client.service_start(w, &request).await)
            }
            "service_list" => told(client.service_list(w).await),
            "service_status" => told(client.service_status(w, &rest.text("name")?).await),
            "service_stop" => told(client.service_stop(w, &rest.text("name")?).await),
            "service_logs" => {
                let name = rest.text("name")?;
                let request: ReadServiceLogs = rest.into()?;
                told(client.service_logs(w, &name, &request).await)
            }
            "shell_open" => told(client.shell_open(w, &rest.into()?).await),
            "shell_read" => {
                let id = rest.text("shell_id")?;
                told(client.shell_read(w, &id, &rest.into()?).await)
            }
            "shell_write" => {
                let id = rest.text("shell_id")?;
                let request = WriteShell::line(rest.text("input")?);
                told(client.shell_write(w, &id, &request).await)
            }
            "shell_close" => {
                let id = rest.text("shell_id")?;
                told(client.shell_close(w, &id).await)
            }
            other => bail!("the SDK has nothing for the tool {other} here"),
        }
    }
}

/// Arguments that are not used yet.
struct Rest(Map<String, Value>);

impl Rest {
    fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_string(), value.into());
    }

    fn text(&mut self, name: &str) -> Result<String> {
        match self.take(name) {
            Some(Value::String(text)) => Ok(text),
            other => bail!("the argument {name} is a text, not {other:?}"),
        }
    }

    fn command(&mut self) -> Result<Vec<String>> {
        words(&self.take("command").context("a command is missing")?)
    }

    fn service(&mut self) -> Result<StartService> {
        let mut request = StartService::new(self.text("name")?, self.command()?);
        if let Some(url) = self.take("ready_http") {
            request.readiness = Some(Readiness::Http {
                url: serde_json::from_value(url)?,
            });
        }
        if let Some(seconds) = self.take("ready_timeout_seconds") {
            request.ready_timeout_seconds = serde_json::from_value(seconds)?;
        }
        if let Some(cwd) = self.take("cwd") {
            request.cwd = serde_json::from_value(cwd)?;
        }
        match self.0.keys().next() {
            Some(other) => bail!("the argument {other} of service_start has no translation here"),
            None => Ok(request),
        }
    }

    /// The rest, as what the SDK takes: it refuses what it does not know.
    fn into<T: DeserializeOwned>(self) -> Result<T> {
        Ok(serde_json::from_value(Value::Object(self.0))?)
    }
}

fn told<T: Serialize>(result: std::result::Result<T, ClientError>) -> Result<Outcome> {
    Ok(match result {
        Ok(value) => Ok(serde_json::to_value(value)?),
        Err(error) => {
            let types::ApiError { code, message, .. } = error.to_api_error();
            Err(Refusal { code, message })
        }
    })
}
