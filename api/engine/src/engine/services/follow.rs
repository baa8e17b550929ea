//! Following a service's output to its end.

use std::sync::Arc;
use std::time::Duration;

use pyro_agent_protocol::{ErrorCode, ExitStatus};
use pyro_client::types::{Service, ServiceState, StopReason};

use super::log::Log;
use super::{Entry, ended, folder, gone_reason, last_words, probe};
use crate::agent::AgentError;
use crate::engine::jobs::{self, Attached, Next};
use crate::engine::slot::Slot;
use crate::engine::{Engine, blocking, network};
use crate::error::{Code, Error};
use crate::machine::guest::Guest;
use crate::run_dir::unwritable;

/// How many bytes of output are taken of a service before it is left alone for [`BREATH`]: one that
/// writes without end keeps neither the host's disk nor its processors busy. It is not held up; what it
/// writes meanwhile and the guest does not keep is missing in the log, which says so.
const PACE: usize = 1 << 20;
const BREATH: Duration = Duration::from_millis(50);

/// Follows it in a task of its own, also without a log.
pub(super) fn spawn(
    slot: &Arc<Slot>,
    guest: &Arc<Guest>,
    entry: &Arc<Entry>,
    attached: Attached,
    log: Option<Log>,
) {
    let (slot, guest, entry) = (Arc::clone(slot), Arc::clone(guest), Arc::clone(entry));
    tokio::spawn(async move {
        match follow(&slot, attached, log).await {
            Ok(status) => over(&slot, &guest, &entry, status).await,
            Err(error) => {
                // What the guest said of it may be anything.
                let said = slot.living.redactor().text(&error.to_string());
                tracing::debug!(workspace = %slot.id(), error = said, "lost a service");
                lost(&slot, &guest, &entry, error).await;
            }
        }
    });
}

/// Writes the log until the end.
async fn follow(
    slot: &Slot,
    mut attached: Attached,
    mut log: Option<Log>,
) -> std::result::Result<ExitStatus, AgentError> {
    let mut stream = slot.living.redactor().stream();
    let mut taken = 0;
    loop {
        let (bytes, end) = match attached.next().await {
            Ok(Next::Output(bytes)) => {
                taken += bytes.len();
                (stream.push(&bytes), None)
            }
            Ok(Next::Gap(missing)) => {
                let mut bytes = stream.gap();
                bytes.extend(format!("\n[pyro: {missing} bytes are missing here]\n").bytes());
                (bytes, None)
            }
            Ok(Next::Exited(status)) => (stream.finish(), Some(Ok(status))),
            Ok(Next::Running) => {
                let odd = AgentError::OutOfTurn("the end of a job that runs");
                (stream.finish(), Some(Err(odd)))
            }
            Err(error) => (stream.finish(), Some(Err(error))),
        };
        if let Some(mut open) = log.take().filter(|_| !bytes.is_empty() || end.is_none()) {
            let written = blocking(move || {
                let written = open.write(&bytes);
                Ok((open, written))
            });
            match written.await {
                Ok((open, Ok(()))) => log = Some(open),
                Ok((open, Err(error))) => {
                    tracing::warn!(workspace = %slot.id(), %error, "cannot write a service's log");
                    log = Some(open);
                }
                Err(_) => {}
            }
        }
        if let Some(end) = end {
            return end;
        }
        if taken >= PACE {
            taken = 0;
            tokio::time::sleep(BREATH).await;
        }
    }
}

/// Notes how it ended.
async fn over(slot: &Arc<Slot>, guest: &Arc<Guest>, entry: &Arc<Entry>, status: ExitStatus) {
    let (exit_code, signal) = jobs::exit(status);
    let name = entry.service().name;
    let words = last_words(slot, &name).await;
    let gone = gone_reason(slot);
    // What it left running goes, too.
    let job = entry.job();
    let _ = jobs::cancel(guest, &job).await;
    // Whoever is told that it has ended finds its ports free.
    network::withdraw(guest, &entry.service().published).await;
    entry
        .update(slot, |service| {
            if !service.state.is_live() {
                return false;
            }
            service.exit_code = Some(exit_code);
            service.signal = signal;
            let (state, reason) = end_of(service, gone);
            if state == ServiceState::Failed {
                let error = service.error.take().unwrap_or_else(|| {
                    let how = match signal {
                        Some(signal) => format!("signal {signal} ended it"),
                        None => format!("it ended with status {exit_code}"),
                    };
                    let sentence = format!("the service {name} was not ready when {how}");
                    Error::new(
                        Code::ServiceNotReady,
                        sentence,
                        "see the last lines of its log",
                    )
                    .to_api()
                });
                let detail = error.detail.or((!words.is_empty()).then_some(words));
                service.error = Some(pyro_client::types::ApiError { detail, ..error });
            }
            service.state = state;
            service.stop_reason = Some(reason);
            ended(service);
            true
        })
        .await;
    let _ = jobs::forget(guest, &job).await;
}

