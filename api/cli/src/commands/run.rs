//! `pyro run`: one command in a VM of its own.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use pyro_engine::capture::Capture;
use pyro_engine::exec::Streams;
use pyro_engine::limits::Wanted;
use pyro_engine::oneshot::{self, CommandEnd, Prepared, Report, Request, Run as Ran};
use pyro_engine::paths::Paths;
use pyro_engine::{Code, Error};
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::args::{Network, Run};
use crate::environment;
use crate::input;
use crate::interrupt::{Interrupt, Interrupts};
use crate::output::{Failure, note, print_error, print_json};
use crate::streams::{stdin, unbuffered};

/// Most bytes of each stream that a JSON document holds.
const CAPTURE_LIMIT: usize = 1 << 20;

pub(crate) fn run(args: Run, paths: &Paths, runtime: &Runtime) -> Result<u8, Failure> {
    let recipe = pyro_engine::environments::recipe(&args.environment)?;
    refuse_network(args.network)?;
    let request = Request {
        argv: input::command(args.command)?,
        env: BTreeMap::new(),
        wanted: Wanted {
            vcpu_count: args.vcpu_count,
            memory_mib: args.mem_mib,
            timeout_seconds: args.timeout_seconds,
            ttl_seconds: args.ttl_seconds,
        },
        debug_console: std::env::var_os("PYRO_DEBUG_CONSOLE").is_some_and(|v| !v.is_empty()),
    };
    let prepared = runtime.block_on(oneshot::prepare(paths, request))?;
    let opened = environment::open_or_pull(paths, recipe)?;
    let limits = *prepared.limits();
    if args.json.json {
        let document = runtime.block_on(captured(prepared, opened, &args.environment))?;
        return match document {
            Ok(document) => {
                print_json(&document)?;
                Ok(document.exit_code)
            }
            Err(signal) => {
                let message = "a signal ended the run before the command was done";
                let error = Error::new(Code::Interrupted, message, "run it again");
                print_error(&error.to_api(), true)?;
                Ok(signal.exit_status())
            }
        };
    }
    let streams = Streams {
        stdin: stdin()?,
        stdout: unbuffered(io::stdout())?,
        stderr: unbuffered(io::stderr())?,
    };
    let ran = runtime.block_on(async {
        let interrupts = Interrupts::install()?;
        Ok::<_, Failure>(
            prepared
                .run(opened.artefacts, streams, interrupts.next(), |_| {})
                .await?,
        )
    })?;
    match ran {
        Ran::Interrupted(signal) => Ok(signal.exit_status()),
        Ran::OutputClosed(error) => Err(Failure::Output(error)),
        Ran::Finished(report) => {
            match &report.end {
                CommandEnd::TimedOut if report.ttl_expired => note(&format!(
                    "pyro: the command was killed: the VM may live {} s (--ttl-seconds)",
                    limits.ttl().as_secs()
                )),
                CommandEnd::TimedOut => note(&format!(
                    "pyro: the command was killed after {} s (--timeout-seconds)",
                    limits.timeout().as_secs()
                )),
                CommandEnd::NotFound(message) | CommandEnd::NotExecutable(message) => {
                    note(&format!("pyro: {message}"));
                }
                CommandEnd::Exited(_) | CommandEnd::Signalled(_) => {}
            }
            Ok(report.end.exit_code())
        }
    }
}

