//! Connections: HTTP/1.1 over the Unix socket, kept for the next call when an answer is complete.
//!
//! A connection belongs to the call that uses it; dropping the call closes it, which the daemon takes
//! for "cancel". A kept connection may have been closed by the daemon meanwhile; a request that was
//! not sent because of that goes out on a new one.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response, header, http::request};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::io::AsyncRead;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::body::RequestBody;
use super::stream::EventStream;
use super::{ClientError, Result, socket};
use crate::operations::{Event, INPUT, Info, Method, NDJSON, Operation, PathParameters, Streaming};
use crate::types::ErrorBody;

/// Connections that are kept for later calls.
const KEPT: usize = 8;
/// How long one is kept. The daemon keeps it longer, so that it seldom ends it first.
const KEPT_FOR: Duration = Duration::from_secs(10);
/// Most bytes of an answer.
const MAX_ANSWER: usize = 256 << 20;
/// Everything but RFC 3986's unreserved characters.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// One connection. It ends with this value.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<RequestBody>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The connections to one daemon.
#[derive(Debug)]
pub(super) struct Pool {
    path: PathBuf,
    idle: Mutex<Vec<(Instant, Connection)>>,
}

impl Pool {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            idle: Mutex::new(Vec::new()),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes sure that there is a connection.
    pub(super) async fn warm(&self) -> Result<()> {
        let connection = self.open().await?;
        self.keep(connection);
        Ok(())
    }

    async fn open(&self) -> Result<Connection> {
        let unreachable = |source| ClientError::Connect {
            path: self.path.clone(),
            source,
        };
        let stream = socket::connect(&self.path).await.map_err(unreachable)?;
        let uid = stream.peer_cred().map_err(unreachable)?.uid();
        if uid != rustix::process::geteuid().as_raw() && uid != 0 {
            return Err(ClientError::Untrusted {
                path: self.path.clone(),
                uid,
            });
        }
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // How it ends is told to the request that uses it.
        let driver = tokio::spawn(async move {
            driver.await.ok();
        });
        Ok(Connection { sender, driver })
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(since, _)| since.elapsed() < KEPT_FOR);
        if idle.len() < KEPT {
            idle.push((Instant::now(), connection));
        }
    }

    fn kept(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(since, connection)| {
            since.elapsed() < KEPT_FOR && !connection.sender.is_closed()
        });
        idle.pop().map(|(_, connection)| connection)
    }

    /// Sends a request and gives the head of the answer with the connection that its body comes on.
    async fn send(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<(Connection, Response<Incoming>)> {
        // Only a connection that was kept can be stale, and each that is stale is gone then.
        while let Some(mut connection) = self.kept() {
            if connection.sender.ready().await.is_err() {
                continue;
            }
            match connection.sender.try_send_request(request).await {
                Ok(response) => return Ok((connection, response)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(broken(error.into_error())),
                },
            }
        }
        let mut connection = self.open().await?;
        let response = connection
            .sender
            .send_request(request)
            .await
            .map_err(broken)?;
        Ok((connection, response))
    }

    async fn collect(&self, connection: Connection, response: Response<Incoming>) -> Result<Bytes> {
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|source| ClientError::Broken {
                source: Some(source),
            })?
            .to_bytes();
        self.keep(connection);
        Ok(body)
    }

    /// The error that an answer which is no success tells.
    async fn refusal(&self, connection: Connection, response: Response<Incoming>) -> ClientError {
        let status = response.status();
        match self.collect(connection, response).await {
            Ok(body) => match serde_json::from_slice::<ErrorBody>(&body) {
                Ok(body) => ClientError::Api(body.error),
                Err(_) => ClientError::Answer {
                    source: format!("status {status} without an error").into(),
                },
            },
            Err(error) => error,
        }
    }

    /// Calls an operation and waits for its result.
    pub(super) async fn call<O: Operation>(
        &self,
        path: O::Path,
        input: &O::Input,
    ) -> Result<O::Output> {
        let request = request::<O>(&path, input, "application/json")?;
        let (connection, response) = self.send(request).await?;
        if !response.status().is_success() {
            return Err(self.refusal(connection, response).await);
        }
        let body = self.collect(connection, response).await?;
        serde_json::from_slice(&body).map_err(|source| ClientError::Answer {
            source: source.into(),
        })
    }

    /// Calls an operation that streams.
    pub(super) async fn stream<O: Streaming>(
        &self,
        path: O::Path,
        input: &O::Input,
    ) -> Result<EventStream<O::Event>> {
        self.events(request::<O>(&path, input, NDJSON)?).await
    }

    /// The same for one that takes standard input.
    pub(super) async fn stream_with_input<O: Streaming>(
        &self,
        path: O::Path,
        input: &O::Input,
        stdin: impl AsyncRead + Send + 'static,
    ) -> Result<EventStream<O::Event>> {
        let line = serde_json::to_vec(input).map_err(unsendable)?;
        let (accept, accepted) = oneshot::channel();
        let request = builder(&O::INFO, target(&O::INFO, &path), NDJSON)
            .header(header::CONTENT_TYPE, INPUT)
            .body(RequestBody::with_input(line, stdin, accepted))
            .map_err(unsendable)?;
        let events = self.events(request).await?;
        // The connection may be gone already; whoever takes the events is told.
        let _ = accept.send(());
        Ok(events)
    }

    async fn events<E: Event>(&self, request: Request<RequestBody>) -> Result<EventStream<E>> {
        let (connection, response) = self.send(request).await?;
        if !response.status().is_success() {
            return Err(self.refusal(connection, response).await);
        }
        Ok(EventStream::new(connection, response.into_body()))
    }

    /// The body of a document of the daemon that is not an operation's result.
    pub(super) async fn document(&self, path: &'static str) -> Result<Bytes> {
        let request = Request::get(path)
            .header(header::HOST, "pyro")
            .body(RequestBody::document(Bytes::new()))
            .map_err(unsendable)?;
        let (connection, response) = self.send(request).await?;
        if !response.status().is_success() {
            return Err(self.refusal(connection, response).await);
        }
        self.collect(connection, response).await
    }
}

