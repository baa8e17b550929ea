//! The command line, with `--json`.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use super::{Outcome, Product, refusal, words};

/// What runs commands.
#[derive(Debug)]
pub struct Cli {
    product: Product,
}

/// The words of a command line.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    before: Vec<String>,
    command: Vec<String>,
}

impl Cli {
    pub(super) fn new(product: Product) -> Self {
        Self { product }
    }

    pub(super) async fn call(
        &mut self,
        tool: &str,
        arguments: &Map<String, Value>,
    ) -> Result<Outcome> {
        let line = line(tool, arguments)?;
        let (name, state) = self.product.variable();
        let mut command = tokio::process::Command::new(&self.product.program);
        command.args(&line.before).arg("--json");
        if !line.command.is_empty() {
            command.arg("--").args(&line.command);
        }
        let output = command
            .env(name, state)
            .stdin(Stdio::null())
            .output()
            .await
            .context("cannot run pyro")?;
        let document: Value = serde_json::from_slice(&output.stdout).with_context(|| {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            format!("{:?} gave no document: {said}", line.before)
        })?;
        let refusal = refusal(&document);
        let wanted = status(tool, refusal.is_some(), &document);
        if !wanted.holds(output.status.code()) {
            bail!(
                "{:?} ended with {}, not with {wanted:?}",
                line.before,
                output.status
            );
        }
        Ok(match refusal {
            Some(refusal) => Err(refusal),
            None => Ok(document),
        })
    }
}

/// What a command has to end with.
#[derive(Debug, PartialEq, Eq)]
enum Status {
    Is(i64),
    IsNot(i64),
}

impl Status {
    fn holds(&self, status: Option<i32>) -> bool {
        match (self, status.map(i64::from)) {
            (Self::Is(wanted), Some(status)) => *wanted == status,
            (Self::IsNot(other), Some(status)) => *other != status,
            (_, None) => false,
        }
    }
}

/// A guest's command gives its own status, when it has one.
fn status(tool: &str, refused: bool, document: &Value) -> Status {
    let of_guest = matches!(tool, "workspace_exec" | "vm_run");
    match document.get("exit_code").and_then(Value::as_i64) {
        _ if refused => Status::IsNot(0),
        Some(code) if of_guest => Status::Is(code),
        None if of_guest => Status::IsNot(0),
        _ => Status::Is(0),
    }
}

