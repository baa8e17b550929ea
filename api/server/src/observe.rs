//! What is told about every request: an id in the response and in the log, a line in the log, and
//! the metrics.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context as TaskContext, Poll};
use std::time::Instant;

use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use hyper::Method;
use hyper::body::{Frame, SizeHint};
use hyper::header::{HeaderName, HeaderValue};
use pyro_client::operations::{OPERATION_ID_HEADER, Operation, Run, WorkspaceExec};
use tracing::{Instrument, Span, info, info_span};

use crate::context::Context;
use crate::idle;
use crate::metrics::Counted;
use crate::refusal::ErrorCode;

static HEADER: HeaderName = HeaderName::from_static(OPERATION_ID_HEADER);

/// A new operation's id: unique in a log over all restarts of the daemon, for all practical purposes.
fn operation_id() -> String {
    static DAEMON: LazyLock<u32> = LazyLock::new(|| {
        let mut bytes = [0; 4];
        // Without randomness the ids are only unique until the next restart.
        let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
        u32::from_ne_bytes(bytes)
    });
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("op-{:08x}-{number}", *DAEMON)
}

/// A request until the last byte of its answer is taken or given up.
struct Answer {
    context: Arc<Context>,
    span: Span,
    method: &'static str,
    route: String,
    status: u16,
    code: Option<String>,
    started: Instant,
    complete: bool,
    _busy: idle::Request,
    _counted: Counted,
    _exec: Option<Counted>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        self.context
            .metrics
            .answered(self.method, &self.route, self.status, duration);
        let _entered = self.span.enter();
        info!(
            status = self.status,
            code = self.code.as_deref(),
            complete = self.complete,
            duration_ms = duration.as_secs_f64() * 1000.0,
            "answered"
        );
    }
}

/// The status that is counted when the client goes away before there is one.
const CLIENT_GONE: u16 = 499;

pub(crate) async fn observe(
    State(context): State<Arc<Context>>,
    request: Request,
    next: Next,
) -> Response {
    let id = operation_id();
    let route = match request.extensions().get::<MatchedPath>() {
        Some(path) => path.as_str().to_string(),
        None => "unmatched".to_string(),
    };
    let method = known(request.method());
    let span = info_span!("operation", id, method, path = %path(&request));
    let runs = method == "POST" && [WorkspaceExec::INFO.path, Run::INFO.path].contains(&&*route);
    let mut answer = Answer {
        span: span.clone(),
        method,
        route,
        status: CLIENT_GONE,
        code: None,
        started: Instant::now(),
        complete: false,
        _busy: context.busy.enter(),
        _counted: context.metrics.request(),
        _exec: runs.then(|| context.metrics.exec()),
        context,
    };
    let mut response = next.run(request).instrument(span).await;
    answer.status = response.status().as_u16();
    answer.code = response
        .extensions_mut()
        .remove::<ErrorCode>()
        .map(|code| code.0);
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER.clone(), id);
    }
    response.map(|body| {
        answer.complete = body.is_end_stream();
        Body::new(Watched { body, answer })
    })
}

/// A response's body, with what there is to tell about it when it is gone.
struct Watched {
    body: Body,
    answer: Answer,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.answer.complete = matches!(frame, Poll::Ready(None)) || self.body.is_end_stream();
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The methods that a metric may be labelled with.
fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "other",
    }
}

/// The path for the log, without its query string: that names people's files.
fn path(request: &Request) -> &str {
    let path = request.uri().path();
    path.get(..200).unwrap_or(path)
}