/// Runs with the output kept, unless a signal ends it.
async fn captured(
    prepared: Prepared,
    opened: pyro_engine::environments::Opened,
    environment: &str,
) -> Result<Result<Document, Interrupt>, Failure> {
    let interrupts = Interrupts::install()?;
    let (mut stdout, mut stderr) = (Capture::new(CAPTURE_LIMIT), Capture::new(CAPTURE_LIMIT));
    let streams = Streams {
        stdin: stdin()?,
        stdout: &mut stdout,
        stderr: &mut stderr,
    };
    let ran = prepared
        .run(opened.artefacts, streams, interrupts.next(), |_| {})
        .await?;
    Ok(match ran {
        Ran::Interrupted(signal) => Err(signal),
        Ran::OutputClosed(error) => return Err(Failure::Output(error)),
        Ran::Finished(report) => Ok(Document::of(environment, report, &stdout, &stderr)),
    })
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Document {
    boot_ms: f64,
    command_ms: f64,
    environment: String,
    exit_code: u8,
    failure: Option<StartFailure>,
    kernel_release: String,
    signal: Option<u8>,
    #[serde(flatten)]
    stderr: BTreeMap<String, serde_json::Value>,
    #[serde(flatten)]
    stdout: BTreeMap<String, serde_json::Value>,
    timed_out: bool,
    total_ms: f64,
}

/// Why the command did not even start.
#[derive(Debug, Serialize)]
struct StartFailure {
    code: &'static str,
    message: String,
}

impl Document {
    fn of(environment: &str, report: Report, stdout: &Capture, stderr: &Capture) -> Self {
        let failure = match &report.end {
            CommandEnd::NotFound(message) => Some(("command_not_found", message)),
            CommandEnd::NotExecutable(message) => Some(("command_not_executable", message)),
            _ => None,
        };
        Self {
            boot_ms: millis(report.boot),
            command_ms: millis(report.command),
            environment: environment.to_string(),
            exit_code: report.end.exit_code(),
            failure: failure.map(|(code, message)| StartFailure {
                code,
                message: message.clone(),
            }),
            kernel_release: report.kernel_release,
            signal: match report.end {
                CommandEnd::Signalled(signal) => Some(signal),
                _ => None,
            },
            stderr: stream("stderr", stderr),
            stdout: stream("stdout", stdout),
            timed_out: report.end == CommandEnd::TimedOut,
            total_ms: millis(report.total),
        }
    }
}

/// One stream's fields: text when it is text, base64 when it is not.
fn stream(name: &str, capture: &Capture) -> BTreeMap<String, serde_json::Value> {
    let (text, encoding) = match std::str::from_utf8(capture.bytes()) {
        Ok(text) => (text.to_string(), "utf-8"),
        Err(_) => (BASE64.encode(capture.bytes()), "base64"),
    };
    BTreeMap::from([
        (name.to_string(), text.into()),
        (format!("{name}_bytes"), capture.total().into()),
        (format!("{name}_encoding"), encoding.into()),
        (format!("{name}_truncated"), capture.truncated().into()),
    ])
}

/// Milliseconds with three digits after the point.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn refuse_network(network: Network) -> Result<(), Error> {
    if network == Network::Off {
        return Ok(());
    }
    Err(Error::new(
        Code::NetworkUnavailable,
        "guests cannot have a network yet",
        "leave --network out, or pass --network off",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    async fn capture(bytes: &[u8]) -> Capture {
        let mut capture = Capture::new(4);
        capture.write_all(bytes).await.unwrap();
        capture
    }

    #[tokio::test]
    async fn a_document_has_the_same_fields_whatever_happened() {
        let report = |end| Report {
            end,
            boot: Duration::from_micros(1500),
            total: Duration::from_secs(1),
            command: Duration::ZERO,
            ttl_expired: false,
            kernel_release: "6.1".into(),
        };
        let (text, binary) = (capture(b"hi\n").await, capture(b"\xff\xfe\0aaaa").await);
        let ends = [
            CommandEnd::Exited(7),
            CommandEnd::Signalled(9),
            CommandEnd::TimedOut,
            CommandEnd::NotFound("no x".into()),
        ];
        let documents = ends.map(|end| {
            serde_json::to_value(Document::of("debian:12", report(end), &text, &binary)).unwrap()
        });

        let keys = |value: &serde_json::Value| {
            value
                .as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect::<Vec<_>>()
        };
        for document in &documents {
            assert_eq!(keys(document), keys(&documents[0]));
            assert_eq!(document["stdout"], "hi\n");
            assert_eq!(document["stdout_truncated"], false);
            assert_eq!(document["stderr"], "//4AYQ==");
            assert_eq!(document["stderr_encoding"], "base64");
            assert_eq!(document["stderr_bytes"], 7);
            assert_eq!(document["boot_ms"], 1.5);
        }
        let codes = documents
            .each_ref()
            .map(|document| document["exit_code"].as_u64().unwrap());
        assert_eq!(codes, [7, 137, 124, 127]);
        assert_eq!(documents[1]["signal"], 9);
        assert_eq!(documents[2]["timed_out"], true);
        assert_eq!(documents[3]["failure"]["code"], "command_not_found");
    }
}
