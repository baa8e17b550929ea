//! Finding out whether a service is ready.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pyro_agent_protocol::{
    Connect, ConnectEvent, Exec, ExitStatus, FileEvent, GuestPath, Request, Stat,
};
use pyro_client::types::{Readiness, Service, ServiceState, StopReason};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Entry, last_words, stop};
use crate::agent::{self, AgentError, Conversation, refused};
use crate::engine::slot::Slot;
use crate::engine::{Engine, jobs};
use crate::error::{Code, Error};
use crate::machine::guest::Guest;

/// Longest that one probe may take.
const PROBE: Duration = Duration::from_secs(10);
/// Shortest time that a probe gets, also at the deadline.
const LAST_LOOK: Duration = Duration::from_secs(1);
/// Most bytes of an HTTP answer that are looked at.
const STATUS_LINE: u64 = 8 << 10;

/// Looks in a task of its own whether a service is ready, and ends it when it is not in time.
pub(super) fn supervise(
    engine: &Arc<Engine>,
    slot: &Arc<Slot>,
    guest: &Arc<Guest>,
    entry: &Arc<Entry>,
) {
    let root = engine.absolute(".");
    let (slot, guest, entry) = (Arc::clone(slot), Arc::clone(guest), Arc::clone(entry));
    let readiness = match &entry.readiness {
        Some(Readiness::File { path }) => Some(Readiness::File {
            path: engine.absolute(path),
        }),
        other => other.clone(),
    };
    tokio::spawn(async move {
        let over = {
            let entry = Arc::clone(&entry);
            async move {
                entry
                    .wait(|service| service.state != ServiceState::Starting)
                    .await
            }
        };
        // However long a probe takes, it ends when the service does.
        tokio::select! {
            biased;
            _ = over => {}
            () = until_ready(&slot, &guest, &entry, readiness.as_ref(), &root) => {}
        }
    });
}

async fn until_ready(
    slot: &Arc<Slot>,
    guest: &Arc<Guest>,
    entry: &Arc<Entry>,
    readiness: Option<&Readiness>,
    root: &str,
) {
    let (timeout, interval, service) = {
        let sheet = entry.sheet.borrow();
        (
            Duration::from_secs(sheet.ready_timeout_seconds),
            Duration::from_millis(sheet.ready_interval_ms),
            sheet.service.clone(),
        )
    };
    // A daemon may have come in between.
    let passed = Timestamp::now().duration_since(service.started_at);
    let passed = Duration::try_from(passed).unwrap_or_default();
    let deadline = Instant::now() + timeout.saturating_sub(passed);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // The last look has some time of its own.
        let patience = left.clamp(LAST_LOOK, PROBE);
        let looked = look(guest, readiness, &service.cwd, root, patience);
        if matches!(tokio::time::timeout(patience, looked).await, Ok(Ok(true))) {
            entry.update(slot, ready).await;
            return;
        }
        if left.is_zero() {
            break;
        }
        tokio::time::sleep_until(deadline.min(Instant::now() + interval)).await;
    }
    let (slot, guest, entry) = (Arc::clone(slot), Arc::clone(guest), Arc::clone(entry));
    // The first thing that it does ends our own task.
    tokio::spawn(async move {
        let error = Error::new(
            Code::ServiceNotReady,
            format!(
                "the service {} was not ready after {} s",
                service.name,
                timeout.as_secs()
            ),
            "see the last lines of its log; give it more time with --ready-timeout-seconds",
        )
        .with_detail(last_words(&slot, &service.name).await);
        let _ = stop::stop(&slot, &guest, &entry, StopReason::NotReady, Some(error)).await;
    });
}

fn ready(service: &mut Service) -> bool {
    if service.state != ServiceState::Starting {
        return false;
    }
    service.state = ServiceState::Running;
    service.ready = true;
    service.ready_at = Some(Timestamp::now());
    true
}

/// Looks once.
async fn look(
    guest: &Guest,
    readiness: Option<&Readiness>,
    cwd: &str,
    root: &str,
    patience: Duration,
) -> Result<bool, AgentError> {
    match readiness {
        None => Ok(true),
        Some(Readiness::File { path }) => {
            let request = Request::Stat(Stat {
                path: GuestPath::from(path.as_str()),
                beneath: GuestPath::from("/"),
                follow: true,
            });
            let (_, none) = mpsc::channel(1);
            let found = agent::transact(guest, &request, none).await?;
            Ok(matches!(found, FileEvent::Stat { .. }))
        }
        Some(Readiness::Tcp { host, port }) => {
            connect(guest, host, *port, patience).await?;
            Ok(true)
        }
        Some(Readiness::Http { url }) => {
            let Some(url) = Url::parse(url) else {
                return Ok(false);
            };
            let (stream, rest) = connect(guest, url.host, url.port, patience).await?;
            let status = get(stream, rest, &url).await.map_err(AgentError::Lost)?;
            Ok(status.is_some_and(|status| (200..300).contains(&status)))
        }
        Some(Readiness::Command { command }) => {
            let exec = Exec {
                argv: ["/bin/sh", "-c", command].map(str::to_string).to_vec(),
                env: std::collections::BTreeMap::new(),
                cwd: Some(if cwd.is_empty() { root } else { cwd }.to_string()),
                user: None,
                timeout_ms: Some(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX)),
                stdin: false,
            };
            let status = jobs::run(guest, exec).await?;
            Ok(status == ExitStatus::Code { code: 0 })
        }
    }
}

