//! Starting a service.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pyro_agent_protocol::{self as protocol, ErrorCode, JobId, Keep, Start};
use pyro_client::types::{
    ExecRequest, NetworkPolicy, Readiness, SERVICE_LOG_BYTES, STOP_GRACE_SECONDS, Service,
    ServiceState, StartService, StopReason,
};

use super::log::Log;
use super::{Entry, FORMAT, MAX_SERVICES, Sheet, ended, folder, follow, last_words, probe, write};
use crate::agent::AgentError;
use crate::engine::jobs::{self, Attached};
use crate::engine::slot::Slot;
use crate::engine::{Engine, blocking, exec, network, to_the_end};
use crate::error::{Code, Error, Result};
use crate::machine::guest::Guest;
use crate::records::names;
use crate::redact::Redactor;
use crate::run_dir::unwritable;

/// Most ports of one service.
const MAX_PORTS: usize = 16;

impl Engine {
    /// Starts a service; answers when it is ready. Its caller's going away does not stop it.
    ///
    /// # Errors
    /// [`Code::ServiceRunning`], [`Code::ServiceNotStarted`], [`Code::ServiceNotReady`] with the last
    /// lines of its log, [`Code::PortUnavailable`], [`Code::SecretNotFound`], and those of a request
    /// that makes no sense. After the first nothing has changed; after the others the service is
    /// `failed` or was never there.
    pub async fn service_start(
        self: &Arc<Self>,
        workspace: &str,
        request: StartService,
    ) -> Result<Service> {
        check(&request)?;
        let slot = self.find(workspace)?;
        let engine = Arc::clone(self);
        to_the_end(async move {
            let operation = engine.begin(&slot)?;
            let policy = slot.record().network_policy;
            if !request.publish.is_empty() && policy != NetworkPolicy::EgressPublishedPorts {
                return Err(Error::new(
                    Code::NetworkUnavailable,
                    "the workspace's network policy does not publish ports",
                    "make a workspace with --network-policy egress+published-ports",
                ));
            }
            let secrets = slot.living.secrets();
            let env = secrets.environment(&request.env, &request.secret_env)?;
            // Until it is there: a reset forgets services.
            let steady = slot.steady().await?;
            let guest = slot.guest()?;
            let entry = enter(&slot, &engine, &request)?;
            operation.changed();
            let exec = protocol::Exec {
                argv: request.command.clone(),
                env,
                cwd: Some(engine.absolute(&request.cwd)),
                user: None,
                timeout_ms: None,
                stdin: false,
            };
            let started = begin(&slot, &guest, &entry, exec, &request).await;
            drop(steady);
            if let Err(error) = started {
                fail(&slot, &entry, &error).await;
                return Err(slot.living.redactor().ours(error));
            }
            probe::supervise(&engine, &slot, &guest, &entry);
            let service = entry
                .wait(|service| service.state != ServiceState::Starting)
                .await;
            // Whoever ends it has its log first.
            let service = match service.state {
                ServiceState::Stopping => {
                    let patience = Duration::from_secs(STOP_GRACE_SECONDS) + 3 * KILLED_WITHIN;
                    let ended = entry.wait(|service| !service.state.is_live());
                    // A guest may never say so; then it is told as it is by now.
                    let ended = tokio::time::timeout(patience, ended).await;
                    ended.unwrap_or_else(|_| entry.service())
                }
                _ => service,
            };
            operation.changed();
            drop(operation);
            match service.state {
                ServiceState::Running | ServiceState::Exited => Ok(service),
                _ => Err(not_ready(&slot, &service).await),
            }
        })
        .await
    }
}