fn request<O: Operation>(
    path: &O::Path,
    input: &O::Input,
    accept: &str,
) -> Result<Request<RequestBody>> {
    let mut target = target(&O::INFO, path);
    let mut body = Bytes::new();
    match O::INFO.method {
        Method::Get | Method::Delete => {
            let query = serde_urlencoded::to_string(input).map_err(unsendable)?;
            if !query.is_empty() {
                target.push('?');
                target.push_str(&query);
            }
        }
        Method::Post | Method::Put | Method::Patch => {
            body = serde_json::to_vec(input).map_err(unsendable)?.into();
        }
    }
    let mut builder = builder(&O::INFO, target, accept);
    if !body.is_empty() {
        builder = builder.header(header::CONTENT_TYPE, "application/json");
    }
    builder
        .body(RequestBody::document(body))
        .map_err(unsendable)
}

fn builder(info: &Info, target: String, accept: &str) -> request::Builder {
    Request::builder()
        .method(info.method.as_str())
        .uri(target)
        .header(header::HOST, "pyro")
        .header(header::ACCEPT, accept)
}

/// The path with its parameters filled in.
fn target<P: PathParameters>(info: &Info, parameters: &P) -> String {
    let mut target = info.path.to_string();
    for (name, value) in P::NAMES.iter().zip(parameters.values()) {
        let value = utf8_percent_encode(&value, SEGMENT).to_string();
        // The server would take these for no parameter at all.
        let value = match value.as_str() {
            "" => "%00",
            "." => "%2E",
            ".." => "%2E%2E",
            other => other,
        };
        target = target.replace(&format!("{{{name}}}"), value);
    }
    target
}

fn unsendable(source: impl std::error::Error + Send + Sync + 'static) -> ClientError {
    ClientError::Request {
        source: source.into(),
    }
}

fn broken(source: hyper::Error) -> ClientError {
    ClientError::Broken {
        source: Some(source.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::{FileRead, InSnapshot, InWorkspace, SnapshotDelete, WorkspaceStatus};
    use crate::types::ReadFile;

    #[test]
    fn a_name_with_any_characters_stays_one_segment() {
        let path = InSnapshot {
            w: "a/b ?{name}#ü".into(),
            name: "..".into(),
        };

        assert_eq!(
            target(&SnapshotDelete::INFO, &path),
            "/v1/workspaces/a%2Fb%20%3F%7Bname%7D%23%C3%BC/snapshots/%2E%2E"
        );
    }

    #[test]
    fn an_empty_name_does_not_become_the_list() {
        assert_eq!(
            target(&WorkspaceStatus::INFO, &InWorkspace { w: String::new() }),
            "/v1/workspaces/%00"
        );
    }

    #[test]
    fn a_read_goes_into_the_query_string() {
        let path = InWorkspace { w: "w".into() };
        let request = request::<FileRead>(&path, &ReadFile::new("a b&c"), "application/json")
            .expect("request");

        assert_eq!(
            request.uri().query(),
            Some("path=a+b%26c&max_bytes=65536&offset=0&encoding=utf8")
        );
    }
}