/// What a service is when its program has ended.
fn end_of(service: &Service, gone: StopReason) -> (ServiceState, StopReason) {
    match (service.state, service.stop_reason) {
        (ServiceState::Stopping, Some(StopReason::Requested)) => {
            (ServiceState::Stopped, StopReason::Requested)
        }
        (ServiceState::Stopping, Some(reason)) => (ServiceState::Failed, reason),
        _ if gone == StopReason::WorkspaceStopped => (ServiceState::Stopped, gone),
        (ServiceState::Starting, _) => (ServiceState::Failed, StopReason::ExitedBeforeReady),
        _ => (ServiceState::Exited, StopReason::Exited),
    }
}

/// Notes that nobody knows how it ended.
async fn lost(slot: &Arc<Slot>, guest: &Arc<Guest>, entry: &Arc<Entry>, error: AgentError) {
    let unknown_job = jobs::is_code(&error, ErrorCode::NotFound);
    if !unknown_job {
        // Whoever notes the guest's end knows more.
        let _ = guest.lost(error).await;
    }
    network::withdraw(guest, &entry.service().published).await;
    if unknown_job {
        never_started(slot, entry).await;
    }
    entry.lost(slot, gone_reason(slot)).await;
    if !guest.has_ended() {
        let _ = jobs::cancel(guest, &entry.job()).await;
    }
}

/// Notes that the daemon which was to start it ended before it had.
async fn never_started(slot: &Slot, entry: &Entry) {
    entry
        .update(slot, |service| {
            if service.state != ServiceState::Starting {
                return false;
            }
            let error = Error::new(
                Code::ServiceNotStarted,
                format!(
                    "the daemon ended before the service {} was started",
                    service.name
                ),
                "start it again",
            );
            service.state = ServiceState::Failed;
            service.stop_reason = Some(StopReason::NotStarted);
            service.error = Some(error.to_api());
            ended(service);
            true
        })
        .await;
}

/// Goes on with services that ran when the last daemon ended.
pub(in crate::engine) async fn reattach(
    engine: &Arc<Engine>,
    slot: &Arc<Slot>,
    guest: &Arc<Guest>,
) {
    for entry in slot.living.services.entries() {
        if !entry.is_live() {
            continue;
        }
        resume(engine, slot, guest, &entry).await;
    }
    network::reconcile(slot, guest).await;
}

async fn resume(engine: &Arc<Engine>, slot: &Arc<Slot>, guest: &Arc<Guest>, entry: &Arc<Entry>) {
    let service = entry.service();
    let attached = match Attached::to(guest, &entry.job(), 0, true).await {
        Ok(attached) => attached,
        Err(error) => return lost(slot, guest, entry, error).await,
    };
    // The guest keeps as much of it as we do.
    let (folder, name) = (folder(slot), service.name.clone());
    let log =
        blocking(move || Log::create(&folder, &name).map_err(|error| unwritable(&folder, error)))
            .await;
    if let Err(error) = &log {
        tracing::warn!(workspace = %slot.id(), %error, "a service goes on without a log");
    }
    spawn(slot, guest, entry, attached, log.ok());
    match service.state {
        ServiceState::Starting => probe::supervise(engine, slot, guest, entry),
        ServiceState::Stopping => {
            // It was told once; now it is over.
            let (guest, job) = (Arc::clone(guest), entry.job());
            tokio::spawn(async move {
                let _ = jobs::cancel(&guest, &job).await;
            });
        }
        _ => {}
    }
}