/// Takes the name, unless it is taken by one that runs.
fn enter(slot: &Slot, engine: &Engine, request: &StartService) -> Result<Arc<Entry>> {
    let now = Timestamp::now();
    let redactor = slot.living.redactor();
    let service = Service {
        workspace_id: slot.id().to_string(),
        name: request.name.clone(),
        command: request
            .command
            .iter()
            .map(|word| redactor.text(word))
            .collect(),
        cwd: engine.absolute(&request.cwd),
        state: ServiceState::Starting,
        ready: false,
        readiness: request
            .readiness
            .as_ref()
            .map(|readiness| shown(&redactor, readiness)),
        published: Vec::new(),
        started_at: now,
        ready_at: None,
        ended_at: None,
        exit_code: None,
        signal: None,
        stop_reason: None,
        error: None,
    };
    let job = format!("service-{}", now.as_nanosecond());
    let mut entry = Entry::new(Sheet {
        format: FORMAT,
        job: job.parse::<JobId>().expect("letters, a dash and digits"),
        ready_timeout_seconds: request.ready_timeout_seconds,
        ready_interval_ms: request.ready_interval_ms,
        service,
    });
    entry.readiness.clone_from(&request.readiness);
    let entry = Arc::new(entry);
    let mut all = slot.living.services.all();
    match all.get(&request.name) {
        Some(before) if before.is_live() => {
            return Err(Error::new(
                Code::ServiceRunning,
                format!("the service {} runs already", request.name),
                format!(
                    "stop it with `pyro workspace service stop {} {}`, or choose another name",
                    slot.id(),
                    request.name
                ),
            ));
        }
        None if all.len() >= MAX_SERVICES => {
            return Err(Error::new(
                Code::ServiceNotStarted,
                format!("the workspace has {MAX_SERVICES} services already, which is the most"),
                "use the name of one that has ended; a reset forgets them all",
            ));
        }
        _ => {}
    }
    all.insert(request.name.clone(), Arc::clone(&entry));
    Ok(entry)
}

/// A probe as it is written down: somebody may have put a secret into it.
fn shown(redactor: &Redactor, readiness: &Readiness) -> Readiness {
    let text = |text: &String| redactor.text(text);
    match readiness {
        Readiness::File { path } => Readiness::File { path: text(path) },
        Readiness::Tcp { host, port } => Readiness::Tcp {
            host: host.clone(),
            port: *port,
        },
        Readiness::Http { url } => Readiness::Http { url: text(url) },
        Readiness::Command { command } => Readiness::Command {
            command: text(command),
        },
    }
}

/// Starts the program, its ports published before it.
async fn begin(
    slot: &Arc<Slot>,
    guest: &Arc<Guest>,
    entry: &Arc<Entry>,
    exec: protocol::Exec,
    request: &StartService,
) -> Result<()> {
    let sheet = entry.sheet.borrow().clone();
    write(slot, &sheet).await?;
    let (folder, name) = (folder(slot), request.name.clone());
    let log =
        blocking(move || Log::create(&folder, &name).map_err(|error| unwritable(&folder, error)))
            .await?;
    for port in &request.publish {
        let published = network::publish(guest, port).await?;
        let noted = entry
            .update(slot, |service| {
                service.published.push(published.clone());
                service.state == ServiceState::Starting
            })
            .await;
        if !noted {
            network::withdraw(guest, std::slice::from_ref(&published)).await;
        }
    }
    if entry.service().state != ServiceState::Starting {
        return Err(overtaken(&request.name));
    }
    let start = Start {
        job: sheet.job,
        exec,
        output: Keep::Tail {
            bytes: SERVICE_LOG_BYTES,
        },
        terminal: None,
        hold: false,
    };
    let attached = match Attached::start(guest, start).await {
        Ok(attached) => attached,
        Err(error) => return Err(not_started(guest, error).await),
    };
    follow::spawn(slot, guest, entry, attached, Some(log));
    Ok(())
}

async fn fail(slot: &Arc<Slot>, entry: &Arc<Entry>, error: &Error) {
    let redacted = slot.living.redactor().error(error.to_api());
    if let Ok(guest) = slot.guest() {
        network::withdraw(&guest, &entry.service().published).await;
    }
    entry
        .update(slot, |service| {
            if !service.state.is_live() {
                return false;
            }
            if service.stop_reason == Some(StopReason::Requested) {
                service.state = ServiceState::Stopped;
            } else {
                service.state = ServiceState::Failed;
                service.stop_reason = Some(StopReason::NotStarted);
                service.error = Some(redacted);
            }
            ended(service);
            true
        })
        .await;
}

fn overtaken(name: &str) -> Error {
    Error::new(
        Code::ServiceNotStarted,
        format!("the service {name} was stopped before it was started"),
        "start it again",
    )
}

