//! Standard input that follows a request in its body: the request on one line, then the bytes.
//!
//! It is taken off the socket only as fast as the guest takes it, so a client that sends a lot holds
//! a few chunks here at most. Meanwhile nobody reads the socket, so that the client is gone is found
//! out without reading.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{HeaderMap, header};
use pyro_client::operations::INPUT;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncWriteExt, DuplexStream, Interest};
use tokio::sync::oneshot;

use crate::context::Context;
use crate::refusal::{Cause, Refusal};

/// Bytes between the socket and the guest.
const CHUNK: usize = 64 << 10;

/// The other end of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer(Arc<OwnedFd>);

impl Peer {
    pub(crate) fn of(stream: impl AsFd) -> io::Result<Self> {
        Ok(Self(Arc::new(stream.as_fd().try_clone_to_owned()?)))
    }

    /// Waits until it has closed the connection. Reads nothing.
    async fn gone(&self) -> io::Result<()> {
        // Not readable, which it is all the time, and not half closed, which a client may do.
        #[expect(deprecated, reason = "what owns its descriptor may be registered")]
        let watched = AsyncFd::with_interest(self.0.try_clone()?, Interest::PRIORITY)?;
        loop {
            let mut guard = watched.ready(Interest::PRIORITY).await?;
            if guard.ready().is_read_closed() {
                return Ok(());
            }
            guard.clear_ready();
        }
    }
}

/// What follows a request.
#[derive(Debug)]
pub(crate) struct Input {
    /// The bytes, to their end.
    pub(crate) bytes: DuplexStream,
    /// Whether they will never come to their end.
    pub(crate) broken: Broken,
}

/// Tells when the client has gone away before the end of its input.
#[derive(Debug)]
pub(crate) struct Broken(Option<oneshot::Receiver<()>>);

impl Broken {
    /// There is no input that could break.
    pub(crate) fn never() -> Self {
        Self(None)
    }

    /// Returns when that has happened. Cancel safe.
    pub(crate) async fn wait(&mut self) {
        if let Some(broken) = &mut self.0
            && broken.await.is_ok()
        {
            return;
        }
        // It came to its end.
        self.0 = None;
        std::future::pending().await
    }
}

/// Whether the body has more than the request.
pub(crate) fn follows(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case(INPUT))
}

/// Takes the request's line off a body, at most `limit` bytes, and passes on what follows.
pub(crate) async fn split(
    context: &Context,
    mut body: Body,
    limit: usize,
    peer: Option<Peer>,
) -> Result<(Bytes, Input), Refusal> {
    let line = tokio::time::timeout(context.limits.body, line(&mut body, limit));
    let (line, rest) = line
        .await
        .map_err(|_| Refusal::from(Cause::BodyTimeout))??;
    let (sink, bytes) = tokio::io::duplex(CHUNK);
    let (tell, broken) = oneshot::channel();
    tokio::spawn(async move {
        let gone = async {
            if let Some(peer) = peer
                && peer.gone().await.is_ok()
            {
                return;
            }
            std::future::pending().await
        };
        let whole = tokio::select! {
            passed = pass(body, rest, sink) => passed.is_ok(),
            () = gone => false,
        };
        if !whole {
            // Nobody may want to know any more.
            let _ = tell.send(());
        }
    });
    let broken = Broken(Some(broken));
    Ok((line, Input { bytes, broken }))
}

async fn line(body: &mut Body, limit: usize) -> Result<(Bytes, Bytes), Refusal> {
    let mut line = BytesMut::new();
    loop {
        let Some(frame) = body.frame().await else {
            return Ok((line.freeze(), Bytes::new()));
        };
        let frame = frame.map_err(|error| Cause::BodyBroken(error.to_string()))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let end = data.iter().position(|byte| *byte == b'\n');
        line.extend_from_slice(&data[..end.unwrap_or(data.len())]);
        if line.len() > limit {
            return Err(Cause::BodyTooLarge(limit).into());
        }
        if let Some(end) = end {
            return Ok((line.freeze(), data.slice(end + 1..)));
        }
    }
}

/// Passes all of it on; what nobody takes any more is dropped, so that the client can end in order.
async fn pass(mut body: Body, first: Bytes, sink: DuplexStream) -> Result<(), axum::Error> {
    let mut sink = Some(sink);
    let mut data = first;
    loop {
        if let Some(open) = &mut sink
            && open.write_all(&data).await.is_err()
        {
            sink = None;
        }
        data = loop {
            match body.frame().await {
                None => return Ok(()),
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        break data;
                    }
                }
            }
        };
    }
}