/// Connects to a port in the guest.
async fn connect(
    guest: &Guest,
    host: &str,
    port: u16,
    patience: Duration,
) -> Result<(UnixStream, Vec<u8>), AgentError> {
    let request = Request::Connect(Connect {
        host: host.to_string(),
        port,
        timeout_ms: Some(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX)),
    });
    let mut conversation = Conversation::begin(guest, &request).await?;
    let frame = conversation.frame().await?;
    match frame.message().map_err(AgentError::Protocol)? {
        ConnectEvent::Connected => Ok(conversation.into_stream()),
        ConnectEvent::Failed { code, message } => Err(refused(code, &message)),
    }
}

/// Asks for the URL; gives the status of the answer.
async fn get(
    mut stream: UnixStream,
    mut received: Vec<u8>,
    url: &Url<'_>,
) -> std::io::Result<Option<u16>> {
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: pyro\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        url.target, url.authority
    );
    stream.write_all(request.as_bytes()).await?;
    let mut stream = stream.take(STATUS_LINE);
    while !received.contains(&b'\n') {
        if stream.read_buf(&mut received).await? == 0 {
            break;
        }
    }
    Ok(status(&received))
}

/// The status in an answer's first line (RFC 9112 §4).
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let (version, rest) = line.split_once(' ')?;
    let code = rest.trim_end().split(' ').next()?;
    let known = version.starts_with("HTTP/1.") && code.len() == 3;
    known.then(|| code.parse().ok()).flatten()
}

/// Whether a guest can be asked to connect to this.
pub(super) fn is_host(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok()
}

/// A URL that can be probed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Url<'a> {
    authority: &'a str,
    host: &'a str,
    port: u16,
    target: String,
}

impl<'a> Url<'a> {
    /// `http://HOST[:PORT][/PATH][?QUERY]`.
    pub(super) fn parse(url: &'a str) -> Option<Self> {
        let scheme = url.get(..7)?;
        if !scheme.eq_ignore_ascii_case("http://") {
            return None;
        }
        if url.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return None;
        }
        let rest = &url[7..];
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let target = target.split('#').next().unwrap_or_default();
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                (
                    host,
                    port.strip_prefix(':').or(port.is_empty().then_some(""))?,
                )
            }
            None => authority.split_once(':').unwrap_or((authority, "")),
        };
        let port = if port.is_empty() {
            80
        } else {
            port.parse().ok()?
        };
        let slash = if target.starts_with('/') { "" } else { "/" };
        (is_host(host) && port != 0).then(|| Self {
            authority,
            host,
            port,
            target: format!("{slash}{target}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Option<(String, u16, String)> {
        Url::parse(url).map(|url| (url.host.to_string(), url.port, url.target))
    }

    #[test]
    fn urls_of_addresses_are_understood() {
        let url = |host: &str, port, target: &str| Some((host.into(), port, target.into()));
        assert_eq!(parsed("http://localhost"), url("localhost", 80, "/"));
        assert_eq!(
            parsed("HTTP://127.0.0.1:8000/a?b#c"),
            url("127.0.0.1", 8000, "/a?b")
        );
        assert_eq!(parsed("http://[::1]:81?x"), url("::1", 81, "/?x"));
        assert_eq!(parsed("http://[::1]/"), url("::1", 80, "/"));
        for odd in [
            "",
            "https://localhost/",
            "http://example.com/",
            "http://localhost:0/",
            "http://localhost:x/",
            "http://localhost/a b",
            "http://localhost/\r\nX: y",
            "http://[::1",
            "http://",
        ] {
            assert_eq!(parsed(odd), None, "{odd}");
        }
    }

    #[test]
    fn the_status_is_in_the_first_line() {
        assert_eq!(status(b"HTTP/1.1 204 No Content\r\nA: b\r\n"), Some(204));
        assert_eq!(status(b"HTTP/1.0 404\r\n"), Some(404));
        assert_eq!(status(b"HTTP/2 200\r\n"), None);
        assert_eq!(status(b"SSH-2.0-x\r\n"), None);
        assert_eq!(status(b"\xff"), None);
        assert_eq!(status(b""), None);
    }
}
