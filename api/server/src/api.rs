//! Routing of operations: what is routed has the types that the list of operations says.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use axum::{Json, Router};
use pyro_client::operations::{Method, Operation, PathParameters, Streaming};
use pyro_engine::{Engine, Rendered};
use tokio::io::DuplexStream;

use crate::body;
use crate::context::Context;
use crate::input::{self, Broken, Input, Peer};
use crate::refusal::{Cause, Refusal};
use crate::stream::{self, Source};

type EngineResult<T> = pyro_engine::Result<T>;

/// The routes so far.
#[derive(Debug, Default)]
pub(crate) struct Api {
    router: Router<Arc<Context>>,
}

impl Api {
    /// Routes an operation.
    pub(crate) fn route<O, F, R>(self, handler: F) -> Self
    where
        O: Operation,
        F: Fn(Arc<Engine>, O::Path, O::Input) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = EngineResult<O::Output>> + Send,
    {
        self.on::<O, _, _>(move |context: Arc<Context>, request| {
            let handler = handler.clone();
            async move {
                let Parsed { path, input, .. } = parse::<O>(&context, request, false).await?;
                let output = handler(Arc::clone(&context.engine), path, input).await?;
                Ok(Json(output).into_response())
            }
        })
    }

    /// Routes an operation whose output is there as a document already.
    pub(crate) fn rendered<O, F>(self, handler: F) -> Self
    where
        O: Operation,
        F: Fn(&Engine, O::Path, O::Input) -> EngineResult<Rendered<O::Output>>,
        F: Clone + Send + Sync + 'static,
    {
        self.on::<O, _, _>(move |context: Arc<Context>, request| {
            let handler = handler.clone();
            async move {
                let Parsed { path, input, .. } = parse::<O>(&context, request, false).await?;
                let output = handler(&context.engine, path, input)?;
                let json = [(header::CONTENT_TYPE, "application/json")];
                Ok((json, output.into_json()).into_response())
            }
        })
    }

    /// Routes an operation that can stream.
    pub(crate) fn stream<O, F, R, S>(self, handler: F) -> Self
    where
        O: Streaming,
        F: Fn(Arc<Engine>, O::Path, O::Input) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = EngineResult<S>> + Send,
        S: Source<O>,
    {
        self.streaming::<O, _, _, _>(false, move |engine, path, input, _| {
            handler(engine, path, input)
        })
    }

    /// Routes an operation that can stream and take standard input.
    pub(crate) fn stream_with_input<O, F, R, S>(self, handler: F) -> Self
    where
        O: Streaming,
        F: Fn(Arc<Engine>, O::Path, O::Input, Option<DuplexStream>) -> R,
        F: Clone + Send + Sync + 'static,
        R: Future<Output = EngineResult<S>> + Send,
        S: Source<O>,
    {
        self.streaming::<O, _, _, _>(true, handler)
    }

    fn streaming<O, F, R, S>(self, takes_input: bool, handler: F) -> Self
    where
        O: Streaming,
        F: Fn(Arc<Engine>, O::Path, O::Input, Option<DuplexStream>) -> R,
        F: Clone + Send + Sync + 'static,
        R: Future<Output = EngineResult<S>> + Send,
        S: Source<O>,
    {
        self.on::<O, _, _>(move |context: Arc<Context>, request| {
            let handler = handler.clone();
            async move {
                let Parsed {
                    path,
                    input,
                    events,
                    follows,
                } = parse::<O>(&context, request, takes_input).await?;
                let (stdin, broken) = match follows {
                    Some(Input { bytes, broken }) => (Some(bytes), broken),
                    None => (None, Broken::never()),
                };
                let source = handler(Arc::clone(&context.engine), path, input, stdin).await?;
                if events {
                    return Ok(stream::response::<O, S>(&context, source, broken));
                }
                let output = stream::result::<O, S>(&context, source, broken).await?;
                Ok(Json(output).into_response())
            }
        })
    }

    fn on<O, F, R>(mut self, handler: F) -> Self
    where
        O: Operation,
        F: Fn(Arc<Context>, Request) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Result<Response, Refusal>> + Send,
    {
        let filter = match O::INFO.method {
            Method::Get => MethodFilter::GET,
            Method::Post => MethodFilter::POST,
            Method::Put => MethodFilter::PUT,
            Method::Patch => MethodFilter::PATCH,
            Method::Delete => MethodFilter::DELETE,
        };
        let handler = move |State(context): State<Arc<Context>>, request: Request| {
            let answer = handler(context, request);
            async move { answer.await.unwrap_or_else(Refusal::into_response) }
        };
        self.router = self.router.route(O::INFO.path, on(filter, handler));
        self
    }

    pub(crate) fn into_router(self) -> Router<Arc<Context>> {
        self.router
    }
}

/// What a request says.
struct Parsed<O: Operation> {
    path: O::Path,
    input: O::Input,
    /// Whether it asks for events.
    events: bool,
    /// Standard input.
    follows: Option<Input>,
}

async fn parse<O: Operation>(
    context: &Context,
    request: Request<Body>,
    takes_input: bool,
) -> Result<Parsed<O>, Refusal> {
    let (mut parts, body) = request.into_parts();
    let path = if O::Path::NAMES.is_empty() {
        // axum has no parameters to offer where a path has none.
        serde_json::from_str("{}").map_err(|error| Cause::PathParameter(error.to_string()))?
    } else {
        let Path(path) = Path::<O::Path>::from_request_parts(&mut parts, &())
            .await
            .map_err(|error| Cause::PathParameter(error.body_text()))?;
        path
    };
    let mut follows = None;
    let input = match O::INFO.method {
        Method::Get | Method::Delete => body::query(parts.uri.query())?,
        Method::Post | Method::Put | Method::Patch => {
            // What a query string says would be ignored otherwise.
            if let Some(query) = parts.uri.query().filter(|query| !query.is_empty()) {
                return Err(Cause::Query(format!("{query:?} belongs into the body")).into());
            }
            if takes_input && input::follows(&parts.headers) {
                let peer = parts.extensions.get::<Peer>().cloned();
                let (line, rest) = input::split(context, body, O::INFO.body_limit, peer).await?;
                follows = Some(rest);
                body::parse(&line)?
            } else {
                body::json(context, body, O::INFO.body_limit).await?
            }
        }
    };
    Ok(Parsed {
        path,
        input,
        events: stream::wanted(&parts.headers),
        follows,
    })
}
