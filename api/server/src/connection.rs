//! One connection: who it is from, and how long it may keep us waiting.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::Sleep;
use tracing::{debug, warn};

use crate::context::Limits;
use crate::input::Peer;
use crate::refusal::{Cause, Refusal};
use crate::stream::Streams;

/// Most bytes that are held for a connection in each direction, besides whole bodies.
const BUFFER: usize = 64 << 10;

/// Answers the requests of one connection until it ends; after `ending` becomes true only the one
/// that is under way.
pub(crate) async fn serve(
    stream: UnixStream,
    router: Router,
    limits: Limits,
    mut ending: watch::Receiver<bool>,
) {
    let peer = match stream.peer_cred() {
        Ok(peer) => peer.uid(),
        Err(error) => {
            debug!(%error, "a connection is gone already");
            return;
        }
    };
    let other_end = match Peer::of(&stream) {
        Ok(other_end) => other_end,
        Err(error) => {
            warn!(%error, "cannot serve a connection");
            return;
        }
    };
    let streams = Arc::new(AtomicBool::new(false));
    let io = TokioIo::new(Impatient {
        stream,
        streams: Arc::clone(&streams),
        limit: limits.stall,
        stalled: None,
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(BUFFER);
    let ended = if peer == limits.uid {
        let service = TowerToHyperService::new(router);
        let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(other_end.clone());
            let answer = hyper::service::Service::call(&service, request);
            let streams = Arc::clone(&streams);
            async move {
                let answer = answer.await;
                if let Ok(answer) = &answer {
                    let made_while_sent = answer.extensions().get::<Streams>().is_some();
                    streams.store(made_while_sent, Ordering::Relaxed);
                }
                answer
            }
        });
        let connection = http.serve_connection(io, service);
        tokio::pin!(connection);
        tokio::select! {
            ended = &mut connection => ended,
            () = async { ending.wait_for(|ending| *ending).await.ok(); } => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    } else {
        warn!(uid = peer, "refused a connection of another user");
        let service = service_fn(move |_| async move {
            let refusal = Refusal::from(Cause::Peer(peer));
            Ok::<_, std::convert::Infallible>(refusal.into_response())
        });
        http.keep_alive(false).serve_connection(io, service).await
    };
    if let Err(error) = ended {
        debug!(error = %chain(&error), "a connection ended before its request did");
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A stream that fails when the peer takes nothing for too long, except while what is sent is made
/// on the way.
struct Impatient {
    stream: UnixStream,
    streams: Arc<AtomicBool>,
    limit: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    fn patience<T>(
        &mut self,
        cx: &mut TaskContext<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() || self.streams.load(Ordering::Relaxed) {
            self.stalled = None;
            return written;
        }
        let limit = self.limit;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buffer);
        self.patience(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, buffers);
        self.patience(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