async fn not_started(guest: &Guest, error: AgentError) -> Error {
    let AgentError::Refused { code, message } = error else {
        return guest.lost(error).await;
    };
    let (code, remedy) = match code {
        ErrorCode::CommandNotFound => (
            Code::CommandNotFound,
            "check the program's name, or install it in the workspace first",
        ),
        ErrorCode::CommandNotExecutable => (
            Code::CommandNotExecutable,
            "make it executable, or run it with its interpreter",
        ),
        ErrorCode::BadCwd => (Code::FileNotFound, "pass a working directory that is there"),
        _ => (
            Code::ServiceNotStarted,
            "give the guest more memory, or run less at once",
        ),
    };
    Error::new(
        code,
        format!("the service cannot be started: {message}"),
        remedy,
    )
}

/// The error for a service that did not become ready.
async fn not_ready(slot: &Slot, service: &Service) -> Error {
    let name = &service.name;
    let (problem, remedy) = match (&service.error, service.stop_reason) {
        (Some(error), _) => (error.message.clone(), error.remedy.clone()),
        (None, _) => (
            format!("the service {name} was stopped before it was ready"),
            "start it again".to_string(),
        ),
    };
    let detail = match service
        .error
        .as_ref()
        .and_then(|error| error.detail.clone())
    {
        Some(detail) => detail,
        None => last_words(slot, name).await,
    };
    Error::new(Code::ServiceNotReady, problem, remedy).with_detail(detail)
}

/// Refuses what no guest could run.
fn check(request: &StartService) -> Result<()> {
    if !names::is_key(&request.name) {
        return Err(Error::new(
            Code::InvalidName,
            format!("{:?} cannot be a service's name", request.name),
            "pass 1 to 64 letters, digits, dots, dashes and underscores, a letter or digit first",
        ));
    }
    exec::check(&ExecRequest {
        cwd: request.cwd.clone(),
        env: request.env.clone(),
        ..ExecRequest::new(request.command.iter().cloned())
    })?;
    if !(1..=3600).contains(&request.ready_timeout_seconds) {
        return Err(Error::new(
            Code::TimeOutOfRange,
            format!(
                "{} seconds are no time to become ready",
                request.ready_timeout_seconds
            ),
            "pass 1 to 3600 seconds",
        ));
    }
    if !(10..=60_000).contains(&request.ready_interval_ms) {
        return Err(Error::new(
            Code::TimeOutOfRange,
            format!(
                "{} ms are no interval between two probes",
                request.ready_interval_ms
            ),
            "pass 10 to 60000 milliseconds",
        ));
    }
    let odd = |problem: String, remedy: &str| Error::new(Code::InvalidRequest, problem, remedy);
    match &request.readiness {
        None => {}
        Some(Readiness::File { path }) if !path.is_empty() && !path.contains('\0') => {}
        Some(Readiness::Command { command }) if !command.is_empty() && !command.contains('\0') => {}
        Some(Readiness::Tcp { host, port }) if probe::is_host(host) && *port != 0 => {}
        Some(Readiness::Http { url }) if probe::Url::parse(url).is_some() => {}
        Some(Readiness::Http { url }) => {
            return Err(odd(
                format!("{url:?} cannot be probed"),
                "pass http://HOST[:PORT][/PATH], the host an address or localhost",
            ));
        }
        Some(Readiness::Tcp { host, port }) => {
            return Err(odd(
                format!("{host:?} and {port} cannot be probed"),
                "pass an address or localhost, and a port from 1",
            ));
        }
        Some(_) => {
            return Err(odd(
                "the readiness probe is empty".to_string(),
                "pass a path or a command",
            ));
        }
    }
    if request.publish.len() > MAX_PORTS {
        return Err(odd(
            format!("more than {MAX_PORTS} ports are to be published"),
            "publish fewer",
        ));
    }
    if request
        .publish
        .iter()
        .any(|port| port.guest_port == 0 || port.host_port == Some(0))
    {
        return Err(odd(
            "the port 0 cannot be published".to_string(),
            "pass ports from 1; leave the host's out for a free one",
        ));
    }
    Ok(())
}

/// How long the guest may take to say that a service has ended after it was killed.
pub(super) const KILLED_WITHIN: Duration = jobs::ANSWER;
