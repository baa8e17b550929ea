//! Events as they come: one JSON document a line.
//!
//! The next event is taken from the engine only when the socket has room for it, so a client that
//! reads slowly slows the guest down and holds a few events at most. When the client goes away the
//! response is dropped, and with it the source of the events, which cancels the command.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use hyper::{HeaderMap, header};
use pyro_client::operations::{Event, NDJSON, Run, ShellFollow, Streaming, WorkspaceExec};
use pyro_client::types::{ExecEvent, RunEvent, ShellEvent};
use pyro_engine::{ExecStream, RunStream, ShellStream};

use crate::context::Context;
use crate::input::Broken;
use crate::refusal::{Cause, Refusal};

/// Something that gives the events of `O`. Dropping it ends the operation.
pub(crate) trait Source<O: Streaming>: Send + 'static {
    /// The next event; cancel safe.
    fn next(&mut self) -> impl Future<Output = Option<O::Event>> + Send;
    /// The operation's result, when this event tells it.
    fn result(event: O::Event) -> Option<Result<O::Output, Refusal>>;
}

impl Source<WorkspaceExec> for ExecStream {
    async fn next(&mut self) -> Option<ExecEvent> {
        ExecStream::next(self).await
    }

    fn result(
        event: ExecEvent,
    ) -> Option<Result<<WorkspaceExec as pyro_client::operations::Operation>::Output, Refusal>>
    {
        match event {
            ExecEvent::Ended { record } => Some(Ok(*record)),
            ExecEvent::Failed { error } => Some(Err(Refusal::failed(error))),
            _ => None,
        }
    }
}

impl Source<Run> for RunStream {
    async fn next(&mut self) -> Option<RunEvent> {
        RunStream::next(self).await
    }

    fn result(
        event: RunEvent,
    ) -> Option<Result<<Run as pyro_client::operations::Operation>::Output, Refusal>> {
        match event {
            RunEvent::Ended { result } => Some(Ok(*result)),
            RunEvent::Failed { error } => Some(Err(Refusal::failed(error))),
            _ => None,
        }
    }
}

impl Source<ShellFollow> for ShellStream {
    async fn next(&mut self) -> Option<ShellEvent> {
        ShellStream::next(self).await
    }

    fn result(
        event: ShellEvent,
    ) -> Option<Result<<ShellFollow as pyro_client::operations::Operation>::Output, Refusal>> {
        match event {
            ShellEvent::Closed { shell } => Some(Ok(shell)),
            ShellEvent::Failed { error } => Some(Err(Refusal::failed(error))),
            _ => None,
        }
    }
}

/// A response whose body is made while it is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streams;

/// Whether the client asks for events.
pub(crate) fn wanted(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|range| {
            range
                .split(';')
                .next()
                .is_some_and(|range| range.trim().eq_ignore_ascii_case(NDJSON))
        })
}

/// The result after all events.
pub(crate) async fn result<O: Streaming, S: Source<O>>(
    context: &Context,
    mut source: S,
    mut broken: Broken,
) -> Result<O::Output, Refusal> {
    let mut ending = context.ending.subscribe();
    let result = async {
        while let Some(event) = source.next().await {
            if let Some(result) = S::result(event) {
                return result;
            }
        }
        Err(Cause::NoEnd.into())
    };
    tokio::select! {
        biased;
        result = result => result,
        _ = ending.wait_for(|ending| *ending) => Err(Cause::Ending.into()),
        () = broken.wait() => Err(Cause::BodyBroken("the client went away".into()).into()),
    }
}

/// The events as a response.
pub(crate) fn response<O: Streaming, S: Source<O>>(
    context: &Arc<Context>,
    source: S,
    broken: Broken,
) -> Response {
    struct State<S> {
        source: S,
        broken: Broken,
        ending: tokio::sync::watch::Receiver<bool>,
    }
    let state = State {
        source,
        broken,
        ending: context.ending.subscribe(),
    };
    let lines = stream::unfold(Some(state), |state| async move {
        let mut state = state?;
        let event = tokio::select! {
            biased;
            event = state.source.next() => {
                event.unwrap_or_else(|| O::Event::failed(Refusal::from(Cause::NoEnd).error))
            }
            _ = state.ending.wait_for(|ending| *ending) => {
                O::Event::failed(Refusal::from(Cause::Ending).error)
            }
            // Nobody is there to be told.
            () = state.broken.wait() => return None,
        };
        let last = event.is_last();
        let mut line = serde_json::to_vec(&event).expect("the API's types are JSON");
        line.push(b'\n');
        Some((
            Ok::<_, Infallible>(Bytes::from(line)),
            (!last).then_some(state),
        ))
    });
    let mut response = ([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(lines)).into_response();
    response.extensions_mut().insert(Streams);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_media_type_itself_asks_for_events() {
        let asks = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().expect("a header"));
            wanted(&headers)
        };

        assert!(asks("application/x-ndjson"));
        assert!(asks("application/json;q=0.5, Application/X-NDJSON;q=1"));
        assert!(!asks("*/*"));
        assert!(!asks("application/x-ndjson-not"));
    }
}
