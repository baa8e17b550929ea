//! `pyro run`: one command in a VM of its own, through the daemon.
//!
//! Closing the stream of events is what ends the VM: a signal, a closed output and a killed `pyro`
//! are all the same to the daemon.

use std::io;

use pyro_client::types::{ExecState, RunEvent, RunRequest, RunResult};
use pyro_client::{Client, ClientError, RunStream};
use pyro_engine::paths::Paths;
use pyro_engine::{Code, Error, check_run};

use crate::args::Run;
use crate::daemon;
use crate::environment;
use crate::input;
use crate::interrupt::Interrupts;
use crate::output::{Failure, escape, note, print_error, print_json};
use crate::streams::{pass_on, stdin, unbuffered};

pub(crate) async fn run(args: Run, paths: &Paths) -> Result<u8, Failure> {
    let json = args.json.json;
    let request = RunRequest {
        pull: false,
        vcpu_count: args.vcpu_count,
        mem_mib: args.mem_mib,
        timeout_seconds: args.timeout_seconds,
        ttl_seconds: args.ttl_seconds,
        network: args.network.into(),
        ..RunRequest::new(args.environment, input::command(args.command)?)
    };
    let (client, mut interrupts) = ready(paths, &request).await?;
    let stream = start(paths, &client, &request, &mut interrupts).await?;
    let result = tokio::select! {
        result = follow(stream, json) => result?,
        signal = interrupts.wait() => {
            if json {
                let message = "a signal ended the run before the command was done";
                let error = Error::new(Code::Interrupted, message, "run it again");
                print_error(&error.to_api(), true)?;
            }
            return Ok(signal.exit_status());
        }
    };
    if json {
        print_json(&result)?;
    } else {
        tell(&result, &request);
    }
    Ok(result.exit_code)
}

/// The way to the daemon. None is started for a run that cannot work; one that runs finds that out
/// itself. From here on signals do not end the process.
pub(super) async fn ready(
    paths: &Paths,
    request: &RunRequest,
) -> Result<(Client, Interrupts), Failure> {
    pyro_engine::environments::recipe(&request.environment)?;
    let client = match daemon::running().await? {
        Some(client) => client,
        None => {
            check_run(paths, request).await?;
            daemon::client().await?
        }
    };
    Ok((client, Interrupts::install()?))
}

/// Starts it, with our standard input, after pulling its environment when that is missing.
async fn start(
    paths: &Paths,
    client: &Client,
    request: &RunRequest,
    interrupts: &mut Interrupts,
) -> Result<RunStream, Failure> {
    let recipe = pyro_engine::environments::recipe(&request.environment)?;
    environment::pulled_when_missing(paths, recipe, interrupts, || async {
        Ok(match stdin()? {
            Some(stdin) => client.run_stream_with_input(request, stdin).await?,
            None => client.run_stream(request).await?,
        })
    })
    .await
}

/// Passes the output on, unless that is wanted in the result only.
async fn follow(mut stream: RunStream, json: bool) -> Result<RunResult, Failure> {
    let mut stdout = unbuffered(io::stdout())?;
    let mut stderr = unbuffered(io::stderr())?;
    while let Some(event) = stream.next().await? {
        match event {
            RunEvent::Stdout { data } if !json => pass_on(&mut stdout, &data).await?,
            RunEvent::Stderr { data } if !json => pass_on(&mut stderr, &data).await?,
            RunEvent::Started { .. } | RunEvent::Stdout { .. } | RunEvent::Stderr { .. } => {}
            RunEvent::Ended { result } => return Ok(*result),
            RunEvent::Failed { error } => return Err(error.into()),
        }
    }
    Err(ClientError::Broken { source: None }.into())
}

/// Says what the status alone does not.
fn tell(result: &RunResult, request: &RunRequest) {
    match (result.state, &result.error) {
        (ExecState::TimedOut, Some(_)) => note(&format!(
            "pyro: the command was killed: the VM may live {} s (--ttl-seconds)",
            request.ttl_seconds
        )),
        (ExecState::TimedOut, None) => note(&format!(
            "pyro: the command was killed after {} s (--timeout-seconds)",
            request.timeout_seconds
        )),
        (_, Some(error)) => note(&format!("pyro: {}", escape::line(&error.message))),
        (_, None) => {}
    }
}