/// A tool's call as a command line: the tool's name is the command's, its arguments are positions and
/// flags.
fn line(tool: &str, arguments: &Map<String, Value>) -> Result<Line> {
    let (verb, positions): (&str, &[&str]) = match tool {
        "vm_run" => ("run", &["environment"]),
        "workspace_create" => ("workspace create", &["environment"]),
        "workspace_list" => ("workspace list", &[]),
        "workspace_status" => ("workspace status", &["workspace"]),
        "workspace_update" => ("workspace update", &["workspace"]),
        "workspace_start" => ("workspace start", &["workspace"]),
        "workspace_stop" => ("workspace stop", &["workspace"]),
        "workspace_delete" => ("workspace delete", &["workspace"]),
        "workspace_exec" => ("workspace exec", &["workspace"]),
        "workspace_logs" => ("workspace logs", &["workspace"]),
        "workspace_sync_push" => ("workspace sync push", &["workspace", "source"]),
        "workspace_export" => ("workspace export", &["workspace", "path"]),
        "workspace_diff" => ("workspace diff", &["workspace"]),
        "workspace_file_list" => ("workspace file list", &["workspace", "path"]),
        "workspace_file_read" => ("workspace file read", &["workspace", "path"]),
        "workspace_file_write" => ("workspace file write", &["workspace", "path"]),
        "workspace_patch_apply" => ("workspace patch apply", &["workspace"]),
        "workspace_reset" => ("workspace reset", &["workspace"]),
        "snapshot_create" => ("workspace snapshot create", &["workspace", "name"]),
        "snapshot_list" => ("workspace snapshot list", &["workspace"]),
        "snapshot_delete" => ("workspace snapshot delete", &["workspace", "name"]),
        "service_start" => ("workspace service start", &["workspace", "name"]),
        "service_list" => ("workspace service list", &["workspace"]),
        "service_status" => ("workspace service status", &["workspace", "name"]),
        "service_logs" => ("workspace service logs", &["workspace", "name"]),
        "service_stop" => ("workspace service stop", &["workspace", "name"]),
        "shell_open" => ("workspace shell open", &["workspace"]),
        "shell_read" => ("workspace shell read", &["workspace", "shell_id"]),
        "shell_write" => ("workspace shell write", &["workspace", "shell_id"]),
        "shell_close" => ("workspace shell close", &["workspace", "shell_id"]),
        other => bail!("the command line has nothing for the tool {other} here"),
    };
    let mut rest = arguments.clone();
    let mut before: Vec<String> = verb.split(' ').map(str::to_string).collect();
    for position in positions {
        if let Some(value) = rest.remove(*position) {
            before.push(plain(&value)?);
        }
    }
    let command = rest.remove("command").map(|command| words(&command));
    for (name, value) in rest {
        // Where a command calls it otherwise.
        let name = match (tool, name.as_str()) {
            ("workspace_file_write", "content") => "text".to_string(),
            (_, "labels") => "label".to_string(),
            (_, "clear_labels") => "clear-label".to_string(),
            (_, name) => name.replace('_', "-"),
        };
        match value {
            Value::Bool(true) => before.push(format!("--{name}")),
            Value::Bool(false) | Value::Null => {}
            Value::Array(items) => {
                for item in items {
                    before.push(format!("--{name}={}", plain(&item)?));
                }
            }
            Value::Object(members) => {
                for (key, member) in members {
                    before.push(format!("--{name}={key}={}", plain(&member)?));
                }
            }
            value => before.push(format!("--{name}={}", plain(&value)?)),
        }
    }
    Ok(Line {
        before,
        command: command.transpose()?.unwrap_or_default(),
    })
}

fn plain(value: &Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        other => bail!("{other} cannot be a word of a command line"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(tool: &str, arguments: Value) -> String {
        let arguments = arguments.as_object().expect("an object").clone();
        let line = line(tool, &arguments).expect("a line");
        format!("{} -- {}", line.before.join(" "), line.command.join(" "))
    }

    #[test]
    fn a_commands_status_is_the_guests_or_says_that_it_failed() {
        let document = json!({"exit_code": 3});
        assert_eq!(status("workspace_exec", false, &document), Status::Is(3));
        assert_eq!(status("shell_read", false, &document), Status::Is(0));
        assert_eq!(
            status("vm_run", false, &json!({"exit_code": null})),
            Status::IsNot(0)
        );
        assert!(!status("workspace_exec", true, &document).holds(Some(0)));
        assert!(!Status::IsNot(0).holds(None));
    }

    #[test]
    fn a_call_is_the_command_of_the_same_name() {
        assert_eq!(
            of(
                "workspace_exec",
                json!({"workspace": "w", "command": "a | b", "timeout_seconds": 60})
            ),
            "workspace exec w --timeout-seconds=60 -- bash -c a | b"
        );
        assert_eq!(
            of(
                "workspace_create",
                json!({"environment": "debian:12", "labels": {"k": "v"}, "name": "n"})
            ),
            "workspace create debian:12 --label=k=v --name=n -- "
        );
        assert_eq!(
            of(
                "workspace_file_write",
                json!({"workspace": "w", "path": "p", "content": "-t"})
            ),
            "workspace file write w p --text=-t -- "
        );
        assert_eq!(
            of(
                "shell_read",
                json!({"workspace": "w", "shell_id": "s", "plain": true})
            ),
            "workspace shell read w s --plain -- "
        );
    }
}
